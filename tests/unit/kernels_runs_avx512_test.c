#if defined(__x86_64__)
#include "kernels/lanes_avx512.h"

#define OF SL_BACKEND_AVX512
#include "kernels_runs.h"
#else
int main(void) { return 0; }
#endif
