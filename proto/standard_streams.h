/* Streams 0, 1 and 2, of which whoever starts a program may have closed some. */
#ifndef SLUICE_PROTO_STANDARD_STREAMS_H
#define SLUICE_PROTO_STANDARD_STREAMS_H

#include "proto/error.h"

/* Effect: a stream that is closed gets a file of its own, so that none opened later takes its
 * number: a message would be written into that. Writing to standard output fails then, to
 * standard error is lost. Stands first in a main. */
void sl_streams_fill(void);

/* Effect: writes out what stdout holds, and asks the filesystem whether it has it. Errors: SL_EFAIL,
 * too where an earlier write had failed. */
int sl_stdout_flush(struct sl_error *e) SL_MUST_USE;

#endif
