/* A model named on the command line: a GGUF file, the first of a split set, or
 * a folder. */
#ifndef SLUICE_CLIENT_MODEL_ARG_H
#define SLUICE_CLIENT_MODEL_ARG_H

#include "proto/gguf.h"

/* Effect: *path = the GGUF file that arg means (new memory, the caller's): arg
 * itself, or, for a folder, the one GGUF model in it. NULL when arg is a folder
 * without GGUF files (a checkpoint, perhaps) or a .safetensors or .json file.
 * Errors: SL_ESOURCE when arg does not exist; SL_EUSAGE when a folder holds
 * several models. */
int model_arg_gguf(const char *arg, char **path, struct sl_error *e) SL_MUST_USE;

/* The same where a checkpoint will do: SL_EUSAGE, too, when a folder holds shards beside the GGUF model. */
int model_arg_either(const char *arg, char **path, struct sl_error *e) SL_MUST_USE;

/* Whether a name is that of a part of a checkpoint: a shard, an index, its config.json. */
bool model_arg_is_part(const char *arg);

/* A GGUF model: all files of its set. */
struct gguf_set {
    struct sl_gguf **files;
    uint32_t n;
    uint64_t n_tensors, bytes, tensor_bytes;
};

/* Effect: opens every file of the set that path begins. Errors: those of
 * sl_gguf_open and sl_gguf_split_count. Release with gguf_set_close in every
 * case. */
int gguf_set_open(const char *path, struct gguf_set *s, struct sl_error *e) SL_MUST_USE;
void gguf_set_close(struct gguf_set *s);

/* Prints text so that a terminal takes no harm: control characters and bytes
 * that are not UTF-8 as \xNN, newline as \n; "..." after max bytes. */
void print_safe(const char *text, uint64_t n, uint64_t max);

struct cJSON;
/* A JSON string of n bytes that may hold anything: bytes that are not UTF-8,
 * and zero bytes, become U+FFFD. NULL when memory is out. */
struct cJSON *json_text(const char *text, uint64_t n);

/* Effect: adds how many tensors, as "n_tensors"; and as "tensors", which elsewhere is a list, for those who read that. */
void json_tensors(struct cJSON *object, uint64_t n);

/* Weights of a tensor. */
uint64_t gguf_elems(const struct sl_gguf_tensor *t);

#endif
