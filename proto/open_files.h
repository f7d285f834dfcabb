/* How many files a process may have open. */
#ifndef SLUICE_PROTO_OPEN_FILES_H
#define SLUICE_PROTO_OPEN_FILES_H

/* Effect: as many as the system lets it: the soft limit (1024 by habit, for programs that use
 * select) becomes the hard one. Every part of an output, every shard and every connection is
 * open at once. What cannot be had stays as it is. */
void sl_open_files_allow(void);

#endif
