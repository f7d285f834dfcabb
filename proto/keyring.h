/* Key files and the allow-list of tcp endpoints (CURVE). Keys are Z85 texts of
 * 40 characters. */
#ifndef SLUICE_PROTO_KEYRING_H
#define SLUICE_PROTO_KEYRING_H

#include "proto/error.h"

#include <stdbool.h>
#include <stddef.h>

#define SL_KEY_CHARS 40

enum sl_role { SL_ROLE_NONE = 0, SL_ROLE_WORKER, SL_ROLE_SUBMITTER, SL_ROLE_ADMIN };

const char *sl_role_name(enum sl_role r);     /* "worker", "submitter", "admin"; "none" */
enum sl_role sl_role_by_name(const char *name); /* SL_ROLE_NONE when unknown */

/* A key file: lines "public KEY" and, in secret ones, "secret KEY"; '#' begins a
 * comment. One, "# allow-list: ROLE key KEY NAME", keeps the line that was made with the key. */
struct sl_key {
    char public_key[SL_KEY_CHARS + 1];
    char secret_key[SL_KEY_CHARS + 1]; /* "" when the file has none */
    enum sl_role role;                 /* of that line; SL_ROLE_NONE and "" when there is none */
    char name[65];
};

/* Effect: reads a key file. With want_secret the file must hold both and be
 * closed to group and others. Errors: SL_EUSAGE with file and line. */
int sl_key_load(const char *path, bool want_secret, struct sl_key *k, struct sl_error *e)
    SL_MUST_USE;
/* Effect: writes "PATH" (mode 0600, both keys) and "PATH.pub" (public key alone), both with
 * the allow-list's line when k has a role; synced. Errors: SL_EEXISTS when one is there; SL_ENOSPACE, SL_EFAIL. */
int sl_key_save(const char *path, const struct sl_key *k, struct sl_error *e) SL_MUST_USE;

/* The allow-list: lines "ROLE key KEY NAME" and "ROLE uid NUMBER NAME". */
struct sl_allow_entry {
    enum sl_role role;
    bool is_uid;
    char subject[SL_KEY_CHARS + 1];    /* the key, or the number in decimal */
    char name[65];
};
struct sl_allow_list {
    struct sl_allow_entry *entries;
    size_t n;
};
/* Effect: reads the list; the file must not be writable by others. Errors:
 * SL_EUSAGE with file and line (unknown role, no such key, a subject twice). */
int sl_allow_load(const char *path, struct sl_allow_list *l, struct sl_error *e) SL_MUST_USE;
void sl_allow_free(struct sl_allow_list *l);
/* Returns the entry of a subject, or NULL. */
const struct sl_allow_entry *sl_allow_find(const struct sl_allow_list *l, bool is_uid,
                                           const char *subject);

#endif
