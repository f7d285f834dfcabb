#include "proto/arch_table.h"

#include "proto/suffix.h"

#include <string.h>

uint32_t sl_arch_layer_facts(const struct sl_params *p, uint64_t i)
{
    uint64_t step = p->num[SL_N_MOE_STEP].u;
    uint8_t kind = p->has_kinds ? p->kinds[i] : i < p->num[SL_N_DENSE].u || (step && (i + 1) % step) ? SL_LAYER_DENSE : 0;
    bool dense = !p->num[SL_N_EXPERT].have || (kind & SL_LAYER_DENSE);
    bool shared = i < p->n_indexer_types && !p->indexer_full[i], hashed = i < p->num[SL_N_HASHED].u;
    int32_t ratio = i < p->n_ratios ? p->ratios[i] : 0;
    bool nextn = i + p->num[SL_N_NEXTN].u >= p->num[SL_N_LAYER].u, every = p->num[SL_N_FULL_EVERY].have;
    bool linear = p->n_linear ? p->linear[i] : every && !nextn && (i + 1) % p->num[SL_N_FULL_EVERY].u != 0;

    return (p->when & ~(shared ? (uint32_t)SL_W_INDEXER : 0) & ~(hashed ? (uint32_t)SL_W_CORR : 0)) | SL_W_LAYER |
           (dense ? SL_W_DENSE : SL_W_MOE) | (hashed ? SL_W_HASHED : 0) |
           (ratio == SL_FINE ? SL_W_FINE : ratio ? SL_W_COARSE : 0) |
           (linear ? SL_W_LINEAR : kind & SL_LAYER_WINDOW ? SL_W_WINDOW : SL_W_FULL) |
           (kind & SL_LAYER_SINKS ? SL_W_SINKS : 0) | (nextn ? SL_W_NEXTN : SL_W_TRUNK);
}

static size_t put_number(char buf[20], uint64_t v)
{
    char rev[20];
    size_t n = 0;

    do
        rev[n++] = (char)('0' + v % 10);
    while ((v /= 10) != 0);
    for (size_t i = 0; i < n; i++)
        buf[i] = rev[n - 1 - i];
    return n;
}

bool sl_arch_name(char *buf, size_t cap, const char *tmpl, uint64_t i, uint64_t e)
{
    size_t at = 0;

    for (const char *s = tmpl; *s;) {
        char digits[20];
        size_t n = 1;
        const char *from = s;

        if (strncmp(s, "{f}", 3) == 0) {
            from = e == 0 ? "norm" : "proj";
            n = 4;
            s += 3;
        } else if (strncmp(s, "{i}", 3) == 0 || strncmp(s, "{e}", 3) == 0) {
            n = put_number(digits, s[1] == 'i' ? i : e);
            from = digits;
            s += 3;
        } else {
            s++;
        }
        if (n >= cap - at)
            return false;
        memcpy(buf + at, from, n);
        at += n;
    }
    buf[at] = '\0';
    return true;
}

bool sl_arch_in_layer(const char *name, const char *prefix, uint64_t *i, const char **rest)
{
    size_t n = strlen(prefix);
    const char *s = name + n;

    if (strncmp(name, prefix, n) != 0 || *s < '0' || *s > '9')
        return false;
    for (*i = 0; *s >= '0' && *s <= '9' && *i < UINT32_MAX; s++)
        *i = *i * 10 + (uint64_t)(*s - '0');
    *rest = s;
    return true;
}

bool sl_arch_drops(const struct sl_params *p, const char *name)
{
    const char *rest;
    uint64_t i;

    if (sl_ends_with(name, ".attention.masked_bias") || sl_ends_with(name, ".attention.bias") ||
        sl_ends_with(name, ".rotary_emb.inv_freq"))
        return true;
    if (p->arch->drops)
        return p->arch->drops(p, name);
    if (strcmp(name, "lm_head.weight") == 0)
        return p->tied && !p->arch->output_if_there;
    return (p->arch->drops_mtp || p->no_mtp) && sl_arch_in_layer(name, "model.layers.", &i, &rest) && i >= p->num[SL_N_LAYER].u;
}

bool sl_arch_sees(const struct sl_params *p, const char *name)
{
    static const char *const parts[] = {"vision_tower.", "mm_projector.", "multi_modal_projector.", "patch_merge_mlp.",
                                        "model.visual.", "visual.", "audio_encoder.", "speech_embeddings.",
                                        "vision_encoder.", "vision_language_adapter.", "patch_merger.", "pre_mm_projector_norm.",
                                        "model.vision_model.", "vision_model.", "model.vit_large_projector.", "vit_large_projector."};

    for (size_t i = 0; i < sizeof parts / sizeof *parts && p->vision; i++)
        if (strncmp(name, parts[i], strlen(parts[i])) == 0)
            return true;
    return false;
}

bool sl_arch_is_router(const char *name)
{
    return sl_ends_with(name, "ffn_gate_inp.weight");
}

bool sl_arch_keeps_f32(const char *name, uint32_t n_dims)
{
    return n_dims <= 1 || !sl_ends_with(name, "weight") || sl_ends_with(name, "_norm.weight") || sl_arch_is_router(name) ||
           sl_ends_with(name, ".indexer.q_proj.weight") || sl_ends_with(name, ".indexer.k_proj.weight") ||
           sl_ends_with(name, ".ffn_gate_inp_shexp.weight") || strstr(name, ".ssm_conv1d") != NULL;
}

bool sl_arch_outtype_f32(const char *name)
{
    return sl_ends_with(name, ".indexer.proj.weight");
}
