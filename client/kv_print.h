/* Metadata values as text and as JSON. */
#ifndef SLUICE_CLIENT_KV_PRINT_H
#define SLUICE_CLIENT_KV_PRINT_H

#include "proto/gguf.h"

struct cJSON;

/* Effect: prints kv's value on stdout, safe for a terminal: at most `elems`
 * elements of an array (then "... of N") and `chars` bytes of a string. */
void kv_print(const struct sl_kv *kv, uint64_t elems, uint64_t chars);

/* {"type", "value"} or {"type": "arr", "elem", "n", "value": [first elems]};
 * integers keep all their digits, floats that JSON cannot say become null.
 * NULL when memory is out. */
struct cJSON *kv_json(const struct sl_kv *kv, uint64_t elems);

/* Returns whether type and value are the same. */
bool kv_equal(const struct sl_kv *a, const struct sl_kv *b);

#endif
