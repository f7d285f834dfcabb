// Kernels with a fault planted in each, and sound ones beside them: what looks at the running
// PTX must name the former and be silent about the latter (tests/tap/ptx.t has what it must say).
// usage: ptx_faults NAME    exit 0: every call succeeded, 3: one did not, 2: no such name
#include <cuda_runtime.h>

#include <stdio.h>
#include <string.h>

#define N 128
extern __shared__ int pool[];

namespace {

__global__ void beyond(int *a, int n) { a[n + threadIdx.x] = 1; }
__global__ void before(int *a, int n) { a[threadIdx.x] = a[(int)threadIdx.x - 1]; }
__global__ void shared_beyond(int *a, int n) { pool[threadIdx.x + n - 100] = 1; __syncthreads(); a[0] = pool[0]; }
__global__ void misaligned(int *a, int n) { a[0] = *(int *)((char *)a + n - 126); }
__global__ void misaligned_pair(int *a, int n)
{
    int2 v = *(int2 *)(a + n - 127);

    a[0] = v.x + v.y;
}
__global__ void misaligned_shared(int *a, int n)
{
    pool[threadIdx.x] = 1;
    __syncthreads();
    a[threadIdx.x] = *(int *)((char *)pool + n - 126);
}
__global__ void local_beyond(int *a, int n)
{
    int x[8];

    for (int i = 0; i < 8; i++)
        x[i] = a[i];
    a[threadIdx.x] = x[n + threadIdx.x];
}
__global__ void parameters_beyond(int *a, int n)
{
    int v;

    asm volatile("{ .reg .b64 t; cvta.param.u64 t, %1; ld.u32 %0, [t+400]; }" : "=r"(v) : "l"(0ll));
    a[0] = v + n;
}
__global__ void by_zero(int *a, int n) { a[threadIdx.x] = 77 / (n - 128 + a[0]); }

__global__ void shared_unset(int *a, int n)
{
    if (threadIdx.x != 7)
        pool[threadIdx.x] = n;
    __syncthreads();
    a[threadIdx.x] = pool[N - 1 - threadIdx.x];
}
__global__ void local_unset(int *a, int n)
{
    int x[8];

    for (int i = 0; i < 8; i++)
        if (i != a[i] + 5)
            x[(i + n) & 7] = a[i];
    a[threadIdx.x] = x[(a[0] + threadIdx.x) & 7];
}
__global__ void register_unset(int *a, int n)
{
    int v;

    asm volatile("{ .reg .b32 t; .reg .pred p; setp.ne.s32 p, %1, 9; @p mov.b32 t, 5; mov.b32 %0, t; }" : "=r"(v) : "r"((int)threadIdx.x));
    a[threadIdx.x] = v + n;
}
__global__ void global_unset(int *a, int n) { a[threadIdx.x] += n; }

__global__ void race_warps(int *a, int n)
{
    pool[threadIdx.x] = 0;
    __syncthreads();
    pool[threadIdx.x] = n;
    a[threadIdx.x] = pool[(threadIdx.x + 96) % N];
}
__global__ void race_in_a_warp(int *a, int n)
{
    pool[threadIdx.x] = n;
    a[threadIdx.x] = pool[threadIdx.x ^ 1];
}
__global__ void race_write_after_read(int *a, int n)
{
    pool[threadIdx.x] = n;
    __syncthreads();
    a[threadIdx.x] = pool[threadIdx.x ^ 1];
    pool[threadIdx.x] = 3;
}
__global__ void race_both_write(int *a, int n)
{
    pool[threadIdx.x / 2] = n;
    __syncthreads();
    a[threadIdx.x] = pool[0];
}
__global__ void race_bytes(int *a, int n)
{
    ((char *)pool)[threadIdx.x] = (char)n;
    a[threadIdx.x] = pool[threadIdx.x / 4];
}
__global__ void race_atomic(int *a, int n)
{
    pool[threadIdx.x] = 0;
    __syncthreads();
    atomicOr(&pool[threadIdx.x / 8], n);
    a[threadIdx.x] = pool[threadIdx.x / 8];
}
__global__ void race_global(int *a, int n) { a[threadIdx.x / 2] = (int)threadIdx.x + n; }
__global__ void race_global_blocks(int *a, int n) { a[threadIdx.x] = (int)blockIdx.x + n; }
__global__ void race_global_read(int *a, int n)
{
    a[threadIdx.x] = n;
    a[N + threadIdx.x] = a[(threadIdx.x + 1) % N];
}
__global__ void race_read_only(int *a, int n)
{
    int v;

    a[threadIdx.x] = n;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(__cvta_generic_to_global(&a[threadIdx.x])) : "memory");
    a[N + threadIdx.x] = v;
}

