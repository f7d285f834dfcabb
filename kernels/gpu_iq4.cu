// iq4_xs on a GPU.
#include "kernels/gpu_launch.cuh"

cudaError_t sl_gpu_iq4(cudaStream_t stream, const struct sl_gpu_work *k)
{
    switch (k->type) {
    case SL_TYPE_IQ4_XS:
        return launch_super<SL_TYPE_IQ4_XS>(stream, k, 8);
    default:
        return cudaErrorInvalidValue;
    }
}
