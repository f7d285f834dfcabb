#include "client/cli.h"

#include <string.h>

enum { VAL_TENSOR_TYPE = CLI_PLAN_VAL, VAL_OVERRIDE_KV, VAL_INCLUDE, VAL_EXCLUDE };

void cli_plan_table(struct cli_plan_args *a, struct poptOption table[CLI_PLAN_TABLE_MAX])
{
    const struct poptOption t[] = {
        {"recipe", 'r', POPT_ARG_STRING, &a->recipe, 0,
         "recipe by name (see 'sluice recipes') or a recipe file", "NAME|FILE"},
        {"layout", 0, POPT_ARG_STRING, &a->layout, 0,
         "deepseek2 attention tensors: mla (attn_k_b + attn_v_b, default) or legacy (attn_kv_b)",
         "mla|legacy"},
        {"no-mtp", 0, POPT_ARG_NONE, &a->no_mtp, 0,
         "without the layers for multi-token prediction, which deepseek32, GLM's, bailingmoe2, exaone-moe, hy_v3, mimo2, qwen3next, qwen35 and step35 keep", NULL},
        {"round-through", 0, POPT_ARG_STRING, &a->round_through, 0,
         "round weights to bf16 before they are quantized, as the two-step chain does", "bf16"},
        {"split-max-size", 0, POPT_ARG_STRING, &a->split_max_size, 0,
         "largest size of one output file, its header not counted; 0: one file (default 48G)", "SIZE"},
        {"split-max-tensors", 0, POPT_ARG_INT, &a->split_max_tensors, 0,
         "most tensors in one output file", "N"},
        {"no-tensor-first-split", 0, POPT_ARG_NONE, &a->no_tensor_first_split, 0,
         "the first output file holds metadata only", NULL},
        {"model-name", 0, POPT_ARG_STRING, &a->model_name, 0, "value of general.name", "NAME"},
        {"tensor-type", 0, POPT_ARG_STRING, NULL, VAL_TENSOR_TYPE,
         "type of the tensors whose name the pattern matches; may be repeated, first match wins",
         "REGEX=TYPE"},
        {"tensor-type-file", 0, POPT_ARG_STRING, &a->tensor_type_file, 0,
         "file of such pairs, one a line or separated by spaces", "FILE"},
        {"output-tensor-type", 0, POPT_ARG_STRING, &a->output_type, 0, "type of output.weight",
         "TYPE"},
        {"token-embedding-type", 0, POPT_ARG_STRING, &a->embedding_type, 0,
         "type of token_embd.weight", "TYPE"},
        {"leave-output-tensor", 0, POPT_ARG_NONE, &a->leave_output, 0,
         "do not quantize output.weight", NULL},
        {"allow-requantize", 0, POPT_ARG_NONE, &a->allow_requantize, 0,
         "quantize tensors of a GGUF source again that are quantized already", NULL},
        {"pure", 0, POPT_ARG_NONE, &a->pure, 0, "one type for every tensor, no mixture", NULL},
        {"imatrix", 0, POPT_ARG_STRING, &a->imatrix, 0,
         "importance matrix (llama-imatrix's file, GGUF or dat) for the quantizers; synthetic: the "
         "energy of the weights' own columns", "FILE|synthetic"},
        {"include-weights", 0, POPT_ARG_STRING, NULL, VAL_INCLUDE,
         "use the imatrix only for tensors whose names contain this; may be repeated", "TEXT"},
        {"exclude-weights", 0, POPT_ARG_STRING, NULL, VAL_EXCLUDE,
         "do not use the imatrix for tensors whose names contain this; may be repeated", "TEXT"},
        {"override-kv", 0, POPT_ARG_STRING, NULL, VAL_OVERRIDE_KV,
         "set a metadata key; TYPE is int, float, bool or str; may be repeated",
         "KEY=TYPE:VALUE"},
        {"rules", 0, POPT_ARG_STRING, &a->rules, 0,
         "llama.cpp's mixture rules of 2026 (default) or of February 2025", "2026|2025"},
        {"task-size", 0, POPT_ARG_STRING, &a->task_size, 0,
         "source bytes of one task (default 256M)", "SIZE"},
        POPT_TABLEEND,
    };

    _Static_assert(sizeof t / sizeof t[0] <= CLI_PLAN_TABLE_MAX, "table too small");
    memcpy(table, t, sizeof t);
}

int cli_plan_on_val(int val, const char *arg, void *user, struct sl_error *e)
{
    struct cli_plan_args *a = user;

    if (val == VAL_TENSOR_TYPE)
        return words_add(&a->tensor_type, arg, e);
    if (val == VAL_OVERRIDE_KV)
        return words_add(&a->override_kv, arg, e);
    if (val == VAL_INCLUDE)
        return words_add(&a->include_weights, arg, e);
    if (val == VAL_EXCLUDE)
        return words_add(&a->exclude_weights, arg, e);
    return 0;
}

void cli_plan_args_free(struct cli_plan_args *a)
{
    words_free(&a->tensor_type);
    words_free(&a->override_kv);
    words_free(&a->include_weights);
    words_free(&a->exclude_weights);
}
