#include "client/cli.h"

#include "client/progress.h"
#include "proto/size_text.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <string.h>

/* Whether a line is new to `said`, which then has it; NULL takes all. */
static bool is_new(struct words *said, const char *line)
{
    struct sl_error ignored;

    for (int i = 0; said && i < said->n; i++)
        if (strcmp(said->word[i], line) == 0)
            return false;
    (void)!(said && words_add(said, line, &ignored) < 0);
    return true;
}

static void say(void *user, const char *line)
{
    char shown[CLI_SHOWN_BYTES];

    if (is_new(user, line))
        fprintf(stderr, "sluice: note: %s\n", cli_shown(shown, line));
}

/* Numbers that llama.cpp reads the tensors' shapes and count by. */
static const struct shape {
    const char *name;
    bool or_zero; /* what a file without the key means */
} shapes[] = {
    {"block_count", false}, {"nextn_predict_layers", true}, {"leading_dense_block_count", true},
    {"embedding_length", false}, {"feed_forward_length", false}, {"expert_feed_forward_length", false},
    {"expert_count", true}, {"expert_shared_count", true}, {"interleave_moe_layer_step", true},
    {"attention.head_count", false}, {"attention.head_count_kv", false},
    {"attention.key_length", false}, {"attention.value_length", false},
    {"attention.key_length_mla", false}, {"attention.value_length_mla", false},
    {"attention.q_lora_rank", false}, {"attention.kv_lora_rank", false},
    {"attention.indexer.head_count", false}, {"attention.indexer.key_length", false},
    {"rope.dimension_count", false},
};

static const struct shape *shape_of(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}

/* Layers that have tensors for multi-token prediction. */
static uint64_t nextn_layers(const struct sl_model *m)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < m->n_tensors; i++)
        n += strstr(m->tensors[i].name, ".nextn.eh_proj.weight") != NULL;
    return n;
}

/* An --override-kv that says other shapes than the tensors have, or stands under another
 * architecture's name. llama-quantize writes such keys without a word, too. */
static void warn_override(const struct sl_job_plan *j, const struct sl_kv *kv, void (*fn)(void *user, const char *line),
                          void *user)
{
    const struct sl_model *m = j->model;
    size_t arch = strcspn(kv->key, ".");
    const char *name = kv->key[arch] ? kv->key + arch + 1 : "";
    const struct shape *s = shape_of(name);
    bool nextn = strcmp(name, "nextn_predict_layers") == 0, ours = strlen(m->arch) == arch && strncmp(kv->key, m->arch, arch) == 0;
    uint64_t has = 0, given;
    struct sl_error line;
    char key[256];

    snprintf(key, sizeof key, "%.80s.%.127s", m->arch, name);
    if (!ours && *name && sl_kvs_find(&m->kvs, key)) {
        sl_fail(&line, SL_EWARN, "--override-kv %s: no program will read this of the model, whose key is %s", kv->key, key);
        fn(user, line.text);
    }
    if (!ours || !s)
        return;
    if (nextn)
        has = nextn_layers(m);
    else if (!sl_kvs_get_uint(&m->kvs, key, &has) && (sl_kvs_find(&m->kvs, key) || !s->or_zero))
        return;
    if (sl_kvs_get_uint(&j->extra_kvs, key, &given) && given == has)
        return;
    sl_fail(&line, SL_EWARN, "--override-kv %s: the tensors written are those of %" PRIu64 ", so llama.cpp may refuse the file%s", key,
            has, nextn && has && !j->ck->is_gguf ? "; --no-mtp leaves these layers out" : "");
    fn(user, line.text);
}

/* A download may give a shard its whole size before its bytes are there. */
static void warn_hole(const struct sl_checkpoint *ck, void (*fn)(void *user, const char *line), void *user)
{
    const struct sl_src_file *first = NULL;
    struct sl_error line;
    char size[32], others[48] = "";
    uint32_t n = 0;

    for (uint32_t i = 0; i < ck->n_files; i++)
        if (ck->files[i].hole.bytes && n++ == 0)
            first = &ck->files[i];
    if (!first)
        return;
    if (n > 1)
        snprintf(others, sizeof others, ", and likewise in %" PRIu32 " other%s", n - 1, n > 2 ? "s" : "");
    sl_fail(&line, SL_EWARN, "%s: a hole of %s from byte %" PRIu64 " on, which reads as zeros%s; is the download complete?",
            first->path, sl_size_text(size, first->hole.bytes), first->hole.at, others);
    fn(user, line.text);
}

void cli_each_warning(const struct sl_job_plan *j, void (*fn)(void *user, const char *line), void *user)
{
    for (const char *s = j->plan->idle; s && *s;) {
        char line[1024];
        size_t n = strcspn(s, "\n");

        snprintf(line, sizeof line, "%.*s", (int)n, s);
        sl_utf8_disarm(line); /* names come from files: shown as in errors */
        fn(user, line);
        s += n + (s[n] == '\n');
    }
    for (uint64_t i = 0; i < j->extra_kvs.n; i++)
        warn_override(j, &j->extra_kvs.kv[i], fn, user);
    warn_hole(j->ck, fn, user);
}

static void warn(void *user, const char *line)
{
    if (is_new(user, line))
        fprintf(stderr, "sluice: warning: %s\n", line);
}

static void warn_json(void *user, const char *line)
{
    cJSON *o;

    if (!is_new(user, line))
        return;
    fprintf(stderr, "sluice: warning: %s\n", line);
    o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "text", line);
    json_line(o, "warning");
}

void cli_warn(const char *line, bool json)
{
    (json ? warn_json : warn)(NULL, line);
}

uint32_t cli_requantized(const struct sl_job_plan *j)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < j->plan->n_tensors; i++) {
        int from = j->plan->tensors[i].t->src_type;

        n += from >= 0 && sl_type_info(from)->block > 1 && from != j->plan->tensors[i].type;
    }
    return n;
}

void cli_job_notes(const struct sl_job_plan *j, bool json, struct words *said)
{
    char line[320];

    if (j->model->n_vision) {
        snprintf(line, sizeof line, "the vision part (%u tensors) is left out: llama.cpp has it in a file of its own, which its "
                 "converter makes with --mmproj", j->model->n_vision);
        say(said, line);
    }
    if (j->model->template_of && !sl_kvs_find(&j->extra_kvs, "tokenizer.chat_template")) {
        snprintf(line, sizeof line, "the checkpoint has no chat template, and llama.cpp's converter would write its own: give "
                 "llama-server --chat-template-file with that of %s (models/templates in llama.cpp's source), or put it into "
                 "the checkpoint's folder as chat_template.jinja", j->model->template_of);
        say(said, line);
    }
    if (j->model->no_tokenizer_config) {
        snprintf(line, sizeof line, "tokenizer_config.json is missing beside tokenizer.json: the special tokens are those of "
                 "its kind of tokenizer%s; download it too",
                 sl_kvs_find(&j->model->kvs, "tokenizer.chat_template") ? "" : ", and there is no chat template");
        say(said, line);
    }
    sl_imatrix_use_notes(&j->weights, say, said);
    cli_each_warning(j, json ? warn_json : warn, said);
}
