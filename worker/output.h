/* The files of an output: names, space, reservation. Work lies under temporary
 * names; a final name exists only for a complete, checked file (worker/publish.h
 * gives it). */
#ifndef SLUICE_WORKER_OUTPUT_H
#define SLUICE_WORKER_OUTPUT_H

#include "proto/plan.h"

#include <sys/stat.h>

/* Room for the path of any file of an output: the folder's, the name's, and suffixes. */
#define OUTPUT_PATH_BYTES 4400

struct output {
    char *dir;       /* folder of all the files, "." when none was given */
    char *prefix;    /* base name without ".gguf" and split suffix; NULL: the plan decides */
    const struct sl_plan *plan; /* set by output_attach */
    char **final;    /* plan->n_segments paths */
    char **partial;  /* the same with ".partial" */
    char *journal;   /* path of the job store */
    bool sparse;     /* zeros need no room: space is neither counted nor reserved */
    bool new_dir;    /* the folder is not there yet; its parent is */
};

/* Effect: takes -o apart: a folder (it exists, or ends with '/') or a file name
 * (".gguf" and a split suffix are cut off). The folder must exist; one that ends
 * with '/' may be missing where its parent is there (new_dir). No device or pipe
 * may have the name, nor may it end like a file of another kind ("x.bin").
 * Errors: SL_EUSAGE. Release with output_free in every case. */
int output_parse(struct output *o, const char *arg, struct sl_error *e) SL_MUST_USE;
/* Effect: the same for a folder of another machine: an absolute path, that is not
 * looked at; one that ends with '/' is a folder. Errors: SL_EUSAGE. */
int output_parse_far(struct output *o, const char *arg, struct sl_error *e) SL_MUST_USE;
/* Effect: makes the folder of an output with new_dir. Returns 1, or 0 when somebody else just has.
 * Errors: SL_EFAIL, SL_ENOSPACE. */
int output_make_dir(const struct output *o, struct sl_error *e) SL_MUST_USE;
/* Effect: *bytes = what can be written where the output goes, its parent for a
 * new folder; UINT64_MAX where the filesystem does not count. Errors: SL_EFAIL. */
int output_free_space(const struct output *o, uint64_t *bytes, struct sl_error *e) SL_MUST_USE;
/* Returns the path of the job store of an output of this base name (the caller's, free), or NULL. */
char *output_journal(const struct output *o, const char *prefix);
/* Effect: builds the paths for a plan, which must outlive *o. Errors: SL_EFAIL. */
int output_attach(struct output *o, const struct sl_plan *plan, struct sl_error *e) SL_MUST_USE;
void output_free(struct output *o);

/* Returns 0, or SL_EEXISTS when a name is taken already: a final or a temporary one by a folder, a final
 * one by a file that this process may not replace (a manifest's too), or unless force by a file. Parts of
 * another set are worker/former_set.h's. */
int output_absent(const struct output *o, bool force, struct sl_error *e) SL_MUST_USE;
/* Whether something has that name; what cannot be looked up counts as there. */
bool output_has(const char *path);
/* Returns 0, or SL_EEXISTS when this process may neither remove that file nor give its name to another. */
int output_replaceable(const char *path, struct sl_error *e) SL_MUST_USE;

/* Whether the file that st tells of is one of the source's. */
bool output_is_source(const struct stat *st, const struct sl_checkpoint *ck);
/* Returns 0, or SL_EUSAGE when an output file is one of the source's files. */
int output_not_source(const struct output *o, const struct sl_checkpoint *ck,
                      struct sl_error *e) SL_MUST_USE;

/* Effect: holds the space still needed (none, with sparse) against the space that is free.
 * Errors: SL_ENOSPACE with both figures and what to do; SL_EFAIL when the
 * folder cannot be written. */
int output_check_space(const struct output *o, struct sl_error *e) SL_MUST_USE;

/* Who watches a change to the files. step is called before each file is made, removed or
 * renamed, after each piece of work (n: bytes reserved since the last call, 1 for a file
 * removed), and by output_reserve when all is synced; its negative result ends the change there. */
struct output_watch {
    int (*step)(void *user, uint64_t n);
    void *user;
};

/* Returns what the watcher says; 0 where w is NULL. */
int output_step(const struct output_watch *w, uint64_t n) SL_MUST_USE;

/* Effect: creates the temporary files in their full size, with their space
 * reserved where the filesystem can and o->sparse is off, a GiB at a time. kept[i]
 * tells whether file i was there in full already (its contents stay). fresh: nothing
 * may be there, and a failure removes what was made here, that and nothing else. watch
 * may be NULL. Errors: SL_ENOSPACE, SL_EFAIL, what watch said; SL_EEXISTS (fresh): one is there. */
int output_reserve(const struct output *o, bool fresh, bool *kept, const struct output_watch *watch,
                   struct sl_error *e) SL_MUST_USE;

/* Whether a temporary file of an output of this name is there, also of other split counts; true where the
 * folder cannot be read. */
bool output_unfinished(const struct output *o);

/* Effect: removes the temporary files, also those of other split counts, and
 * those of manifests and claims. Errors: SL_EFAIL: the folder cannot be read, or a file stays (the
 * others are removed); what watch said. */
int output_remove(const struct output *o, const struct output_watch *watch, struct sl_error *e) SL_MUST_USE;
/* The same, unwatched, as far as it goes. */
void output_discard(const struct output *o);

/* Effect: fsync of the folder. */
int output_sync_dir(const struct output *o, struct sl_error *e) SL_MUST_USE;

#endif
