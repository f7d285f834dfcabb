#include "proto/job_spec.h"

#include <stdlib.h>

#define GUESSED 1024u /* llama.cpp's mark of a file type that no key gave */

/* llama.cpp's file type of a file that mostly has tensors of this type; of mxfp4 it takes f32's. */
static const uint32_t mostly[SL_TYPE_LIMIT] = {
    [SL_TYPE_F32] = 0, [SL_TYPE_F16] = 1, [SL_TYPE_BF16] = 32, [SL_TYPE_Q4_0] = 2, [SL_TYPE_Q4_1] = 3,
    [SL_TYPE_Q5_0] = 8, [SL_TYPE_Q5_1] = 9, [SL_TYPE_Q8_0] = 7, [SL_TYPE_Q2_K] = 10, [SL_TYPE_Q3_K] = 12,
    [SL_TYPE_Q4_K] = 15, [SL_TYPE_Q5_K] = 17, [SL_TYPE_Q6_K] = 18, [SL_TYPE_IQ2_XXS] = 19,
    [SL_TYPE_IQ2_XS] = 20, [SL_TYPE_IQ2_S] = 28, [SL_TYPE_IQ3_XXS] = 23, [SL_TYPE_IQ1_S] = 24,
    [SL_TYPE_IQ1_M] = 31, [SL_TYPE_IQ4_NL] = 25, [SL_TYPE_IQ4_XS] = 30, [SL_TYPE_IQ3_S] = 26,
    [SL_TYPE_NVFP4] = 39, [SL_TYPE_TQ1_0] = 36, [SL_TYPE_TQ2_0] = 37, [SL_TYPE_Q1_0] = 40, [SL_TYPE_Q2_0] = 41,
};

static int by_name(const void *a, const void *b)
{
    const struct sl_src_tensor *const *x = a, *const *y = b;

    return sl_tensor_name_cmp((*x)->name, (*y)->name);
}

/* Of several types with as many tensors, the one that has them first in llama.cpp's order. */
static int guess(const struct sl_checkpoint *ck, uint32_t *file_type, struct sl_error *e)
{
    const struct sl_src_tensor **sorted = calloc((size_t)ck->n_tensors + 1, sizeof *sorted);
    uint32_t count[SL_TYPE_LIMIT] = {0}, most = 0;
    int best = SL_TYPE_F32;

    if (!sorted)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < ck->n_tensors; i++)
        sorted[i] = &ck->tensors[i];
    qsort(sorted, ck->n_tensors, sizeof *sorted, by_name);
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        int type = sl_dtype_info(sorted[i]->dtype)->type;

        if (++count[type] <= most)
            continue;
        most = count[type];
        best = type;
    }
    free(sorted);
    *file_type = GUESSED | mostly[best];
    return 0;
}

/* At its place before all that is added. */
int sl_job_copy_file_type(struct sl_job_plan *j, struct sl_error *e)
{
    static const char key[] = "general.file_type";
    const struct sl_kv *kv;
    struct sl_kvs all = {0};
    uint32_t guessed = 0;
    int rc;

    if (!j->ck->is_gguf)
        return sl_fail(e, SL_EUSAGE, "recipe %s takes its file_type from a GGUF file, and this is a checkpoint: name "
                       "another, or use f32, f16 or bf16 in place of copy", sl_recipe_name(j->recipe));
    if (sl_kvs_find(&j->extra_kvs, key))
        return 0;
    kv = sl_kvs_find(&j->ck->gguf->kvs, key);
    if (!kv)
        SL_TRY(guess(j->ck, &guessed, e));
    rc = kv ? sl_kvs_copy(&all, kv) : sl_kvs_set_u32(&all, key, guessed);
    for (uint64_t i = 0; i < j->extra_kvs.n && rc == 0; i++)
        rc = sl_kvs_copy(&all, &j->extra_kvs.kv[i]);
    if (rc < 0) {
        sl_kvs_free(&all);
        return sl_no_memory(e);
    }
    sl_kvs_free(&j->extra_kvs);
    j->extra_kvs = all;
    return 0;
}
