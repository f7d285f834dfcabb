#if defined(__x86_64__)
#include "kernels/lanes_avx512.h"
#include "kernels/text_backend.h"

const struct sl_backend_ops sl_ops_avx512 = {LANE_NAME, backend_quantize, backend_load};
#else
typedef int sl_no_avx512; /* an empty unit is not C11 */
#endif