__global__ void barriers_differ(int *a, int n)
{
    if (threadIdx.x & 1)
        asm volatile("bar.sync 0;" ::: "memory");
    else
        asm volatile("bar.sync 1;" ::: "memory");
    a[threadIdx.x] = n;
}
__global__ void barrier_for_some(int *a, int n)
{
    if ((int)threadIdx.x < n - 64)
        asm volatile("bar.sync 0; // some" ::: "memory");
    asm volatile("bar.sync 0; // all" ::: "memory");
    a[threadIdx.x] = n;
}
__global__ void barrier_in_a_loop(int *a, int n)
{
    for (unsigned i = 0; i < threadIdx.x / 32 + n - 127; i++)
        __syncthreads();
    if ((int)threadIdx.x < n)
        asm volatile("bar.sync 0; // after" ::: "memory");
    a[threadIdx.x] = n;
}
__global__ void shuffle_from_nobody(int *a, int n)
{
    if (threadIdx.x % 32 < 16)
        a[threadIdx.x] = __shfl_sync(0xffff, n, 20);
}
__global__ void shuffle_without_all(int *a, int n)
{
    if (threadIdx.x % 32 < 16)
        a[threadIdx.x] = __shfl_sync(0xffffffff, n, 3);
    else
        __syncthreads();
}
__global__ void __launch_bounds__(64) too_many_threads(int *a, int n) { a[threadIdx.x] = n; }

// Sound: nothing may be said about these.
__global__ void sound_atomics(int *a, int n)
{
    pool[threadIdx.x] = 0;
    __syncthreads();
    atomicOr(&pool[threadIdx.x / 8], 1 << threadIdx.x % 8);
    __syncthreads();
    a[threadIdx.x] = pool[threadIdx.x / 8] + n;
}
__global__ void sound_exits(int *a, int n)
{
    if (threadIdx.x >= 70)
        return;
    pool[threadIdx.x] = n;
    __syncthreads();
    a[threadIdx.x] = pool[69 - threadIdx.x];
}
__global__ void sound_warp(int *a, int n)
{
    pool[threadIdx.x] = n;
    __syncwarp();
    a[threadIdx.x] = pool[threadIdx.x ^ 1];
    __syncwarp();
    pool[threadIdx.x] = a[threadIdx.x] + __shfl_xor_sync(0xffffffff, n, 1);
    a[threadIdx.x] = pool[threadIdx.x];
}
__global__ void sound_flag(int *a, int n) { a[0] = n; }
__global__ void sound_bytes(int *a, int n)
{
    ((char *)pool)[threadIdx.x] = (char)n;
    __syncthreads();
    a[threadIdx.x] = pool[threadIdx.x / 4];
}
__global__ void sound_divergence(int *a, int n)
{
    int x[8], sum = 0;

    for (int i = 0; i < 8; i++)
        x[(i + n) & 7] = i;
    for (int i = 0; i < (int)(threadIdx.x % 7); i++)
        sum += x[(i + threadIdx.x) & 7] * (threadIdx.x & 1 ? 2 : 3);
    a[threadIdx.x] = sum;
}

struct fault {
    const char *name;
    void (*kernel)(int *, int);
    unsigned blocks, shared;
    bool fill;
};

