#if defined(__x86_64__)
#include "kernels/lanes_avx2.h"
#include "kernels/text_backend.h"

const struct sl_backend_ops sl_ops_avx2 = {LANE_NAME, backend_quantize, backend_load, load_e4m3, load_f4, backend_q8_0};
#else
typedef int sl_no_avx2; /* an empty unit is not C11 */
#endif
