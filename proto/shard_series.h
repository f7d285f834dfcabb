/* A folder's shards where no index names them: the files model*.safetensors. */
#ifndef SLUICE_PROTO_SHARD_SERIES_H
#define SLUICE_PROTO_SHARD_SERIES_H

#include "proto/error.h"

#include <stdint.h>

struct sl_shard_series {
    char **names; /* sorted; plain base names */
    uint32_t n;   /* 0: the folder has none */
};

/* Effect: lists them, and checks that those numbered X-NNNNN-of-NNNNN are one set without a gap (of a set counted
 * from 0: up to the last that is there). *out is the caller's (sl_shard_series_free), empty after an error. Errors:
 * SL_ESOURCE, SL_EFAIL. */
int sl_shard_series_read(const char *dir, struct sl_shard_series *out, struct sl_error *e) SL_MUST_USE;
void sl_shard_series_free(struct sl_shard_series *s);

/* Returns how many shards are in the set of a file named X-NNNNN-of-NNNNN.safetensors; 0: it has no such name. */
uint32_t sl_shard_set_size(const char *name);

#endif
