/* A GPU against the processor, byte for byte: the golden vectors, then random weights of
 * every type in FP8 with block scales, in F32 of every size and in F4 as MXFP4 and NVFP4 have it,
 * compared in full, with a checksum of what was compared.
 *
 * usage: gpu_check [-d DEVICE] [-n WEIGHTS] [-t TYPE] [-g tests/golden] [-s] [-G | -R | -l] [-o FILE] [-T SECONDS]
 *                  [-w SECONDS]
 *   -n  random weights of each type (default 1e9)   -t  one type alone
 *   -s  small, and time that is up is no failure: for compute-sanitizer
 *   -G  golden vectors alone, -R random weights alone, -l only names the device
 *   -o  appends a line for each type that is begun, and for each that was equal; leaves out those
 *       that were, and takes those that were begun and did not end after all others
 *   -T  begins no type that is not expected to end so many seconds after the start
 *   -w  a launch may take so long (default 10; with -s 120), and a second more for each 10 million weights; opening the
 *       device so long, and 60 at least
 * Exit: 0 all equal, 1 a difference or a failure, 2 no such option or type, 3 the device was lost to this process, or did not end
 * its work (with -o the same call goes on with the other types), 75 time was up with types left, 77 no device. */
#include "gpu_common.h"

#include <math.h>

#define GOLDEN_ROWS 6
#define GOLDEN_COLS 1024
#define GOLDEN_N (GOLDEN_ROWS * GOLDEN_COLS)
#define CHUNK (48ull << 20)
#define FORMS 3 /* of a source, which take turns */

struct check {
    struct sl_gpu_device gpu;
    const char *golden;
    uint64_t weights, chunk;
    int only;
    unsigned failures, vectors;
    bool wrong, lost;   /* of this type: something failed; the device does nothing more */
    unsigned patience;
    const char *lines;  /* -o, or NULL */
    double began, time; /* time: 0 without -T */
    /* one chunk */
    int type;
    bool weighted;
    uint64_t n, seed, checksum;
    enum sl_dtype dtype;
    uint8_t *in, *want, *got;
    float *scales, *w;
    struct sl_gpu_work k;
    bool refused[COMMON_THREADS];
    uint64_t differs[COMMON_THREADS];
};

static void failed(struct check *c, const char *what)
{
    fprintf(stderr, "FAILED: %s%s: %s\n", sl_type_info(c->type)->name, c->weighted ? " with weights" : "", what);
    c->failures++;
    c->wrong = true;
}

/* One launch. Returns false, and says so, where it failed. */
static bool launched(struct check *c, size_t in_bytes, size_t w_floats, uint32_t *status)
{
    struct sl_error e;
    uint64_t room;
    int rc;

    common_patience(c->patience + (unsigned)(c->k.elems / 10000000), sl_type_info(c->type)->name, c->weighted ? " with weights" : "");
    rc = sl_gpu_quantize(&c->gpu, &c->k, in_bytes, w_floats, status, &e);
    alarm(0);
    if (rc == 0)
        return true;
    failed(c, e.text);
    c->lost = c->gpu.api->memory(&room) != 0;
    return false;
}

/* ---- golden vectors */

static bool slurp(const struct check *c, const char *dist, const char *name, void *out, size_t n)
{
    char path[512];
    FILE *f;
    bool ok;

    snprintf(path, sizeof path, "%s/%s/%s", c->golden, dist, name);
    f = fopen(path, "rb");
    ok = f && fread(out, 1, n, f) == n;
    if (f)
        fclose(f);
    return ok;
}

