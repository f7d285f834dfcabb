/* Rates of the GPU kernels beside their floors (shared facts of the instruction counts,
 * for an H200: 132 processors of 128 lanes at 1.98 GHz, scaled to the card), of the copies,
 * and of both together as a worker does them. Prints a table in Markdown.
 *
 * usage: gpu_bench [-d DEVICE] [-n WEIGHTS] [-t TYPE]
 * Exit: 0, 1 a failure, 77 no device. Nothing should be timed before its bytes were equal to
 * the processor's: gpu_bench.sh runs gpu_check first. */
#include "gpu_common.h"

#define SLOTS 4
#define COPY_BYTES (256ull << 20) /* less where -n is less */

/* Instructions per weight, plain and weighted; 0: not counted yet. */
static const struct { int type; double plain, weighted; } counts[] = {
    {SL_TYPE_Q2_K, 385, 870}, {SL_TYPE_Q3_K, 225, 290}, {SL_TYPE_Q4_K, 470, 820}, {SL_TYPE_Q5_K, 370, 820},
    {SL_TYPE_Q6_K, 290, 290}, {SL_TYPE_IQ1_S, 0, 800}, {SL_TYPE_IQ1_M, 900, 900}, {SL_TYPE_IQ2_XXS, 0, 1900},
    {SL_TYPE_IQ2_XS, 0, 4700}, {SL_TYPE_IQ3_XXS, 1600, 1600}, {SL_TYPE_IQ3_S, 1150, 1150}};

struct bench {
    const struct sl_gpu_api *api;
    struct sl_gpu_device gpu;
    uint64_t n, copy;
    void *in, *w, *means, *status;
    void *out[SLOTS], *stream[SLOTS], *host_in[SLOTS], *host_out[SLOTS], *device_in[SLOTS];
    double lanes; /* thread instructions a second */
};

static int check(const struct bench *b, int rc, const char *what)
{
    struct sl_error e;

    if (rc) {
        sl_gpu_fail(&b->gpu, rc, what, &e);
        fprintf(stderr, "gpu_bench: %s\n", e.text);
    }
    return rc ? -1 : 0;
}

#define TRY(call, what)                              \
    do {                                             \
        if (check(b, (call), what) < 0)              \
            return -1;                               \
    } while (0)

static struct sl_gpu_work work(const struct bench *b, int type, bool weighted, uint64_t n)
{
    enum sl_grid_id id = sl_gpu_grid_of(type);
    struct sl_gpu_work k = {.type = type, .dtype = SL_DTYPE_F8_E4M3, .weighted = weighted, .n_runs = 1, .elems = n,
                            .row = COMMON_ROW, .matrix = b->n, .in = b->in, .w = b->w, .means = b->means,
                            .out = b->out[0], .status = b->status};

    k.run[0] = (struct sl_gpu_run){.scale = b->n, .end = n, .cols = COMMON_ROW, .block_rows = 128, .block_cols = 128,
                                   .scale_cols = COMMON_ROW / 128};
    if (id != SL_GRID_COUNT)
        k.grid = b->gpu.grid[id];
    return k;
}

static int upload(struct bench *b)
{
    uint64_t scales = (b->n / COMMON_ROW / 128 + 1) * (COMMON_ROW / 128), s = 7;
    uint8_t *bytes = malloc(b->n + scales * 4);
    float w[COMMON_ROW];

    if (!bytes)
        return -1;
    common_fp8(bytes, b->n, 42);
    for (uint64_t i = 0; i < scales; i++)
        memcpy(bytes + b->n + 4 * i, &(float){0.0002f * (float)(1 + common_random(&s) % 8)}, 4);
    for (int i = 0; i < COMMON_ROW; i++)
        w[i] = (float)(1 + common_random(&s) % 1000) * 0.01f;
    TRY(b->api->alloc(b->n + scales * 4, &b->in), "input");
    TRY(b->api->alloc(sizeof w, &b->w), "weights");
    TRY(b->api->alloc(b->n / COMMON_ROW * 4 + 4, &b->means), "row means");
    TRY(b->api->alloc(4, &b->status), "status");
    TRY(b->api->alloc(b->n * 4, &b->out[0]), "output");
    for (int i = 0; i < SLOTS; i++)
        TRY(b->api->stream_new(&b->stream[i]), "stream");
    TRY(b->api->copy_in(b->stream[0], b->in, bytes, b->n + scales * 4), "input");
    TRY(b->api->copy_in(b->stream[0], b->w, w, sizeof w), "weights");
    TRY(b->api->wait(b->stream[0]), "input");
    free(bytes);
    return 0;
}

