/* In place of the CUDA runtime. The program's objects register their kernels and launch them as
 * they do with the real one: grids, blocks, shared memory and parameters are those of the real
 * host code. A stream does its work at once.
 *
 * SLUICE_PTX  words with commas: threads=N (of the host; all processors), memory=BYTES,
 *   count=ERROR (what asking for devices ends with), part=1 (the device is an instance of a divided one) */
#include "ptx_runtime.h"

#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RED 256 /* bytes before and behind each allocation that belong to nothing */
#define MAX_MODULES 64
#define MAX_KERNELS 512

struct module {
    const void *fatbin;
    char name[80];
    struct ptx_module m;
    struct ptx_alloc *vars;
    struct ptx_tally *tally;
    bool loaded, failed, used;
};

struct kernel {
    const void *host;
    const char *name;
    struct module *module;
    int dynamic; /* bytes of shared memory that a launch may ask for beyond what is usual; 0: none */
};

static struct {
    pthread_mutex_t lock, launching;
    struct module module[MAX_MODULES];
    struct kernel kernel[MAX_KERNELS];
    unsigned n_modules, n_kernels;
    struct ptx_alloc **alloc;
    unsigned n_alloc, cap_alloc;
    uint64_t used;
    int lost;
    bool count;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER, .launching = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local int last_error;
static _Thread_local struct {
    dim3 grid, block;
    size_t shared;
    void *stream;
} configured;

/* What nvcc's objects call; no header declares them for C. */
void **__cudaRegisterFatBinary(void *wrapper);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit, void *tid, void *bid, void *block,
                            void *grid, int *size);
void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int ext, size_t size, int constant, int global);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
/* These since CUDA 12; before, cudaLaunchKernel alone. */
cudaError_t __cudaGetKernel(struct kernel **out, const void *host);
cudaError_t __cudaLaunchKernel(struct kernel *k, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream);

static uint64_t setting(const char *name, uint64_t usual)
{
    const char *text = getenv("SLUICE_PTX"), *at = text ? strstr(text, name) : NULL;

    return at && at[strlen(name)] == '=' ? strtoull(at + strlen(name) + 1, NULL, 10) : usual;
}

static cudaError_t told(int err)
{
    if (err)
        last_error = err;
    return (cudaError_t)err;
}

static int state(void)
{
    return __atomic_load_n(&all.lost, __ATOMIC_RELAXED);
}

static int lost(enum ptx_kind kind, const char *text)
{
    int err = kind == PTX_MEMCHECK ? cudaErrorIllegalAddress : kind == PTX_MISALIGNED ? cudaErrorMisalignedAddress : cudaErrorLaunchFailure;

    fprintf(stderr, "ptx: %s\n", text);
    __atomic_store_n(&all.lost, err, __ATOMIC_RELAXED);
    return err;
}

/* ---- modules */

void **__cudaRegisterFatBinary(void *wrapper)
{
    struct module *m = &all.module[all.n_modules];

    if (all.n_modules == MAX_MODULES)
        return (void **)m;
    all.n_modules++;
    memcpy(&m->fatbin, (const char *)wrapper + 8, sizeof m->fatbin);
    return (void **)m;
}

void __cudaRegisterFatBinaryEnd(void **handle)
{
    (void)handle;
}

void __cudaUnregisterFatBinary(void **handle)
{
    (void)handle;
}

void __cudaRegisterFunction(void **handle, const char *host, char *device, const char *name, int limit, void *tid, void *bid, void *block,
                            void *grid, int *size)
{
    (void)device, (void)limit, (void)tid, (void)bid, (void)block, (void)grid, (void)size;
    if (all.n_kernels < MAX_KERNELS)
        all.kernel[all.n_kernels++] = (struct kernel){host, name, (struct module *)(void *)handle, 0};
}

void __cudaRegisterVar(void **handle, char *host, char *device, const char *name, int ext, size_t size, int constant, int global)
{
    (void)handle, (void)host, (void)device, (void)name, (void)ext, (void)size, (void)constant, (void)global;
}

