// The k-quants on a GPU: the text of text_kquant.h, one thread a superblock.
// What exists and what was measured: GPU.md.
#include "kernels/cuda.h"
#include "kernels/lanes_cuda.h"
#include "kernels/text_device.h"

#include <cuda_runtime.h>

namespace {

constexpr int kThreads = 64;

template <int type, int bytes, bool weighted>
__global__ void __launch_bounds__(kThreads) quantize(const float *x, const float *w, uint64_t blocks, uint8_t *out)
{
    uint64_t index = blockIdx.x * (uint64_t)kThreads + threadIdx.x;

    if (index < blocks)
        device_superblock(type, bytes, x, weighted ? w : nullptr, index, out);
}

template <int type, int bytes>
cudaError_t launch(const float *x, const float *w, uint64_t blocks, uint8_t *out)
{
    unsigned grid = (unsigned)((blocks + kThreads - 1) / kThreads);

    if (w)
        quantize<type, bytes, true><<<grid, kThreads>>>(x, w, blocks, out);
    else
        quantize<type, bytes, false><<<grid, kThreads>>>(x, w, blocks, out);
    return cudaGetLastError();
}

cudaError_t launch_type(int type, const float *x, const float *w, uint64_t blocks, uint8_t *out)
{
    switch (type) {
    case SL_TYPE_Q2_K:
        return launch<SL_TYPE_Q2_K, sizeof(blk_q2_k)>(x, w, blocks, out);
    case SL_TYPE_Q3_K:
        return launch<SL_TYPE_Q3_K, sizeof(blk_q3_k)>(x, w, blocks, out);
    case SL_TYPE_Q4_K:
        return launch<SL_TYPE_Q4_K, sizeof(blk_q4_k)>(x, w, blocks, out);
    case SL_TYPE_Q5_K:
        return launch<SL_TYPE_Q5_K, sizeof(blk_q5_k)>(x, w, blocks, out);
    case SL_TYPE_Q6_K:
        return launch<SL_TYPE_Q6_K, sizeof(blk_q6_k)>(x, w, blocks, out);
    default:
        return cudaErrorInvalidValue;
    }
}

// Device memory that frees itself.
struct buffer {
    void *p = nullptr;

    ~buffer() { cudaFree(p); }
    cudaError_t fill(const void *src, size_t n)
    {
        cudaError_t e = cudaMalloc(&p, n);

        return e == cudaSuccess && src ? cudaMemcpy(p, src, n, cudaMemcpyHostToDevice) : e;
    }
};

cudaError_t run(int device, int type, const float *x, const float *w, uint64_t n, void *out, size_t out_bytes)
{
    buffer dx, dw, dout;
    cudaError_t e;

    if ((e = cudaSetDevice(device)) != cudaSuccess || (e = dx.fill(x, n * 4)) != cudaSuccess ||
        (w && (e = dw.fill(w, n * 4)) != cudaSuccess) || (e = dout.fill(nullptr, out_bytes)) != cudaSuccess)
        return e;
    e = launch_type(type, (const float *)dx.p, (const float *)dw.p, n / 256, (uint8_t *)dout.p);
    return e == cudaSuccess ? cudaMemcpy(out, dout.p, out_bytes, cudaMemcpyDeviceToHost) : e;
}

} // namespace

extern "C" int sl_cuda_device_count(void)
{
    int n = 0;

    if (cudaGetDeviceCount(&n) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    return n;
}

extern "C" const char *sl_cuda_run(int device, int type, const float *x, const float *w, uint64_t n, void *out,
                                   size_t out_bytes)
{
    cudaError_t e = run(device, type, x, w, n, out, out_bytes);

    return e == cudaSuccess ? nullptr : cudaGetErrorString(e);
}
