/* JSON from strangers. The text is checked strictly before cJSON sees it, since
 * cJSON lets pass what must not: invalid UTF-8, raw control characters, "\u0000"
 * (it would cut a string short), numbers in forms that JSON forbids, duplicate
 * keys, bytes after the value, and values without a bound on their number. */
#ifndef SLUICE_PROTO_JSON_FILE_H
#define SLUICE_PROTO_JSON_FILE_H

#include "proto/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cJSON;

#define SL_JSON_MAX_DEPTH 64
#define SL_JSON_MAX_VALUES 4000000u       /* bounds the tree to about 0.5 GB */
#define SL_JSON_EXACT (UINT64_C(1) << 53) /* integers up to here are exact in a double */
#define SL_JSON_PLAIN SIZE_MAX

/* Effect: parses exactly one JSON value in text[0..len), with JSON's white space
 * around it. label names the text in errors. *odd_number (may be NULL) = offset
 * of the first number that is not plain digits (sign, fraction, exponent), or
 * SL_JSON_PLAIN. *out is the caller's (cJSON_Delete). Errors: SL_ESOURCE with
 * label, byte offset and what is wrong there; SL_EFAIL (out of memory). */
int sl_json_parse(const char *label, const char *text, size_t len, size_t *odd_number,
                  struct cJSON **out, struct sl_error *e) SL_MUST_USE;

/* The same for files that Python's json reads elsewhere, as that does: of a key that an object has twice
 * the last value counts, in the first one's place. Its bare words NaN, Infinity and -Infinity are taken
 * for empty strings; text is changed for that. */
int sl_json_parse_python(const char *label, char *text, size_t len, struct cJSON **out, struct sl_error *e) SL_MUST_USE;

/* Effect: reads the open regular file from its start, at most max_bytes of it,
 * and parses it as sl_json_parse_python does. Errors: as sl_json_parse, and SL_ESOURCE for a file that is
 * larger, cannot be read, or is no regular file. The caller closes fd. */
int sl_json_read_fd(int fd, const char *label, size_t max_bytes, struct cJSON **out,
                    struct sl_error *e) SL_MUST_USE;

/* Returns the value of an object's key; NULL: absent. */
struct cJSON *sl_get(const struct cJSON *object, const char *name);

/* Returns whether item is a number that is an integer from 0 to max (max is
 * at most SL_JSON_EXACT), in *v. item may be NULL. */
bool sl_json_uint(const struct cJSON *item, uint64_t max, uint64_t *v);

#endif
