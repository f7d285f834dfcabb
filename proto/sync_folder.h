/* Names that outlive a power loss. */
#ifndef SLUICE_PROTO_SYNC_FOLDER_H
#define SLUICE_PROTO_SYNC_FOLDER_H

#include "proto/error.h"

/* Effect: fsync of a folder; nothing on a filesystem that has no such thing. Errors: SL_ENOSPACE, SL_EFAIL. */
int sl_sync_folder(const char *dir, struct sl_error *e) SL_MUST_USE;

/* Effect: the same of the folder that a new file is in; nothing if its owner lets nobody read it. */
int sl_sync_folder_of(const char *path, struct sl_error *e) SL_MUST_USE;

#endif
