/* The safetensors format: 8 bytes of header length, a JSON header, tensor
 * bytes. Format: huggingface/safetensors, README. The reader is at least as
 * strict as the reference implementation: every byte after the header belongs
 * to exactly one tensor. */
#ifndef SLUICE_PROTO_SAFETENSORS_H
#define SLUICE_PROTO_SAFETENSORS_H

#include "proto/checkpoint.h"
#include "proto/error.h"

#include <stdint.h>

#define SL_SAFETENSORS_MAX_HEADER 100000000u /* the reference implementation's bound */
#define SL_SRC_MAX_NAME 512                  /* bytes of a tensor name */

struct sl_safetensors {
    uint64_t data_start;           /* file offset of the first tensor byte */
    struct sl_src_tensor *tensors; /* by offset; .file is 0 */
    uint32_t n_tensors;
    char *names;                   /* what their names point into */
};

/* Effect: reads and checks the header of the open file of file_size bytes;
 * label names it in errors. Nothing after the header is read. *out is the
 * caller's (sl_safetensors_free), also after an error, when it is empty.
 * Errors: SL_ESOURCE naming file and tensor; SL_EUNSUPPORTED for a dtype that
 * Sluice does not know or more than SL_SRC_MAX_DIMS dimensions. */
int sl_safetensors_read(int fd, const char *label, uint64_t file_size, struct sl_safetensors *out,
                        struct sl_error *e) SL_MUST_USE;
void sl_safetensors_free(struct sl_safetensors *s);

/* Effect: checks a tensor name: 1 to SL_SRC_MAX_NAME bytes, no control
 * characters (U+0000 to U+001F, U+007F to U+009F). */
int sl_src_check_name(const char *name, struct sl_error *e) SL_MUST_USE;

#endif
