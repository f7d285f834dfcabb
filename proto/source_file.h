/* Opening the files of a checkpoint, which a stranger may have packed. */
#ifndef SLUICE_PROTO_SOURCE_FILE_H
#define SLUICE_PROTO_SOURCE_FILE_H

#include "proto/error.h"
#include "proto/roots.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sl_source_stat {
    uint64_t size;
    int64_t mtime_ns;
};

/* A part of a file that holds no data, and reads as zeros. */
struct sl_source_hole {
    uint64_t at, bytes; /* no bytes: none */
};

struct stat; /* <sys/stat.h> */

/* Returns sl_source_stat's time of such a file, which may be any that its filesystem can hold. */
int64_t sl_source_mtime_ns(const struct stat *st);

/* Returns whether name is a plain base name: 1 to 255 bytes, no '/', no control
 * character, not "." or "..". */
bool sl_source_plain_name(const char *name);

/* A checkpoint's folder, and the folders that its reader must not leave. */
struct sl_source_dir {
    const char *path;
    const struct sl_roots *roots; /* NULL: a user's own process, which may read what he may */
};

/* Effect: opens dir/name for reading; *fd is the caller's. The file must be
 * regular. A symbolic link is followed only when it resolves to a file inside
 * dir, or into a Hugging Face cache: for a folder R/snapshots/<revision>[/...]
 * to a file directly in R/blobs, for any folder (one that "download --local-dir"
 * made) to models--NAME/blobs/HASH. So whoever packed the folder cannot make
 * Sluice read files elsewhere. With roots, what was opened must lie below them
 * too. Errors: SL_ESOURCE naming the file, also one that a program is still downloading;
 * SL_EUSAGE outside the roots. */
int sl_source_open(const struct sl_source_dir *dir, const char *name, int *fd,
                   struct sl_source_stat *st, struct sl_error *e) SL_MUST_USE;

/* Effect: the same for a path that the user gave: links are followed; roots as above. */
int sl_source_open_path(const char *path, const struct sl_roots *roots, int *fd, struct sl_source_stat *st,
                        struct sl_error *e) SL_MUST_USE;

/* Returns what a checkpoint's folder is called, a part of dir, with its length in
 * *n: the last part of the path; for models--OWNER--NAME/snapshots/REVISION of a
 * Hugging Face cache NAME, since a revision is no name. */
const char *sl_source_folder_name(const char *dir, size_t *n);

/* Effect: *name = that of the folder's full path; the caller's. Errors: SL_ESOURCE (dir first), SL_EFAIL. */
int sl_source_full_name(const char *dir, char **name, struct sl_error *e) SL_MUST_USE;

/* Returns whether dir/name is there (a dangling link is). What cannot be looked up counts as there:
 * who opens it hears why. */
bool sl_source_exists(const char *dir, const char *name);

/* "dir/name" in new memory, or NULL. */
char *sl_source_join(const char *dir, const char *name);

/* What a file's first n bytes may be in place of what was expected. */
bool sl_source_is_lfs(const void *head, size_t n);  /* Git LFS's pointer, not the file itself */
bool sl_source_is_text(const void *head, size_t n); /* ASCII, as a server's error page is */

/* Returns how many of those bytes stand before the first control character: the line they begin with. */
size_t sl_source_shown(const void *head, size_t n);

/* What is said of such a pointer, behind the file's name. */
#define SL_SOURCE_LFS "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`"

/* Effect: reads exactly n bytes at offset. Errors: SL_ESOURCE, SL_EFAIL (memory), label first. */
int sl_source_read(int fd, const char *label, void *to, size_t n, uint64_t offset,
                   struct sl_error *e) SL_MUST_USE;

/* Returns the first hole of 1 MiB or more, as far as the filesystem tells: a download that has not ended leaves such
 * ones where the file has its whole size from the beginning on. fd's offset moves. */
struct sl_source_hole sl_source_first_hole(int fd, uint64_t size);

/* Effect: the first bytes of dir/name, `most` at most (NUL-terminated, *n of them); the caller's. Returns 1, or 0 when
 * there is no such file, or no regular one. Errors: SL_ESOURCE (it cannot be read), SL_EFAIL (memory). */
int sl_source_head(const struct sl_source_dir *dir, const char *name, size_t most, char **text, size_t *n,
                   struct sl_error *e) SL_MUST_USE;

/* Effect: the whole of dir/name as text (NUL-terminated, no NUL inside, *len bytes); the caller's. Returns 1, or 0 when
 * there is no such file. Errors: SL_ESOURCE (more than 128 MiB, no text, a Git LFS pointer), SL_EFAIL (memory). */
int sl_source_text(const struct sl_source_dir *dir, const char *name, char **text, size_t *len,
                   struct sl_error *e) SL_MUST_USE;

#endif
