// iq3_xxs and iq3_s on a GPU.
#include "kernels/gpu_launch.cuh"

cudaError_t sl_gpu_iq3(cudaStream_t stream, const struct sl_gpu_work *k)
{
    switch (k->type) {
    case SL_TYPE_IQ3_XXS:
        return launch_super<SL_TYPE_IQ3_XXS>(stream, k, 8);
    case SL_TYPE_IQ3_S:
        return launch_super<SL_TYPE_IQ3_S>(stream, k, 8);
    default:
        return cudaErrorInvalidValue;
    }
}