/* Seconds that `runs` launches one after the other take, with one wait; negative: failed. */
static double launches(struct bench *b, const struct sl_gpu_work *k, int runs)
{
    double t0 = common_seconds();

    for (int i = 0; i < runs; i++)
        if (check(b, b->api->run(b->stream[0], k), "run") < 0)
            return -1;
    return check(b, b->api->wait(b->stream[0]), "run") < 0 ? -1 : common_seconds() - t0;
}

/* Best of three times some 50 ms, in Gweights/s; 0: failed. The first launch loads the kernel. */
static double kernel_rate(struct bench *b, int type, bool weighted)
{
    struct sl_gpu_work k = work(b, type, weighted, b->n);
    double once = launches(b, &k, 1) < 0 ? -1 : launches(b, &k, 1), best = 0;
    int runs = once > 0.05 ? 1 : once > 0.0005 ? (int)(0.05 / once) + 1 : 100;

    for (int round = 0; round < 3 && once > 0; round++) {
        double t = launches(b, &k, runs);

        if (t <= 0)
            return 0;
        if ((double)b->n * runs / t / 1e9 > best)
            best = (double)b->n * runs / t / 1e9;
    }
    return best;
}

static double floor_rate(const struct bench *b, int type, bool weighted)
{
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (counts[i].type == type) {
            double n = weighted ? counts[i].weighted : counts[i].plain;

            return n > 0 ? b->lanes / n / 1e9 : 0;
        }
    return 0;
}

static int kernels(struct bench *b, int only)
{
    printf("\n| type | plain, Gweights/s | share of floor | with weights | share of floor |\n|---|---|---|---|---|\n");
    for (unsigned i = 0; i < COMMON_TYPES; i++) {
        int type = common_types[i];

        if (only >= 0 && only != type)
            continue;
        printf("| %s |", sl_type_info(type)->name);
        for (int w = 0; w < 2; w++) {
            double rate, f = floor_rate(b, type, w);

            if ((!w && sl_needs_weights(type)) || (w && !common_weighted(type))) {
                printf(" - | - |");
                continue;
            }
            rate = kernel_rate(b, type, w);
            if (rate <= 0)
                return -1;
            printf(f > 0 ? " %.1f | %.0f %% |" : " %.1f | - |", rate, f > 0 ? 100 * rate / f : 0);
        }
        printf("\n");
        fflush(stdout);
    }
    return 0;
}

static int copies(struct bench *b)
{
    static const char *const names[] = {"in", "out", "both at once, each"};

    for (int i = 0; i < SLOTS; i++) {
        TRY(b->api->host_alloc(b->copy, &b->host_in[i]), "pinned memory");
        TRY(b->api->host_alloc(b->copy, &b->host_out[i]), "pinned memory");
        TRY(b->api->alloc(b->copy, &b->device_in[i]), "device memory");
        if (i)
            TRY(b->api->alloc(b->copy, &b->out[i]), "device memory");
        common_fp8(b->host_in[i], b->copy, (uint64_t)i);
        memset(b->host_out[i], 0, b->copy);
    }
    printf("\n| copies, pinned | GB/s |\n|---|---|\n");
    for (int way = 0; way < 3; way++) {
        double t0 = common_seconds();
        int rounds = 8;

        for (int i = 0; i < rounds; i++) {
            if (way != 1)
                TRY(b->api->copy_in(b->stream[0], b->device_in[0], b->host_in[0], b->copy), "copy in");
            if (way != 0)
                TRY(b->api->copy_out(b->stream[1], b->host_out[1], b->out[1], b->copy), "copy out");
        }
        TRY(b->api->wait(b->stream[0]), "copy");
        TRY(b->api->wait(b->stream[1]), "copy");
        printf("| %s | %.1f |\n", names[way], (double)b->copy * rounds / (common_seconds() - t0) / 1e9);
    }
    return 0;
}

