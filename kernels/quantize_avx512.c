#if defined(__x86_64__)
#include "kernels/lanes_avx512.h"
#include "kernels/text_backend.h"

static uint64_t q8_0(int dtype, const void *src, const float *scale, uint64_t blocks, void *out)
{
    if (dtype == SL_DTYPE_F8_E4M3 && scale && sl_e4m3_by_table())
        return sl_q8_0_of_e4m3(src, scale, blocks, out);
    return backend_q8_0(dtype, src, scale, blocks, out);
}

const struct sl_backend_ops sl_ops_avx512 = {LANE_NAME, backend_quantize, backend_load, load_e4m3, load_f4, q8_0};
#else
typedef int sl_no_avx512; /* an empty unit is not C11 */
#endif
