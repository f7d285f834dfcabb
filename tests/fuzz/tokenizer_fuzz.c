/* Fuzz target: a folder's tokenizer (fuzz_folder.h), in the form of each kind of model that has one of its own: tokenizer.json,
 * tiktoken.model, hy.tiktoken, tokenizer.model, tekken.json, and what stands beside them. Whatever is in it, it is said what is wrong,
 * or the keys have a text and a type for each id. The first line is a letter for the kind, and the number of ids. */
#include "tests/fuzz/fuzz_folder.h"

#include "proto/arch_table.h"
#include "proto/tokenizer.h"
#include "proto/utf8.h"

static void check_texts(const struct sl_kvs *kvs)
{
    for (uint64_t i = 0; i < kvs->n; i++) {
        const struct sl_kv *kv = &kvs->kv[i];

        require(strncmp(kv->key, "tokenizer.", 10) == 0);
        for (uint64_t k = 0; k < kv->n && kv->elem == SL_KV_STR; k++)
            require(strlen(kv->strs[k]) == kv->str_len[k] && sl_utf8_valid(kv->strs[k]));
    }
}

static void check_keys(const struct sl_kvs *kvs, uint64_t n)
{
    const struct sl_kv *tokens = sl_kvs_find(kvs, "tokenizer.ggml.tokens"), *types = sl_kvs_find(kvs, "tokenizer.ggml.token_type");
    const struct sl_kv *merges = sl_kvs_find(kvs, "tokenizer.ggml.merges"), *scores = sl_kvs_find(kvs, "tokenizer.ggml.scores");

    require(tokens && types && tokens->n == n && types->n == n && types->elem == SL_KV_I32);
    require(!scores || (scores->n == n && scores->elem == SL_KV_F32));
    for (uint64_t i = 0; i < n; i++)
        require(((const int32_t *)types->data)[i] >= 1 && ((const int32_t *)types->data)[i] <= 6);
    for (uint64_t i = 0; merges && i < merges->n; i++)
        require(strchr(merges->strs[i], ' ') != NULL);
    check_texts(kvs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct sl_arch *const kinds[] = {&sl_arch_qwen3, &sl_arch_deepseek2, &sl_arch_glm4_moe, &sl_arch_llama, &sl_arch_minimax_m2,
        &sl_arch_mistral_large3, &sl_arch_hunyuan_moe, &sl_arch_ernie45_moe, &sl_arch_llama4, &sl_arch_kimi_k3, &sl_arch_bailing2};
    struct sl_kvs kvs = {NULL, 0, 0};
    struct sl_error e = {0};
    struct sl_source_dir dir = {fuzz_dir(), NULL};
    struct folder f;
    char number[8] = "";
    uint64_t n;
    cJSON *json;
    int rc;

    if (size < 2 || size > 1 << 17)
        return 0;
    folder_cut(data + 1, size - 1, &f);
    json = folder_json(&f, "config.json");
    memcpy(number, f.first, f.n_first < sizeof number ? f.n_first : sizeof number - 1);
    n = strtoul(number, NULL, 10) % 4096;
    n += n == 0;
    folder_write(&f);
    rc = sl_tokenizer_keys(&dir, json, kinds[(uint8_t)(data[0] - 'A') % (sizeof kinds / sizeof *kinds)], n, &kvs, &e);
    if (rc < 0)
        require((rc == SL_ESOURCE || rc == SL_EUNSUPPORTED) && e.code == rc && e.text[0] && sl_utf8_all_shown(e.text));
    else
        check_keys(&kvs, n);
    if (getenv("FUZZ_SAYS"))
        fprintf(stderr, "%d %s\n", rc, rc < 0 ? e.text : "");
    sl_kvs_free(&kvs);
    cJSON_Delete(json);
    folder_clear(&f);
    return 0;
}
