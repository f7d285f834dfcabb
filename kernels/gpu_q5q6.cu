// q5_k and q6_k on a GPU.
#include "kernels/gpu_launch.cuh"

cudaError_t sl_gpu_q5q6(cudaStream_t stream, const struct sl_gpu_work *k)
{
    switch (k->type) {
    case SL_TYPE_Q5_K:
        return launch_super<SL_TYPE_Q5_K>(stream, k, 8);
    case SL_TYPE_Q6_K:
        return launch_super<SL_TYPE_Q6_K>(stream, k, 16);
    default:
        return cudaErrorInvalidValue;
    }
}
