/* Names that nobody else has: identities of daemons, workers and requests. */
#ifndef SLUICE_PROTO_RANDOM_HEX_H
#define SLUICE_PROTO_RANDOM_HEX_H

#include "proto/error.h"

/* Effect: writes random hex digits (an even number up to 128) and a 0 to text. Errors: SL_EFAIL. */
int sl_random_hex(char *text, unsigned digits, struct sl_error *e) SL_MUST_USE;

#endif
