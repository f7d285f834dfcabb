/* Fuzz target: what a folder (fuzz_folder.h) says of its model's name and origin: README.md, generation_config.json, config.json.
 * Whatever they say, keys have valid texts, and the name for files is one. The first line is --model-name, where there is one. */
#include "tests/fuzz/fuzz_folder.h"

#include "proto/metadata_general.h"
#include "proto/gguf.h"
#include "proto/utf8.h"

static void check_name(const char *s)
{
    size_t n = strlen(s);

    require(n > 0 && n <= 160 && s[0] != '.' && sl_source_plain_name(s) && sl_utf8_all_shown(s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *base = NULL, *model = NULL, given[81] = "";
    struct sl_kvs kvs = {NULL, 0, 0};
    struct sl_metadata_in in = {.total = 671026419200, .shared = 13e9, .expert = 2555000000, .n_expert = 256};
    struct sl_error e = {0};
    struct folder f;
    cJSON *json;
    int rc;

    if (size > 1 << 17)
        return 0;
    folder_cut(data, size, &f);
    memcpy(given, f.first, f.n_first < sizeof given ? f.n_first : sizeof given - 1);
    json = folder_json(&f, "config.json");
    in.dir.path = fuzz_dir();
    in.config = json;
    in.model_name = *given && sl_utf8_valid(given) ? given : NULL;
    folder_write(&f);
    rc = sl_metadata_general(&in, &kvs, &base, &model, &e);
    if (rc < 0) {
        require(rc == SL_ESOURCE && e.code == rc && sl_utf8_all_shown(e.text) && strstr(e.text, "README.md"));
    } else {
        check_name(base);
        for (uint64_t i = 0; i < kvs.n; i++) {
            const struct sl_kv *kv = &kvs.kv[i];

            require(strncmp(kv->key, "general.", 8) == 0);
            for (uint64_t k = 0; k < kv->n && kv->elem == SL_KV_STR; k++)
                require(strlen(kv->strs[k]) == kv->str_len[k] && sl_utf8_valid(kv->strs[k]));
        }
    }
    sl_kvs_free(&kvs);
    free(base);
    free(model);
    cJSON_Delete(json);
    folder_clear(&f);
    return 0;
}
