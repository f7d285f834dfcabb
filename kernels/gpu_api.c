/* On its own, so that a test can link a table of its own in its place. */
#include "kernels/gpu.h"

#ifdef SLUICE_CUDA
extern const struct sl_gpu_api sl_gpu_cuda;

const struct sl_gpu_api *sl_gpu_api(void)
{
    return &sl_gpu_cuda;
}
#else
const struct sl_gpu_api *sl_gpu_api(void)
{
    return NULL;
}
#endif