static void golden_case(struct check *c, const char *dist)
{
    const struct sl_type_info *t = sl_type_info(c->type);
    size_t bytes = sl_type_bytes(c->type, GOLDEN_N);
    char name[64], text[200];
    uint32_t status;

    snprintf(name, sizeof name, "%s%s.bin", t->name, c->weighted ? ".imatrix" : "");
    if (!slurp(c, dist, name, c->want, bytes))
        return; /* not every type has all */
    memset(c->got, 0x5a, bytes);
    c->k = (struct sl_gpu_work){.type = c->type, .dtype = SL_DTYPE_F32, .weighted = c->weighted && t->block > 1 && c->type != SL_TYPE_Q8_0,
                                .n_runs = 1, .elems = GOLDEN_N, .row = GOLDEN_COLS, .matrix = GOLDEN_N,
                                .in = c->in, .w = c->w, .out = c->got};
    c->k.run[0] = (struct sl_gpu_run){.scale = UINT64_MAX, .end = GOLDEN_N, .cols = GOLDEN_COLS};
    if (!launched(c, GOLDEN_N * 4, c->k.weighted ? GOLDEN_COLS : 0, &status))
        return;
    c->vectors++;
    if (status || memcmp(c->want, c->got, bytes)) {
        snprintf(text, sizeof text, "golden vector %s/%s differs", dist, name);
        failed(c, text);
    }
}

static void golden_type(struct check *c)
{
    static const char *const dists[] = {"gauss", "fp8_block", "outlier", "heavy_tail", "constant",
                                        "sparse", "tiny", "huge", "onesided", "ramp"};

    for (unsigned d = 0; d < sizeof dists / sizeof dists[0] && !c->lost; d++) {
        if (!slurp(c, dists[d], "x.f32", c->in, GOLDEN_N * 4) || !slurp(c, dists[d], "imatrix.f32", c->w, GOLDEN_COLS * 4)) {
            failed(c, "no golden vectors here (-g)");
            return;
        }
        golden_case(c, dists[d]);
    }
}

/* ---- random weights */

/* Rows [*from, *to) of the chunk. */
static void rows_of(const struct check *c, unsigned part, unsigned parts, uint64_t *from, uint64_t *to)
{
    uint64_t rows = c->n / COMMON_ROW;

    *from = rows * part / parts;
    *to = rows * (part + 1) / parts;
}

/* F32 of every exponent that cannot overflow a scale, in groups: usual, few different
 * values, subnormal, mixed, zeros. */
static void fill_part(void *user, unsigned part, unsigned parts)
{
    struct check *c = user;
    uint64_t from, to, s;

    rows_of(c, part, parts, &from, &to);
    s = c->seed + from * 0x1000003;
    if (c->dtype == SL_DTYPE_F8_E4M3) {
        common_fp8(c->in + from * COMMON_ROW, (to - from) * COMMON_ROW, s);
        return;
    }
    if (c->dtype == SL_DTYPE_F4) {
        for (uint64_t i = from * COMMON_ROW / 2; i < to * COMMON_ROW / 2; i += 8)
            memcpy(c->in + i, &(uint64_t){common_random(&s)}, 8);
        return;
    }
    for (uint64_t i = from * COMMON_ROW; i < to * COMMON_ROW; i++) {
        uint32_t r = (uint32_t)common_random(&s), kind = (uint32_t)(i / 256 * 2654435761u >> 28);

        r = kind < 8    ? (r & 0x807fffff) | (108 + (r >> 24) % 14) << 23
            : kind < 10 ? (r & 0x80600000) | 0x3d000000
            : kind < 11 ? r & 0x807fffff
            : kind < 14 ? (r & 0x807fffff) | ((r >> 23 & 0xff) % 138) << 23
            : kind < 15 ? (r & 0x80000000)
                        : (r & 7 ? 0 : (r & 0x80ffffff) | 0x3c000000);
        memcpy(c->in + 4 * i, &r, 4);
    }
}

/* A scale's block: 128 x 128 of FP8; of F4 as MXFP4 has it, and with weights as NVFP4. */
static uint64_t scale_rows(const struct check *c) { return c->dtype == SL_DTYPE_F4 ? 1 : 128; }
static uint64_t scale_cols(const struct check *c) { return c->dtype != SL_DTYPE_F4 ? 128 : c->weighted ? 16 : 32; }
static uint64_t scales_of(const struct check *c, uint64_t rows)
{
    return c->dtype == SL_DTYPE_F32 ? 0 : (rows + scale_rows(c) - 1) / scale_rows(c) * (COMMON_ROW / scale_cols(c));
}

