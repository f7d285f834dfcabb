/* A name for a finished file, if it is free. */
#ifndef SLUICE_PROTO_RENAME_NEW_H
#define SLUICE_PROTO_RENAME_NEW_H

/* Effect: rename() that replaces nothing. A filesystem that cannot tell in the rename itself, as
 * NFS, is asked just before. Returns 0, or -1 with errno, EEXIST when something is at `to`. */
int sl_rename_new(const char *from, const char *to);

#endif
