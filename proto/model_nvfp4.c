/* Tensors in NVFP4 as llama.cpp's converter writes them: what scales a whole one, and its input, are tensors beside it. */
#include "proto/model_source.h"
#include "proto/suffix.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Whether its sources are NVFP4: 1 all, 0 none, or one is missing, which is told later. */
static int all_nvfp4(const struct sl_model *m, bool planned, const struct sl_out_tensor *o, struct sl_error *e)
{
    const struct sl_model_src *s = &m->src[o->first_src];
    uint32_t n = 0;

    for (uint32_t i = 0; i < o->n_src; i++) {
        if (!planned && s[i].tensor == SL_NO_TENSOR)
            return 0;
        n += sl_model_src_nvfp4(&s[i]);
    }
    if (n == 0 || n == o->n_src)
        return n > 0;
    return sl_fail(e, SL_EUNSUPPORTED, "%s: of its %" PRIu32 " sources %" PRIu32 " are NVFP4 and the others are not, which is "
                   "not supported: give an FP8 or BF16 checkpoint of the model", o->name, o->n_src, n);
}

/* llama.cpp has a graph of its own for each architecture, and not all apply a scale of the whole. */
static int check_applied(const struct sl_arch *arch, const struct sl_out_tensor *o, struct sl_error *e)
{
    const char *stem = strncmp(o->name, "blk.", 4) == 0 ? strchr(o->name + 4, '.') : NULL;
    char word[SL_NAME_MAX + 2];

    stem = stem ? stem + 1 : o->name;
    snprintf(word, sizeof word, " %.*s ", (int)sl_stem(stem, ".weight"), stem);
    if (arch->own_scales && strstr(arch->own_scales, word))
        return 0;
    return sl_fail(e, SL_EUNSUPPORTED, "%s is NVFP4, and llama.cpp's %s does not apply what scales it as a whole: every file of it "
                   "would be wrong; give an FP8 or BF16 checkpoint of the model", o->name, arch->name);
}

/* Appends o's scale named by suffix: a number of each of its sources. */
static int add_own_scale(struct sl_model *m, const struct sl_checkpoint *ck, const struct sl_out_tensor *o, const char *suffix,
                         bool of_input, struct sl_error *e)
{
    bool planned = ck->n_files == 0;
    struct sl_out_tensor *to = &m->tensors[m->n_tensors];
    uint32_t n_missing = 0, n_reciprocal = 0;

    if ((size_t)snprintf(to->name, sizeof to->name, "%.*s%s", (int)sl_stem(o->name, "weight"), o->name, suffix) >= sizeof to->name)
        return sl_fail(e, SL_EFAIL, "the name of a tensor like '%s' is too long", o->name);
    to->n_dims = 1;
    to->ne[0] = to->elems = o->n_src;
    to->ne[1] = to->ne[2] = to->ne[3] = 1;
    to->src_type = -1;
    to->keep_f32 = true;
    to->first_src = m->n_src;
    to->n_src = o->n_src;
    for (uint32_t i = 0; i < o->n_src; i++) {
        struct sl_model_src *s = &m->src[m->n_src + i];
        struct sl_own_scale own = {SL_NO_TENSOR, SL_NO_TENSOR, false};

        if (!planned)
            SL_TRY(sl_checkpoint_own_scale(ck, m->src[o->first_src + i].tensor, &own, e));
        *s = (struct sl_model_src){.tensor = of_input ? own.input : own.weight, .dtype = SL_DTYPE_F32, .rows = 1, .cols = 1};
        s->scale.tensor = SL_NO_TENSOR;
        n_missing += of_input && own.input == SL_NO_TENSOR && !planned;
        n_reciprocal += own.reciprocal;
    }
    if (n_missing == o->n_src)
        return 0;
    if (n_missing || (n_reciprocal && n_reciprocal < o->n_src))
        return sl_fail(e, SL_EUNSUPPORTED, "%s: %" PRIu32 " of its %" PRIu32 " sources %s, which is not supported: give an FP8 or "
                       "BF16 checkpoint of the model", o->name, n_missing ? n_missing : n_reciprocal, o->n_src,
                       n_missing ? "have no scale of their input and the others have one" : "alone have reciprocals as scales");
    to->change = n_reciprocal ? SL_RECIPROCAL : SL_ABOVE_0;
    m->n_src += o->n_src;
    m->n_tensors++;
    m->n_params += to->elems; /* a few beside the 2^63 at most */
    return 0;
}

int sl_model_add_own_scales(struct sl_model *m, const struct sl_checkpoint *ck, const struct sl_arch *arch,
                            const struct sl_out_tensor *o, struct sl_error *e)
{
    int rc;

    SL_TRY(rc = all_nvfp4(m, ck->n_files == 0, o, e));
    if (rc == 0)
        return 0;
    SL_TRY(check_applied(arch, o, e));
    SL_TRY(add_own_scale(m, ck, o, "scale", false, e));
    return add_own_scale(m, ck, o, "input_scale", true, e);
}
