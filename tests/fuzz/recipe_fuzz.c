/* Fuzz target: bytes as a recipe; lines that begin with "--tensor-type=" are that option's. Whatever it says, it is refused with its
 * line, or its text makes the same recipe again, and each tensor of a small model gets a type whose blocks its rows have. */
#include "tests/fuzz/fuzz_json.h"

#include "proto/job_spec.h"
#include "proto/utf8.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define OPTION "--tensor-type="

static const char config[] =
    "{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"model_type\":\"deepseek_v3\",\"vocab_size\":512,\"hidden_size\":256,"
    "\"num_hidden_layers\":5,\"num_nextn_predict_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":4,\"q_lora_rank\":256,"
    "\"kv_lora_rank\":256,\"qk_nope_head_dim\":64,\"qk_rope_head_dim\":32,\"v_head_dim\":64,\"intermediate_size\":300,"
    "\"moe_intermediate_size\":256,\"n_routed_experts\":8,\"n_shared_experts\":1,\"num_experts_per_tok\":2,\"n_group\":2,\"topk_group\":1,"
    "\"first_k_dense_replace\":1,\"norm_topk_prob\":true,\"routed_scaling_factor\":2.5,\"scoring_func\":\"sigmoid\",\"rms_norm_eps\":1e-6,"
    "\"rope_theta\":10000,\"max_position_embeddings\":4096,\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e4m3\","
    "\"weight_block_size\":[128,128]}}";

static struct sl_checkpoint *ck;
static struct sl_model *model;

static void open_model(void)
{
    struct sl_error e;
    char path[40];
    int fd = memfd_create("config", MFD_CLOEXEC);

    require(fd >= 0 && write(fd, config, sizeof config - 1) == sizeof config - 1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    require(sl_checkpoint_open_config(path, &ck, &e) == 0);
    require(sl_model_open(ck, &(struct sl_model_opts){.tokenizer_optional = true}, &model, &e) == 0);
    close(fd);
}

static void close_model(void)
{
    sl_model_close(model);
    sl_checkpoint_close(ck);
}

/* Moves the lines of options from the text to j. */
static void take_options(struct sl_job_plan *j, char *text)
{
    char *to = text;

    for (char *line = text, *end; line; line = end) {
        char *type;
        struct sl_error e;

        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        if (strncmp(line, OPTION, sizeof OPTION - 1) != 0) {
            to += sprintf(to, "%s", line);
            if (end)
                *to++ = '\n';
            continue;
        }
        line += sizeof OPTION - 1;
        type = strrchr(line, '=');
        if (type) {
            *type++ = '\0';
            if (sl_job_add_override(j, "--tensor-type", line, type, &e) < 0)
                require(e.code == SL_EUSAGE && sl_utf8_all_shown(e.text));
        }
    }
    *to = '\0';
}

static void assign(const struct sl_job_plan *j)
{
    uint32_t n = j->n_overrides + sl_recipe_rules(j->recipe), fallback;
    int *types = calloc(model->n_tensors, sizeof *types), rc;
    struct sl_recipe_opts o = {.overrides = j->overrides, .n_overrides = j->n_overrides, .output_type = -1, .embedding_type = -1,
                               .any_type = true, .used = calloc(n + 1, 1)};
    struct sl_error e = {0};
    char *idle = NULL;

    require(types && o.used);
    rc = sl_recipe_assign(j->recipe, model, &o, types, &fallback, &e);
    if (rc < 0) {
        require((rc == SL_EUSAGE || rc == SL_EUNSUPPORTED) && e.code == rc && e.text[0] && sl_utf8_all_shown(e.text));
    } else {
        for (uint32_t i = 0; i < model->n_tensors; i++)
            require(model->tensors[i].ne[0] % (uint64_t)sl_type_info(types[i])->block == 0);
        require(fallback <= model->n_tensors && sl_recipe_idle(j->recipe, model, &o, types, &idle, &e) == 0);
        free(idle);
    }
    free(o.used);
    free(types);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sl_job_plan j = {.ck = NULL};
    struct sl_recipe *again;
    struct sl_error e = {0};
    char *text;
    int rc;

    if (!model) {
        open_model();
        atexit(close_model);
    }
    text = strndup((const char *)data, size < 1 << 16 ? size : 1 << 16);
    require(text != NULL);
    take_options(&j, text);
    rc = sl_recipe_parse("f", "f.recipe", text, &j.recipe, &e);
    if (rc < 0) {
        require(rc == SL_EUSAGE && e.code == rc && strncmp(e.text, "f.recipe", 8) == 0 && sl_utf8_all_shown(e.text));
    } else {
        require(strcmp(sl_recipe_text(j.recipe), text) == 0 && sl_recipe_encoding(j.recipe)[0]);
        require(sl_recipe_parse("f", "f.recipe", sl_recipe_text(j.recipe), &again, &e) == 0);
        require(sl_recipe_rules(again) == sl_recipe_rules(j.recipe) && sl_recipe_file_type(again) == sl_recipe_file_type(j.recipe));
        sl_recipe_close(again);
        assign(&j);
    }
    free(text);
    sl_job_plan_close(&j);
    return 0;
}
