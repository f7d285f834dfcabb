/* Texts of tcp endpoints, where it matters what libzmq would make of them. */
#ifndef SLUICE_PROTO_ENDPOINT_H
#define SLUICE_PROTO_ENDPOINT_H

#include "proto/error.h"

#include <stdbool.h>

/* Returns whether a tcp endpoint is this machine's alone, whatever a resolver says:
 * an address of 127.0.0.0/8, [::1] or localhost, and a port. */
bool sl_endpoint_loopback(const char *endpoint);

/* Effect: checks a tcp endpoint's form: one host and one port. libzmq takes ports modulo
 * 65536, and "ADDRESS;HOST:PORT", of which only the first part is seen. bind: the port may
 * be 0 or * (any). Errors: SL_EUSAGE. */
int sl_endpoint_check_tcp(const char *endpoint, bool bind, struct sl_error *e) SL_MUST_USE;

#endif
