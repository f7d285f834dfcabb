#include "proto/mixture.h"

#include <string.h>
#include <strings.h>

/* When the rules for ffn_down apply. */
enum when { ALWAYS = 0, WITHOUT_IMATRIX, WITH_IMATRIX };

/* A mixture as data. Types are ggml ids; 0 (f32, which no rule gives) means
 * "the base type". Rules of one tensor are tried in the order written. */
struct sl_mixture {
    const char *name;
    uint8_t file_type, base;
    bool low_bit;             /* the family that counts ffn_down tensors, not layers */
    bool output_q5_k;         /* output in q5_k instead of q6_k */
    bool eight_q5_k;          /* attn_output in q5_k when there are 8 experts */
    uint8_t embd;             /* token_embd */
    uint8_t attn_out, qk, qkv; /* qkv: rules of 2025 only */
    uint8_t v_gqa;            /* attn_v where 4 or more heads share it */
    uint8_t v_first, v_first_n; /* attn_v of the first v_first_n layers */
    uint8_t v_more;           /* attn_v of the layers that get more bits */
    uint8_t v_rest, v_rest_plain; /* other attn_v; v_rest_plain: without an imatrix */
    enum when down_when;
    uint8_t down_first, down_first_div; /* ffn_down of layers < n / down_first_div */
    uint8_t down_more, down_more_8;     /* of more-bits layers; _8: with 8 experts */
    uint8_t down_rest;
    uint8_t mid_gate_up;      /* ffn_gate, ffn_up outside the first and last eighth */
};

