/* Names to numbers: a hash table that grows, with open addressing and a
 * seeded hash (SipHash-1-3), so that a stranger's names cannot make it slow.
 * Names are borrowed: their owner keeps them until the table is freed. */
#ifndef SLUICE_PROTO_NAME_TABLE_H
#define SLUICE_PROTO_NAME_TABLE_H

#include "proto/error.h"

#include <stdint.h>

#define SL_NO_NAME UINT32_MAX

struct sl_name_slot {
    const char *name; /* NULL: free */
    uint32_t tag;     /* high half of the hash */
    uint32_t value;
};

struct sl_name_table {
    uint64_t key[2];
    struct sl_name_slot *slots;
    uint64_t cap; /* a power of two, or 0 */
    uint64_t n;
};

/* Effect: an empty table with room for `expected` names. Errors: SL_EFAIL (out
 * of memory). A table of zeros is a valid argument of find and free. */
int sl_name_table_init(struct sl_name_table *t, uint64_t expected, struct sl_error *e) SL_MUST_USE;
void sl_name_table_free(struct sl_name_table *t);

/* Effect: adds name -> value (value < SL_NO_NAME) unless the name is there.
 * *held = the value that the name has now: another one than `value` tells a
 * duplicate, when values are distinct. held may be NULL. Errors: SL_EFAIL. */
int sl_name_table_add(struct sl_name_table *t, const char *name, uint32_t value, uint32_t *held,
                      struct sl_error *e) SL_MUST_USE;

/* Returns the name's value, or SL_NO_NAME. */
uint32_t sl_name_table_find(const struct sl_name_table *t, const char *name);

#endif
