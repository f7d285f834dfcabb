// q2_k and q3_k on a GPU.
#include "kernels/gpu_launch.cuh"

cudaError_t sl_gpu_q2q3(cudaStream_t stream, const struct sl_gpu_work *k)
{
    switch (k->type) {
    case SL_TYPE_Q2_K:
        return launch_super<SL_TYPE_Q2_K>(stream, k, 16);
    case SL_TYPE_Q3_K:
        return launch_super<SL_TYPE_Q3_K>(stream, k, 16);
    default:
        return cudaErrorInvalidValue;
    }
}
