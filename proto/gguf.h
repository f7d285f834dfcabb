/* GGUF version 3, little-endian: key-values in order, a strict reader, and the
 * bytes of a header. Format: ggml's docs/gguf.md; strictness as in gguf.cpp. */
#ifndef SLUICE_PROTO_GGUF_H
#define SLUICE_PROTO_GGUF_H

#include "proto/error.h"
#include "proto/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sl_source_stat; /* proto/source_file.h */

#define SL_GGUF_ALIGN 32 /* of each tensor, in files that Sluice writes */
#define SL_NAME_MAX 64 /* tensor names are shorter than this */

/* What a reader takes of a stranger's file, so that a header cannot take all memory; those of
 * models that are known stay below 20 MB, 100 keys and 3,000 tensors. */
#define SL_GGUF_MAX_HEADER 100000000u
#define SL_GGUF_MAX_KEYS 10000u /* each is looked up among all */
#define SL_GGUF_MAX_TENSORS 1000000u

enum sl_gguf_type {
    SL_KV_U8 = 0, SL_KV_I8 = 1, SL_KV_U16 = 2, SL_KV_I16 = 3, SL_KV_U32 = 4, SL_KV_I32 = 5,
    SL_KV_F32 = 6, SL_KV_BOOL = 7, SL_KV_STR = 8, SL_KV_ARR = 9, SL_KV_U64 = 10, SL_KV_I64 = 11,
    SL_KV_F64 = 12, SL_KV_TYPE_COUNT = 13,
};

/* One key-value. Scalars and arrays of numbers lie in `data` as the file has
 * them (little-endian); strings in `strs`. */
struct sl_kv {
    char *key;
    enum sl_gguf_type type;
    enum sl_gguf_type elem; /* element type when type is SL_KV_ARR, else = type */
    uint64_t n;             /* elements: 1 unless an array */
    void *data;             /* n x element size; NULL for strings */
    char **strs;            /* n strings, NUL-terminated; NULL for numbers */
    uint64_t *str_len;      /* their lengths (a string may hold NULs) */
    bool borrowed;          /* the value is another list's (sl_kvs_borrow) */
};

/* An ordered list of key-values. Setting a key that exists removes it and
 * appends it at the end, as ggml's gguf_set_val does. Setters copy what they are given; in texts
 * U+FFFD takes the place of a byte that is no UTF-8. */
struct sl_kvs {
    struct sl_kv *kv;
    uint64_t n, cap;
};

/* Frees what the list holds, not the list itself; it is empty afterwards. */
void sl_kvs_free(struct sl_kvs *kvs);
/* Effect: one key of that type. Errors: SL_EFAIL (memory), as all setters below. */
int sl_kvs_set_u16(struct sl_kvs *kvs, const char *key, uint16_t v) SL_MUST_USE;
int sl_kvs_set_u32(struct sl_kvs *kvs, const char *key, uint32_t v) SL_MUST_USE;
int sl_kvs_set_i32(struct sl_kvs *kvs, const char *key, int32_t v) SL_MUST_USE;
int sl_kvs_set_u64(struct sl_kvs *kvs, const char *key, uint64_t v) SL_MUST_USE;
int sl_kvs_set_f32(struct sl_kvs *kvs, const char *key, float v) SL_MUST_USE;
int sl_kvs_set_bool(struct sl_kvs *kvs, const char *key, bool v) SL_MUST_USE;
int sl_kvs_set_str(struct sl_kvs *kvs, const char *key, const char *v) SL_MUST_USE;
/* n elements of a numeric type, which lie in v as in the file, one after the other. */
int sl_kvs_set_arr(struct sl_kvs *kvs, const char *key, enum sl_gguf_type elem, const void *v,
                   uint64_t n) SL_MUST_USE;
int sl_kvs_set_strs(struct sl_kvs *kvs, const char *key, const char *const *v, uint64_t n)
    SL_MUST_USE;
/* A copy of another kv. */
int sl_kvs_copy(struct sl_kvs *kvs, const struct sl_kv *from) SL_MUST_USE;
/* The same, but the value stays its owner's, who must keep it as long as the list is there: a
 * vocabulary takes megabytes. */
int sl_kvs_borrow(struct sl_kvs *kvs, const struct sl_kv *from) SL_MUST_USE;
/* Effect: moves the key forward to index `to`, and those between one back; nothing when it is not
 * there or stands before that. */
void sl_kvs_move(struct sl_kvs *kvs, const char *key, uint64_t to);
/* Effect: room for one key more behind the last. Errors: SL_EFAIL. */
int sl_kvs_reserve(struct sl_kvs *kvs) SL_MUST_USE;
/* Returns the kv or NULL. The typed getters return whether the key exists with
 * exactly that type. */
