/* A GPU against the processor, byte for byte: the golden vectors, then random weights of
 * every type in FP8 with block scales and in F32 of every size, compared in full, with
 * a checksum of what was compared.
 *
 * usage: gpu_check [-d DEVICE] [-n WEIGHTS] [-t TYPE] [-g tests/golden] [-s]
 *   -n  random weights of each type (default 1e9)   -t  one type alone
 *   -s  small: for compute-sanitizer
 * Exit: 0 all equal, 1 a difference or a failure, 77 no device. */
#include "gpu_common.h"

#include <math.h>

#define GOLDEN_ROWS 6
#define GOLDEN_COLS 1024
#define GOLDEN_N (GOLDEN_ROWS * GOLDEN_COLS)
#define CHUNK (48ull << 20)

struct check {
    struct sl_gpu_device gpu;
    const char *golden;
    uint64_t weights, chunk;
    int only;
    unsigned failures;
    /* one chunk */
    int type;
    bool weighted;
    uint64_t n, seed, checksum;
    enum sl_dtype dtype;
    uint8_t *in, *want, *got;
    float *scales, *w;
    struct sl_gpu_work k;
    bool refused[COMMON_THREADS];
};

static void failed(struct check *c, const char *what)
{
    fprintf(stderr, "FAILED: %s%s: %s\n", sl_type_info(c->type)->name, c->weighted ? " with weights" : "", what);
    c->failures++;
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
    struct sl_error e;
    uint32_t status;

    snprintf(name, sizeof name, "%s%s.bin", t->name, c->weighted ? ".imatrix" : "");
    if (!slurp(c, dist, name, c->want, bytes))
        return; /* not every type has all */
    memset(c->got, 0x5a, bytes);
    c->k = (struct sl_gpu_work){.type = c->type, .dtype = SL_DTYPE_F32, .weighted = c->weighted && t->block > 1 && c->type != SL_TYPE_Q8_0,
                                .n_runs = 1, .elems = GOLDEN_N, .row = GOLDEN_COLS, .matrix = GOLDEN_N,
                                .in = c->in, .w = c->w, .out = c->got};
    c->k.run[0] = (struct sl_gpu_run){.scale = UINT64_MAX, .end = GOLDEN_N, .cols = GOLDEN_COLS};
    if (sl_gpu_quantize(&c->gpu, &c->k, GOLDEN_N * 4, c->k.weighted ? GOLDEN_COLS : 0, &status, &e) < 0) {
        failed(c, e.text);
        return;
    }
    c->checksum++;
    if (status || memcmp(c->want, c->got, bytes)) {
        snprintf(text, sizeof text, "golden vector %s/%s differs", dist, name);
        failed(c, text);
    }
}

static void golden(struct check *c)
{
    static const char *const dists[] = {"gauss", "fp8_block", "outlier", "heavy_tail", "constant",
                                        "sparse", "tiny", "huge", "onesided", "ramp"};

    c->checksum = 0;
    for (unsigned d = 0; d < sizeof dists / sizeof dists[0]; d++) {
        if (!slurp(c, dists[d], "x.f32", c->in, GOLDEN_N * 4) || !slurp(c, dists[d], "imatrix.f32", c->w, GOLDEN_COLS * 4)) {
            fprintf(stderr, "FAILED: no golden vectors in %s/%s\n", c->golden, dists[d]);
            c->failures++;
            return;
        }
        for (unsigned i = 0; i < COMMON_TYPES; i++)
            for (int w = 0; w < 2; w++) {
                c->type = common_types[i];
                c->weighted = w;
                if (c->only < 0 || c->only == c->type)
                    golden_case(c, dists[d]);
            }
    }
    printf("golden vectors: %llu compared\n", (unsigned long long)c->checksum);
    if (c->checksum < 20) {
        fprintf(stderr, "FAILED: there should be hundreds of golden vectors\n");
        c->failures++;
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
        struct sl_source s = {.dtype = c->dtype, .data = c->in + r * COMMON_ROW * sl_dtype_info(c->dtype)->bytes,
                              .first = r * COMMON_ROW, .cols = COMMON_ROW, .block_rows = 128, .block_cols = 128,
                              .scale = c->dtype == SL_DTYPE_F8_E4M3 ? c->scales + r / 128 * (COMMON_ROW / 128) : NULL,
                              .scale_row0 = r / 128, .scale_cols = COMMON_ROW / 128};

        if (sl_load_f32(&s, 0, n, x, &bad) < 0 ||
            sl_quantize(c->type, x, c->k.weighted ? w : NULL, n, COMMON_ROW, c->want + r * row_bytes, &bad) < 0)
            c->refused[part] = true;
    }
    free(x);
}

