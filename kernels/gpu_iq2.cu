// iq2_xxs, iq2_xs and iq2_s on a GPU.
#include "kernels/gpu_launch.cuh"

cudaError_t sl_gpu_iq2(cudaStream_t stream, const struct sl_gpu_work *k)
{
    switch (k->type) {
    case SL_TYPE_IQ2_XXS:
        return launch_weighted<SL_TYPE_IQ2_XXS>(stream, k, 8);
    case SL_TYPE_IQ2_XS:
        return launch_weighted<SL_TYPE_IQ2_XS>(stream, k, 16);
    case SL_TYPE_IQ2_S:
        return launch_super<SL_TYPE_IQ2_S>(stream, k, 16);
    default:
        return cudaErrorInvalidValue;
    }
}
