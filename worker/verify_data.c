/* One pass over the tensor bytes: checksums, padding, and numbers that a
 * dequantizer can use. */
#include "worker/verify.h"

#include <string.h>

#define BLOCK_MAX 256 /* bytes; the largest block has 210 */

struct pass {
    const struct verify_file *f;
    struct sl_hash *tensor, *total;
    struct verify_report *r;
    uint64_t bytes;
    bool reported;              /* a bad number of the current tensor is told already */
    uint8_t carry[BLOCK_MAX];   /* the beginning of a block that a piece ended in */
    uint32_t carry_n;
    int (*progress)(void *, uint64_t);
    void *user;
};

/* An exponent of all ones is infinity or NaN. */
static bool f16_finite(const uint8_t *p)
{
    return (p[1] & 0x7c) != 0x7c;
}

/* Where a block's F16 scales lie: up to two places, -1 for none. */
static void scale_places(int type, int at[2])
{
    at[0] = 0;
    at[1] = -1;
    switch (type) {
    case SL_TYPE_Q4_1: case SL_TYPE_Q5_1: case SL_TYPE_Q4_K: case SL_TYPE_Q5_K: at[1] = 2; break;
    case SL_TYPE_Q2_K: at[0] = 80; at[1] = 82; break;
    case SL_TYPE_Q3_K: at[0] = 108; break;
    case SL_TYPE_Q6_K: at[0] = 208; break;
    case SL_TYPE_TQ1_0: at[0] = 52; break;
    case SL_TYPE_TQ2_0: at[0] = 64; break;
    case SL_TYPE_NVFP4: case SL_TYPE_I8: case SL_TYPE_I16: case SL_TYPE_I32: case SL_TYPE_I64: at[0] = -1; break;
    default: break;
    }
}

/* iq1_m keeps its scale in the top four bits of four 16-bit words. */
static bool iq1_m_finite(const uint8_t *block)
{
    const uint8_t *s = block + 48;
    uint8_t high = (uint8_t)((s[5] >> 4) | (s[7] & 0xf0));
    uint8_t scale[2] = {0, high};

    return f16_finite(scale);
}

static bool block_finite(int type, const uint8_t *p, const int at[2])
{
    switch (type) {
    case SL_TYPE_F32: return (p[3] & 0x7f) != 0x7f || (p[2] & 0x80) == 0;
    case SL_TYPE_BF16: return (p[1] & 0x7f) != 0x7f || (p[0] & 0x80) == 0;
    case SL_TYPE_F64: return (p[7] & 0x7f) != 0x7f || (p[6] & 0xf0) != 0xf0;
    case SL_TYPE_IQ1_M: return iq1_m_finite(p);
    case SL_TYPE_MXFP4: return p[0] != 255;
    default: return (at[0] < 0 || f16_finite(p + at[0])) && (at[1] < 0 || f16_finite(p + at[1]));
    }
}

static void bad_number(struct pass *p, const struct sl_gguf_tensor *t, uint64_t block)
{
    if (!p->reported)
        verify_failed(p->r, "%s: tensor %s: block %llu: %s is infinite or not a number", p->f->g.path,
                      t->name, (unsigned long long)block,
                      sl_type_info(t->type)->block == 1 ? "a value" : "a scale");
    p->reported = true;
}

/* Bytes from `off` of a tensor on; blocks may straddle pieces. */
static void check_numbers(struct pass *p, const struct sl_gguf_tensor *t, uint64_t off,
                          const uint8_t *bytes, uint64_t n)
{
    uint32_t size = sl_type_info(t->type)->bytes;
    uint64_t block = off / size;
    int at[2];

    scale_places(t->type, at);
    if (p->carry_n) {
        uint32_t rest = size - p->carry_n;

        if (rest > n)
            rest = (uint32_t)n;
        memcpy(p->carry + p->carry_n, bytes, rest);
        p->carry_n += rest;
        bytes += rest;
        n -= rest;
        if (p->carry_n < size)
            return;
        if (!block_finite(t->type, p->carry, at))
            bad_number(p, t, block);
        p->carry_n = 0;
        block++;
    }
    for (; n >= size; bytes += size, n -= size, block++)
        if (!block_finite(t->type, bytes, at))
            bad_number(p, t, block);
    memcpy(p->carry, bytes, n);
    p->carry_n = (uint32_t)n;
}

static int on_data(void *user, uint64_t index, uint64_t off, const uint8_t *bytes, uint64_t n)
{
    struct pass *p = user;

    p->bytes += n;
    check_numbers(p, &p->f->g.tensors[index], off, bytes, n);
    SL_TRY(sl_hash_update(p->tensor, bytes, n));
    return sl_hash_update(p->total, bytes, n);
}

/* The pass goes on after a wrong checksum: the user wants to know them all. */
static int on_tensor(void *user, uint64_t index)
{
    struct pass *p = user;
    uint64_t sum;

    SL_TRY(sl_hash_final(p->tensor, &sum, NULL));
    p->reported = false;
    if (p->f->sums && p->f->sums[index] != sum)
        verify_failed(p->r, "%s: tensor %s: checksum %016llx, must be %016llx", p->f->g.path,
                      p->f->g.tensors[index].name, (unsigned long long)sum,
                      (unsigned long long)p->f->sums[index]);
    return 0;
}

static int on_progress(void *user, uint64_t n)
{
    struct pass *p = user;

    return p->progress ? p->progress(p->user, n) : 0;
}

static void failed_header(struct pass *p)
{
    if (p->f->damage)
        verify_failed(p->r, "%s", p->f->damage);
    else
        verify_failed(p->r, "%s: header: metadata or tensor infos do not match metadata key sluice.checksum.header; "
                      "the key sluice.checksum.records, which says where, is absent or damaged", p->f->g.path);
}

static int check_file(struct pass *p, bool sha256, struct sl_hash_total *total, struct sl_error *e)
{
    struct sl_stream_ops ops = {on_data, on_tensor, on_progress, p};
    struct sl_hash_total sum = {.has_sha256 = sha256};
    int rc;

    if (p->f->sluice && (p->f->damage || !p->f->header_sum_ok))
        failed_header(p);
    sl_fail(e, SL_EFAIL, "%s: hashing failed", p->f->g.path);
    rc = sl_gguf_stream(p->f->g.path, &p->f->g, &ops, e);
    if (rc == SL_EVERIFY) {
        verify_failed(p->r, "%s", e->text);
        rc = 0;
    }
    sum.bytes = p->bytes;
    if (rc == 0)
        rc = sl_hash_final(p->total, &sum.xxh64, sum.sha256);
    if (rc == 0 && total)
        *total = sum;
    return rc;
}

int verify_data(const struct verify_set *s, bool sha256, struct sl_hash_total *totals,
                struct verify_report *r, int (*progress)(void *user, uint64_t bytes), void *user,
                struct sl_error *e)
{
    int rc = 0;

    for (uint32_t i = 0; i < s->n && rc == 0; i++) {
        struct pass p = {.f = &s->files[i], .r = r, .progress = progress, .user = user,
                         .tensor = sl_hash_new(false), .total = sl_hash_new(sha256)};

        if (p.tensor && p.total)
            rc = check_file(&p, sha256, totals ? &totals[i] : NULL, e);
        else
            rc = sl_no_memory(e);
        sl_hash_free(p.tensor);
        sl_hash_free(p.total);
    }
    return rc;
}
