/* What the kernels' PTX costs, counted where it runs, in warp instructions: for each type, on
 * weights of a normal distribution in F8_E4M3 with scales of 128 x 128 blocks.
 *
 * usage: ptx_count [-t TYPE] [-n WEIGHTS] [-b BLOCKS | -l] [-x FOLDER | -p FILE]
 *   -t  one type alone     -n  weights (default 65536)
 *   -b  beside each kind, its BLOCKS basic blocks that cost most
 *   -l  beside each kind, how often each line of the PTX was issued (for tests/gpu/gpu_sass.pl)
 *   -x  writes every module's PTX into the folder, and counts nothing
 *   -p  says whether a PTX text is understood, and counts nothing
 *
 * A slot is a warp instruction of 32 lanes, whether they all take part or not: slots a weight =
 * warp instructions x 32 / weights. PTX is not machine code: an assembler removes moves, address
 * conversions and logic of predicates (taken as 0 here) and makes several of one (ptx_alu.h has
 * what is taken: a root 9, a division 10, a division of 64-bit integers 70). A prediction is no
 * measurement. */
#include "gpu_common.h"
#include "ptx_runtime.h"

#define ROW 4096
#define SCALE_BLOCK 128

/* H200: processors, schedulers, clock; what they issue, and half of it for integers, comparisons
 * and conversions (64 lanes a cycle and processor: CUDA programming guide, throughput table). */
#define SLOTS_A_SECOND (132 * 4 * 32 * 1.98e9)

struct sums {
    uint64_t issues, slots, lanes, extra;
};

struct counted {
    const char *type;
    bool weighted, failed, lines;
    uint64_t n;
    unsigned n_blocks;
    struct sums cls[PTX_CLASSES], all;
};

static const char *const class_names[] = {"f32", "int", "compare", "convert", "shared", "global", "local", "param", "root/div", "branch", "barrier", "move"};

static void add_up(void *user, const struct ptx_module *m, const struct ptx_tally *t)
{
    struct counted *c = user;

    for (uint32_t i = 0; i < m->n_inst; i++) {
        struct sums *s[] = {&c->cls[m->inst[i].cls], &c->all};

        for (unsigned k = 0; k < 2; k++) {
            s[k]->issues += t[i].issues;
            s[k]->slots += t[i].issues * m->inst[i].weight;
            s[k]->lanes += t[i].lanes;
            s[k]->extra += t[i].extra;
        }
    }
}

/* Runs of instructions that no branch enters or leaves, the dearest first. */
static void dearest_blocks(void *user, const struct ptx_module *m, const struct ptx_tally *t)
{
    const struct counted *c = user;
    uint8_t *leads = calloc(m->n_inst + 2, 1), *shown = calloc(m->n_inst + 1, 1);

    for (uint32_t i = 0; i < m->n_inst; i++) {
        bool leaves = m->inst[i].op == PTX_BRA || m->inst[i].op == PTX_RET || m->inst[i].op == PTX_EXIT || m->inst[i].op == PTX_CALL;

        if (m->inst[i].op == PTX_BRA)
            leads[m->inst[i].target] = 1;
        leads[i + 1] |= leaves;
    }
    leads[0] = 1;
    printf("| lines of %s | slots a weight | times | lanes | PTX instructions |\n|---|---|---|---|---|\n", m->name);
    for (unsigned k = 0; k < c->n_blocks; k++) {
        uint64_t best = 0;
        uint32_t from = 0, end = 0;

        for (uint32_t i = 0; i < m->n_inst;) {
            uint32_t first = i;
            uint64_t slots = 0;

            do {
                slots += t[i].issues * m->inst[i].weight;
                i++;
            } while (i < m->n_inst && !leads[i]);
            if (slots > best && !shown[first])
                best = slots, from = first, end = i;
        }
        if (!best)
            break;
        shown[from] = 1;
        printf("| %u to %u | %.1f | %llu | %.1f | %u |\n", m->inst[from].line, m->inst[end - 1].line, (double)best * 32 / (double)c->n,
               (unsigned long long)t[from].issues, (double)t[from].lanes / (double)t[from].issues, end - from);
    }
    free(leads);
    free(shown);
}

static void one(struct counted *c, struct sl_gpu_device *gpu, int type, uint8_t *in, float *w, uint8_t *out)
{
    uint64_t at = (c->n + 63) / 64 * 64;
    struct sl_gpu_work k = {.type = type, .dtype = SL_DTYPE_F8_E4M3, .weighted = c->weighted, .n_runs = 1, .elems = c->n, .row = ROW,
                            .matrix = c->n, .in = in, .w = w, .out = out};
    struct sl_error e;
    uint32_t status;

    k.run[0] = (struct sl_gpu_run){.scale = at, .end = c->n, .cols = ROW, .scale_cols = ROW / SCALE_BLOCK, .block_rows = SCALE_BLOCK, .block_cols = SCALE_BLOCK};
    ptx_runtime_count();
    if (sl_gpu_quantize(gpu, &k, at + 4 * (c->n / ROW / SCALE_BLOCK + 1) * (ROW / SCALE_BLOCK), c->weighted ? ROW : 0, &status, &e) < 0) {
        fprintf(stderr, "ptx_count: %s\n", e.text);
        c->failed = true;
        return;
    }
    memset(c->cls, 0, sizeof c->cls);
    memset(&c->all, 0, sizeof c->all);
    ptx_runtime_counted(add_up, c);
}

