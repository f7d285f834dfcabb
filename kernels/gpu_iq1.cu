// iq1_s and iq1_m on a GPU.
#include "kernels/gpu_launch.cuh"

cudaError_t sl_gpu_iq1(cudaStream_t stream, const struct sl_gpu_work *k)
{
    switch (k->type) {
    case SL_TYPE_IQ1_S:
        return launch_weighted<SL_TYPE_IQ1_S>(stream, k, 8);
    case SL_TYPE_IQ1_M:
        return launch_super<SL_TYPE_IQ1_M>(stream, k, 16);
    default:
        return cudaErrorInvalidValue;
    }
}
