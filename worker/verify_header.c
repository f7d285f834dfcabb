/* The header's records against their checksums, for messages: verify_structure.c
 * decides. A record is walked by its own lengths, so that one wrong byte is found
 * at the first record that does not fit; it is then corrected by trial. */
#include "worker/verify_header.h"

#include "proto/cursor.h"
#include "proto/plan.h"
#include "proto/tensor_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIED 160u        /* a tensor's record has 123 bytes at most; keys are shorter */
#define RECORD_MAX 65536u /* longer key-values are named as they stand */
#define HARMLESS "; this changes no tensor"

struct record {
    uint64_t start, value, end; /* value: of a key-value; of a tensor, the number of dimensions */
    const char *name;
    uint64_t name_len;
};

struct walk {
    uint8_t *buf;
    uint64_t have;
    uint64_t sums, n_sums;     /* SL_KEY_SUM_RECORDS: place of its values, their number */
    uint64_t n_kv, n_tensors;
    uint64_t at_header, at_tensors; /* values of the other two checksums; 0: not met */
    uint64_t n_bad, bad;       /* records that do not match, the first of them */
    struct record found;       /* that one, as it stands */
    bool readable;             /* all records were walked */
    uint64_t end;              /* of the last */
};

static uint64_t u64_at(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
    return v;
}

uint32_t verify_value_bytes(uint32_t type)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

    return type < sizeof bytes ? bytes[type] : 0;
}

static bool read_name(struct sl_cursor *c, struct record *r)
{
    const uint8_t *name;

    r->start = c->at;
    if (!sl_cursor_u64(c, &r->name_len) || !sl_cursor_bytes(c, r->name_len, &name))
        return false;
    r->name = (const char *)name;
    return true;
}

static bool read_kv(struct sl_cursor *c, struct record *r)
{
    uint32_t type, elem;
    uint64_t n = 1, each;
    const uint8_t *p;

    if (!read_name(c, r) || !sl_cursor_u32(c, &type))
        return false;
    elem = type;
    if (type == SL_KV_ARR && (!sl_cursor_u32(c, &elem) || !sl_cursor_u64(c, &n)))
        return false;
    r->value = c->at;
    for (uint64_t i = 0; elem == SL_KV_STR && i < n; i++)
        if (!sl_cursor_u64(c, &each) || !sl_cursor_bytes(c, each, &p))
            return false;
    if (elem != SL_KV_STR
        && (!verify_value_bytes(elem) || !sl_mul_u64(n, verify_value_bytes(elem), &each) || !sl_cursor_bytes(c, each, &p)))
        return false;
    r->end = c->at;
    return true;
}

static bool read_tensor(struct sl_cursor *c, struct record *r)
{
    const uint8_t *p;
    uint32_t dims;

    if (!read_name(c, r))
        return false;
    r->value = c->at;
    if (!sl_cursor_u32(c, &dims) || dims > 4 || !sl_cursor_bytes(c, 8 * (uint64_t)dims + 12, &p))
        return false;
    r->end = c->at;
    return true;
}

static bool is_named(const struct record *r, const char *name)
{
    return r->name_len == strlen(name) && memcmp(r->name, name, r->name_len) == 0;
}

static bool read_record(struct sl_cursor *c, bool tensor, struct record *r)
{
    return tensor ? read_tensor(c, r) : read_kv(c, r);
}

static uint64_t sum_of(const uint8_t *base, bool tensor, const struct record *r)
{
    bool before_value = !tensor && (is_named(r, SL_KEY_SUM_RECORDS) || is_named(r, SL_KEY_SUM_HEADER));

    return sl_xxh64(base + r->start, (before_value ? r->value : r->end) - r->start);
}

