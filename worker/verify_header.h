/* What is damaged in a header that does not match its checksum, or cannot be read. */
#ifndef SLUICE_WORKER_VERIFY_HEADER_H
#define SLUICE_WORKER_VERIFY_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Returns the bytes of a value of this type (enum sl_gguf_type); 0 for texts, lists and what is no type. */
uint32_t verify_value_bytes(uint32_t type);

/* Effect: finds the damaged record by the checksums that the header carries of each
 * (SL_KEY_SUM_RECORDS), and writes one sentence that names the tensor or metadata key;
 * where one byte of a tensor's record or of a key is wrong, it finds out what it was.
 * buf: the file's first `have` bytes, which may be less or more than its header (used
 * as scratch, restored). header_bytes: the header's length with its padding, 0 when it
 * is not known. sum_ok: it matches SL_KEY_SUM_HEADER (which leaves the tensors'
 * checksums out). Returns false when all is well, or when the checksums of the records
 * are not in these bytes; *sums_damaged: the checksums of the tensors are what is damaged; *other: most tensors are
 * not those of the checksums, as in what llama-quantize makes of a file. Takes up to a second. */
bool verify_diagnose(uint8_t *buf, uint64_t have, uint64_t header_bytes, bool sum_ok, const char *path,
                     char *text, size_t cap, bool *sums_damaged, bool *other);

#endif
