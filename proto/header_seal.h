/* The checksums that a finished header carries about itself. */
#ifndef SLUICE_PROTO_HEADER_SEAL_H
#define SLUICE_PROTO_HEADER_SEAL_H

#include "proto/gguf.h"

/* Effect: fills in the values that the plan laid out as zeros in a header made by
 * sl_gguf_header from kvs, in this order:
 *   SL_KEY_SUM_TENSORS  sums[0..n_tensors);
 *   SL_KEY_SUM_RECORDS  where kvs has it: XXH64 of each key-value's bytes and then of
 *                       each tensor info's, in order; its own entry and that of
 *                       SL_KEY_SUM_HEADER are over the bytes before the value;
 *   SL_KEY_SUM_HEADER   sl_gguf_header_checksum.
 * Errors: SL_EFAIL when a key is absent or the header is not that of kvs. */
int sl_gguf_seal_header(uint8_t *header, uint64_t len, const struct sl_kvs *kvs,
                        const uint64_t *sums, uint64_t n_tensors) SL_MUST_USE;

#endif