/* The same key with one wrong letter: one of its halves is whole. */
static bool find_misspelt(const struct walk *w)
{
    static const char key[] = SL_KEY_SUM_RECORDS;
    const uint64_t len = sizeof key - 1, half = len / 2;

    for (uint64_t from = 0; from <= half; from += half) {
        const uint8_t *at = w->buf + from, *end = w->buf + w->have;
        uint64_t n = from ? len - half : half;

        while (at < end && (at = memmem(at, (size_t)(end - at), key + from, n))) {
            const uint8_t *whole = at - from;
            unsigned wrong = 0;

            for (uint64_t i = 0; i < len && whole + i < end; i++)
                wrong += whole[i] != (uint8_t)key[i];
            if (wrong == 1 && whole + len <= end)
                return true;
            at++;
        }
    }
    return false;
}

/* The checksums lie somewhere in the header, which may not be readable up to them:
 * they are looked for by their key's bytes. Returns 1 when found, -1 when their own
 * name, length or type is damaged, 0 when there are none. */
static int find_sums(struct walk *w)
{
    static const char key[] = SL_KEY_SUM_RECORDS;
    const uint64_t len = sizeof key - 1;
    const uint8_t *at = w->buf, *end = w->buf + w->have;
    int found = 0;

    while ((at = memmem(at, (size_t)(end - at), key, len))) {
        struct sl_cursor c = sl_cursor(w->buf, w->have);
        uint64_t n = 0, bytes;
        uint32_t type = 0, elem = 0;
        const uint8_t *p;

        c.at = (uint64_t)(at - w->buf) + len;
        if (at - w->buf >= 8 && sl_cursor_u32(&c, &type) && sl_cursor_u32(&c, &elem) && sl_cursor_u64(&c, &n)) {
            w->sums = c.at;
            w->n_sums = n;
            found = found ? found : -1;
            if (u64_at(at - 8) == len && type == SL_KV_ARR && elem == SL_KV_U64 && sl_mul_u64(n, 8, &bytes)) {
                if (sl_cursor_bytes(&c, bytes, &p))
                    return 1;
                if (n == u64_at(w->buf + 8) + u64_at(w->buf + 16)) /* as many as there must be: cut off */
                    return 0;
            }
        }
        at += len;
    }
    return found || !find_misspelt(w) ? found : -1;
}

static void walk_records(struct walk *w)
{
    struct sl_cursor c = sl_cursor(w->buf, w->have);

    c.at = 24;
    w->readable = true;
    for (uint64_t i = 0; i < w->n_kv + w->n_tensors; i++) {
        struct record r = {0};
        bool tensor = i >= w->n_kv, ok = read_record(&c, tensor, &r);

        if (ok && !tensor && is_named(&r, SL_KEY_SUM_HEADER))
            w->at_header = r.value;
        if (ok && !tensor && is_named(&r, SL_KEY_SUM_TENSORS))
            w->at_tensors = r.value;
        if (!ok || sum_of(w->buf, tensor, &r) != u64_at(w->buf + w->sums + 8 * i)) {
            if (w->n_bad++ == 0) {
                w->bad = i;
                w->found = r;
            }
        }
        w->readable = ok;
        if (!ok)
            return;
    }
    w->end = c.at;
}

/* Tries every other value of every byte near the record's begin. Returns whether one
 * makes it match; *at and *was are that byte's, *r the record as it was, its name in
 * `name`. */
static bool correct(const struct walk *w, uint64_t *at, uint8_t *was, struct record *r, char name[TRIED])
{
    uint64_t start = w->found.start, want = u64_at(w->buf + w->sums + 8 * w->bad);
    uint64_t room = w->have - start < RECORD_MAX ? w->have - start : RECORD_MAX;
    uint8_t *b = w->buf + start;
    bool tensor = w->bad >= w->n_kv;

    for (uint64_t i = 0; i < TRIED && i < room; i++) {
        uint8_t is = b[i];

        for (unsigned change = 1; change < 256; change++) {
            struct sl_cursor c = sl_cursor(b, room);

            b[i] = (uint8_t)(is ^ change);
            if (!read_record(&c, tensor, r) || i >= r->end || sum_of(b, tensor, r) != want)
                continue;
            *at = i;
            *was = b[i];
            snprintf(name, TRIED, "%.*s", (int)(r->name_len < TRIED ? r->name_len : TRIED - 1), r->name);
            b[i] = is;
            return true;
        }
        b[i] = is;
    }
    return false;
}