/* Copy in, launch, copy out, in 16 MiB units over a few streams, as the worker does. */
static int pipeline(struct bench *b, int only)
{
    const int types[] = {SL_TYPE_Q4_K, SL_TYPE_Q3_K, SL_TYPE_Q2_K, SL_TYPE_Q6_K, SL_TYPE_IQ2_XXS};
    const uint64_t unit = b->copy < 16 << 20 ? b->copy : 16 << 20;
    const int units = b->copy < COPY_BYTES ? 8 : 256;

    printf("\n| worker's pipeline, %d streams of %.1f MiB | Gweights/s | GB/s in | GB/s out |\n|---|---|---|---|\n", SLOTS,
           (double)unit / (1 << 20));
    for (unsigned t = 0; t < sizeof types / sizeof types[0]; t++) {
        uint64_t out = sl_type_bytes(types[t], unit);
        double t0 = common_seconds(), s;

        if (only >= 0 && only != types[t])
            continue;
        for (int i = 0; i < units; i++) {
            int slot = i % SLOTS;
            struct sl_gpu_work k = work(b, types[t], sl_needs_weights(types[t]), unit);

            k.in = b->device_in[slot];
            k.run[0].scale = UINT64_MAX;
            k.out = b->out[slot];
            if (i >= SLOTS)
                TRY(b->api->wait(b->stream[slot]), "pipeline");
            TRY(b->api->copy_in(b->stream[slot], b->device_in[slot], b->host_in[slot], unit), "pipeline");
            TRY(b->api->run(b->stream[slot], &k), "pipeline");
            TRY(b->api->copy_out(b->stream[slot], b->host_out[slot], b->out[slot], out), "pipeline");
        }
        for (int i = 0; i < SLOTS; i++)
            TRY(b->api->wait(b->stream[i]), "pipeline");
        s = common_seconds() - t0;
        printf("| %s%s | %.1f | %.1f | %.1f |\n", sl_type_info(types[t])->name, sl_needs_weights(types[t]) ? " with weights" : "",
               (double)unit * units / s / 1e9, (double)unit * units / s / 1e9, (double)out * units / s / 1e9);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct bench b = {.api = sl_gpu_api(), .n = 256ull << 20};
    int device = 0, opt, only = -1;
    struct sl_error e;
    char date[32];
    time_t now = time(NULL);

    while ((opt = getopt(argc, argv, "d:n:t:")) != -1)
        switch (opt) {
        case 'd': device = atoi(optarg); break;
        case 'n': b.n = strtoull(optarg, NULL, 0) / (128 * COMMON_ROW) * (128 * COMMON_ROW); break;
        case 't': only = sl_type_by_name(optarg); break;
        default: return 2;
        }
    if (sl_gpu_absence(b.api)) {
        fprintf(stderr, "gpu_bench: SKIPPED, NOTHING WAS MEASURED: %s\n", sl_gpu_absence(b.api));
        return 77;
    }
    if (b.n == 0) {
        fprintf(stderr, "gpu_bench: -n is too small\n");
        return 2;
    }
    b.copy = b.n < COPY_BYTES ? b.n : COPY_BYTES;
    if (sl_gpu_open(b.api, device, &b.gpu, &e) < 0) {
        fprintf(stderr, "gpu_bench: %s\n", e.text);
        return 1;
    }
    b.lanes = (double)b.gpu.info.processors * 128 * 1.98e9;
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    printf("%s, %s (%d processors), sm_%d%d, %s. Floors: instructions counted, at 128 a processor and 1.98 GHz.\n", date,
           b.gpu.info.name, b.gpu.info.processors, b.gpu.info.major, b.gpu.info.minor, b.gpu.info.bus);
    if (upload(&b) < 0 || kernels(&b, only) < 0 || copies(&b) < 0 || pipeline(&b, only) < 0)
        return 1;
    return 0;
}
