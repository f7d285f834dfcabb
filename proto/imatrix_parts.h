/* Between the files of the imatrix reader and writer. */
#ifndef SLUICE_PROTO_IMATRIX_PARTS_H
#define SLUICE_PROTO_IMATRIX_PARTS_H

#include "proto/imatrix.h"

#define SL_IMATRIX_MAX_NAME 1024 /* bytes */

/* Effect: *entry = a new, zeroed entry of that name at the end. The name (n bytes) is
 * copied. Errors: SL_EFAIL; SL_ESOURCE for a name that is empty, too long or there twice. */
int sl_imatrix_add(struct sl_imatrix *im, const char *name, uint64_t n,
                   struct sl_imatrix_entry **entry, struct sl_error *e) SL_MUST_USE;
int sl_imatrix_add_dataset(struct sl_imatrix *im, const char *name, uint64_t n,
                           struct sl_error *e) SL_MUST_USE;

/* Effect: out[0..n) = stored values of entry i. Errors: as sl_imatrix_values. */
int sl_imatrix_stored(const struct sl_imatrix *im, uint32_t i, uint64_t first, uint64_t n,
                      float *out, struct sl_error *e) SL_MUST_USE;

/* imatrix_dat.c, imatrix_gguf.c. Effect: fill im, whose path, fd and file_size are set. */
int sl_imatrix_read_dat(struct sl_imatrix *im, struct sl_error *e) SL_MUST_USE;
int sl_imatrix_read_gguf(struct sl_imatrix *im, struct sl_error *e) SL_MUST_USE;

/* Where a new file's bytes go, buffered. */
struct sl_imatrix_sink {
    int fd;
    const char *path;
    uint8_t *buf;
    size_t n;
};
int sl_imatrix_put(struct sl_imatrix_sink *s, const void *bytes, size_t n, struct sl_error *e)
    SL_MUST_USE;

/* Effect: put the whole file; order: the entries' indices sorted by name. */
int sl_imatrix_put_dat(const struct sl_imatrix *im, const uint32_t *order,
                       struct sl_imatrix_sink *s, struct sl_error *e) SL_MUST_USE;
int sl_imatrix_put_gguf(const struct sl_imatrix *im, const uint32_t *order,
                        struct sl_imatrix_sink *s, struct sl_error *e) SL_MUST_USE;

/* Values that are read, computed and written in one go. */
#define SL_IMATRIX_PIECE 16384u

/* The chunk size that a GGUF file made from DAT names; a power of two, so that the
 * quotients stay the same. */
#define SL_IMATRIX_CHUNK 512u

#endif
