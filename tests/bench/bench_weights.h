/* The weights that the kernels' benchmarks quantize. Header only. */
#ifndef SLUICE_TESTS_BENCH_BENCH_WEIGHTS_H
#define SLUICE_TESTS_BENCH_BENCH_WEIGHTS_H

#include <math.h>
#include <stdint.h>

/* Effect: x = n Gaussian weights (sigma 0.02); w = an importance of 0.1 to 10 for each column, the
 * same in every row. The same numbers in each run. */
static inline void bench_weights(float *x, float *w, int n, int row)
{
    uint64_t s = 88172645463325252;

    for (int i = 0; i < n; i++) {
        double u[2];

        for (int k = 0; k < 2; k++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            u[k] = ((double)(s >> 11) + 0.5) * 0x1p-53;
        }
        x[i] = (float)(0.02 * sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]));
        w[i] = i < row ? (float)pow(10, 2 * u[0] - 1) : w[i - row];
    }
}

#endif
