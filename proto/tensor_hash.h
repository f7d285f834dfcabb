/* Hashes of a GGUF file's tensor bytes, in one sequential pass with bounded
 * memory, and the manifest that llama.cpp's llama-gguf-hash writes and checks. */
#ifndef SLUICE_PROTO_TENSOR_HASH_H
#define SLUICE_PROTO_TENSOR_HASH_H

#include "proto/gguf.h"

#include <stdio.h>

#define SL_SHA256_BYTES 32

/* XXH64 (seed 0), and SHA-256 on request, over bytes that come in pieces. */
struct sl_hash;
/* Returns a hash over nothing so far (the caller's: sl_hash_free), or NULL
 * when memory is out. */
struct sl_hash *sl_hash_new(bool sha256);
void sl_hash_free(struct sl_hash *h);
int sl_hash_update(struct sl_hash *h, const void *bytes, uint64_t n) SL_MUST_USE;
/* Effect: the hash of all bytes since sl_hash_new or the last sl_hash_final;
 * h then starts again from nothing. sha256: SL_SHA256_BYTES bytes, or NULL;
 * ignored when h has no SHA-256. Errors: SL_EFAIL. */
int sl_hash_final(struct sl_hash *h, uint64_t *xxh64, uint8_t *sha256) SL_MUST_USE;
/* XXH64 (seed 0) of n bytes. */
uint64_t sl_xxh64(const void *bytes, uint64_t n);

/* XXH3 with 128 bits, for fingerprints. */
struct sl_hash128;
struct sl_hash128 *sl_hash128_new(void); /* the caller's (sl_hash128_free), or NULL */
void sl_hash128_free(struct sl_hash128 *h);
void sl_hash128_update(struct sl_hash128 *h, const void *bytes, uint64_t n);
/* Effect: writes the hash in hex, most significant digit first; h then starts again from nothing. */
void sl_hash128_final(struct sl_hash128 *h, char hex[33]);

/* What one pass over a file's tensors calls. Each may be NULL; a negative
 * result stops the pass and is returned as it is (the callback fills *e of
 * its own accord). */
struct sl_stream_ops {
    /* n bytes of tensor `index`, from its byte `off` on; pieces come in order. */
    int (*on_data)(void *user, uint64_t index, uint64_t off, const uint8_t *bytes, uint64_t n);
    /* tensor `index` is complete. */
    int (*on_tensor)(void *user, uint64_t index);
    /* n more bytes of the file have been read (padding included). */
    int (*progress)(void *user, uint64_t n);
    void *user;
};

/* Effect: reads the data section of the file at path once, from its first
 * byte to the end of the file, in pieces of at most 4 MiB. Of g only n_tensors,
 * names, offsets and bytes of its tensors, header_bytes and data_bytes are
 * used, so that a plan can stand in for a header that is not written yet. Errors: SL_EVERIFY when a
 * padding byte is not zero, the file ends early or bytes follow the last
 * tensor's padding; SL_ESOURCE when the file cannot be opened; SL_EFAIL. */
int sl_gguf_stream(const char *path, const struct sl_gguf *g, const struct sl_stream_ops *ops,
                   struct sl_error *e) SL_MUST_USE;

/* Over all tensor bytes of a file, joined in tensor-info order, without
 * metadata and padding. */
struct sl_hash_total {
    uint64_t xxh64;
    uint8_t sha256[SL_SHA256_BYTES]; /* valid when has_sha256 */
    bool has_sha256;
    uint64_t bytes; /* tensor bytes */
};

/* Effect: XXH64 of a header (its padding included) with the two checksum values
 * taken as zero: 8 bytes at off_sum_header, 8 * n_tensors bytes at
 * off_sum_tensors (places as sl_gguf_value_offset gives them). Errors: SL_EFAIL
 * when a place lies outside the header. */
int sl_gguf_header_checksum(const uint8_t *header, uint64_t len, uint64_t off_sum_header,
                            uint64_t off_sum_tensors, uint64_t n_tensors, uint64_t *sum)
    SL_MUST_USE;

/* A manifest is lines "%-8s  <hex>  <file>:<tensor>", then "%-8s  <hex>  <file>"
 * for the whole file; with SHA-256 both kinds follow each other. llama-gguf-hash
 * -c looks up the GGUF's path exactly as it was typed, so `file` should be the
 * base name, and the check be run in the file's folder; a name with white space
 * cannot be checked by it. Errors: SL_EFAIL when writing fails. */
int sl_manifest_tensor(FILE *out, const char *file, const char *tensor, uint64_t xxh64,
                       const uint8_t *sha256_or_null) SL_MUST_USE;
int sl_manifest_file(FILE *out, const char *file, const struct sl_hash_total *total) SL_MUST_USE;

#endif
