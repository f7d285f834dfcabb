#include "client/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VAL_TENSOR_TYPE = CLI_PLAN_VAL, VAL_TENSOR_TYPES, VAL_OVERRIDE_KV, VAL_INCLUDE, VAL_EXCLUDE };

void cli_plan_table(struct cli_plan_args *a, struct poptOption table[CLI_PLAN_TABLE_MAX])
{
    const struct poptOption t[] = {
        CLI_TEXT("recipe", 'r', &a->recipe, "recipe by name (see 'sluice recipes') or a recipe file", "NAME|FILE"),
        CLI_TEXT("layout", 0, &a->layout,
                 "deepseek2 attention tensors: mla (attn_k_b + attn_v_b, default) or legacy (attn_kv_b)", "mla|legacy"),
        CLI_FLAG("no-mtp", 0, &a->no_mtp,
                 "without the layers for multi-token prediction, which deepseek32, GLM's, bailingmoe2, exaone-moe, hy_v3, mimo2, "
                 "qwen3next, qwen35 and step35 keep"),
        CLI_TEXT("round-through", 0, &a->round_through,
                 "round weights to bf16 before they are quantized, as the two-step chain does", "bf16"),
        CLI_TEXT("split-max-size", 0, &a->split_max_size,
                 "largest size of one output file, its header not counted; 0: one file (default 48G)", "SIZE"),
        CLI_NUMBER("split-max-tensors", 0, &a->split_max_tensors, "most tensors in one output file", "N"),
        CLI_FLAG("no-tensor-first-split", 0, &a->no_tensor_first_split, "the first output file holds metadata only"),
        CLI_TEXT("model-name", 0, &a->model_name, "value of general.name", "NAME"),
        CLI_CALL("tensor-type", 0, VAL_TENSOR_TYPE,
                 "type of the tensors whose name the pattern matches; may be repeated, first match wins", "REGEX=TYPE"),
        CLI_CALL("tensor-type-file", 0, VAL_TENSOR_TYPES,
                 "file of such pairs, one a line or separated by spaces; may be repeated", "FILE"),
        CLI_TEXT("output-tensor-type", 0, &a->output_type, "type of output.weight", "TYPE"),
        CLI_TEXT("token-embedding-type", 0, &a->embedding_type, "type of token_embd.weight", "TYPE"),
        CLI_FLAG("leave-output-tensor", 0, &a->leave_output, "do not quantize output.weight"),
        CLI_FLAG("allow-requantize", 0, &a->allow_requantize, "quantize tensors of a GGUF source again that are quantized already"),
        CLI_FLAG("pure", 0, &a->pure, "one type for every tensor, no mixture"),
        CLI_TEXT("imatrix", 0, &a->imatrix,
                 "importance matrix (llama-imatrix's file, GGUF or dat) for the quantizers; synthetic: the energy of the weights' own "
                 "columns", "FILE|synthetic"),
        CLI_CALL("include-weights", 0, VAL_INCLUDE,
                 "use the imatrix only for tensors whose names contain this; may be repeated", "TEXT"),
        CLI_CALL("exclude-weights", 0, VAL_EXCLUDE,
                 "do not use the imatrix for tensors whose names contain this; may be repeated", "TEXT"),
        CLI_CALL("override-kv", 0, VAL_OVERRIDE_KV,
                 "set a metadata key; TYPE is int, float, bool or str; may be repeated", "KEY=TYPE:VALUE"),
        CLI_TEXT("rules", 0, &a->rules, "llama.cpp's mixture rules of 2026 (default) or of February 2025", "2026|2025"),
        CLI_TEXT("task-size", 0, &a->task_size, "source bytes of one task (default 256M)", "SIZE"),
        POPT_TABLEEND,
    };

    _Static_assert(sizeof t / sizeof t[0] <= CLI_PLAN_TABLE_MAX, "table too small");
    memcpy(table, t, sizeof t);
}

static int add_marked(struct words *w, char mark, const char *text, struct sl_error *e)
{
    char *marked;
    int rc;

    if (asprintf(&marked, "%c%s", mark, text) < 0)
        return sl_no_memory(e);
    rc = words_add(w, marked, e);
    free(marked);
    return rc;
}

int cli_plan_on_val(int val, const char *arg, void *user, struct sl_error *e)
{
    struct cli_plan_args *a = user;

    if (val == VAL_TENSOR_TYPE || val == VAL_TENSOR_TYPES)
        return add_marked(&a->tensor_type, val == VAL_TENSOR_TYPE ? CLI_PAIR : CLI_PAIRS, arg, e);
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
