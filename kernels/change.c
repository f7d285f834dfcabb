/* What conversion makes of the stored values of some tensors: norms that are stored less 1, logarithms. */
#include "kernels/half.h"
#include "kernels/kernels.h"

#include <math.h>

#define LOG2_E 0x1.71547652b82fep0
#define LN_2_HIGH 0x1.62e42fefa0000p-1 /* of few enough bits that its product with an exponent is exact */
#define LN_2_LOW 0x1.cf79abc9e3b39p-40

/* e^x to within a few units of F64's last place, by additions and multiplications alone: no library's own is the same
 * on every machine. |x| below 1000. */
static double exponential(double x)
{
    double k = nearbyint(x * LOG2_E), r = (x - k * LN_2_HIGH) - k * LN_2_LOW, sum = 1;

    for (int i = 14; i > 0; i--)
        sum = 1 + sum * r / i;
    return ldexp(sum, (int)k);
}

int sl_change_values(enum sl_change change, enum sl_dtype dtype, float *x, uint64_t n, uint64_t *bad)
{
    for (uint64_t i = 0; i < n && change != SL_AS_STORED; i++) {
        *bad = i;
        if ((change == SL_ABOVE_0 || change == SL_RECIPROCAL) && !(x[i] > 0))
            return SL_ESOURCE;
        if (change == SL_PLUS_ONE)
            x[i] = x[i] + 1.0f;
        else if (change == SL_RECIPROCAL)
            x[i] = 1.0f / x[i];
        else if (change == SL_MINUS_EXP)
            x[i] = -(float)exponential(x[i] > 200 ? 200 : x[i] < -200 ? -200 : (double)x[i]);
        if (dtype == SL_DTYPE_F16)
            x[i] = sl_f32_from_f16(sl_f16_from_f32(x[i]));
        if (!isfinite(x[i]))
            return SL_ESOURCE;
    }
    return 0;
}
