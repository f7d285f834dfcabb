/* Sizes as people read and write them. */
#ifndef SLUICE_PROTO_SIZE_TEXT_H
#define SLUICE_PROTO_SIZE_TEXT_H

#include <stdbool.h>
#include <stdint.h>

/* Effect: writes "281.3 GB" style text (powers of 1000, one decimal) to buf. Returns buf. */
const char *sl_size_text(char buf[32], uint64_t bytes);

#define SL_SIZE_MAX UINT64_C(9000000000000000000)

/* Effect: *bytes from "48G", "1.5Gi", "300MB", "24gb", "2k", "4096": powers of 1000, with an i of 1024, at
 * most six decimals, for options and configuration alike. Returns false for anything else: a
 * sign, a space, an exponent, a unit that is none, more than SL_SIZE_MAX. */
bool sl_parse_size(const char *text, uint64_t *bytes);

struct sl_size_unit {
    const char *name;    /* "" ends a table, and stands for no unit */
    uint64_t factor;     /* at most 2^40 */
};
/* Effect: *out from digits, perhaps a point and one to six decimals, and the name of one of the
 * units, which must be more than 1 for decimals. Returns false for anything else. */
bool sl_parse_scaled(const char *text, const struct sl_size_unit *units, uint64_t *out);

#endif