/* What byte `at` of a tensor's record is. */
static const char *part_of(const struct record *r, uint64_t at, char buf[40])
{
    uint64_t dims = (r->end - r->value - 16) / 8;

    if (at < 8)
        return "the length of its name";
    if (at < r->value)
        return "its name";
    if (at < r->value + 4)
        return "its number of dimensions";
    if (at >= r->end - 8)
        return "its offset";
    if (at >= r->end - 12)
        return "its type";
    snprintf(buf, 40, "dimension %u of %u", (unsigned)((at - r->value - 4) / 8 + 1), (unsigned)dims);
    return buf;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = u64_at(a), y = u64_at(b);

    return (x > y) - (x < y);
}

/* Effect: counts, of the records that do not match, those that are whole in another's place (*moved: programs
 * that write a header anew change the order of its keys, damage does not), and the tensors' that are nowhere
 * (*strange). */
static void compare_records(const struct walk *w, uint64_t *moved, uint64_t *strange)
{
    struct sl_cursor c = sl_cursor(w->buf, w->have);
    uint64_t *sorted = malloc(8 * w->n_sums + 8);

    *moved = *strange = 0;
    if (!sorted)
        return;
    memcpy(sorted, w->buf + w->sums, 8 * w->n_sums);
    qsort(sorted, w->n_sums, 8, by_value);
    c.at = 24;
    for (uint64_t i = 0; i < w->n_kv + w->n_tensors; i++) {
        struct record r = {0};
        bool tensor = i >= w->n_kv, there;
        uint64_t sum;

        if (!read_record(&c, tensor, &r)) {
            *strange = 0; /* nothing is known of the others */
            break;
        }
        sum = sum_of(w->buf, tensor, &r);
        there = bsearch(&sum, sorted, w->n_sums, 8, by_value) != NULL;
        *moved += there && (i >= w->n_sums || sum != u64_at(w->buf + w->sums + 8 * i));
        *strange += tensor && !there;
    }
    free(sorted);
}

/* The checksum of the bad record is itself what is damaged: with the right one the
 * header's own checksum is right again. */
static bool sum_is_damaged(const struct walk *w, uint64_t header_bytes)
{
    uint8_t *place = w->buf + w->sums + 8 * w->bad;
    uint64_t sum = 0, is, right;
    bool match;

    if (!w->readable || w->n_bad != 1 || !w->at_header || !w->at_tensors || !header_bytes)
        return false;
    right = sum_of(w->buf, w->bad >= w->n_kv, &w->found);
    memcpy(&is, place, 8);
    memcpy(place, &right, 8);
    match = sl_gguf_header_checksum(w->buf, header_bytes, w->at_header, w->at_tensors, w->n_tensors, &sum) == 0
            && sum == u64_at(w->buf + w->at_header);
    memcpy(place, &is, 8);
    return match;
}

/* Returns false where the file may as well end inside the record. */
static bool say_record(struct walk *w, const char *path, char *text, size_t cap, bool *sums_damaged)
{
    bool tensor = w->bad >= w->n_kv, corrected;
    uint64_t number = (tensor ? w->bad - w->n_kv : w->bad) + 1, of = tensor ? w->n_tensors : w->n_kv, at = 0;
    char name[TRIED] = "", what[TRIED + 80], part[40], more[60] = "";
    struct record was;
    uint8_t byte = 0;

    corrected = correct(w, &at, &byte, &was, name);
    if (!corrected && !w->readable && w->n_bad == 1 && w->found.start > w->sums)
        return false;
    if (!corrected && w->found.name)
        snprintf(name, sizeof name, "%.*s", (int)(w->found.name_len < TRIED ? w->found.name_len : TRIED - 1),
                 w->found.name);
    *sums_damaged = !tensor && strcmp(name, SL_KEY_SUM_TENSORS) == 0;
    if (w->n_bad > 1 && w->readable)
        snprintf(more, sizeof more, "; %llu more records are, too", (unsigned long long)w->n_bad - 1);
    snprintf(what, sizeof what, tensor ? "tensor %s: its record in the header (%llu of %llu)"
                                       : "metadata key %s (key-value %llu of %llu)",
             name, (unsigned long long)number, (unsigned long long)of);
    if (corrected)
        snprintf(text, cap, "%s: %s is damaged: %s%sbyte %llu of the file is %02x, was %02x%s%s", path, what,
                 tensor ? part_of(&was, at, part) : "", tensor ? ", " : "",
                 (unsigned long long)(w->found.start + at), w->buf[w->found.start + at], byte,
                 tensor ? "" : HARMLESS, more);
    else
        snprintf(text, cap, "%s: %s is damaged%s%s", path, what, tensor ? "" : HARMLESS, more);
    return true;
}

