/* Small tokenizers, and the keys that are made of them. */
#ifndef SLUICE_TESTS_TOKENIZER_FIXTURE_H
#define SLUICE_TESTS_TOKENIZER_FIXTURE_H

#include "tests/unit/model_fixture.h"

#include "proto/arch_table.h"
#include "proto/tokenizer.h"

#include <cjson/cJSON.h>

#define QWEN "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}"
#define LLAMA3 QWEN "{1,3}"
#define REST "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SPLIT(r) "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" r "\"}}"
#define PRE(list) "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"
#define BYTES "{\"type\":\"ByteLevel\",\"use_regex\":false}"

#define ADDED                                                                                    \
    "\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true},"                         \
    "{\"id\":4,\"content\":\"<|x|>\",\"special\":false},"                                        \
    "{\"id\":6,\"content\":\"u▁v\",\"special\":false}]"
#define MODEL                                                                                    \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},"                          \
    "\"merges\":[[\"a\",\"b\"],[\"a b\",\" \"]]}"
#define TOKENIZER "{" ADDED "," PRE(SPLIT(QWEN REST) "," BYTES) "," MODEL "}"

static inline int keys_of(const char *dir, const struct sl_arch *arch, uint64_t n_vocab,
                   const char *config, struct sl_kvs *kvs, struct sl_error *e)
{
    cJSON *c = cJSON_Parse(config);
    int rc;

    *kvs = (struct sl_kvs){NULL, 0, 0};
    assert_non_null(c);
    rc = sl_tokenizer_keys(&(struct sl_source_dir){dir, NULL}, c, arch, n_vocab, kvs, e);
    cJSON_Delete(c);
    return rc;
}

#endif
