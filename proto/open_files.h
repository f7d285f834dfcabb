/* How many files a process may have open, and what threads and libzmq need. */
#ifndef SLUICE_PROTO_OPEN_FILES_H
#define SLUICE_PROTO_OPEN_FILES_H

#include "proto/error.h"

#include <stddef.h>

#define SL_ZMQ_FILES 16 /* of a context with its first sockets */

/* Effect: as many as the system lets it: the soft limit (1024 by habit, for programs that use
 * select) becomes the hard one. Every part of an output, every shard and every connection is
 * open at once. What cannot be had stays as it is. */
void sl_open_files_allow(void);

/* Effect: whether n more can be opened. Errors: SL_EFAIL. */
int sl_open_files_room(unsigned n, struct sl_error *e) SL_MUST_USE;

/* Effect: whether there is so much address space, for threads. Errors: SL_EFAIL. */
int sl_address_room(size_t bytes, struct sl_error *e) SL_MUST_USE;

/* Effect: whether the first socket of a context of libzmq's can be made now: libzmq aborts without
 * its files, its two threads with their stacks, and their scheduling. Errors: SL_EFAIL. */
int sl_zmq_room(struct sl_error *e) SL_MUST_USE;

#endif
