/* Whom a file is closed to: a service has another user than who asked it. */
#ifndef SLUICE_PROTO_REFUSAL_H
#define SLUICE_PROTO_REFUSAL_H

/* Effect: writes strerror(err) to buf, of EACCES with this program's user: "Permission denied (user sluice)".
 * Leaves errno as it is. Returns buf. */
const char *sl_refusal(char buf[128], int err);

#endif