/* Bytes of n weights, whole rows. */
static uint64_t source_bytes(const struct check *c, uint64_t n)
{
    return n / sl_dtype_info(c->dtype)->block * sl_dtype_info(c->dtype)->bytes;
}

/* The processor's bytes, by 16 rows. */
static void reference_part(void *user, unsigned part, unsigned parts)
{
    struct check *c = user;
    const uint64_t step = 4, row_bytes = sl_type_bytes(c->type, COMMON_ROW);
    float *x = malloc(2 * step * COMMON_ROW * sizeof *x), *w = x + step * COMMON_ROW;
    uint64_t from, to, bad;

    rows_of(c, part, parts, &from, &to);
    c->refused[part] = x == NULL;
    for (uint64_t i = 0; x && i < step; i++)
        memcpy(w + i * COMMON_ROW, c->w, COMMON_ROW * sizeof *w);
    for (uint64_t r = from; x && r < to; r += step) {
        uint64_t n = (to - r < step ? to - r : step) * COMMON_ROW;
        uint64_t row0 = r / scale_rows(c), per_row = COMMON_ROW / scale_cols(c);
        struct sl_source s = {.dtype = c->dtype, .data = c->in + source_bytes(c, r * COMMON_ROW),
                              .first = r * COMMON_ROW, .cols = COMMON_ROW, .block_rows = scale_rows(c), .block_cols = scale_cols(c),
                              .scale = c->dtype == SL_DTYPE_F32 ? NULL : c->scales + row0 * per_row,
                              .scale_row0 = row0, .scale_cols = per_row};

        if (sl_load_f32(&s, 0, n, x, &bad) < 0 ||
            sl_quantize_on(SL_BACKEND_AUTO, c->type, x, c->k.weighted ? w : NULL, n, COMMON_ROW, c->want + r * row_bytes, &bad) < 0)
            c->refused[part] = true;
    }
    free(x);
}

/* The first difference of the part's rows, or UINT64_MAX. */
static void compare_part(void *user, unsigned part, unsigned parts)
{
    struct check *c = user;
    const uint64_t row_bytes = sl_type_bytes(c->type, COMMON_ROW);
    uint64_t from, to;

    rows_of(c, part, parts, &from, &to);
    c->differs[part] = UINT64_MAX;
    if (memcmp(c->want + from * row_bytes, c->got + from * row_bytes, (to - from) * row_bytes) == 0)
        return;
    for (uint64_t i = from * row_bytes; i < to * row_bytes && c->differs[part] == UINT64_MAX; i++)
        if (c->want[i] != c->got[i])
            c->differs[part] = i;
}