const struct sl_kv *sl_kvs_find(const struct sl_kvs *kvs, const char *key);
bool sl_kvs_get_u32(const struct sl_kvs *kvs, const char *key, uint32_t *v);
bool sl_kvs_get_u16(const struct sl_kvs *kvs, const char *key, uint16_t *v);
bool sl_kvs_get_str(const struct sl_kvs *kvs, const char *key, const char **v);
/* Any integer type that fits, as u64 (head_count may be an array: its first). */
bool sl_kvs_get_uint(const struct sl_kvs *kvs, const char *key, uint64_t *v);

/* Bytes of one element of a kv type (0 for strings and arrays); its name. */
size_t sl_gguf_type_size(enum sl_gguf_type t);
const char *sl_gguf_type_name(enum sl_gguf_type t);

struct sl_gguf_tensor {
    char name[SL_NAME_MAX];
    uint32_t n_dims;
    uint64_t ne[4];   /* innermost first; ne[i] = 1 past n_dims; of a number without dimensions one of 1 */
    int type;         /* enum sl_type */
    uint64_t offset;  /* in the data section */
    uint64_t bytes;
};

/* One GGUF file, read. */
struct sl_gguf {
    char *path;
    uint64_t file_size;
    int64_t mtime_ns;
    uint32_t version;
    uint64_t align;
    uint64_t header_bytes; /* = where the data section starts, aligned */
    uint64_t data_bytes;   /* padded end of the last tensor */
    struct sl_kvs kvs;
    struct sl_gguf_tensor *tensors; /* in file order */
    uint64_t n_tensors;
};

/* Effect: reads and checks a GGUF file's header: magic, version 2 or 3, every length
 * against the file, no duplicate key or name, known types, offsets exactly
 * contiguous, every tensor inside the file. Memory is bounded by a small
 * multiple of the file's size. The padding after the last tensor may be
 * missing and bytes may follow it (verify looks at those). *out is the
 * caller's (sl_gguf_close). Errors: SL_ESOURCE naming file and key or tensor, also for more than
 * SL_GGUF_MAX_ of anything; SL_EUNSUPPORTED for another version, byte order or tensor type. */
int sl_gguf_open(const char *path, struct sl_gguf **out, struct sl_error *e) SL_MUST_USE;
/* Effect: the same of an open file, which stays the caller's, of this size and time; path names it. */
int sl_gguf_read(int fd, const struct sl_source_stat *st, const char *path, struct sl_gguf **out,
                 struct sl_error *e) SL_MUST_USE;
void sl_gguf_close(struct sl_gguf *g);

/* Returns n bytes with the padding behind them. n: at most 2^63. */
static inline uint64_t sl_gguf_padded(uint64_t n)
{
    return (n + SL_GGUF_ALIGN - 1) / SL_GGUF_ALIGN * SL_GGUF_ALIGN;
}

/* Returns ggml's count of dimensions, which llama-quantize writes: 1, or up to the last
 * that is not 1. */
uint32_t sl_gguf_dims(const uint64_t ne[4]);

/* Effect: the header of a GGUF v3 file as one block of bytes: magic, counts,
 * key-values, tensor infos (offsets as given), zero padding to 32. *buf is the
 * caller's (free); buf NULL: only *len is wanted. Errors: SL_EFAIL out of memory, or a general.alignment that
 * is not 32. */
int sl_gguf_header(const struct sl_kvs *kvs, const struct sl_gguf_tensor *tensors,
                   uint64_t n_tensors, uint8_t **buf, uint64_t *len) SL_MUST_USE;

/* Effect: where in such a header the value of `key` lies: *off = first byte of the
 * value (of the first element for an array; a string begins with its length).
 * Used to fill in checksums whose place was laid out in advance. Errors: SL_EFAIL when the key is absent. */
int sl_gguf_value_offset(const struct sl_kvs *kvs, const char *key, uint64_t *off) SL_MUST_USE;

/* Whether a path ends as a part of a split set does, "-00002-of-00007.gguf", with something before
 * that: *no, counted from 1, of *n, as the name has them. */
bool sl_gguf_split_suffix(const char *path, uint32_t *no, uint32_t *n);

/* Returns the length of a file's name without ".gguf" and such a number at its end. */
size_t sl_gguf_stem(const char *name);

/* Effect: *n = the files of the set that `path` begins: 1, or the n of "-00001-of-0000n.gguf".
 * Errors: SL_EUSAGE when path is a part, but not the first, of its set, SL_ESOURCE when its name cannot be. */
int sl_gguf_split_count(const char *path, uint32_t *n, struct sl_error *e) SL_MUST_USE;
/* Effect: the name of part i (0-based) of n into buf: "prefix.gguf" when n is 1,
 * else "prefix-0000i-of-0000n.gguf". SL_ESOURCE: it does not fit, n > 65535. */
int sl_gguf_split_path(char *buf, size_t cap, const char *prefix, uint32_t i, uint32_t n)
    SL_MUST_USE;
/* Effect: path of part i (0-based) of the set that the file `first` begins;
 * `first` itself when it is no part of a set. Errors: SL_ESOURCE, as above, or there is no such part. */
int sl_gguf_part_path(char *buf, size_t cap, const char *first, uint32_t i, struct sl_error *e) SL_MUST_USE;

#endif