static void every_line(void *user, const struct ptx_module *m, const struct ptx_tally *t)
{
    (void)user;
    for (uint32_t i = 0; i < m->n_inst; i++)
        if (t[i].issues)
            printf("%s %u %llu\n", m->name, m->inst[i].line, (unsigned long long)t[i].issues);
}

static void print_row(const struct counted *c)
{
    double a = 32.0 / (double)c->n, slots = (double)c->all.slots * a;
    double half = 2 * a * (double)(c->cls[PTX_INT].slots + c->cls[PTX_COMPARE].slots + c->cls[PTX_CONVERT].slots);
    const struct sums *g = &c->cls[PTX_GLOBAL];

    printf("| %s%s | %.0f | %.0f | %.1f |", c->type, c->weighted ? ", weighted" : "", (double)c->all.issues * a, slots, (double)c->all.lanes / (double)c->all.issues);
    for (unsigned i = 0; i < PTX_MOVE; i++)
        if (i != PTX_PARAM)
            printf(" %.1f |", (double)c->cls[i].slots * a);
    printf(" %.1f | %.1f | %.1f | %.1f |\n", (double)c->cls[PTX_SHARED].extra * a, g->issues ? (double)g->extra / (double)g->issues : 0,
           SLOTS_A_SECOND / slots / 1e9, SLOTS_A_SECOND / (half > slots ? half : slots) / 1e9);
    fflush(stdout);
}

static int count(const char *only, uint64_t n, unsigned n_blocks, bool lines)
{
    struct counted c = {.n = (n + ROW - 1) / ROW * ROW, .n_blocks = n_blocks, .lines = lines};
    uint64_t at = (c.n + 63) / 64 * 64;
    uint8_t *in = calloc(1, at + 4 * (c.n / ROW / SCALE_BLOCK + 1) * (ROW / SCALE_BLOCK)), *out = malloc(4 * c.n);
    float *w = malloc(ROW * sizeof *w);
    struct sl_gpu_device gpu;
    struct sl_error e;
    bool found = false;

    if (!in || !out || !w || sl_gpu_open(sl_gpu_api(), 0, &gpu, &e) < 0)
        return fprintf(stderr, "ptx_count: %s\n", in && out && w ? e.text : "out of memory"), 1;
    common_normal(in, c.n, (float *)(void *)(in + at), (c.n / ROW / SCALE_BLOCK + 1) * (ROW / SCALE_BLOCK), w, ROW);
    printf("| type | PTX | slots a weight | lanes |");
    for (unsigned i = 0; i < PTX_MOVE; i++)
        if (i != PTX_PARAM)
            printf(" %s |", class_names[i]);
    printf(" passes | sectors | 10^9 weights/s by issue | and by half-rate pipes |\n|---|---|---|---|");
    for (unsigned i = 0; i < PTX_MOVE + 3; i++)
        printf("---|");
    printf("\n");
    for (unsigned i = 0; i < COMMON_TYPES && !c.failed; i++)
        for (int weighted = sl_needs_weights(common_types[i]); weighted < 2 && !c.failed; weighted++) {
            c.type = sl_type_info(common_types[i])->name;
            c.weighted = weighted;
            if ((weighted && !common_weighted(common_types[i])) || (only && strcmp(only, c.type)))
                continue;
            found = true;
            one(&c, &gpu, common_types[i], in, w, out);
            if (!c.failed)
                print_row(&c);
            if (!c.failed && n_blocks)
                ptx_runtime_counted(dearest_blocks, &c);
            if (!c.failed && lines)
                ptx_runtime_counted(every_line, &c);
        }
    sl_gpu_close(&gpu);
    free(in);
    free(out);
    free(w);
    if (!found)
        fprintf(stderr, "ptx_count: no type of this name\n");
    return c.failed || !found;
}

static void write_module(void *user, const struct ptx_module *m)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", (const char *)user, m->name);
    f = fopen(path, "w");
    if (!f || fputs(m->text, f) < 0 || fclose(f) != 0)
        fprintf(stderr, "ptx_count: %s cannot be written\n", path);
}

static int understood(const char *path)
{
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 1 << 20);
    struct ptx_module m;
    bool good;

    if (!f || !text || fread(text, 1, (1 << 20) - 1, f) == 0)
        return fprintf(stderr, "ptx_count: %s cannot be read\n", path), 1;
    fclose(f);
    good = ptx_module_load(&m, "text", text);
    printf("%s\n", good ? "understood" : m.error);
    ptx_module_free(&m);
    free(text);
    return !good;
}

int main(int argc, char **argv)
{
    const char *only = NULL, *folder = NULL;
    uint64_t n = 65536;
    unsigned blocks = 0;
    bool lines = false;
    int opt;

    while ((opt = getopt(argc, argv, "t:n:b:lx:p:")) != -1)
        switch (opt) {
        case 't': only = optarg; break;
        case 'n': n = strtoull(optarg, NULL, 0); break;
        case 'b': blocks = (unsigned)atoi(optarg); break;
        case 'l': lines = true; break;
        case 'x': folder = optarg; break;
        case 'p': return understood(optarg);
        default: return 2;
        }
    if (folder)
        return ptx_runtime_modules(write_module, (void *)(uintptr_t)folder) ? 0 : 1;
    return count(only, n ? n : ROW, blocks, lines);
}