#define T(x) SL_TYPE_##x
static const struct sl_mixture mixtures[] = {
    {.name = "f32", .file_type = 0, .base = T(F32)},
    {.name = "f16", .file_type = 1, .base = T(F16)},
    {.name = "bf16", .file_type = 32, .base = T(BF16)},
    {.name = "q8_0", .file_type = 7, .base = T(Q8_0)},
    {.name = "mxfp4_moe", .file_type = 38, .base = T(MXFP4)},
    {.name = "q1_0", .file_type = 40, .base = T(Q1_0)},
    {.name = "q2_0", .file_type = 41, .base = T(Q2_0), .embd = T(Q4_K)},
    {.name = "tq1_0", .file_type = 36, .base = T(TQ1_0), .embd = T(Q4_K)},
    {.name = "tq2_0", .file_type = 37, .base = T(TQ2_0), .embd = T(Q4_K)},
    {.name = "q4_0", .file_type = 2, .base = T(Q4_0), .down_when = WITH_IMATRIX,
     .down_first = T(Q4_1), .down_first_div = 8},
    {.name = "q4_1", .file_type = 3, .base = T(Q4_1)},
    {.name = "q5_0", .file_type = 8, .base = T(Q5_0), .down_when = WITH_IMATRIX,
     .down_first = T(Q5_1), .down_first_div = 8},
    {.name = "q5_1", .file_type = 9, .base = T(Q5_1)},
    {.name = "q2_k", .file_type = 10, .base = T(Q2_K), .eight_q5_k = true, .attn_out = T(Q3_K),
     .v_gqa = T(Q4_K), .v_rest = T(Q3_K), .down_rest = T(Q3_K)},
    {.name = "q2_k_s", .file_type = 21, .base = T(Q2_K), .v_gqa = T(Q4_K),
     .down_first = T(Q4_K), .down_first_div = 8},
    {.name = "q3_k_s", .file_type = 11, .base = T(Q3_K), .eight_q5_k = true},
    {.name = "q3_k_m", .file_type = 12, .base = T(Q3_K), .eight_q5_k = true, .attn_out = T(Q4_K),
     .qkv = T(Q4_K), .v_first = T(Q5_K), .v_first_n = 2, .v_rest = T(Q4_K),
     .down_first = T(Q5_K), .down_first_div = 16, .down_rest = T(Q4_K)},
    {.name = "q3_k_l", .file_type = 13, .base = T(Q3_K), .attn_out = T(Q5_K), .qkv = T(Q4_K),
     .v_rest = T(Q5_K), .down_rest = T(Q5_K)},
    {.name = "q4_k_s", .file_type = 14, .base = T(Q4_K), .eight_q5_k = true,
     .v_first = T(Q5_K), .v_first_n = 4, .down_first = T(Q5_K), .down_first_div = 8},
    {.name = "q4_k_m", .file_type = 15, .base = T(Q4_K), .eight_q5_k = true, .qkv = T(Q5_K),
     .v_more = T(Q6_K), .down_more = T(Q6_K)},
    {.name = "q5_k_s", .file_type = 16, .base = T(Q5_K)},
    {.name = "q5_k_m", .file_type = 17, .base = T(Q5_K), .qkv = T(Q6_K), .v_more = T(Q6_K),
     .down_more = T(Q6_K)},
    {.name = "q6_k", .file_type = 18, .base = T(Q6_K)},
    {.name = "iq4_nl", .file_type = 25, .base = T(IQ4_NL), .eight_q5_k = true, .v_gqa = T(Q5_K),
     .down_when = WITHOUT_IMATRIX, .down_first = T(Q5_K), .down_first_div = 8},
    {.name = "iq4_xs", .file_type = 30, .base = T(IQ4_XS), .eight_q5_k = true, .v_gqa = T(Q5_K),
     .down_when = WITHOUT_IMATRIX, .down_first = T(Q5_K), .down_first_div = 8},
    {.name = "iq3_xxs", .file_type = 23, .base = T(IQ3_XXS), .output_q5_k = true,
     .eight_q5_k = true, .embd = T(IQ3_S), .attn_out = T(IQ3_S), .qk = T(IQ2_S),
     .v_gqa = T(Q4_K), .v_rest_plain = T(IQ3_S), .down_when = WITHOUT_IMATRIX,
     .down_first = T(Q4_K), .down_first_div = 8, .down_rest = T(Q3_K)},
    {.name = "iq3_xs", .file_type = 22, .base = T(IQ3_S), .eight_q5_k = true, .qk = T(IQ3_XXS),
     .v_gqa = T(Q4_K), .mid_gate_up = T(IQ3_XXS)},
    {.name = "iq3_s", .file_type = 26, .base = T(IQ3_S), .eight_q5_k = true, .v_gqa = T(Q4_K)},
    {.name = "iq3_m", .file_type = 27, .base = T(IQ3_S), .eight_q5_k = true, .attn_out = T(Q4_K),
     .qkv = T(Q4_K), .v_rest = T(Q4_K), .down_first = T(Q4_K), .down_first_div = 8,
     .down_more_8 = T(Q4_K)},
    {.name = "iq2_xxs", .file_type = 19, .base = T(IQ2_XXS), .low_bit = true, .output_q5_k = true,
     .embd = T(Q2_K), .v_rest = T(Q2_K), .down_first = T(Q2_K)},
    {.name = "iq2_xs", .file_type = 20, .base = T(IQ2_XS), .low_bit = true, .output_q5_k = true,
     .embd = T(Q2_K), .v_rest = T(Q2_K), .down_first = T(Q2_K)},
    {.name = "iq2_s", .file_type = 28, .base = T(IQ2_XS), .low_bit = true, .output_q5_k = true,
     .embd = T(IQ3_S), .attn_out = T(IQ3_S), .v_rest = T(IQ3_S), .down_first = T(IQ3_S)},
    {.name = "iq2_m", .file_type = 29, .base = T(IQ2_S), .low_bit = true, .output_q5_k = true,
     .embd = T(IQ3_S), .attn_out = T(IQ3_S), .v_rest = T(IQ3_S), .down_first = T(IQ3_S)},
    {.name = "iq1_s", .file_type = 24, .base = T(IQ1_S), .low_bit = true, .output_q5_k = true,
     .embd = T(Q2_K), .attn_out = T(IQ2_XXS), .v_rest = T(Q2_K), .down_first = T(Q2_K)},
    {.name = "iq1_m", .file_type = 31, .base = T(IQ1_M), .low_bit = true, .output_q5_k = true,
     .embd = T(Q2_K), .attn_out = T(IQ2_XXS), .v_rest = T(Q2_K), .down_first = T(Q2_K)},
};
#define N_MIXTURES (sizeof mixtures / sizeof mixtures[0])

/* What a tensor is to the rules, found by parts of its name. */
enum role { R_OUTPUT, R_EMBD, R_QKV, R_KV_B, R_V, R_K, R_Q, R_ATTN_OUT, R_UP, R_GATE, R_DOWN,
            R_OTHER };

const struct sl_mixture *sl_mixture_at(uint32_t i)
{
    return i < N_MIXTURES ? &mixtures[i] : NULL;
}

const struct sl_mixture *sl_mixture_by_name(const char *name)
{
    for (size_t i = 0; i < N_MIXTURES; i++)
        if (strcasecmp(mixtures[i].name, name) == 0)
            return &mixtures[i];
    return NULL;
}

const char *sl_mixture_name(const struct sl_mixture *x)
{
    return x->name;
}

