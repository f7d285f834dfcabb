// A kernel is a phase after the other; this is what every gpu_*.cu instantiates for
// its own types. Each type is in one file only, so that files compile side by side.
#ifndef SLUICE_KERNELS_GPU_LAUNCH_CUH
#define SLUICE_KERNELS_GPU_LAUNCH_CUH

#include "kernels/lanes_cuda.h"
#include "kernels/text_device.h"

#include <cuda_runtime.h>

namespace {

template <int type, bool weighted, enum device_phase phase>
__device__ __forceinline__ void meet_and_do(const struct sl_gpu_work *k, struct device_thread *t, struct device_super *s,
                                            int turn = 0)
{
    if (!device_has(type, weighted, phase))
        return;
    if (phase != DEVICE_BEGIN)
        __syncthreads();
    super_phase(type, weighted, phase, turn, k, blockIdx.x, (int)threadIdx.x, t, s, sl_pool);
}

// Blocks on a processor that the registers must leave room for: those that shared memory does (GPU.md), where the
// assembler would take more registers, or spill with fewer.
constexpr int blocks_wanted(int type)
{
    return type == SL_TYPE_IQ2_XXS || type == SL_TYPE_IQ1_S ? 3 : 0; // 0: the assembler chooses
}

template <int type, bool weighted>
__global__ void __launch_bounds__(DEVICE_THREADS, blocks_wanted(type)) quantize_super(const __grid_constant__ struct sl_gpu_work k)
{
    __shared__ __align__(16) struct device_super s[DEVICE_THREADS / device_subs(type)];
    struct device_thread t;

    static_assert((queue_runs(type) ? runs_aside(type) : queue_aside(type)) <= (int)sizeof s || !device_iquant(type),
                  "the queue takes the place of the words");
    meet_and_do<type, weighted, DEVICE_BEGIN>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_SUM>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_FIT>(&k, &t, s);
#pragma unroll 1
    for (int turn = 0; turn < device_turns(type); turn++) {
        meet_and_do<type, weighted, DEVICE_CODES>(&k, &t, s, turn);
        meet_and_do<type, weighted, DEVICE_RUNS>(&k, &t, s, turn);
        meet_and_do<type, weighted, DEVICE_LISTS>(&k, &t, s, turn);
        meet_and_do<type, weighted, DEVICE_STARTS>(&k, &t, s, turn);
        meet_and_do<type, weighted, DEVICE_PLACE>(&k, &t, s, turn);
#pragma unroll 1
        for (int pass = 0; pass < device_passes(type, turn); pass++)
            meet_and_do<type, weighted, DEVICE_NEAREST>(&k, &t, s, turn);
#pragma unroll 1
        do {
            meet_and_do<type, weighted, DEVICE_COLLECT>(&k, &t, s, turn);
            meet_and_do<type, weighted, DEVICE_UNSURE>(&k, &t, s, turn);
            meet_and_do<type, weighted, DEVICE_NAMED>(&k, &t, s, turn);
        } while (device_more(type, &t, s, sl_pool));
        meet_and_do<type, weighted, DEVICE_FILL>(&k, &t, s, turn);
        meet_and_do<type, weighted, DEVICE_TRIALS>(&k, &t, s, turn);
    }
    meet_and_do<type, weighted, DEVICE_CLEAR>(&k, &t, s);
    meet_and_do<type, weighted, DEVICE_TAKE>(&k, &t, s);
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

// One kernel; more shared memory than 48 KB has to be asked for.
template <int type, bool weighted>
cudaError_t launch_one(cudaStream_t stream, const struct sl_gpu_work *k, int subs)
{
    constexpr int pool = device_pool(type, weighted) * (int)sizeof(float);

    if (pool > 36 * 1024) {
        cudaError_t e = cudaFuncSetAttribute(quantize_super<type, weighted>, cudaFuncAttributeMaxDynamicSharedMemorySize, pool);

        if (e != cudaSuccess)
            return e;
    }
    quantize_super<type, weighted><<<launch_grid(k, DEVICE_THREADS / subs * 256), DEVICE_THREADS, pool, stream>>>(*k);
    return cudaGetLastError();
}

template <int type>
cudaError_t launch_super(cudaStream_t stream, const struct sl_gpu_work *k, int subs)
{
    return k->weighted ? launch_one<type, true>(stream, k, subs) : launch_one<type, false>(stream, k, subs);
}

// The same for iq1_s, iq2_xxs and iq2_xs, which exist with weights alone.
template <int type>
cudaError_t launch_weighted(cudaStream_t stream, const struct sl_gpu_work *k, int subs)
{
    return k->weighted ? launch_one<type, true>(stream, k, subs) : cudaErrorInvalidValue;
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
