// Blocks of 32 on a GPU, single values, and the rows' mean squares.
#include "kernels/gpu_launch.cuh"

namespace {

template <int type>
__global__ void __launch_bounds__(DEVICE_THREADS) convert_values(const __grid_constant__ struct sl_gpu_work k)
{
    __shared__ struct device_small s[DEVICE_THREADS];

    value_phase(type, DEVICE_FIT, &k, blockIdx.x, (int)threadIdx.x, s);
    __syncthreads();
    value_phase(type, DEVICE_STORE, &k, blockIdx.x, (int)threadIdx.x, s);
}

__global__ void __launch_bounds__(DEVICE_THREADS) row_means(const __grid_constant__ struct sl_gpu_work k)
{
    device_row_mean(&k, blockIdx.x * (uint64_t)DEVICE_THREADS + threadIdx.x);
}

template <int type>
cudaError_t launch_values(cudaStream_t stream, const struct sl_gpu_work *k)
{
    convert_values<type><<<launch_grid(k, device_share(type)), DEVICE_THREADS, 0, stream>>>(*k);
    return cudaGetLastError();
}

template <int type>
cudaError_t launch_with_means(cudaStream_t stream, const struct sl_gpu_work *k)
{
    uint64_t rows = k->weighted ? k->elems / k->row : 0;

    if (rows) {
        row_means<<<(unsigned)((rows + DEVICE_THREADS - 1) / DEVICE_THREADS), DEVICE_THREADS, 0, stream>>>(*k);
        if (cudaError_t e = cudaGetLastError())
            return e;
    }
    return launch_small<type>(stream, k);
}

} // namespace

cudaError_t sl_gpu_small(cudaStream_t stream, const struct sl_gpu_work *k)
{
    switch (k->type) {
    case SL_TYPE_F32:
        return launch_values<SL_TYPE_F32>(stream, k);
    case SL_TYPE_F16:
        return launch_values<SL_TYPE_F16>(stream, k);
    case SL_TYPE_BF16:
        return launch_values<SL_TYPE_BF16>(stream, k);
    case SL_TYPE_Q8_0:
        return launch_small<SL_TYPE_Q8_0>(stream, k);
    case SL_TYPE_Q4_0:
        return launch_with_means<SL_TYPE_Q4_0>(stream, k);
    case SL_TYPE_Q4_1:
        return launch_with_means<SL_TYPE_Q4_1>(stream, k);
    case SL_TYPE_Q5_0:
        return launch_with_means<SL_TYPE_Q5_0>(stream, k);
    case SL_TYPE_Q5_1:
        return launch_with_means<SL_TYPE_Q5_1>(stream, k);
    case SL_TYPE_IQ4_NL:
        return launch_small<SL_TYPE_IQ4_NL>(stream, k);
    default:
        return cudaErrorInvalidValue;
    }
}
