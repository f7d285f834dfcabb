// q4_k on a GPU.
#include "kernels/gpu_launch.cuh"

cudaError_t sl_gpu_q4(cudaStream_t stream, const struct sl_gpu_work *k)
{
    switch (k->type) {
    case SL_TYPE_Q4_K:
        return launch_super<SL_TYPE_Q4_K>(stream, k, 8);
    default:
        return cudaErrorInvalidValue;
    }
}
