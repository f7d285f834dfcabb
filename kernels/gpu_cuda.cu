// The table of struct sl_gpu_api over the CUDA runtime, and which file has a type.
#include "kernels/gpu.h"

#include <cuda_runtime.h>

#include <stdio.h>
#include <string.h>

cudaError_t sl_gpu_small(cudaStream_t stream, const struct sl_gpu_work *k);
cudaError_t sl_gpu_q2q3(cudaStream_t stream, const struct sl_gpu_work *k);
cudaError_t sl_gpu_q4(cudaStream_t stream, const struct sl_gpu_work *k);
cudaError_t sl_gpu_q5q6(cudaStream_t stream, const struct sl_gpu_work *k);
cudaError_t sl_gpu_iq4(cudaStream_t stream, const struct sl_gpu_work *k);
cudaError_t sl_gpu_iq3(cudaStream_t stream, const struct sl_gpu_work *k);
cudaError_t sl_gpu_iq2(cudaStream_t stream, const struct sl_gpu_work *k);
cudaError_t sl_gpu_iq1(cudaStream_t stream, const struct sl_gpu_work *k);

namespace {

// A runtime call's own error stays behind for cudaGetLastError; it is told once.
int told(cudaError_t e)
{
    if (e != cudaSuccess)
        (void)cudaGetLastError();
    return (int)e;
}

int count(int *n)
{
    return told(cudaGetDeviceCount(n));
}

int info(int device, struct sl_gpu_info *out)
{
    cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, device);
    const unsigned char *u = (const unsigned char *)p.uuid.bytes;

    if (e != cudaSuccess)
        return told(e);
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", p.name);
    snprintf(out->uuid, sizeof out->uuid, "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             strstr(p.name, " MIG ") ? "MIG" : "GPU", u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
    out->memory = p.totalGlobalMem;
    out->major = p.major;
    out->minor = p.minor;
    out->processors = p.multiProcessorCount;
    return told(cudaDeviceGetPCIBusId(out->bus, (int)sizeof out->bus, device));
}

// A thread that waits for the device sleeps; by itself the runtime would spin, on cores that
// read, hash and convert. Refused, it is slower and no worse.
int use(int device)
{
    cudaError_t e = cudaSetDevice(device);

    if (e == cudaSuccess)
        (void)told(cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync));
    return told(e);
}

int memory(uint64_t *available)
{
    size_t mine = 0, all = 0;
    cudaError_t e = cudaMemGetInfo(&mine, &all);

    *available = mine;
    return told(e);
}

int alloc(size_t n, void **out)
{
    return told(cudaMalloc(out, n));
}

int release(void *p)
{
    return told(cudaFree(p));
}

int pin(void *p, size_t n)
{
    return told(cudaHostRegister(p, n, cudaHostRegisterPortable));
}

int unpin(void *p)
{
    return told(cudaHostUnregister(p));
}

int host_alloc(size_t n, void **out)
{
    return told(cudaHostAlloc(out, n, cudaHostAllocPortable));
}

int host_release(void *p)
{
    return told(cudaFreeHost(p));
}

int stream_new(void **out)
{
    cudaStream_t s = nullptr;
    cudaError_t e = cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);

    *out = s;
    return told(e);
}

int stream_free(void *stream)
{
    return told(cudaStreamDestroy((cudaStream_t)stream));
}

int copy_in(void *stream, void *device, const void *host, size_t n)
{
    return told(cudaMemcpyAsync(device, host, n, cudaMemcpyHostToDevice, (cudaStream_t)stream));
}

int copy_out(void *stream, void *host, const void *device, size_t n)
{
    return told(cudaMemcpyAsync(host, device, n, cudaMemcpyDeviceToHost, (cudaStream_t)stream));
}