static void random_chunk(struct check *c)
{
    uint64_t in_bytes = source_bytes(c, c->n), scales = scales_of(c, c->n / COMMON_ROW);
    size_t bytes = sl_type_bytes(c->type, c->n);
    uint32_t status;
    char text[200];

    common_in_parallel(fill_part, c);
    for (uint64_t i = 0; i < COMMON_ROW; i++)
        c->w[i] = common_random(&c->seed) % 8 ? (float)(common_random(&c->seed) % 4096) * 0.01f : 0;
    c->scales = (float *)(void *)(c->in + in_bytes);
    for (uint64_t i = 0; i < scales; i++)
        c->scales[i] = ldexpf(1.f + (float)(common_random(&c->seed) % 1000) * 0.001f, -12 - (int)(common_random(&c->seed) % 4));
    if (c->dtype == SL_DTYPE_F4 && !c->weighted) /* powers of two, as E8M0 */
        for (uint64_t i = 0; i < scales; i++)
            c->scales[i] = ldexpf(1, -3 - (int)(common_random(&c->seed) % 12));
    c->k = (struct sl_gpu_work){.type = c->type, .dtype = (int)c->dtype, .weighted = c->weighted, .n_runs = 1, .elems = c->n,
                                .row = COMMON_ROW, .matrix = c->n, .in = c->in, .w = c->w, .out = c->got};
    c->k.run[0] = (struct sl_gpu_run){.scale = scales ? in_bytes : UINT64_MAX, .end = c->n,
                                      .cols = COMMON_ROW, .block_rows = scale_rows(c), .block_cols = scale_cols(c),
                                      .scale_cols = COMMON_ROW / scale_cols(c)};
    common_in_parallel(reference_part, c);
    for (unsigned i = 0; i < COMMON_THREADS; i++)
        if (c->refused[i]) {
            failed(c, "the processor refuses this input: the check is wrong");
            return;
        }
    if (!launched(c, in_bytes + scales * sizeof(float), c->weighted ? COMMON_ROW : 0, &status))
        return;
    if (status)
        failed(c, "the device saw weights that are not finite; there are none");
    for (unsigned i = 0; i < COMMON_THREADS; i++)
        c->differs[i] = UINT64_MAX;
    common_in_parallel(compare_part, c);
    for (unsigned p = 0; p < COMMON_THREADS; p++)
        if (c->differs[p] != UINT64_MAX) {
            uint64_t i = c->differs[p];

            snprintf(text, sizeof text, "block %llu of %s differs (byte %llu: %02x, not %02x)",
                     (unsigned long long)(i / sl_type_info(c->type)->bytes), sl_dtype_info(c->dtype)->name,
                     (unsigned long long)i, c->got[i], c->want[i]);
            failed(c, text);
            break;
        }
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t v;

        memcpy(&v, c->got + i, 8);
        c->checksum = (c->checksum ^ v) * 0x100000001b3;
    }
}

/* Nanoseconds of a core for a weight, plain and weighted: what the processor's side of a
 * comparison costs (kernels/README.md), for the estimate alone. */
static double core_ns(int type, bool weighted)
{
    static const struct { int type; double plain, weighted; } costs[] = {
        {SL_TYPE_Q2_K, 2.4, 5.4}, {SL_TYPE_Q3_K, 1.3, 1.9}, {SL_TYPE_Q4_K, 2.8, 4.9}, {SL_TYPE_Q5_K, 2.3, 5}, {SL_TYPE_Q6_K, 1.8, 2},
        {SL_TYPE_Q4_1, 0.5, 7}, {SL_TYPE_Q5_1, 0.5, 7}, {SL_TYPE_IQ4_NL, 3.7, 3.8}, {SL_TYPE_IQ4_XS, 3.6, 3.8},
        {SL_TYPE_IQ1_S, 0, 10}, {SL_TYPE_IQ1_M, 13, 15}, {SL_TYPE_IQ2_XXS, 0, 27}, {SL_TYPE_IQ2_XS, 0, 37},
        {SL_TYPE_IQ2_S, 19, 19}, {SL_TYPE_IQ3_XXS, 59, 59}, {SL_TYPE_IQ3_S, 35, 35}};

    for (unsigned i = 0; i < sizeof costs / sizeof costs[0]; i++)
        if (costs[i].type == type)
            return weighted ? costs[i].weighted : costs[i].plain;
    return weighted ? 2.7 : 0.5;
}

/* Seconds expected for a type: the processor's, making and comparing, and copies. */
static double expected(const struct check *c, int type, bool weighted)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);

    return (double)c->weights * 1e-9 * ((core_ns(type, weighted) + 3) / (double)(n < 1 ? 1 : n) + 0.5);
}

/* weights: 0 for golden vectors. */
static void line_name(char *out, size_t n, int type, bool weighted, uint64_t weights)
{
    char what[32] = "golden";

    if (weights)
        snprintf(what, sizeof what, "%llu", (unsigned long long)weights);
    snprintf(out, n, "%s %s %s ", sl_type_info(type)->name, weighted ? "weighted" : "plain", what);
}