/* The source's name, as nvcc writes it into its kernels' names: .._10_gpu_iq1_cu_.. */
static void name_module(struct module *m)
{
    snprintf(m->name, sizeof m->name, "module%d.ptx", (int)(m - all.module));
    for (unsigned i = 0; i < all.n_kernels; i++)
        for (const char *p = all.kernel[i].name; all.kernel[i].module == m && (p = strchr(p, '_')); p++) {
            char *name;
            unsigned long n = strtoul(p + 1, &name, 10);

            if (name > p + 1 && *name == '_' && n > 3 && n < 60 && strlen(name) > n && strncmp(name + n - 2, "_cu", 3) == 0) {
                snprintf(m->name, sizeof m->name, "%.*s.ptx", (int)n - 3, name + 1);
                return;
            }
        }
}

static bool load(struct module *m)
{
    char error[200] = "", *text;

    if (m->loaded || m->failed)
        return m->loaded;
    name_module(m);
    text = ptx_of_fatbin(m->fatbin, error, sizeof error);
    m->failed = !text || !ptx_module_load(&m->m, m->name, text);
    if (m->failed) {
        fprintf(stderr, "ptx: %s\n", text ? m->m.error : error);
        return false;
    }
    m->vars = calloc(m->m.n_var + 1, sizeof *m->vars);
    for (uint32_t i = 0; i < m->m.n_var; i++) {
        m->vars[i] = (struct ptx_alloc){.at = m->m.var[i].bytes, .n = m->m.var[i].n, .lo = SIZE_MAX};
        m->vars[i].shadow = malloc(m->vars[i].n * sizeof *m->vars[i].shadow);
        for (size_t k = 0; k < m->vars[i].n; k++)
            m->vars[i].shadow[k] = 1;
    }
    m->tally = calloc(m->m.n_inst, sizeof *m->tally);
    m->loaded = true;
    return true;
}

void ptx_runtime_count(void)
{
    all.count = true;
    for (unsigned i = 0; i < all.n_modules; i++) {
        all.module[i].used = false;
        if (all.module[i].loaded)
            memset(all.module[i].tally, 0, all.module[i].m.n_inst * sizeof *all.module[i].tally);
    }
}

void ptx_runtime_counted(void (*each)(void *, const struct ptx_module *, const struct ptx_tally *), void *user)
{
    for (unsigned i = 0; i < all.n_modules; i++)
        if (all.module[i].used)
            each(user, &all.module[i].m, all.module[i].tally);
}

bool ptx_runtime_modules(void (*each)(void *, const struct ptx_module *), void *user)
{
    bool good = true;

    for (unsigned i = 0; i < all.n_modules; i++) {
        unsigned kernels = 0;

        for (unsigned k = 0; k < all.n_kernels; k++)
            kernels += all.kernel[k].module == &all.module[i];
        if (!kernels) /* a file of host code alone */
            continue;
        if (load(&all.module[i]))
            each(user, &all.module[i].m);
        else
            good = false;
    }
    return good;
}

