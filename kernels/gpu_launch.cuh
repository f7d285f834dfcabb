// A kernel is a phase after the other; this is what every gpu_*.cu instantiates for
// its own types. Each type is in one file only, so that files compile side by side.
#ifndef SLUICE_KERNELS_GPU_LAUNCH_CUH
#define SLUICE_KERNELS_GPU_LAUNCH_CUH

#include "kernels/lanes_cuda.h"
#include "kernels/text_device.h"

#include <cuda_runtime.h>

namespace {

template <int type, bool weighted, enum device_phase phase>
__device__ __forceinline__ void meet_and_do(const struct sl_gpu_work *k, struct device_thread *t, struct device_super *s)
{
    if (!device_has(type, weighted, phase))
        return;
    if (phase != DEVICE_BEGIN)
        __syncthreads();
    super_phase(type, weighted, phase, k, blockIdx.x, (int)threadIdx.x, t, s, sl_pool);
}

template <int type, bool weighted>
__global__ void __launch_bounds__(DEVICE_THREADS) quantize_super(const __grid_constant__ struct sl_gpu_work k)
{
    __shared__ struct device_super s[DEVICE_THREADS / device_subs(type)];
    struct device_thread t;

    meet_and_do<type, weighted, DEVICE_BEGIN>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_SUM>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_FIT>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_HALF>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_TOP>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_TERMS>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_WHOLE>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_LEVELS>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_STORE>(&k, &t, s);
}

template <int type, bool weighted>
__global__ void __launch_bounds__(DEVICE_THREADS) quantize_small(const __grid_constant__ struct sl_gpu_work k)
{
    __shared__ struct device_small s[DEVICE_THREADS];

    small_phase(type, weighted, DEVICE_BEGIN, &k, blockIdx.x, (int)threadIdx.x, s);
    small_phase(type, weighted, DEVICE_FIT, &k, blockIdx.x, (int)threadIdx.x, s);
    __syncthreads();
    small_phase(type, weighted, DEVICE_STORE, &k, blockIdx.x, (int)threadIdx.x, s);
}

inline unsigned launch_grid(const struct sl_gpu_work *k, int share)
{
    return (unsigned)((k->elems + (uint64_t)share - 1) / (uint64_t)share);
}

template <int type>
cudaError_t launch_super(cudaStream_t stream, const struct sl_gpu_work *k, int subs)
{
    unsigned grid = launch_grid(k, DEVICE_THREADS / subs * 256);
    size_t pool = (size_t)device_pool(type, k->weighted) * sizeof(float);

    if (k->weighted)
        quantize_super<type, true><<<grid, DEVICE_THREADS, pool, stream>>>(*k);
    else
        quantize_super<type, false><<<grid, DEVICE_THREADS, pool, stream>>>(*k);
    return cudaGetLastError();
}

// The same for iq1_s, iq2_xxs and iq2_xs, which exist with weights alone.
template <int type>
cudaError_t launch_weighted(cudaStream_t stream, const struct sl_gpu_work *k, int subs)
{
    if (!k->weighted)
        return cudaErrorInvalidValue;
    quantize_super<type, true><<<launch_grid(k, DEVICE_THREADS / subs * 256), DEVICE_THREADS,
                                 (size_t)device_pool(type, true) * sizeof(float), stream>>>(*k);
    return cudaGetLastError();
}

template <int type>
cudaError_t launch_small(cudaStream_t stream, const struct sl_gpu_work *k)
{
    unsigned grid = launch_grid(k, DEVICE_THREADS * 32);

    if (k->weighted)
        quantize_small<type, true><<<grid, DEVICE_THREADS, 0, stream>>>(*k);
    else
        quantize_small<type, false><<<grid, DEVICE_THREADS, 0, stream>>>(*k);
    return cudaGetLastError();
}

} // namespace

#endif