const struct fault faults[] = {
    {"beyond", beyond, 1, 0, true}, {"before", before, 1, 0, true}, {"shared_beyond", shared_beyond, 1, 64, true},
    {"misaligned", misaligned, 1, 0, true}, {"misaligned_pair", misaligned_pair, 1, 0, true},
    {"misaligned_shared", misaligned_shared, 1, 4 * N, true}, {"local_beyond", local_beyond, 1, 0, true},
    {"parameters_beyond", parameters_beyond, 1, 0, true}, {"by_zero", by_zero, 1, 0, true}, {"freed", sound_flag, 1, 0, true},
    {"shared_unset", shared_unset, 1, 4 * N, true}, {"local_unset", local_unset, 1, 0, true}, {"register_unset", register_unset, 1, 0, true},
    {"global_unset", global_unset, 1, 0, false}, {"copy_unset", sound_flag, 1, 0, false},
    {"race_warps", race_warps, 1, 4 * N, true}, {"race_in_a_warp", race_in_a_warp, 1, 4 * N, true},
    {"race_write_after_read", race_write_after_read, 1, 4 * N, true}, {"race_both_write", race_both_write, 1, 4 * N, true},
    {"race_bytes", race_bytes, 1, 4 * N, true}, {"race_atomic", race_atomic, 1, 4 * N, true}, {"race_global", race_global, 1, 0, true},
    {"race_global_blocks", race_global_blocks, 2, 0, true}, {"race_global_read", race_global_read, 1, 0, true},
    {"race_read_only", race_read_only, 1, 0, true},
    {"barriers_differ", barriers_differ, 1, 0, true}, {"barrier_for_some", barrier_for_some, 1, 0, true},
    {"barrier_in_a_loop", barrier_in_a_loop, 1, 0, true}, {"shuffle_from_nobody", shuffle_from_nobody, 1, 0, true},
    {"shuffle_without_all", shuffle_without_all, 1, 0, true},
    {"too_many_threads", too_many_threads, 1, 0, true}, {"too_much_shared", sound_flag, 1, 50000, true},
    {"copy_beyond", sound_flag, 1, 0, true},
    {"sound_atomics", sound_atomics, 3, 4 * N, true}, {"sound_exits", sound_exits, 1, 4 * N, true}, {"sound_warp", sound_warp, 1, 4 * N, true},
    {"sound_flag", sound_flag, 9, 0, true}, {"sound_bytes", sound_bytes, 1, 4 * N, true}, {"sound_divergence", sound_divergence, 1, 0, true},
};

int failed(const char *what, cudaError_t e)
{
    if (e != cudaSuccess)
        printf("%s: %s\n", what, cudaGetErrorString(e));
    return e != cudaSuccess;
}

int run(const struct fault *f)
{
    static int host[4 * N];
    int *a = nullptr, bad, n = strcmp(f->name, "beyond") == 0 ? 2 * N - 3 : N;
    bool sound_blocks = strcmp(f->name, "sound_atomics") == 0;

    bad = failed("malloc", cudaMalloc((void **)&a, 2 * N * sizeof(int)));
    if (f->fill)
        bad |= failed("copy in", cudaMemcpy(a, host, (strcmp(f->name, "copy_beyond") ? 2 : 4) * N * sizeof(int), cudaMemcpyHostToDevice));
    if (strcmp(f->name, "freed") == 0)
        bad |= failed("free", cudaFree(a));
    f->kernel<<<f->blocks, N, f->shared>>>(a, n);
    bad |= failed("launch", cudaGetLastError());
    bad |= failed("kernel", cudaDeviceSynchronize());
    if (!bad && strcmp(f->name, "freed"))
        bad |= failed("copy out", cudaMemcpy(host, a, 2 * N * sizeof(int), cudaMemcpyDeviceToHost));
    for (int i = 0; !bad && i < N; i++)
        if (sound_blocks && host[i] != 255 + N)
            bad |= failed("result", cudaErrorUnknown);
    return bad ? 3 : 0;
}

} // namespace

int main(int argc, char **argv)
{
    for (const struct fault &f : faults)
        if (argc == 2 && strcmp(argv[1], f.name) == 0)
            return run(&f);
    for (const struct fault &f : faults)
        printf("%s\n", f.name);
    return 2;
}