/* ---- launches */

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream)
{
    configured.grid = grid;
    configured.block = block;
    configured.shared = shared;
    configured.stream = stream;
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream)
{
    *grid = configured.grid;
    *block = configured.block;
    *shared = configured.shared;
    memcpy(stream, &configured.stream, sizeof configured.stream);
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(struct kernel **out, const void *host)
{
    for (unsigned i = 0; i < all.n_kernels; i++)
        if (all.kernel[i].host == host) {
            *out = &all.kernel[i];
            return cudaSuccess;
        }
    return told(cudaErrorInvalidDeviceFunction);
}

static int by_address(const void *a, const void *b)
{
    const struct ptx_alloc *x = *(struct ptx_alloc *const *)a, *y = *(struct ptx_alloc *const *)b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* Memory that the kernel may use: what is given out, and the module's variables. */
static struct ptx_alloc **reachable(struct module *m, unsigned *n)
{
    struct ptx_alloc **list;

    pthread_mutex_lock(&all.lock);
    list = malloc((all.n_alloc + m->m.n_var + 1) * sizeof(struct ptx_alloc *));
    *n = all.n_alloc;
    if (list && all.n_alloc)
        memcpy(list, all.alloc, all.n_alloc * sizeof(struct ptx_alloc *));
    pthread_mutex_unlock(&all.lock);
    for (uint32_t i = 0; list && i < m->m.n_var; i++)
        list[(*n)++] = &m->vars[i];
    if (list)
        qsort(list, *n, sizeof(struct ptx_alloc *), by_address);
    return list;
}

static int run_kernel(const struct kernel *k, const struct ptx_func *f, dim3 grid, dim3 block, void **args, size_t shared)
{
    uint8_t *param = aligned_alloc(64, (f->param_bytes + 127) / 64 * 64);
    struct ptx_launch l = {.module = &k->module->m, .kernel = f, .grid = {grid.x, grid.y, grid.z}, .block = {block.x, block.y, block.z},
                           .dynamic = (uint32_t)shared, .param = param, .count = all.count, .tally = all.count ? k->module->tally : NULL};
    int err = 0;

    l.allocs = reachable(k->module, &l.n_allocs);
    l.threads = (unsigned)setting("threads", (uint64_t)sysconf(_SC_NPROCESSORS_ONLN));
    if (!param || !l.allocs)
        err = cudaErrorMemoryAllocation;
    for (unsigned i = 0; !err && i < f->n_params; i++)
        memcpy(param + f->param_at[i], args[i], f->param_size[i]);
    k->module->used = true;
    if (!err && !ptx_run(&l))
        err = lost(l.kind, l.finding);
    free(l.allocs);
    free(param);
    return err;
}

cudaError_t __cudaLaunchKernel(struct kernel *k, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream)
{
    const struct ptx_func *f = NULL;
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    int err = state();

    (void)stream;
    pthread_mutex_lock(&all.launching);
    if (!err && !load(k->module))
        err = cudaErrorInvalidKernelImage;
    if (!err && !(f = ptx_find(&k->module->m, k->name)))
        err = cudaErrorInvalidDeviceFunction;
    if (!err && (!grid.x || !grid.y || !grid.z || !threads || threads > PTX_MAX_THREADS || grid.x > 0x7fffffff || grid.y > 65535 ||
                 grid.z > 65535 || (f->max_threads && threads > f->max_threads)))
        err = cudaErrorInvalidConfiguration;
    if (!err && shared + f->shared + k->module->m.func_shared > PTX_SHARED_MAX && shared > (size_t)k->dynamic)
        err = cudaErrorInvalidValue;
    if (!err)
        (void)run_kernel(k, f, grid, block, args, shared); /* what it finds is told by the calls after it */
    pthread_mutex_unlock(&all.launching);
    return told(err);
}

cudaError_t cudaLaunchKernel(const void *host, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream)
{
    struct kernel *k;
    cudaError_t e = __cudaGetKernel(&k, host);

    return e ? e : __cudaLaunchKernel(k, grid, block, args, shared, stream);
}

cudaError_t cudaFuncSetAttribute(const void *host, enum cudaFuncAttribute attribute, int value)
{
    struct kernel *k;
    cudaError_t e = __cudaGetKernel(&k, host);

    if (e)
        return e;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > PTX_SHARED_ASKED)
        return told(cudaErrorInvalidValue);
    pthread_mutex_lock(&all.launching);
    k->dynamic = value;
    pthread_mutex_unlock(&all.launching);
    return cudaSuccess;
}

/* ---- memory */

cudaError_t cudaMalloc(void **out, size_t n)
{
    struct ptx_alloc *a;
    unsigned i;

    if (state())
        return told(state());
    pthread_mutex_lock(&all.lock);
    if (all.n_alloc == all.cap_alloc) {
        all.cap_alloc = all.cap_alloc ? 2 * all.cap_alloc : 64;
        all.alloc = realloc(all.alloc, all.cap_alloc * sizeof(struct ptx_alloc *));
    }
    a = n && all.used + n <= setting("memory", 2ull << 30) ? calloc(1, sizeof *a) : NULL;
    if (a) {
        uint8_t *p = aligned_alloc(RED, (n + 3 * RED) / RED * RED);

        *a = (struct ptx_alloc){.at = p ? p + RED : NULL, .n = n, .lo = SIZE_MAX, .shadow = calloc(n, sizeof *a->shadow)};
        if (!p || !a->shadow) {
            free(p);
            free(a->shadow);
            free(a);
            a = NULL;
        }
    }
    if (a) {
        for (i = all.n_alloc++; i > 0 && all.alloc[i - 1]->at > a->at; i--)
            all.alloc[i] = all.alloc[i - 1];
        all.alloc[i] = a;
        all.used += n;
        memset(a->at, 0xa5, n < 1 << 20 ? n : 1 << 20);
        *out = a->at;
    }
    pthread_mutex_unlock(&all.lock);
    return told(a ? 0 : cudaErrorMemoryAllocation);
}

static struct ptx_alloc *holding(const void *p, size_t n)
{
    struct ptx_alloc *found = NULL;

    pthread_mutex_lock(&all.lock);
    for (unsigned i = 0; i < all.n_alloc && !found; i++) {
        struct ptx_alloc *a = all.alloc[i];

        if ((const uint8_t *)p >= a->at && (size_t)((const uint8_t *)p - a->at) <= a->n && n <= a->n - (size_t)((const uint8_t *)p - a->at))
            found = a;
    }
    pthread_mutex_unlock(&all.lock);
    return found;
}

cudaError_t cudaFree(void *p)
{
    struct ptx_alloc *a = p ? holding(p, 0) : NULL;

    if (!p)
        return cudaSuccess;
    if (!a || a->at != p)
        return told(cudaErrorInvalidValue);
    pthread_mutex_lock(&all.lock);
    for (unsigned i = 0, k = 0; i < all.n_alloc; i++)
        if (all.alloc[i] != a)
            all.alloc[k++] = all.alloc[i];
    all.n_alloc--;
    all.used -= a->n;
    pthread_mutex_unlock(&all.lock);
    free(a->at - RED);
    free(a->shadow);
    free(a);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    struct ptx_alloc *a = holding(kind == cudaMemcpyHostToDevice ? to : from, n);
    const uint8_t *p = kind == cudaMemcpyHostToDevice ? to : from;
    char text[200];

    (void)stream;
    if (state())
        return told(state());
    if (kind != cudaMemcpyHostToDevice && kind != cudaMemcpyDeviceToHost)
        return told(cudaErrorInvalidMemcpyDirection);
    if (!a) {
        snprintf(text, sizeof text, "memcheck: a copy of %zu bytes outside of what was allocated", n);
        return told(lost(PTX_MEMCHECK, text));
    }
    for (size_t k = (size_t)(p - a->at), end = k + n; k < end; k++)
        if (kind == cudaMemcpyHostToDevice) {
            a->shadow[k] = 1;
        } else if (a->shadow[k] == 0) {
            snprintf(text, sizeof text, "initcheck: byte %zu of an allocation of %zu bytes is copied to the host, and nothing wrote it", k, a->n);
            return told(lost(PTX_INITCHECK, text));
        }
    memcpy(to, from, n);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind)
{
    return cudaMemcpyAsync(to, from, n, kind, NULL);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    pthread_mutex_lock(&all.lock);
    *total = setting("memory", 2ull << 30);
    *available = *total - all.used;
    pthread_mutex_unlock(&all.lock);
    return told(state());
}

cudaError_t cudaHostAlloc(void **out, size_t n, unsigned flags)
{
    (void)flags;
    *out = malloc(n ? n : 1);
    return told(*out ? state() : cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *p, size_t n, unsigned flags)
{
    (void)p, (void)n, (void)flags;
    return told(state());
}

cudaError_t cudaHostUnregister(void *p)
{
    (void)p;
    return cudaSuccess;
}

/* ---- devices, streams, errors */

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = 1;
    return told((int)setting("count", 0));
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    memset(out, 0, sizeof *out);
    if (device != 0)
        return told(cudaErrorInvalidDevice);
    snprintf(out->name, sizeof out->name, "PTX on a CPU%s", setting("part", 0) ? " MIG 1g.1gb" : "");
    memcpy(out->uuid.bytes, "sluice-ptx-on-cpu", sizeof out->uuid.bytes);
    out->totalGlobalMem = setting("memory", 2ull << 30);
    out->major = 8;
    out->multiProcessorCount = 1;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *out, int n, int device)
{
    (void)device;
    snprintf(out, (size_t)n, "0000:00:00.0");
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return told(device ? cudaErrorInvalidDevice : state());
}

cudaError_t cudaSetDeviceFlags(unsigned flags)
{
    (void)flags;
    return told(state());
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    (void)flags;
    *out = (cudaStream_t)malloc(1);
    return told(state());
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void)stream;
    return told(state());
}

cudaError_t cudaDeviceSynchronize(void)
{
    return told(state());
}

cudaError_t cudaGetLastError(void)
{
    int e = last_error;

    last_error = 0;
    return (cudaError_t)e;
}

const char *cudaGetErrorString(cudaError_t err)
{
    switch (err) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidKernelImage: return "device kernel image is invalid";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorMisalignedAddress: return "misaligned address";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorCompatNotSupportedOnDevice: return "forward compatibility was attempted on non supported HW";
    default: return "an error";
    }
}
