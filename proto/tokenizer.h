/* The tokenizer of a checkpoint as GGUF keys: byte-level BPE ("gpt2"). */
#ifndef SLUICE_PROTO_TOKENIZER_H
#define SLUICE_PROTO_TOKENIZER_H

#include "proto/gguf.h"
#include "proto/name_table.h"
#include "proto/source_file.h"

#include <stdbool.h>

struct cJSON;
struct sl_arch;

/* Effect: appends the tokenizer.* keys that the converter of August 2026 writes,
 * in its order, from tokenizer.json (without one: tiktoken.model; of Hunyuan-A13B: hy.tiktoken; of ERNIE-4.5: tokenizer.model), tokenizer_config.json,
 * special_tokens_map.json, added_tokens.json, merges.txt, chat template files and config. n_vocab = entries of the token list; ids without
 * a token are filled as it fills them. Added tokens have the ids that the tokenizers library
 * gives them, which closes gaps in those of tokenizer.json; but where model.vocab itself has
 * holes, in which that library's ids collide, they have tokenizer.json's. Errors: SL_ESOURCE (file missing or
 * damaged, an id outside the vocabulary), SL_EUNSUPPORTED (another kind of
 * tokenizer, or a pre-tokenizer that llama.cpp would not be told of). */
int sl_tokenizer_keys(const struct sl_source_dir *dir, const struct cJSON *config,
                      const struct sl_arch *arch, uint64_t n_vocab, struct sl_kvs *kvs, struct sl_error *e) SL_MUST_USE;

/* Token types, as GGUF numbers them. */
enum sl_token_type {
    SL_TOKEN_NORMAL = 1, SL_TOKEN_CONTROL = 3, SL_TOKEN_USER_DEFINED = 4, SL_TOKEN_UNUSED = 5,
};

/* ---- parts of the above ---- */

/* Effect: *pre = the name of the pre-tokenizer (tokenizer.ggml.pre, static), from
 * tokenizer.json's regular expressions; config = tokenizer_config.json or NULL, model = config.json or
 * NULL; arch (NULL: none of these): GLM's, whose rules are those of Llama 3 under another name, and DeepSeek-V4's,
 * whose are V3's under another one where no token stands before every text.
 * Errors: SL_EUNSUPPORTED with what was found. */
int sl_tokenizer_pre(const struct cJSON *tokenizer, const struct cJSON *config, const struct cJSON *model,
                     const struct sl_arch *arch, const char **pre, struct sl_error *e) SL_MUST_USE;

/* Effect: appends tokenizer.ggml.merges, from tokenizer.json or merges.txt. Errors: SL_ESOURCE
 * (neither has any, or one of another form). */
int sl_tokenizer_merges(const struct sl_source_dir *dir, const struct cJSON *tokenizer,
                        struct sl_kvs *kvs, struct sl_error *e) SL_MUST_USE;

/* Effect: appends ids of special tokens, add_bos_token and its kin, and chat
 * templates. tokenizer_config may be NULL; config is the model's. arch (NULL: neither): whether an
 * add_bos_token that is false is written as true, and whether tokens of GLM's names have the roles that no
 * file gives. Errors: SL_ESOURCE (one of these is no added token). */
int sl_tokenizer_special(const struct sl_source_dir *dir, const struct cJSON *tokenizer,
                         const struct cJSON *tokenizer_config, const struct cJSON *config,
                         const struct sl_arch *arch, struct sl_kvs *kvs, struct sl_error *e) SL_MUST_USE;

/* Effect: the token at a text's end becomes config.json's, in the place of the tokenizer's. Errors: SL_ESOURCE (neither
 * has one, or it is no id). */
int sl_tokenizer_eos(const struct cJSON *config, struct sl_kvs *kvs, struct sl_error *e) SL_MUST_USE;

/* Effect: appends the same keys as sl_tokenizer_keys from tiktoken.model and tokenizer_config.json
 * (may be NULL), as Kimi-K2 ships them: ordinary tokens are the file's, the 258 ids behind them
 * are special, and have the names of added_tokens_decoder or one that says that they are
 * reserved. tokenizer = a tokenizer.json beside it, for ids of special tokens alone, or NULL. Of Hunyuan-A13B (arch) from
 * hy.tiktoken, with 210 special tokens whose names are its own.
 * Errors: SL_ESOURCE (a damaged file, names of special tokens missing), SL_EUNSUPPORTED
 * (another model's tokenizer in such a file). */
int sl_tokenizer_tiktoken(const struct sl_source_dir *dir, const struct cJSON *tokenizer,
                          const struct cJSON *tokenizer_config, const struct cJSON *config,
                          const struct sl_arch *arch, uint64_t n_vocab, struct sl_kvs *kvs, struct sl_error *e) SL_MUST_USE;

