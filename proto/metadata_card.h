/* The front matter of a model card (README.md): the part of YAML that model
 * cards use. */
#ifndef SLUICE_PROTO_METADATA_CARD_H
#define SLUICE_PROTO_METADATA_CARD_H

#include "proto/error.h"

#include <stddef.h>

struct cJSON;

/* Effect: the front matter (between a first line "---" and the next one) as a
 * JSON object of strings, nulls, arrays and objects; numbers stay the text they
 * are, and words such as true and no in a list; elsewhere each of these becomes
 * false, for which nothing is written. Understood: plain, quoted and block scalars,
 * block lists, lists in brackets, nested maps. Anything else is skipped. An
 * object without entries when there is no front matter. *out is the caller's
 * (cJSON_Delete). Errors: SL_EFAIL (out of memory). */
int sl_card_parse(const char *text, size_t len, struct cJSON **out) SL_MUST_USE;

#endif