uint32_t sl_mixture_file_type(const struct sl_mixture *x)
{
    return x->file_type;
}

int sl_mixture_base_type(const struct sl_mixture *x)
{
    return x->base;
}

bool sl_mixture_is_outtype(const struct sl_mixture *x)
{
    return x->base == T(F32) || x->base == T(F16) || x->base == T(BF16) || x->base == T(Q8_0);
}

bool sl_mixture_more_bits(uint64_t i, uint64_t n)
{
    return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

bool sl_tensor_layer(const char *name, uint64_t *layer)
{
    uint64_t v = 0;
    const char *s = name + 4;

    if (strncmp(name, "blk.", 4) != 0 || *s < '0' || *s > '9')
        return false;
    for (; *s >= '0' && *s <= '9'; s++) {
        if (v > UINT32_MAX)
            return false;
        v = v * 10 + (uint64_t)(*s - '0');
    }
    *layer = v;
    return *s == '.';
}

static enum role role_of(const char *name)
{
    static const struct {
        const char *part;
        enum role role;
    } parts[] = {
        {"attn_qkv.weight", R_QKV}, {"attn_kv_b.weight", R_KV_B}, {"attn_v.weight", R_V},
        {"attn_k.weight", R_K}, {"attn_q.weight", R_Q}, {"attn_output.weight", R_ATTN_OUT},
        {"ffn_up", R_UP}, {"ffn_gate", R_GATE}, {"ffn_down", R_DOWN},
    };

    if (strcmp(name, "output.weight") == 0)
        return R_OUTPUT;
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0)
        return R_EMBD;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (strstr(name, parts[i].part))
            return parts[i].role;
    return R_OTHER;
}

/* In 2025 only attn_v itself had the value tensor's rules, though fused ones
 * were counted with it. */
static bool like_attn_v(enum role r, bool rules_2025)
{
    return r == R_V || (!rules_2025 && (r == R_QKV || r == R_KV_B));
}

void sl_mixture_begin(struct sl_mixture_pass *p, const struct sl_mixture *x,
                      const struct sl_model *m, bool has_imatrix, bool rules_2025)
{
    memset(p, 0, sizeof *p);
    p->x = x;
    p->m = m;
    p->has_imatrix = has_imatrix;
    p->rules_2025 = rules_2025;
    p->output_type = -1;
    p->tied = true;
    for (uint32_t i = 0; i < m->n_tensors; i++) {
        enum role r = role_of(m->tensors[i].name);

        p->n_attn_v += r == R_V || r == R_QKV || r == R_KV_B;
        if (r == R_OUTPUT)
            p->tied = false;
    }
}

static int or_base(const struct sl_mixture_pass *p, int type)
{
    return type ? type : p->x->base;
}

static bool is_falcon(const struct sl_mixture_pass *p)
{
    return strcmp(p->m->arch, "falcon") == 0;
}

static uint64_t heads_per_kv(const struct sl_mixture_pass *p)
{
    return p->m->hp.n_head_kv ? p->m->hp.n_head / p->m->hp.n_head_kv : 0;
}

static int output_type(const struct sl_mixture_pass *p, const struct sl_out_tensor *t)
{
    const struct sl_type_info *base = sl_type_info(p->x->base);

    if (p->output_type >= 0)
        return p->output_type;
    if (is_falcon(p) || t->ne[0] % base->block || p->x->base == SL_TYPE_MXFP4)
        return SL_TYPE_Q8_0;
    if (p->x->output_q5_k)
        return SL_TYPE_Q5_K;
    return p->x->base == SL_TYPE_Q8_0 ? SL_TYPE_Q8_0 : SL_TYPE_Q6_K;
}

/* The models that llama.cpp takes for one of 70 billion weights: attn_v is small there, and gets more bits. */
static bool is_70b(const struct sl_mixture_pass *p)
{
    static const struct {
        const char *arch;
        uint8_t n_layer;
        bool shared_heads, in_2025_alone;
    } big[] = {
        {"llama", 80, true, false}, {"llama-embed", 80, true, false}, {"qwen2", 80, false, false}, {"qwen2vl", 80, false, true},
        {"deci", 80, false, false}, {"olmo", 80, false, false}, {"jais2", 68, false, false},
    };
    const struct sl_hparams *hp = &p->m->hp;

    for (size_t i = 0; i < sizeof big / sizeof big[0]; i++)
        if (hp->n_layer == big[i].n_layer && strcmp(p->m->arch, big[i].arch) == 0)
            return (!big[i].in_2025_alone || p->rules_2025) && (!big[i].shared_heads || hp->n_head != hp->n_head_kv);
    return false;
}

