#if defined(__x86_64__)
#include "kernels/lanes_avx2.h"

#define OF SL_BACKEND_AVX2
#include "kernels_runs.h"
#else
int main(void) { return 0; }
#endif
