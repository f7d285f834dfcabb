/* Rates of the GPU kernels beside two numbers that a card of so many processors could reach, each
 * with 128 lanes at 1.98 GHz: the floor of the algorithms as they were first written, all in floats,
 * and what the kernels as they are should come to, by the instructions that `make sass-count` counts. Then the
 * copies, and both together as a worker does them. Prints tables in Markdown.
 *
 * usage: gpu_bench [-d DEVICE] [-n WEIGHTS] [-t TYPE] [-x TYPES] [-1]
 *   -x  types to leave out, with spaces between
 *   -1  launches each kernel once, and times nothing: for a profiler
 * Exit: 0, 1 a failure, 3 a kernel did not end (those before it have their rows), 77 no device. Nothing should be timed before its bytes were equal to
 * the processor's: gpu_run.sh sees to that. */
#include "gpu_common.h"

#define SLOTS 4
#define COPY_BYTES (256ull << 20) /* less where -n is less */

/* A weight's instructions, plain and weighted, 0: there is no such, or it was not counted: those
 * behind the first floors, and the machine's, of the kernels as they are on sm_90 (the table in kernels/GPU.md). */
static const struct { int type; double floor[2], issued[2]; } counts[] = {
    {SL_TYPE_Q2_K, {385, 870}, {494, 1098}},
    {SL_TYPE_Q3_K, {225, 290}, {265, 457}},
    {SL_TYPE_Q4_K, {470, 820}, {568, 944}},
    {SL_TYPE_Q5_K, {370, 820}, {478, 960}},
    {SL_TYPE_Q6_K, {290, 290}, {406, 411}},
    {SL_TYPE_Q8_0, {0, 0}, {114, 0}},
    {SL_TYPE_Q4_0, {0, 0}, {72, 337}},
    {SL_TYPE_Q4_1, {0, 0}, {77, 924}},
    {SL_TYPE_Q5_0, {0, 0}, {83, 348}},
    {SL_TYPE_Q5_1, {0, 0}, {88, 936}},
    {SL_TYPE_IQ4_NL, {0, 0}, {413, 429}},
    {SL_TYPE_IQ4_XS, {0, 0}, {440, 456}},
    {SL_TYPE_IQ1_S, {0, 800}, {0, 699}},
    {SL_TYPE_IQ1_M, {900, 900}, {861, 822}},
    {SL_TYPE_IQ2_XXS, {0, 1900}, {0, 1992}},
    {SL_TYPE_IQ2_XS, {0, 4700}, {0, 3425}},
    {SL_TYPE_IQ2_S, {0, 0}, {1909, 1478}},
    {SL_TYPE_IQ3_XXS, {1600, 1600}, {2145, 1902}},
    {SL_TYPE_IQ3_S, {1150, 1150}, {1509, 1418}},
    {SL_TYPE_F32, {0, 0}, {51, 0}},
    {SL_TYPE_F16, {0, 0}, {128, 0}},
    {SL_TYPE_BF16, {0, 0}, {121, 0}},
};

struct bench {
    const struct sl_gpu_api *api;
    struct sl_gpu_device gpu;
    uint64_t n, copy;
    void *in, *w, *means, *status;
    void *out[SLOTS], *stream[SLOTS], *host_in[SLOTS], *host_out[SLOTS], *device_in[SLOTS];
    double lanes; /* thread instructions a second */
    int only;            /* a type, or negative */
    const char *without; /* types, with spaces between */
    bool failed, once;
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
    const uint64_t scales = (b->n / COMMON_ROW / 128 + 1) * (COMMON_ROW / 128), once = 128 * COMMON_ROW; /* then again */
    uint8_t *bytes = malloc(b->n + scales * 4);
    float w[COMMON_ROW];