int run(void *stream, const struct sl_gpu_work *k)
{
    cudaStream_t s = (cudaStream_t)stream;

    if (k->elems == 0)
        return 0;
    switch (k->type) {
    case SL_TYPE_Q2_K: case SL_TYPE_Q3_K:
        return told(sl_gpu_q2q3(s, k));
    case SL_TYPE_Q4_K:
        return told(sl_gpu_q4(s, k));
    case SL_TYPE_Q5_K: case SL_TYPE_Q6_K:
        return told(sl_gpu_q5q6(s, k));
    case SL_TYPE_IQ4_XS:
        return told(sl_gpu_iq4(s, k));
    case SL_TYPE_IQ3_XXS: case SL_TYPE_IQ3_S:
        return told(sl_gpu_iq3(s, k));
    case SL_TYPE_IQ2_XXS: case SL_TYPE_IQ2_XS: case SL_TYPE_IQ2_S:
        return told(sl_gpu_iq2(s, k));
    case SL_TYPE_IQ1_S: case SL_TYPE_IQ1_M:
        return told(sl_gpu_iq1(s, k));
    default:
        return told(sl_gpu_small(s, k));
    }
}

int wait(void *stream)
{
    return told(cudaStreamSynchronize((cudaStream_t)stream));
}

enum sl_gpu_fault fault(int err)
{
    switch ((cudaError_t)err) {
    case cudaErrorMemoryAllocation:
        return SL_GPU_FAULT_MEMORY;
    case cudaErrorInsufficientDriver: case cudaErrorSystemDriverMismatch: case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorNoKernelImageForDevice: case cudaErrorUnsupportedPtxVersion: case cudaErrorJitCompilerNotFound:
    case cudaErrorJitCompilationDisabled: case cudaErrorCallRequiresNewerDriver: case cudaErrorInvalidKernelImage:
    case cudaErrorInvalidPtx:
        return SL_GPU_FAULT_DRIVER;
    case cudaErrorNoDevice:
        return SL_GPU_FAULT_NONE;
    case cudaErrorInitializationError: case cudaErrorDevicesUnavailable: case cudaErrorOperatingSystem: case cudaErrorUnknown:
        return SL_GPU_FAULT_START;
    case cudaErrorInvalidValue: case cudaErrorInvalidConfiguration: case cudaErrorInvalidDevice:
    case cudaErrorInvalidDeviceFunction: case cudaErrorInvalidResourceHandle: case cudaErrorLaunchOutOfResources:
    case cudaErrorHostMemoryAlreadyRegistered: case cudaErrorHostMemoryNotRegistered: case cudaErrorNotSupported:
        return SL_GPU_FAULT_CALL;
    default:
        return SL_GPU_FAULT_LOST;
    }
}

// The oldest driver that takes a runtime of this major version (NVIDIA's CUDA Compatibility).
#if CUDART_VERSION >= 13000
#define OLDEST_DRIVER "580"
#elif CUDART_VERSION >= 12000
#define OLDEST_DRIVER "525"
#else
#define OLDEST_DRIVER "450"
#endif
#define IN_WORDS(number) #number
#define VERSION_OF(major, minor) IN_WORDS(major) "." IN_WORDS(minor)

const char *words(int err)
{
    if (err == cudaErrorInsufficientDriver)
        return "no NVIDIA driver here, or one older than this build's CUDA " VERSION_OF(__CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__)
               " needs (" OLDEST_DRIVER " or later); see nvidia-smi";
    if (err == cudaErrorSystemNotReady)
        return "system not yet initialized; does nvidia-fabricmanager run, where GPUs are joined by NVSwitch?";
    return cudaGetErrorString((cudaError_t)err);
}

} // namespace

extern "C" {
extern const struct sl_gpu_api sl_gpu_cuda;
const struct sl_gpu_api sl_gpu_cuda = {
    count, info, use, memory, alloc, release, pin, unpin, host_alloc, host_release,
    stream_new, stream_free, copy_in, copy_out, run, wait, fault, words,
};
}