static int attn_v_type(struct sl_mixture_pass *p)
{
    const struct sl_mixture *x = p->x;
    uint64_t i = p->i_attn_v++;
    int type = x->base;

    if (x->low_bit)
        return heads_per_kv(p) >= 4 || p->m->hp.n_expert >= 4 ? SL_TYPE_Q4_K : x->v_rest;
    if (x->v_gqa && heads_per_kv(p) >= 4)
        type = x->v_gqa;
    else if (x->v_rest_plain && !p->has_imatrix)
        type = x->v_rest_plain;
    else if (x->v_more && sl_mixture_more_bits(i, p->n_attn_v))
        type = x->v_more;
    else if (x->v_first && i < x->v_first_n)
        type = x->v_first;
    else if (x->v_rest)
        type = x->v_rest;
    if (is_70b(p) && (type == SL_TYPE_Q3_K || type == SL_TYPE_Q4_K))
        type = SL_TYPE_Q5_K;
    return p->m->hp.n_expert == 8 ? SL_TYPE_Q8_0 : type;
}

/* Falcon's own ffn_down types, where they differ; 0: as everywhere. */
static int falcon_down(const struct sl_mixture *x, uint64_t i, uint64_t n)
{
    bool more = sl_mixture_more_bits(i, n);

    switch (x->file_type) {
    case 12: return i < n / 16 ? SL_TYPE_Q5_K : more ? SL_TYPE_Q4_K : SL_TYPE_Q3_K;
    case 13: return SL_TYPE_Q4_K;
    case 14: return SL_TYPE_Q4_K;
    case 15: return i < n / 16 ? SL_TYPE_Q6_K : more ? SL_TYPE_Q5_K : SL_TYPE_Q4_K;
    default: return 0;
    }
}

static int down_type(struct sl_mixture_pass *p, uint64_t i, uint64_t n)
{
    const struct sl_mixture *x = p->x;

    if (is_falcon(p) && falcon_down(x, i, n))
        return falcon_down(x, i, n);
    if ((x->down_when == WITHOUT_IMATRIX && p->has_imatrix)
        || (x->down_when == WITH_IMATRIX && !p->has_imatrix))
        return x->base;
    if (x->down_first && i < n / x->down_first_div)
        return x->down_first;
    if (x->down_more && sl_mixture_more_bits(i, n))
        return x->down_more;
    if (x->down_more_8 && p->m->hp.n_expert == 8 && sl_mixture_more_bits(i, n))
        return x->down_more_8;
    return or_base(p, x->down_rest);
}

static int attn_out_type(const struct sl_mixture_pass *p)
{
    const struct sl_mixture *x = p->x;

    if (is_falcon(p) && !x->low_bit)
        return x->file_type == 13 ? SL_TYPE_Q4_K : x->base;
    if (p->m->hp.n_expert == 8)
        return x->low_bit || x->eight_q5_k ? SL_TYPE_Q5_K : x->base;
    return or_base(p, x->attn_out);
}

/* With experts the layer is in the name; without, ffn_down tensors are counted. */
static int ffn_layer(const struct sl_mixture_pass *p, const struct sl_out_tensor *t,
                     uint64_t *layer, struct sl_error *e)
{
    if (p->m->hp.n_expert > 1 && !p->m->hp.n_layer)
        return sl_fail(e, SL_EUNSUPPORTED, "%s: mixture %s goes by the number of layers, which the source does not say (%.80s.block_count)",
                       t->name, p->x->name, p->m->arch);
    if (p->m->hp.n_expert > 1
        && (!sl_tensor_layer(t->name, layer) || *layer >= p->m->hp.n_layer))
        return sl_fail(e, SL_EUNSUPPORTED,
                       "%s: mixture %s needs the layer of this tensor, expected a name that "
                       "begins with blk.0. to blk.%llu.",
                       t->name, p->x->name, (unsigned long long)(p->m->hp.n_layer - 1));
    return 0;
}

static int ffn_type(struct sl_mixture_pass *p, const struct sl_out_tensor *t, enum role role,
                    struct sl_error *e)
{
    const struct sl_mixture *x = p->x;
    uint64_t n = p->m->hp.n_layer, layer = p->i_ffn_down;