    if (!bytes)
        return -1;
    common_normal(bytes, once, (float *)(void *)(bytes + b->n), scales, w, COMMON_ROW);
    for (uint64_t i = once; i < b->n; i += once)
        memcpy(bytes + i, bytes, b->n - i < once ? b->n - i : once);
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

/* A card that had nothing to do takes some time to its full clock. */
static void warm_up(struct bench *b)
{
    struct sl_gpu_work k = work(b, SL_TYPE_BF16, false, b->n);
    double until = common_seconds() + 0.3;

    while (common_seconds() < until && launches(b, &k, 1) > 0)
        ;
}

/* Best of three times some 50 ms, in Gweights/s; 0: failed. The first launch loads the kernel. */
static double kernel_rate(struct bench *b, int type, bool weighted)
{
    struct sl_gpu_work k = work(b, type, weighted, b->n);
    double once = launches(b, &k, 1), best = 0;
    int runs;

    if (b->once)
        return once > 0 ? (double)b->n / once / 1e9 : 0;
    once = once > 0 ? launches(b, &k, 1) : -1;
    runs = once > 0.05 ? 1 : once > 0.0005 ? (int)(0.05 / once) + 1 : 100;

    for (int round = 0; round < 3 && once > 0; round++) {
        double t = launches(b, &k, runs);

        if (t <= 0)
            return 0;
        if ((double)b->n * runs / t / 1e9 > best)
            best = (double)b->n * runs / t / 1e9;
    }
    return best;
}

static void print_share(const struct bench *b, double rate, double instructions)
{
    double most = instructions > 0 ? b->lanes / instructions / 1e9 : 0;

    if (most > 0)
        printf(" %.1f | %.0f %% |", most, 100 * rate / most);
    else
        printf(" - | - |");
}

/* A type that fails costs its row; a device that is lost, the rest. */
static int one_kernel(struct bench *b, int type, bool weighted)
{
    double rate;
    uint64_t room;

    common_patience(b->once ? 0 : 30, sl_type_info(type)->name, weighted ? " with weights" : ""); /* profilers take theirs */
    rate = kernel_rate(b, type, weighted);
    alarm(0);
    printf("| %s%s |", sl_type_info(type)->name, weighted ? ", weighted" : "");
    if (rate <= 0) {
        printf(" failed | - | - | - | - |\n");
        b->failed = true;
        return check(b, b->api->memory(&room), "run");
    }
    printf(" %.1f |", rate);
    for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++)
        if (counts[i].type == type) {
            print_share(b, rate, counts[i].floor[weighted]);
            print_share(b, rate, counts[i].issued[weighted]);
        }
    printf("\n");
    return 0;
}

static bool left_out(const struct bench *b, int type)
{
    char list[256], name[32];

    snprintf(list, sizeof list, " %s ", b->without);
    snprintf(name, sizeof name, " %s ", sl_type_info(type)->name);
    return (b->only >= 0 && b->only != type) || strstr(list, name);
}

static int kernels(struct bench *b)
{
    if (*b->without)
        printf("Not timed, since they are not right: %s \n", b->without);
    printf("\n| type | 10^9 weights/s | floor, as first written in floats | share | predicted, as it is | share |\n|---|---|---|---|---|---|\n");
    for (unsigned i = 0; i < COMMON_TYPES; i++)
        for (int w = 0; w < 2; w++) {
            int type = common_types[i];

            if (left_out(b, type) || (!w && sl_needs_weights(type)) || (w && !common_weighted(type)))
                continue;
            if (one_kernel(b, type, w) < 0)
                return -1;
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
static int pipeline(struct bench *b)
{
    const int types[] = {SL_TYPE_Q4_K, SL_TYPE_Q3_K, SL_TYPE_Q2_K, SL_TYPE_Q6_K, SL_TYPE_Q8_0, SL_TYPE_IQ2_XXS};
    const uint64_t unit = b->copy < 16 << 20 ? b->copy : 16 << 20;
    const int units = b->copy < COPY_BYTES ? 8 : 256;

    printf("\n| worker's pipeline, %d streams of %.1f MiB | Gweights/s | GB/s in | GB/s out |\n|---|---|---|---|\n", SLOTS,
           (double)unit / (1 << 20));
    for (unsigned t = 0; t < sizeof types / sizeof types[0]; t++) {
        uint64_t out = sl_type_bytes(types[t], unit);
        double t0 = common_seconds(), s;

        if (left_out(b, types[t]))
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
    struct bench b = {.api = sl_gpu_api(), .n = 256ull << 20, .only = -1, .without = ""};
    int device = 0, opt;
    struct sl_error e;
    char date[32];
    time_t now = time(NULL);

    while ((opt = getopt(argc, argv, "d:n:t:x:1")) != -1)
        switch (opt) {
        case 'd': device = atoi(optarg); break;
        case 'n': b.n = strtoull(optarg, NULL, 0) / (128 * COMMON_ROW) * (128 * COMMON_ROW); break;
        case 't':
            if ((b.only = common_type_named(optarg)) < 0)
                return 2;
            break;
        case 'x': b.without = optarg; break;
        case '1': b.once = true; break;
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
    setvbuf(stdout, NULL, _IOLBF, 0);
    b.lanes = (double)b.gpu.info.processors * 128 * 1.98e9;
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    printf("%s, %s (%d processors), sm_%d%d, %s. Floors and predictions: instructions counted, at 128 a processor and 1.98 GHz.\n", date,
           b.gpu.info.name, b.gpu.info.processors, b.gpu.info.major, b.gpu.info.minor, b.gpu.info.bus);
    if (upload(&b) < 0)
        return 1;
    if (!b.once)
        warm_up(&b);
    if (kernels(&b) < 0 || (!b.once && (copies(&b) < 0 || pipeline(&b) < 0)))
        return 1;
    return b.failed;
}
