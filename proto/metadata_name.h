/* What a model's name says, by the customs of Hugging Face repositories and of
 * the GGUF naming convention: <BaseName>-<SizeLabel>-<FineTune>-<Version>. */
#ifndef SLUICE_PROTO_METADATA_NAME_H
#define SLUICE_PROTO_METADATA_NAME_H

#include "proto/error.h"

#include <stddef.h>
#include <stdint.h>

/* Parts of "organization/Name-7B-Chat-v1.0"; each is NULL or malloc'ed. */
struct sl_name_parts {
    char *full, *org, *base, *finetune, *version, *size;
};

/* Effect: takes a model's name apart. total = the model's weights, against
 * which a size in the name is held (0: unknown). Errors: SL_EFAIL (memory). */
int sl_name_split(const char *id, uint64_t total, struct sl_name_parts *out) SL_MUST_USE;
void sl_name_parts_free(struct sl_name_parts *p);

/* "deepseek-R1" -> "Deepseek R1", malloc'ed; NULL: out of memory. */
char *sl_name_title(const char *id);

/* Effect: "671B", or "256x20B" for experts: the weights that are in use
 * whatever is routed, plus those of one expert in every layer. */
void sl_size_label(char *buf, size_t cap, uint64_t total, uint64_t shared, uint64_t expert,
                   uint64_t n_expert);

/* Returns the prefix of file names, malloc'ed (NULL: out of memory): base if not
 * NULL, else name, then the parts that are not NULL. Safe as a file name: no
 * '/', no control characters nor marks that reorder text, at most 160 bytes, never empty or hidden. */
char *sl_file_base_name(const char *name, const char *base, const char *size,
                        const char *finetune, const char *version);

#endif