static void random_chunk(struct check *c)
{
    uint64_t in_bytes = c->n * sl_dtype_info(c->dtype)->bytes, scales = (c->n / COMMON_ROW / 128 + 1) * (COMMON_ROW / 128);
    size_t bytes = sl_type_bytes(c->type, c->n);
    struct sl_error e;
    uint32_t status;
    char text[200];

    common_in_parallel(fill_part, c);
    for (uint64_t i = 0; i < COMMON_ROW; i++)
        c->w[i] = common_random(&c->seed) % 8 ? (float)(common_random(&c->seed) % 4096) * 0.01f : 0;
    c->scales = (float *)(void *)(c->in + in_bytes);
    for (uint64_t i = 0; i < scales; i++)
        c->scales[i] = ldexpf(1.f + (float)(common_random(&c->seed) % 1000) * 0.001f, -12 - (int)(common_random(&c->seed) % 4));
    c->k = (struct sl_gpu_work){.type = c->type, .dtype = (int)c->dtype, .weighted = c->weighted, .n_runs = 1, .elems = c->n,
                                .row = COMMON_ROW, .matrix = c->n, .in = c->in, .w = c->w, .out = c->got};
    c->k.run[0] = (struct sl_gpu_run){.scale = c->dtype == SL_DTYPE_F8_E4M3 ? in_bytes : UINT64_MAX, .end = c->n,
                                      .cols = COMMON_ROW, .block_rows = 128, .block_cols = 128,
                                      .scale_cols = COMMON_ROW / 128};
    common_in_parallel(reference_part, c);
    for (unsigned i = 0; i < COMMON_THREADS; i++)
        if (c->refused[i]) {
            failed(c, "the processor refuses this input: the check is wrong");
            return;
        }
    if (sl_gpu_quantize(&c->gpu, &c->k, in_bytes + scales * sizeof(float), c->weighted ? COMMON_ROW : 0, &status, &e) < 0) {
        failed(c, e.text);
        return;
    }
    if (status)
        failed(c, "the device saw weights that are not finite; there are none");
    for (size_t i = 0; i < bytes; i++)
        if (c->want[i] != c->got[i]) {
            snprintf(text, sizeof text, "block %zu of %s differs (byte %zu: %02x, not %02x)", i / sl_type_info(c->type)->bytes,
                     c->dtype == SL_DTYPE_F32 ? "F32" : "FP8", i, c->got[i], c->want[i]);
            failed(c, text);
            break;
        }
    for (size_t i = 0; i + 8 <= bytes; i += 8) {
        uint64_t v;

        memcpy(&v, c->got + i, 8);
        c->checksum = (c->checksum ^ v) * 0x100000001b3;
    }
}

static void random_weights(struct check *c)
{
    for (unsigned i = 0; i < COMMON_TYPES; i++)
        for (int w = sl_needs_weights(common_types[i]); w < 2; w++) {
            uint64_t done = 0;
            double t0 = common_seconds();

            c->type = common_types[i];
            c->weighted = w;
            if ((w && !common_weighted(c->type)) || (c->only >= 0 && c->only != c->type))
                continue;
            c->checksum = 0xcbf29ce484222325;
            c->seed = 1000003 * i + (uint64_t)w;
            for (unsigned part = 0; done < c->weights && !c->failures; part++, done += c->n) {
                c->n = c->weights - done < c->chunk ? c->weights - done : c->chunk;
                c->n = (c->n + COMMON_ROW - 1) / COMMON_ROW * COMMON_ROW;
                c->dtype = part % 2 ? SL_DTYPE_F32 : SL_DTYPE_F8_E4M3;
                random_chunk(c);
            }
            printf("%-8s %s %12llu weights: checksum %016llx, %s, %.1f s\n", sl_type_info(c->type)->name,
                   w ? "weighted" : "plain   ", (unsigned long long)done, (unsigned long long)c->checksum,
                   c->failures ? "NOT equal" : "equal", common_seconds() - t0);
            fflush(stdout);
            if (c->failures)
                return;
        }
}

int main(int argc, char **argv)
{
    struct check *c = calloc(1, sizeof *c);
    const struct sl_gpu_api *api = sl_gpu_api();
    struct sl_error e;
    int device = 0, opt;

    if (!c)
        return 1;
    c->golden = "tests/golden";
    c->weights = 1000000000;
    c->only = -1;
    c->chunk = CHUNK;
    while ((opt = getopt(argc, argv, "d:n:t:g:s")) != -1)
        switch (opt) {
        case 'd': device = atoi(optarg); break;
        case 'n': c->weights = strtoull(optarg, NULL, 0); break;
        case 't': c->only = sl_type_by_name(optarg); break;
        case 'g': c->golden = optarg; break;
        case 's': c->weights = 8 * COMMON_ROW; c->chunk = 4 * COMMON_ROW; break;
        default: return 2;
        }
    if (sl_gpu_count(api) == 0) {
        fprintf(stderr, "gpu_check: SKIPPED, NOTHING WAS CHECKED: %s\n", api ? "no CUDA device here" : "built without CUDA");
        return 77;
    }
    if (sl_gpu_open(api, device, &c->gpu, &e) < 0) {
        fprintf(stderr, "gpu_check: %s\n", e.text);
        return 1;
    }
    printf("cuda:%d: %s, sm_%d%d; against %s\n", device, c->gpu.info.name, c->gpu.info.major, c->gpu.info.minor,
           sl_backend_usable(SL_BACKEND_AVX512) ? "avx512" : sl_backend_usable(SL_BACKEND_AVX2) ? "avx2" : "portable");
    if (c->chunk < 4 * GOLDEN_N)
        c->chunk = 4 * COMMON_ROW;
    c->in = malloc(4 * (c->chunk + GOLDEN_N) + (1u << 20) * 8);
    c->want = malloc(4 * (c->chunk + GOLDEN_N));
    c->got = malloc(4 * (c->chunk + GOLDEN_N));
    c->w = malloc(COMMON_ROW * sizeof(float));
    if (!c->in || !c->want || !c->got || !c->w)
        return fprintf(stderr, "gpu_check: out of memory\n"), 1;
    golden(c);
    if (!c->failures)
        random_weights(c);
    sl_gpu_close(&c->gpu);
    printf("%s\n", c->failures ? "FAILED" : "all equal");
    return c->failures ? 1 : 0;
}