/* What -o's file says of it: 0 nothing, 1 it was begun, 2 it was equal. */
static int state_of(const struct check *c, const char *name)
{
    FILE *f = c->lines ? fopen(c->lines, "r") : NULL;
    char line[200];
    int state = 0;

    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0 && strchr(line, '\n') && state < 2)
            state = strstr(line, "begun") ? 1 : 2;
    if (f)
        fclose(f);
    return state;
}

static void add_line(struct check *c, const char *name, const char *what)
{
    FILE *f = c->lines ? fopen(c->lines, "a") : NULL;

    if (c->lines && (!f || fprintf(f, "%s%s\n", name, what) < 0))
        failed(c, "its line could not be written");
    if (f && fclose(f) != 0)
        failed(c, "its line could not be written");
}

static void random_type(struct check *c)
{
    static const enum sl_dtype forms[FORMS] = {SL_DTYPE_F8_E4M3, SL_DTYPE_F32, SL_DTYPE_F4};
    uint64_t done = 0;

    c->seed = 1000003 * (uint64_t)c->type + (uint64_t)c->weighted;
    for (unsigned part = 0; done < c->weights && !c->wrong; part++, done += c->n) {
        c->n = c->weights - done < c->chunk ? c->weights - done : c->chunk;
        c->n = (c->n + COMMON_ROW - 1) / COMMON_ROW * COMMON_ROW;
        c->dtype = forms[part % FORMS];
        random_chunk(c);
    }
    printf("%-8s %s %12llu weights: checksum %016llx, %s", sl_type_info(c->type)->name, c->weighted ? "weighted" : "plain   ",
           (unsigned long long)done, (unsigned long long)c->checksum, c->wrong ? "NOT equal" : "equal");
}

struct kind {
    int type;
    bool weighted;
    double need;
};

/* What was not equal yet; what was begun before comes last. Returns how many. */
static unsigned kinds_left(const struct check *c, uint64_t weights, struct kind *out)
{
    unsigned n = 0;
    char name[80];

    for (int begun = 0; begun < 2; begun++)
        for (unsigned i = 0; i < COMMON_TYPES; i++)
            for (int w = sl_needs_weights(common_types[i]); w < 2; w++) {
                int type = common_types[i];

                line_name(name, sizeof name, type, w, weights);
                if ((!w || common_weighted(type)) && (c->only < 0 || c->only == type) && state_of(c, name) == begun)
                    out[n++] = (struct kind){type, w, expected(c, type, w)};
            }
    return n;
}

/* Golden vectors (weights: 0) or random weights. Returns whether kinds are left for which there was no time. */
static bool every_kind(struct check *c, uint64_t weights)
{
    struct kind k[2 * COMMON_TYPES];
    unsigned n = kinds_left(c, weights, k), late = 0;
    double all = 0, spent = 0, meant = 0, slower = 1;
    char name[80], line[80];

    for (unsigned i = 0; i < n; i++)
        all += k[i].need;
    if (weights)
        printf("%u kinds of %llu weights to do, about %.0f s\n", n, (unsigned long long)weights, all);
    for (unsigned i = 0; i < n && !c->lost; i++) {
        double t0 = common_seconds();

        if (weights && c->time > 0 && t0 - c->began + slower * k[i].need > c->time) {
            late++;
            continue;
        }
        c->type = k[i].type;
        c->weighted = k[i].weighted;
        c->wrong = false;
        c->checksum = 0xcbf29ce484222325;
        line_name(name, sizeof name, c->type, c->weighted, weights);
        add_line(c, name, "begun");
        if (weights)
            random_type(c);
        else
            golden_type(c);
        snprintf(line, sizeof line, "checksum %016llx equal %.1f s", (unsigned long long)c->checksum, common_seconds() - t0);
        if (!c->wrong)
            add_line(c, name, line);
        spent += common_seconds() - t0;
        meant += k[i].need;
        slower = spent / meant;
        if (weights)
            printf(", %.1f s; %u to go, about %.0f s\n", common_seconds() - t0, n - i - 1 + late, slower * (all - meant));
    }
    if (!weights)
        printf("golden vectors: %u compared\n", c->vectors);
    if (!weights && n > COMMON_TYPES && !c->lost && c->vectors < 300) {
        fprintf(stderr, "FAILED: there should be hundreds of golden vectors\n");
        c->failures++;
    }
    return late > 0;
}

