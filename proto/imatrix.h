/* Importance matrices: for each weight matrix the mean of the squared inputs of
 * each column, as llama-imatrix collects them. Two file formats:
 *
 * DAT (llama.cpp before August 2025), little-endian, no magic:
 *   i32 n_entries; n_entries times { i32 name_len, name, i32 ncall, i32 nval,
 *   f32 value[nval] }; then, in newer files, i32 n_chunks, i32 len, dataset name.
 *   value = mean of squares x ncall. A tensor of experts holds them expert by expert.
 * GGUF (llama.cpp PR 9400): general.type "imatrix", imatrix.datasets,
 *   imatrix.chunk_count, imatrix.chunk_size; for each entry the F32 tensors
 *   NAME.in_sum2 (sums of squares) and NAME.counts (their divisors, one for each
 *   matrix). The values of one count are n / n_counts, which also covers files of
 *   July 2025, where attn_k_b and attn_v_b have a count for each head.
 *
 * An imatrix of DeepSeek-R1 takes 1 GB, so values stay in the file and are read
 * matrix by matrix. */
#ifndef SLUICE_PROTO_IMATRIX_H
#define SLUICE_PROTO_IMATRIX_H

#include "proto/model.h"
#include "proto/name_table.h"
#include "proto/roots.h"
#include "proto/weight_words.h"

#define SL_IMATRIX_MAX_ENTRIES 500000u
#define SL_IMATRIX_MAX_COUNTS 16000000u /* of all entries; DeepSeek-R1's has 45,000 */

enum sl_imatrix_format { SL_IMATRIX_DAT, SL_IMATRIX_GGUF };

struct sl_imatrix_entry {
    char *name;         /* of the weight tensor */
    uint64_t n;         /* values */
    uint64_t n_counts;  /* groups of n / n_counts values; 1 in DAT */
    float *counts;      /* divisors, >= 0 (DAT: ncall) */
    uint64_t n_zero;    /* groups whose count is 0: no data */
    uint64_t offset;    /* of the first stored value in the file */
    uint64_t bad;       /* values that are negative, NaN or infinite */
    uint64_t first_bad; /* index of the first of them */
};

struct sl_imatrix {
    char *path;
    int fd;
    uint64_t file_size;
    int64_t mtime_ns;
    enum sl_imatrix_format format;
    struct sl_imatrix_entry *entries; /* in file order */
    uint32_t n_entries;
    uint64_t n_counts;    /* of all entries */
    struct sl_name_table names;       /* -> index */
    char **datasets;
    uint32_t n_datasets;
    uint32_t n_chunks;    /* 0: not told */
    uint32_t chunk_size;  /* tokens; 0: not told (DAT) */
    uint32_t n_foreign;   /* tensors of a GGUF file that are neither sums nor counts */
    char hash[33];        /* hex XXH3-128 of the file */
};

/* Effect: reads a file of either format, every length held against the file,
 * and looks at every value once. Names and counts stay in memory: more than SL_IMATRIX_MAX_ENTRIES
 * or _COUNTS are refused. *out is the caller's (sl_imatrix_close). Values
 * that no imatrix can have are counted, not refused: see sl_imatrix_check.
 * Errors: SL_ESOURCE with file and entry; SL_EFAIL. */
int sl_imatrix_open(const char *path, struct sl_imatrix **out, struct sl_error *e) SL_MUST_USE;
/* Effect: the same for a process that reads for others: the file must lie below a root (NULL: may
 * lie anywhere), or nothing of it is read. Errors: SL_EUSAGE besides. */
int sl_imatrix_open_within(const char *path, const struct sl_roots *roots, struct sl_imatrix **out,
                           struct sl_error *e) SL_MUST_USE;
void sl_imatrix_close(struct sl_imatrix *im);

/* Errors: SL_ESOURCE naming the first entry with a negative, NaN or infinite value. */
int sl_imatrix_check(const struct sl_imatrix *im, struct sl_error *e) SL_MUST_USE;

/* Effect: drops the entries that the words leave out. Invalidates indices. Errors: SL_EFAIL. */
int sl_imatrix_filter(struct sl_imatrix *im, const struct sl_weight_words *words, struct sl_error *e)
    SL_MUST_USE;

/* Returns the entry's index, or -1. */
int64_t sl_imatrix_find(const struct sl_imatrix *im, const char *name);

/* Effect: out[0..n) = values first .. first + n of entry i as weights: stored value over
 * count in one F32 division; 1.0 where a GGUF file's count is 0, the stored value
 * where a DAT file's is. Any thread. Errors: SL_ESOURCE (unreadable, or the file was
 * changed since it was opened). */
int sl_imatrix_values(const struct sl_imatrix *im, uint32_t i, uint64_t first, uint64_t n,
                      float *out, struct sl_error *e) SL_MUST_USE;

/* Returns whether it was made with a deepseek2 model in the legacy layout: attn_kv_b, no attn_k_b. */
bool sl_imatrix_is_legacy(const struct sl_imatrix *im);

/* Values that tensor t asks for: its row length times its matrices. */
uint64_t sl_imatrix_wanted(const struct sl_out_tensor *t);

/* Effect: *entry = the data for output tensor t, as llama-quantize looks it up: by the
 * exact name. Returns 1, or 0 when there is none; token_embd.weight with a wrong size
 * counts as none. Errors: SL_EUSAGE with the tensor and both sizes. */
int sl_imatrix_for(const struct sl_imatrix *im, const struct sl_out_tensor *t, uint32_t *entry,
                   struct sl_error *e) SL_MUST_USE;

/* Effect: writes a new file, entries sorted by name, synced. The weights that readers
 * compute from it equal those of im bit by bit: from DAT to GGUF sums and counts are
 * value and ncall times 512 (the chunk size it then names); from GGUF to DAT ncall is
 * the power of two at or above llama.cpp's, and a group without data becomes 1.0.
 * Errors: SL_EEXISTS, SL_ENOSPACE, SL_EFAIL, SL_EUSAGE (an entry the format cannot hold). */
int sl_imatrix_write(const struct sl_imatrix *im, enum sl_imatrix_format format, const char *path,
                     struct sl_error *e) SL_MUST_USE;

#endif
