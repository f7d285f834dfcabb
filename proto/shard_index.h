/* model.safetensors.index.json: which shard holds which tensor. */
#ifndef SLUICE_PROTO_SHARD_INDEX_H
#define SLUICE_PROTO_SHARD_INDEX_H

#include "proto/checkpoint.h"
#include "proto/error.h"
#include "proto/name_table.h"

#include <stdint.h>

#define SL_INDEX_MAX_BYTES 200000000u

struct sl_shard_index {
    struct cJSON *json;    /* owns every string below */
    const char **tensors;  /* in the file's order */
    uint32_t *shard_of;    /* tensor -> index into shards */
    uint32_t n_tensors;
    const char **shards;   /* sorted by name, each once */
    uint32_t n_shards;
};

/* Effect: reads and checks the index in the open file: weight_map is an object of
 * tensor names to shard names, not empty; shard names are plain base names
 * that end in .safetensors (no folders, so that nothing outside the
 * checkpoint's folder can be named). metadata.total_size is ignored, since it
 * is often wrong. *out is the caller's (sl_shard_index_free), empty after an
 * error. Errors: SL_ESOURCE. */
int sl_shard_index_read(int fd, const char *label, struct sl_shard_index *out,
                        struct sl_error *e) SL_MUST_USE;
void sl_shard_index_free(struct sl_shard_index *ix);

/* Effect: checks that the tensors found in the shards (tensor.file = index into
 * ix->shards; found maps a name to its tensor) are exactly the index's.
 * Errors: SL_ESOURCE with up to 10 missing and 10 surplus names. */
int sl_shard_index_check(const struct sl_shard_index *ix, const char *label,
                         const struct sl_src_tensor *tensors, uint32_t n_tensors,
                         const struct sl_name_table *found, struct sl_error *e) SL_MUST_USE;

#endif