static bool open_check(struct check *c, int device)
{
    struct sl_error e;

    if (sl_gpu_open(sl_gpu_api(), device, &c->gpu, &e) < 0) {
        fprintf(stderr, "gpu_check: %s\n", e.text);
        return false;
    }
    printf("cuda:%d: %s, sm_%d%d; against %s on %ld processors\n", device, c->gpu.info.name, c->gpu.info.major, c->gpu.info.minor,
           sl_backend_usable(SL_BACKEND_AVX512) ? "avx512" : sl_backend_usable(SL_BACKEND_AVX2) ? "avx2" : "portable",
           sysconf(_SC_NPROCESSORS_ONLN));
    return true;
}

static bool take_memory(struct check *c)
{
    const struct sl_gpu_api *api = c->gpu.api;
    void *p[2] = {NULL};
    size_t room;

    if (c->weights < FORMS * c->chunk)
        c->chunk = (c->weights / FORMS / COMMON_ROW + 1) * COMMON_ROW;
    room = 4 * (c->chunk + GOLDEN_N);
    if (api->host_alloc(room + (1u << 20) * 8, &p[0]) || api->host_alloc(room, &p[1]))
        return fprintf(stderr, "gpu_check: no pinned memory of %zu MB\n", room / 1000000), false;
    c->in = p[0];
    c->got = p[1];
    c->want = malloc(room);
    c->w = malloc(COMMON_ROW * sizeof(float));
    if (!c->want || !c->w)
        return fprintf(stderr, "gpu_check: out of memory\n"), false;
    return true;
}

int main(int argc, char **argv)
{
    static struct check *c; /* the process's, to its end */
    const char *absent;
    bool golden_only = false, random_only = false, small = false, look = false, left = false;
    int device = 0, opt;

    c = calloc(1, sizeof *c);
    if (!c)
        return 1;
    c->golden = "tests/golden";
    c->weights = 1000000000;
    c->only = -1;
    c->chunk = CHUNK;
    c->began = common_seconds();
    while ((opt = getopt(argc, argv, "d:n:t:g:sGRlo:T:w:")) != -1)
        switch (opt) {
        case 'd': device = atoi(optarg); break;
        case 'n': c->weights = strtoull(optarg, NULL, 0); break;
        case 't':
            if ((c->only = common_type_named(optarg)) < 0)
                return 2;
            break;
        case 'g': c->golden = optarg; break;
        case 's': small = true; c->weights = 9 * COMMON_ROW; c->chunk = 3 * COMMON_ROW; break;
        case 'G': golden_only = true; break;
        case 'R': random_only = true; break;
        case 'l': look = true; break;
        case 'o': c->lines = optarg; break;
        case 'T': c->time = atof(optarg); break;
        case 'w': c->patience = (unsigned)strtoul(optarg, NULL, 0); break;
        default: return 2;
        }
    c->patience = c->patience ? c->patience : small ? 120 : 10;
    common_patience(c->patience > 60 ? c->patience : 60, "opening it", "");
    absent = sl_gpu_absence(sl_gpu_api());
    if (absent) {
        fprintf(stderr, "gpu_check: SKIPPED, NOTHING WAS CHECKED: %s\n", absent);
        return 77;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!open_check(c, device))
        return 1;
    if (look)
        return sl_gpu_close(&c->gpu), 0;
    if (!take_memory(c))
        return 1;
    alarm(0);
    if (!random_only)
        (void)every_kind(c, 0);
    if (!golden_only && !c->lost)
        left = every_kind(c, c->weights);
    sl_gpu_close(&c->gpu);
    printf("%s\n", c->lost ? "FAILED: the device is lost" : c->failures ? "FAILED" : left ? "time is up: types are left" : "all equal");
    return c->lost ? 3 : c->failures ? 1 : left && !small ? 75 : 0;
}
