/* Verification: an output is read again by a second reader, written from the
 * format text alone, and held against its own checksums and its source. */
#ifndef SLUICE_WORKER_VERIFY_H
#define SLUICE_WORKER_VERIFY_H

#include "proto/tensor_hash.h"

#include <stdbool.h>
#include <stdint.h>

/* One file of the output. */
struct verify_file {
    struct sl_gguf g;       /* path, file_size, version, align, header_bytes, data_bytes, tensors;
                               no kvs */
    bool sluice;            /* has keys "sluice.*": checksums are required */
    bool header_sum_ok;
    bool merged;            /* its checksums are those of another file's tensors */
    char *damage;           /* what of the header is damaged, one sentence; NULL: not known */
    uint64_t *sums;         /* g.n_tensors XXH64s from the metadata; NULL: none */
    bool has_split;
    bool imatrix;           /* made with one */
    uint64_t split_no, split_count, split_tensors;
    char *layout, *round_through, *fingerprint; /* NULL: no such key */
    char *imatrix_hash;     /* of the imatrix it was made with; NULL: no such key */
    char **imatrix_words;   /* that tensor names were held against for it */
    uint64_t n_imatrix_words;
    uint32_t *pruned;       /* layers of the source that it lacks, ascending */
    uint64_t n_pruned;
    bool imatrix_keep;      /* the words chose what is used, not what is left out */
};

struct verify_set {
    struct verify_file *files;
    uint32_t n;
    uint64_t n_tensors, bytes; /* over all files; bytes of the files */
};

/* Where failures go: one line each, naming file and tensor or metadata key.
 * The first also stays in `first`. */
struct verify_report {
    void (*fail)(void *user, const char *text);
    void (*unchecked)(void *user, const char *text); /* one line each, too */
    void *user;
    uint64_t failures, gaps; /* gaps: how often something could not be checked */
    struct sl_error first;
};

/* Effect: counts and passes on one failure. Returns SL_EVERIFY. */
int verify_failed(struct verify_report *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Effect: counts and passes on what of the output could not be checked. */
void verify_unchecked(struct verify_report *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Effect: reads one file's header and checks structure and header checksum. *f
 * is the caller's (verify_file_free) in every case. Errors: SL_ESOURCE when
 * there is no such file, SL_EVERIFY when it is malformed; SL_EUNSUPPORTED for
 * a tensor type of somebody else's file that Sluice does not know. A wrong
 * header checksum alone is not an error here: see header_sum_ok. */
int verify_structure(const char *path, struct verify_file *f, struct sl_error *e) SL_MUST_USE;
void verify_file_free(struct verify_file *f);

/* Effect: verify_structure on every file of the set that `path` begins, and the
 * set's consistency: split keys, tensor count, no name twice, one fingerprint. *s is the
 * caller's (verify_set_free) in every case. Errors: those of verify_structure. */
int verify_set_open(const char *path, struct verify_set *s, struct sl_error *e) SL_MUST_USE;
void verify_set_free(struct verify_set *s);

/* Effect: reads every tensor byte once: checksums, padding, finite scales.
 * totals: s->n entries, or NULL; with SHA-256 when asked. Failures go to r.
 * Errors: SL_EFAIL, SL_ESOURCE (not for what r has been told). */
int verify_data(const struct verify_set *s, bool sha256, struct sl_hash_total *totals,
                struct verify_report *r, int (*progress)(void *user, uint64_t bytes), void *user,
                struct sl_error *e) SL_MUST_USE;

struct verify_sample {
    bool all;
    double share;     /* of a tensor's blocks, 0 to 1; used when blocks is 0 */
    uint64_t blocks;  /* of each tensor */
    uint64_t seed;
    struct sl_checkpoint *ck; /* with model: the source, open already under the output's settings; */
    struct sl_model *model;   /* NULL: opened here */
    const struct sl_roots *roots; /* which source and imatrix must not leave; NULL: none are set */
    int (*progress)(void *user, uint64_t weights); /* made again since the last call; < 0 stops */
    void *user;
};

struct verify_tally {
    uint64_t tensors, blocks, blocks_total; /* made again; of how many */
    uint64_t skipped_tensors;               /* could not be made again */
};

/* Effect: makes a sample of each tensor's blocks again from the checkpoint, one
 * element at a time by the transforms' index formulas and the scalar backend,
 * and compares bytes; the first and the last block always. Also holds names
 * and shapes against the model. imatrix: the file that the output was made with,
 * or NULL: then only types that take no weights are compared in such an output (a synthetic
 * one is made again from the source).
 * Failures go to r: one for each tensor, or one for all when most are not the source's. Errors: those
 * of opening and reading the source and the imatrix; SL_EUSAGE for another imatrix, or a file outside
 * the roots. */
int verify_source(const struct verify_set *s, const char *checkpoint, const char *imatrix,
                  const struct verify_sample *sample, struct verify_report *r,
                  struct verify_tally *tally, struct sl_error *e) SL_MUST_USE;

#endif
