/* Blocks made again from the source and compared with the file's. */
#include "worker/source_element.h"
#include "worker/synthetic.h"
#include "worker/verify.h"
#include "kernels/kernels.h"
#include "proto/job_spec.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAID_APART 4u     /* tensors that differ and are told one by one, even when they are most */
#define RUN_WEIGHTS 8192u /* neighbours that are made in one go, */
#define RUN_BYTES (RUN_WEIGHTS * sizeof(double)) /* of the widest type */

struct held {
    const char *path;
    char *text;
};

struct checker {
    const struct verify_set *s;
    const struct verify_sample *sample;
    struct verify_report *r;
    struct verify_tally *tally;
    struct sl_checkpoint *ck;
    struct sl_model *m;
    struct source_reader *src;
    bool round_bf16;
    uint64_t random;
    int fd;              /* the output file of the current tensor */
    float *x;            /* RUN_WEIGHTS weights */
    uint8_t *made, *got; /* their bytes, made again and as in the file */
    struct sl_imatrix *im;     /* NULL: none */
    bool synthetic;            /* weights by the rule of --imatrix synthetic, */
    struct synthetic *made_up; /* from here */
    struct sl_weight_words words;
    float *row, *row_weights;  /* of row_len weights, */
    uint8_t *row_made;         /* and such a row's bytes */
    uint64_t row_len;
    uint64_t no_weights; /* tensors whose weights are not at hand */
    const char *source;  /* its path */
    uint64_t looked, wrong; /* tensors looked at; that are not the source's, */
    struct held *held;      /* what there is to tell of these, while they are most: n_held */
    uint64_t n_held;
    bool tells;             /* each at once, from here on */
    struct sl_error *e;
};

/* One tensor of the output with the model's idea of it. */
struct pair {
    const struct verify_file *f;
    const struct sl_gguf_tensor *t;
    const struct sl_out_tensor *want;
    uint64_t blocks;
    uint32_t block, bytes; /* weights and bytes of one block */
};

