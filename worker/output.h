/* The files of an output: names, space, reservation, publication. Work lies
 * under temporary names; a final name exists only for a complete, checked
 * file. */
#ifndef SLUICE_WORKER_OUTPUT_H
#define SLUICE_WORKER_OUTPUT_H

#include "proto/plan.h"

struct output {
    char *dir;       /* folder of all the files, "." when none was given */
    char *prefix;    /* base name without ".gguf" and split suffix; NULL: the plan decides */
    const struct sl_plan *plan; /* set by output_attach */
    char **final;    /* plan->n_segments paths */
    char **partial;  /* the same with ".partial" */
    char *journal;   /* path of the job store */
    bool sparse;     /* zeros need no room: space is neither counted nor reserved */
};

/* Effect: takes -o apart: a folder (it exists, or ends with '/') or a file name
 * (".gguf" and a split suffix are cut off). The folder must exist, and no
 * device or pipe may have the name. Errors: SL_EUSAGE. Release with output_free in every case. */
int output_parse(struct output *o, const char *arg, struct sl_error *e) SL_MUST_USE;
/* Effect: builds the paths for a plan. */
int output_attach(struct output *o, const struct sl_plan *plan, struct sl_error *e) SL_MUST_USE;
void output_free(struct output *o);

/* Returns 0, or SL_EEXISTS when a final file is there already. */
int output_absent(const struct output *o, struct sl_error *e) SL_MUST_USE;

/* Returns 0, or SL_EUSAGE when an output file is one of the source's files. */
int output_not_source(const struct output *o, const struct sl_checkpoint *ck,
                      struct sl_error *e) SL_MUST_USE;

/* Effect: holds the space still needed (none, with sparse) against the space that is free.
 * Errors: SL_ENOSPACE with both figures and what to do; SL_EFAIL when the
 * folder cannot be written. */
int output_check_space(const struct output *o, struct sl_error *e) SL_MUST_USE;

/* Effect: creates the temporary files in their full size, with their space
 * reserved where the filesystem can and o->sparse is off. kept[i] tells whether file i was there in
 * full already (its contents stay). Errors: SL_ENOSPACE, SL_EFAIL. */
int output_reserve(const struct output *o, bool fresh, bool *kept, struct sl_error *e)
    SL_MUST_USE;

/* Effect: removes the temporary files, also those of other split counts. */
void output_discard(const struct output *o);

/* Effect: gives every temporary file its final name and syncs the folder.
 * Files that have it already are left alone. Errors: SL_EFAIL. */
int output_publish(const struct output *o, struct sl_error *e) SL_MUST_USE;

/* Effect: fsync of the folder. */
int output_sync_dir(const struct output *o, struct sl_error *e) SL_MUST_USE;

#endif