/* All records are well, the header is not: its padding, or its checksum. */
static void say_rest(const struct walk *w, uint64_t header_bytes, const char *path, char *text, size_t cap)
{
    uint64_t at = w->end;

    while (at < header_bytes && at < w->have && w->buf[at] == 0)
        at++;
    if (at < header_bytes)
        snprintf(text, cap, "%s: header: the padding after the tensor infos is not zero at byte %llu" HARMLESS, path,
                 (unsigned long long)at);
    else
        snprintf(text, cap, "%s: metadata key %s is damaged" HARMLESS, path, SL_KEY_SUM_HEADER);
}

bool verify_diagnose(uint8_t *buf, uint64_t have, uint64_t header_bytes, bool sum_ok, const char *path,
                     char *text, size_t cap, bool *sums_damaged, bool *other)
{
    struct walk w = {.buf = buf, .have = have};
    uint64_t moved, strange;
    int found;

    *sums_damaged = *other = false;
    if (have < 24 || memcmp(buf, "GGUF", 4) != 0 || (found = find_sums(&w)) == 0)
        return false;
    if (memcmp(buf + 4, "\3\0\0\0", 4) != 0) {
        snprintf(text, cap, "%s: header: its GGUF version is damaged, it must be 3" HARMLESS, path);
        return true;
    }
    w.n_tensors = u64_at(buf + 8);
    w.n_kv = u64_at(buf + 16);
    if (found < 0) {
        snprintf(text, cap, "%s: metadata key %s: its name, length or type is damaged" HARMLESS, path,
                 SL_KEY_SUM_RECORDS);
        return true;
    }
    compare_records(&w, &moved, &strange);
    *other = strange > 1 && strange > w.n_tensors / 2;
    if (*other) {
        snprintf(text, cap, "%s: another program made it of a file of Sluice's: %llu of its %llu tensors have other types "
                 "or places, and its checksums are of those before; verify what it was made of", path,
                 (unsigned long long)strange, (unsigned long long)w.n_tensors);
        return true;
    }
    if (w.n_kv > w.n_sums || w.n_tensors != w.n_sums - w.n_kv) {
        snprintf(text, cap, "%s: header: it counts %llu tensors and %llu key-values, metadata key %s holds %llu "
                 "checksums of them: one of these numbers is damaged" HARMLESS, path, (unsigned long long)w.n_tensors,
                 (unsigned long long)w.n_kv, SL_KEY_SUM_RECORDS, (unsigned long long)w.n_sums);
        return true;
    }
    walk_records(&w);
    if (w.n_bad > 1 && header_bytes && w.readable && 2 * moved > w.n_bad)
        snprintf(text, cap, "%s: another program wrote this header anew: %llu of its records are not where Sluice had "
                 "them; the tensors are checked all the same", path, (unsigned long long)w.n_bad);
    else if (w.n_bad && sum_is_damaged(&w, header_bytes))
        snprintf(text, cap, "%s: metadata key %s: the checksum of %.*s is damaged" HARMLESS, path,
                 SL_KEY_SUM_RECORDS, (int)(w.found.name_len < 128 ? w.found.name_len : 128), w.found.name);
    else if (w.n_bad)
        return say_record(&w, path, text, cap, sums_damaged);
    else if (sum_ok || !header_bytes) /* without its length neither padding nor checksum can be judged */
        return false;
    else
        say_rest(&w, header_bytes, path, text, cap);
    return true;
}