/* The two-step chain keeps the other tensors in F32 on its way. */
static bool rounds(const struct checker *c, const struct pair *p)
{
    return c->round_bf16 && !p->want->keep_f32 && !p->want->outtype_f32;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void tell_held(struct checker *c)
{
    for (uint64_t i = 0; i < c->n_held; i++) {
        verify_failed(c->r, "%s: %s", c->held[i].path, c->held[i].text);
        free(c->held[i].text);
    }
    c->n_held = 0;
    c->tells = true;
}

static bool hold(struct checker *c, const char *path, const char *text)
{
    struct held *p = c->tells ? NULL : realloc(c->held, (c->n_held + 1) * sizeof *p);

    if (!p)
        return false;
    c->held = p;
    p[c->n_held] = (struct held){path, strdup(text)};
    return p[c->n_held].text && ++c->n_held;
}

/* A tensor is not the source's. While most are not, nothing is told: it may be another model. */
static void differs(struct checker *c, const struct verify_file *f, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void differs(struct checker *c, const struct verify_file *f, const char *fmt, ...)
{
    struct sl_error now;
    va_list ap;

    va_start(ap, fmt);
    sl_vfail(&now, SL_EVERIFY, fmt, ap);
    va_end(ap);
    c->wrong++;
    if (hold(c, f->g.path, now.text))
        return;
    tell_held(c);
    verify_failed(c->r, "%s: %s", f->g.path, now.text);
}

static void was_looked_at(struct checker *c)
{
    c->looked++;
    if (!c->tells && 2 * c->wrong <= c->looked)
        tell_held(c);
}

/* Most are not: one failure in place of as many. */
static void tell_rest(struct checker *c)
{
    if (c->n_held > SAID_APART) {
        verify_failed(c->r, "%s: %llu of %llu tensors are not what %s gives: another model, another version of it, or made in "
                      "another way? The first: %.300s", c->s->files[0].g.path, (unsigned long long)c->wrong,
                      (unsigned long long)c->looked, c->source, c->held[0].text);
        while (c->n_held)
            free(c->held[--c->n_held].text);
    }
    tell_held(c);
}

static int read_output(struct checker *c, const struct pair *p, uint64_t block, uint64_t n)
{
    uint64_t off = p->f->g.header_bytes + p->t->offset + block * p->bytes, want = n * p->bytes;

    for (uint64_t have = 0; have < want;) {
        ssize_t got = pread(c->fd, c->got + have, want - have, (off_t)(off + have));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return sl_fail(c->e, SL_EFAIL, "%s: read error: %s", p->f->g.path,
                           got ? strerror(errno) : "it shrank");
        have += (uint64_t)got;
    }
    return 0;
}

static int room_for_row(struct checker *c, uint64_t n)
{
    if (n <= c->row_len)
        return 0;
    free(c->row);
    free(c->row_weights);
    free(c->row_made);
    c->row = malloc(n * sizeof *c->row);
    c->row_weights = malloc(n * sizeof *c->row_weights);
    c->row_made = malloc(n * sizeof *c->row);
    c->row_len = c->row && c->row_weights && c->row_made ? n : 0;
    return c->row_len ? 0 : sl_no_memory(c->e);
}

static int cannot(struct checker *c, const struct pair *p, int rc)
{
    return sl_fail(c->e, rc, "tensor %s: cannot be made again in %s", p->t->name,
                   sl_type_info(p->t->type)->name);
}

/* As make_again, with importance weights, which want whole rows. */
static int make_weighted(struct checker *c, const struct pair *p, uint32_t entry, uint64_t block,
                         uint64_t n)
{
    uint64_t row = p->t->ne[0], per_row = row / p->block, end = block + n, bad = 0;
    uint64_t matrix = p->t->n_dims > 1 ? p->t->ne[1] : 1;

    SL_TRY(room_for_row(c, row));
    for (uint64_t at = block; at < end;) {
        uint64_t r = at / per_row, skip = at % per_row, take = per_row - skip;
        int rc;

        take = take < end - at ? take : end - at;
        if (c->im)
            SL_TRY(sl_imatrix_values(c->im, entry, r / matrix * row, row, c->row_weights, c->e));
        else
            SL_TRY(synthetic_columns(c->made_up, p->want, r / matrix, c->row_weights, c->e));
        SL_TRY(source_values(c->src, p->want, r * row, row, c->row, c->e));
        for (uint64_t i = 0; rounds(c, p) && i < row; i++)
            c->row[i] = source_round_bf16(c->row[i]);
        rc = sl_quantize_on(SL_BACKEND_SCALAR, p->t->type, c->row, c->row_weights, row, row, c->row_made,
                            &bad);
        if (rc < 0)
            return cannot(c, p, rc);
        memcpy(c->made + (at - block) * p->bytes, c->row_made + skip * p->bytes, take * p->bytes);
        at += take;
    }
    return 0;
}

/* The slow path from the source to bytes: elements by formula, then the scalar
 * backend. Both differ from what the worker runs. */
static int make_again(struct checker *c, const struct pair *p, uint64_t block, uint64_t n)
{
    uint64_t weights = n * p->block, bad = 0;
    uint32_t entry = 0;
    int rc = c->synthetic && p->block > 1 && p->want->src_type != p->t->type
             && sl_weight_words_use(&c->words, p->want->name);

    if (p->want->transform == SL_IDS)
        return source_ids(c->src, p->want, block, n, c->made, c->e);
    if (p->want->src_type == p->t->type && (p->block > 1 || !sl_type_info(p->t->type)->quantizes)) /* a copy */
        return source_stored(c->src, p->want, block, n, c->made, c->e);
    if (p->t->type == SL_TYPE_MXFP4 && sl_model_is_mxfp4(c->m, p->want))
        return source_mxfp4(c->src, p->want, block, n, c->made, c->e);
    if (p->t->type == SL_TYPE_NVFP4 && sl_model_is_nvfp4(c->m, p->want))
        return source_nvfp4(c->src, p->want, block, n, c->made, c->e);
    if (c->im && p->block > 1 && p->want->src_type != p->t->type)
        SL_TRY(rc = sl_imatrix_for(c->im, p->want, &entry, c->e));
    if (rc == 1)
        return make_weighted(c, p, entry, block, n);
    SL_TRY(source_values(c->src, p->want, block * p->block, weights, c->x, c->e));
    for (uint64_t i = 0; rounds(c, p) && i < weights; i++)
        c->x[i] = source_round_bf16(c->x[i]);
    if (p->t->type == SL_TYPE_F32) {
        memcpy(c->made, c->x, weights * sizeof *c->x);
        return 0;
    }
    rc = sl_quantize_on(SL_BACKEND_SCALAR, p->t->type, c->x, NULL, weights, p->t->ne[0], c->made, &bad);
    return rc == 0 ? 0 : cannot(c, p, rc);
}

/* Returns 1 when all n blocks agree, 0 when one was reported. */
static int check_run(struct checker *c, const struct pair *p, uint64_t block, uint64_t n)
{
    SL_TRY(read_output(c, p, block, n));
    SL_TRY(make_again(c, p, block, n));
    c->tally->blocks += n;
    if (c->sample->progress)
        SL_TRY(c->sample->progress(c->sample->user, n * p->block));
    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *got = c->got + i * p->bytes, *made = c->made + i * p->bytes;
        uint32_t at = 0;

        if (memcmp(got, made, p->bytes) == 0)
            continue;
        while (got[at] == made[at])
            at++;
        differs(c, p->f, "tensor %s: block %llu (weights from %llu on) is not what the source gives: byte %u of it is %02x, must be %02x",
                p->t->name, (unsigned long long)(block + i), (unsigned long long)((block + i) * p->block), at, got[at], made[at]);
        return 0;
    }
    return 1;
}

/* At least one block of every tensor. */
static uint64_t blocks_wanted(const struct checker *c, const struct pair *p)
{
    const struct verify_sample *s = c->sample;
    uint64_t n = s->blocks ? s->blocks : (uint64_t)ceil((double)p->blocks * s->share);

    return s->all || n > p->blocks ? p->blocks : n ? n : 1;
}

/* First and last block, and runs spread evenly with a random place in each
 * stretch. */
static int check_sample(struct checker *c, const struct pair *p)
{
    uint64_t run = RUN_WEIGHTS / p->block, want = blocks_wanted(c, p), stretches, pick;

    if (want < p->blocks && want < 16 * run) /* small samples: more places, shorter runs */
        run = want / 16 ? want / 16 : 1;
    if (want == p->blocks) {
        for (uint64_t b = 0; b < p->blocks; b += run) {
            int ok = check_run(c, p, b, p->blocks - b < run ? p->blocks - b : run);

            if (ok <= 0)
                return ok;
        }
        return 0;
    }
    stretches = (want + run - 1) / run;
    for (uint64_t i = 0; i < stretches + 2; i++) {
        uint64_t from = i < 2 ? (i ? p->blocks - 1 : 0)
                              : (uint64_t)((unsigned __int128)p->blocks * (i - 2) / stretches);
        uint64_t end = i < 2 ? from + 1
                             : (uint64_t)((unsigned __int128)p->blocks * (i - 1) / stretches);
        uint64_t n = i < 2 ? 1 : end - from < run ? end - from : run;
        int ok;

        pick = next_random(&c->random);
        from += end - from > n ? pick % (end - from - n + 1) : 0;
        ok = n ? check_run(c, p, from, n) : 1;
        if (ok <= 0)
            return ok;
    }
    return 0;
}

/* Types whose bytes do not depend on importance weights. */
static bool plain_type(int type)
{
    return type == SL_TYPE_F32 || type == SL_TYPE_F16 || type == SL_TYPE_BF16 ||
           type == SL_TYPE_Q8_0 || type == SL_TYPE_MXFP4 || type == SL_TYPE_Q1_0 || type == SL_TYPE_Q2_0 ||
           type == SL_TYPE_TQ1_0 || type == SL_TYPE_TQ2_0;
}

static int check_tensor(struct checker *c, const struct verify_file *f,
                        const struct sl_gguf_tensor *t, const struct sl_out_tensor *want)
{
    const struct sl_type_info *info = sl_type_info(t->type);
    struct pair p = {f, t, want, 0, info->block, info->bytes};

    if (memcmp(t->ne, want->ne, sizeof t->ne) != 0) {
        differs(c, f, "tensor %s: its shape is not the source's", t->name);
        was_looked_at(c);
        return 0;
    }
    if (!info->quantizes && !sl_model_keeps(c->m, want, (int)t->type)) {
        verify_unchecked(c->r, "%s: tensor %s: %s is not made by Sluice and was not compared", f->g.path,
                         t->name, info->name);
        c->tally->skipped_tensors++;
        return 0;
    }
    if (c->s->files[0].imatrix && !c->im && !c->synthetic && !plain_type(t->type) &&
        want->src_type != t->type) {
        c->no_weights++;
        c->tally->skipped_tensors++;
        return 0;
    }
    p.blocks = want->elems / info->block;
    c->tally->tensors++;
    c->tally->blocks_total += p.blocks;
    SL_TRY(check_sample(c, &p));
    was_looked_at(c);
    return 0;
}

static int cmp_out_names(const void *a, const void *b)
{
    const struct sl_out_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int cmp_key(const void *key, const void *entry)
{
    return strcmp(key, (*(const struct sl_out_tensor *const *)entry)->name);
}

static int check_all(struct checker *c, const struct sl_out_tensor **sorted, bool *seen)
{
    for (uint32_t f = 0; f < c->s->n; f++) {
        const struct verify_file *file = &c->s->files[f];

        c->fd = open(file->g.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (c->fd < 0)
            return sl_fail(c->e, sl_source_code(errno), "%s: %s", file->g.path, strerror(errno));
        for (uint64_t i = 0; i < file->g.n_tensors; i++) {
            const struct sl_gguf_tensor *t = &file->g.tensors[i];
            const struct sl_out_tensor **at =
                bsearch(t->name, sorted, c->m->n_tensors, sizeof *sorted, cmp_key);

            if (!at) {
                differs(c, file, "tensor %s: the source has no such tensor", t->name);
                was_looked_at(c);
                continue;
            }
            seen[at - sorted] = true;
            SL_TRY(check_tensor(c, file, t, *at));
        }
        close(c->fd);
        c->fd = -1;
    }
    for (uint32_t i = 0; i < c->m->n_tensors; i++)
        if (!seen[i]) {
            differs(c, &c->s->files[0], "tensor %s is missing", sorted[i]->name);
            was_looked_at(c);
        }
    return 0;
}

static int check_names_and_blocks(struct checker *c)
{
    const struct sl_out_tensor **sorted = malloc((c->m->n_tensors + 1u) * sizeof *sorted);
    bool *seen = calloc(c->m->n_tensors + 1u, 1);
    int rc;

    c->x = malloc(RUN_WEIGHTS * sizeof *c->x);
    c->made = malloc(RUN_BYTES);
    c->got = malloc(RUN_BYTES);
    if (!sorted || !seen || !c->x || !c->made || !c->got) {
        rc = sl_no_memory(c->e);
    } else {
        for (uint32_t i = 0; i < c->m->n_tensors; i++)
            sorted[i] = &c->m->tensors[i];
        qsort(sorted, c->m->n_tensors, sizeof *sorted, cmp_out_names);
        rc = check_all(c, sorted, seen);
        tell_rest(c);
    }
    if (c->no_weights)
        verify_unchecked(c->r, "%llu tensors were quantized with an importance matrix and were not made again; "
                         "give it with --imatrix FILE",
                         (unsigned long long)c->no_weights);
    free(sorted);
    free(seen);
    return rc;
}

static bool has_tensor(const struct verify_set *s, const char *part)
{
    for (uint32_t k = 0; k < s->n; k++)
        for (uint64_t i = 0; i < s->files[k].g.n_tensors; i++)
            if (strstr(s->files[k].g.tensors[i].name, part))
                return true;
    return false;
}

/* What the file says about how it was made; by its tensors where it says
 * nothing. */
static int read_settings(struct checker *c, struct sl_model_opts *o)
{
    const struct verify_file *f = &c->s->files[0];

    *o = (struct sl_model_opts){.layout = SL_LAYOUT_MLA, .prune = f->pruned, .n_prune = (uint32_t)f->n_pruned,
                                .no_mtp = !has_tensor(c->s, ".nextn.eh_proj.weight")};
    if (f->round_through && strcmp(f->round_through, "none") != 0) {
        if (strcmp(f->round_through, "bf16") != 0)
            return verify_failed(c->r, "%s: metadata key sluice.round_through: '%s' is not known",
                                 f->g.path, f->round_through);
        c->round_bf16 = true;
    }
    if (f->layout) {
        if (strcmp(f->layout, "legacy") != 0 && strcmp(f->layout, "mla") != 0)
            return verify_failed(c->r, "%s: metadata key sluice.layout: '%s' is not known", f->g.path,
                                 f->layout);
        o->layout = strcmp(f->layout, "legacy") == 0 ? SL_LAYOUT_LEGACY : SL_LAYOUT_MLA;
        return 0;
    }
    if (has_tensor(c->s, ".attn_kv_b.weight"))
        o->layout = SL_LAYOUT_LEGACY;
    return 0;
}

/* The imatrix as the output used it. */
static int open_imatrix(struct checker *c, const char *path)
{
    const struct verify_file *f = &c->s->files[0];
    const char *const *words = (const char *const *)f->imatrix_words;
    uint32_t n = (uint32_t)f->n_imatrix_words;
    struct sl_job_options o = {.imatrix = path};

    c->words = (struct sl_weight_words){words, n, f->imatrix_keep};
    c->synthetic = f->imatrix_hash && strcmp(f->imatrix_hash, SL_IMATRIX_SYNTHETIC) == 0;
    if (!path || (c->synthetic && strcmp(path, "synthetic") == 0))
        return 0;
    if (c->synthetic || strcmp(path, "synthetic") == 0)
        return sl_fail(c->e, SL_EUSAGE, "%s was made with %s importance matrix; --imatrix %s is another",
                       f->g.path, c->synthetic ? "a synthetic" : f->imatrix ? "a file as its" : "no", path);
    if (!f->imatrix)
        return sl_fail(c->e, SL_EUSAGE, "--imatrix: %s was made without an importance matrix", f->g.path);
    if (f->imatrix_keep) {
        o.include_weights = words;
        o.n_include_weights = n;
    } else {
        o.exclude_weights = words;
        o.n_exclude_weights = n;
    }
    SL_TRY(sl_job_imatrix_open(&o, c->sample->roots, &c->im, c->e));
    if (c->im && f->imatrix_hash && strcmp(c->im->hash, f->imatrix_hash) != 0)
        return sl_fail(c->e, SL_EUSAGE, "%s was made with another importance matrix than %s: hash %.32s, not %s",
                       f->g.path, path, f->imatrix_hash, c->im->hash);
    return 0;
}

int verify_source(const struct verify_set *s, const char *checkpoint, const char *imatrix,
                  const struct verify_sample *sample, struct verify_report *r,
                  struct verify_tally *tally, struct sl_error *e)
{
    struct checker c = {.s = s, .sample = sample, .r = r, .tally = tally, .random = sample->seed,
                        .fd = -1, .source = checkpoint, .tells = r->failures > 0, .e = e};
    struct sl_model_opts opts;
    int rc;

    *tally = (struct verify_tally){0};
    if (read_settings(&c, &opts) < 0)
        return 0;
    c.ck = sample->ck;
    c.m = sample->model;
    rc = open_imatrix(&c, imatrix);
    if (rc == 0 && !c.ck)
        rc = sl_checkpoint_open_within(checkpoint, sample->roots, NULL, &c.ck, e);
    if (rc == 0 && !c.m)
        rc = sl_model_open(c.ck, &opts, &c.m, e);
    if (rc == 0)
        rc = source_reader_open(c.ck, c.m, &c.src, e);
    if (rc == 0 && c.synthetic)
        rc = synthetic_open(c.ck, c.m, &c.made_up, e);
    if (rc == 0)
        rc = check_names_and_blocks(&c);
    if (c.fd >= 0)
        close(c.fd);
    free(c.x);
    free(c.made);
    free(c.got);
    free(c.row);
    free(c.row_weights);
    free(c.row_made);
    free(c.held);
    sl_imatrix_close(c.im);
    source_reader_close(c.src);
    synthetic_close(c.made_up);
    if (c.m != sample->model)
        sl_model_close(c.m);
    if (c.ck != sample->ck)
        sl_checkpoint_close(c.ck);
    return rc;
}