/* Effect: the same from tekken.json, as Mistral ships it, with the pairs that the converter makes of it. Errors: SL_ESOURCE (missing or
 * damaged, absurdly many merges), SL_EUNSUPPORTED (texts are split by other rules; before version 11). */
int sl_tokenizer_tekken(const struct sl_source_dir *dir, uint64_t n_vocab, struct sl_kvs *kvs, struct sl_error *e) SL_MUST_USE;

/* Effect: the same from SentencePiece's tokenizer.model, with those of added_tokens.json and tokenizer_config.json in the place of the
 * ids that they have. Errors: SL_ESOURCE (missing or damaged, no piece for what is unknown, a text that stands twice). */
int sl_tokenizer_pieces(const struct sl_source_dir *dir, const struct cJSON *config, const struct sl_arch *arch, uint64_t n_vocab,
                        struct sl_kvs *kvs, struct sl_error *e) SL_MUST_USE;

/* Returns whether a token controls by its text, whatever is said of it. */
bool sl_token_looks_special(const char *s);
/* Returns the text with spaces for U+2581, malloc'ed, or NULL. */
char *sl_token_with_spaces(const char *text);

/* Returns the file that an architecture's tokenizer is in, NULL: tokenizer.json or tiktoken.model; and whether dir has it. */
const char *sl_tokenizer_file(const struct sl_arch *arch);
bool sl_tokenizer_there(const char *dir, const struct sl_arch *arch);

/* Returns whether dir has a tiktoken.model that the converter takes: where there is no
 * tokenizer.json, or tokenizer_config.json names Kimi-K2's own class. */
bool sl_tokenizer_is_tiktoken(const struct sl_source_dir *dir, const struct cJSON *tokenizer,
                              const struct cJSON *tokenizer_config);

/* Effect: appends the chat templates: tokenizer_config.json's (config), else those of
 * chat_template.jinja and additional_chat_templates/NAME.jinja, else chat_template.json's. */
int sl_tokenizer_chat(const struct sl_source_dir *dir, const struct cJSON *config, struct sl_kvs *kvs,
                      struct sl_error *e) SL_MUST_USE;

/* Effect: text in the byte-level alphabet (U+0100 + b for bytes that have no visible
 * character of their own) as bytes, and these as UTF-8, U+FFFD for what is none;
 * *out malloc'ed, NULL when memory is out. Returns false when text has other
 * characters, or is the same in both. */
bool sl_byte_level_decode(const char *text, char **out);

/* Effect: n bytes in the byte-level alphabet, NUL-terminated, into to (2 n + 1 bytes). Returns
 * the length. */
size_t sl_byte_level_encode(const uint8_t *bytes, size_t n, char *to);

/* Returns the text of a special token of tokenizer_config.json: a string, or an
 * object with "content"; else NULL. */
const char *sl_token_text(const struct cJSON *item);

/* Effect: the file as a JSON object, the caller's; *out = NULL when dir has no such file.
 * Errors: SL_ESOURCE. */
int sl_tokenizer_read_json(const struct sl_source_dir *dir, const char *name, struct cJSON **out,
                           struct sl_error *e) SL_MUST_USE;

/* Returns SL_EFAIL: "out of memory for the tokenizer". */
int sl_tokenizer_no_memory(struct sl_error *e);

/* A token that is special because it has a role. */
struct sl_role {
    const char *text;
    const struct cJSON *item; /* its text, or an object with "content"; NULL: its text alone */
    bool single;              /* bos_token and its kin; not one of a list */
    bool object;              /* given as an object, or made one by the tokenizer's class */
};

struct sl_roles {
    struct cJSON *map, *added; /* special_tokens_map.json, added_tokens.json; NULL: does not count */
    struct sl_role *list;      /* in the order in which they are added */
    size_t n, cap;
    struct sl_name_table named; /* texts of those that are special wherever they stand */
};

/* Effect: the tokens that tokenizer_config.json (config, may be NULL) and, where this has no
 * "added_tokens_decoder", special_tokens_map.json give a role, or the class of the tokenizer or
 * tokenizer.json's "padding" does; model = config.json. r borrows from tokenizer and config; to be
 * freed unless an error is returned. Errors: SL_ESOURCE (one of the files is no JSON object). */
int sl_roles_read(const struct sl_source_dir *dir, const struct cJSON *tokenizer,
                  const struct cJSON *config, const struct cJSON *model, struct sl_roles *r,
                  struct sl_error *e) SL_MUST_USE;
void sl_roles_free(struct sl_roles *r);

#endif
