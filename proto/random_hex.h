/* Names that nobody else has: identities of daemons, workers and requests. */
#ifndef SLUICE_PROTO_RANDOM_HEX_H
#define SLUICE_PROTO_RANDOM_HEX_H

#include "proto/error.h"

/* Effect: writes 32 random hex digits. Errors: SL_EFAIL. */
int sl_random_hex(char text[33], struct sl_error *e) SL_MUST_USE;

#endif
