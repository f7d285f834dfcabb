/* A name's addresses, asked for by threads of its own: a resolver whose server does not answer blocks for half a minute. */
#ifndef SLUICE_WORKER_LOOKUP_H
#define SLUICE_WORKER_LOOKUP_H

#include "proto/error.h"

#include <stdint.h>

#define SL_ADDRESS_CHARS 80 /* of IPv6 with a zone */

enum sl_lookup_state {
    SL_LOOKUP_PENDING,
    SL_LOOKUP_FOUND,
    SL_LOOKUP_NONE,       /* it has no address */
    SL_LOOKUP_UNANSWERED, /* no server answered, or not now */
};

struct sl_lookup;

/* Effect: begins to ask for a host's addresses. Errors: SL_EFAIL (memory, threads). */
int sl_lookup_begin(const char *host, struct sl_lookup **out, struct sl_error *e) SL_MUST_USE;

/* Returns for how long it has been asked. */
uint64_t sl_lookup_ms(const struct sl_lookup *l);

/* Effect: SL_LOOKUP_FOUND: writes an address in digits. One to which this machine has a way goes first, of those an
 * IPv4 one; the next turn has one of the other family, the third the second of the first. Never blocks. */
enum sl_lookup_state sl_lookup_answer(struct sl_lookup *l, unsigned turn, char address[SL_ADDRESS_CHARS]);

/* Whether the address, in digits, is one of the name's; asks for its family where that was not needed before. Never blocks. */
enum sl_lookup_state sl_lookup_has(struct sl_lookup *l, const char *address);

/* Effect: frees it; what still waits for a server ends by itself. */
void sl_lookup_leave(struct sl_lookup *l);

#endif
