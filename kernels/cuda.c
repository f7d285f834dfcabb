#include "kernels/cuda.h"
#include "kernels/backend.h"

int sl_cuda_has_type(int type)
{
    return type == SL_TYPE_Q2_K || type == SL_TYPE_Q3_K || type == SL_TYPE_Q4_K || type == SL_TYPE_Q5_K ||
           type == SL_TYPE_Q6_K;
}

#ifdef SLUICE_CUDA

int sl_cuda_built(void)
{
    return 1;
}

int sl_cuda_devices(void)
{
    return sl_cuda_device_count();
}

int sl_cuda_quantize(int device, int type, const float *x, const float *w, uint64_t n, void *out, uint64_t *bad,
                     struct sl_error *e)
{
    const char *why;

    if (!sl_cuda_has_type(type) || n % 256 || n / 256 > INT32_MAX)
        return sl_fail(e, SL_EUNSUPPORTED, "type %d, %llu weights: not a run that the CUDA kernels take", type,
                       (unsigned long long)n);
    if (n == 0)
        return 0;
    why = sl_cuda_run(device, type, x, w, n, out, sl_type_bytes(type, n));
    if (why)
        return sl_fail(e, SL_EFAIL, "CUDA device %d: %s; use the CPU backend, or look at nvidia-smi", device, why);
    if (sl_check_scales(type, out, n, bad) < 0)
        return sl_fail(e, SL_ESOURCE, "weight %llu: the block's scale does not fit in F16", (unsigned long long)*bad);
    return 0;
}

#else

int sl_cuda_built(void)
{
    return 0;
}

int sl_cuda_devices(void)
{
    return 0;
}

int sl_cuda_quantize(int device, int type, const float *x, const float *w, uint64_t n, void *out, uint64_t *bad,
                     struct sl_error *e)
{
    (void)type, (void)x, (void)w, (void)n, (void)out, (void)bad;
    return sl_fail(e, SL_EUNSUPPORTED, "CUDA device %d: this build has no CUDA; build with nvcc in PATH", device);
}

#endif