    if (role != R_DOWN) {
        if (!x->mid_gate_up)
            return x->base;
        layer = role == R_UP ? p->i_ffn_up++ : p->i_ffn_gate++;
        SL_TRY(ffn_layer(p, t, &layer, e));
        return layer >= n / 8 && layer < 7 * n / 8 ? x->mid_gate_up : x->base;
    }
    p->i_ffn_down++;
    if (x->low_bit)
        return layer < n / 8 ? x->down_first : x->base;
    SL_TRY(ffn_layer(p, t, &layer, e));
    return down_type(p, layer, n);
}

int sl_mixture_type(struct sl_mixture_pass *p, const struct sl_out_tensor *t, struct sl_error *e)
{
    const struct sl_mixture *x = p->x;
    enum role role = role_of(t->name);

    if (sl_type_info(x->base)->block == 1)
        return x->base;
    if (role == R_OUTPUT || (p->tied && role == R_EMBD))
        return output_type(p, t);
    if (x->base == SL_TYPE_MXFP4) /* tensors of three dimensions are the experts' */
        return t->ne[2] > 1 ? SL_TYPE_MXFP4 : SL_TYPE_Q8_0;
    if (like_attn_v(role, p->rules_2025))
        return attn_v_type(p);
    switch (role) {
    case R_EMBD: return or_base(p, x->embd);
    case R_K:
        if (p->m->hp.n_expert == 8)
            return x->low_bit ? SL_TYPE_Q4_K : SL_TYPE_Q8_0;
        return or_base(p, x->qk);
    case R_Q: return or_base(p, x->qk);
    case R_ATTN_OUT: return attn_out_type(p);
    case R_QKV: return or_base(p, x->qkv);
    case R_UP:
    case R_GATE:
    case R_DOWN: return ffn_type(p, t, role, e);
    default: return x->base;
    }
}

bool sl_mixture_quantizable(const struct sl_out_tensor *t)
{
    static const char *const left_alone[] = {
        "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel",
        "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight",
        "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight",
        "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
        "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
        "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight",
        "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight", "attn_rel_b.weight",
        ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
        ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
    };
    size_t len = strlen(t->name);

    /* A trailing dimension of 1 is no dimension to ggml. */
    if (t->ne[1] <= 1 && t->ne[2] <= 1 && t->ne[3] <= 1)
        return false;
    if (len < 6 || strcmp(t->name + len - 6, "weight") != 0)
        return false;
    if (strcmp(t->name, "position_embd.weight") == 0 || strcmp(t->name, "token_types.weight") == 0)
        return false;
    for (size_t i = 0; i < sizeof left_alone / sizeof left_alone[0]; i++)
        if (strstr(t->name, left_alone[i]))
            return false;
    return true;
}

int sl_mixture_fallback(int type, uint64_t cols, bool rules_2025)
{
    const struct sl_type_info *info = sl_type_info(type);
    int other;

    if (!info || cols % info->block == 0)
        return type;
    switch (type) {
    case SL_TYPE_Q2_K:
    case SL_TYPE_Q3_K: other = rules_2025 ? SL_TYPE_IQ4_NL : SL_TYPE_Q4_0; break;
    case SL_TYPE_Q2_0:
    case SL_TYPE_TQ1_0:
    case SL_TYPE_TQ2_0: other = SL_TYPE_Q4_0; break;
    case SL_TYPE_Q1_0: return -1;
    case SL_TYPE_Q4_K: other = SL_TYPE_Q5_0; break;
    case SL_TYPE_Q5_K: other = SL_TYPE_Q5_1; break;
    case SL_TYPE_Q6_K: other = SL_TYPE_Q8_0; break;
    default:
        if (info->block != 256)
            return rules_2025 ? -1 : SL_TYPE_F16;
        other = SL_TYPE_IQ4_NL; /* all the iq types of 256 */
    }
    return cols % sl_type_info(other)->block ? SL_TYPE_F16 : other;
}

bool sl_mixture_needs_imatrix(const struct sl_mixture *x, const char *name, int type,
                              bool rules_2025)
{
    bool edge = strcmp(name, "output.weight") == 0 || role_of(name) == R_EMBD;

    switch (type) {
    case SL_TYPE_IQ2_XXS:
    case SL_TYPE_IQ2_XS:
    case SL_TYPE_IQ1_S: return true; /* the quantizer itself cannot do without */
    case SL_TYPE_IQ2_S:
    case SL_TYPE_IQ1_M: return !edge;
    case SL_TYPE_IQ3_XXS: return !edge && !rules_2025;
    case SL_TYPE_Q2_K: return !edge && x && strcmp(x->name, "q2_k_s") == 0;
    default: return false;
    }
}
