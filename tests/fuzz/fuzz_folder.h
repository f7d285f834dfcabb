/* A folder of files from one input, for fuzz targets: a line "=== NAME" begins a file, and what stands up to the line before the next
 * such one is in it. Of a shard (.safetensors) that is its header; its length is put before it, and a hole behind it is as long as it says. Lines
 * "@OFFSET HEX" behind the header are bytes in the hole.
 * The mutator changes one file at a time, JSON by its values (fuzz_json.h). */
#ifndef SLUICE_TESTS_FUZZ_FOLDER_H
#define SLUICE_TESTS_FUZZ_FOLDER_H

#include "tests/fuzz/fuzz_dir.h"

#include "proto/json_file.h"
#include "proto/source_file.h"
#include "proto/suffix.h"

#include <stdbool.h>

#define FOLDER_FILES 24
#define FOLDER_HOLE (UINT64_C(1) << 42)

struct folder_file {
    char name[64];
    const uint8_t *bytes;
    size_t n;
};

struct folder {
    struct folder_file file[FOLDER_FILES];
    size_t n;
    const uint8_t *first; /* the line before the first file: what the target likes */
    size_t n_first;
};

static inline const uint8_t *folder_mark(const uint8_t *at, const uint8_t *end)
{
    for (; end - at > 4; at++) {
        at = memchr(at, '=', (size_t)(end - at - 4));
        if (!at)
            return NULL;
        if (memcmp(at, "=== ", 4) == 0)
            return at;
    }
    return NULL;
}

static inline void folder_cut(const uint8_t *data, size_t size, struct folder *f)
{
    const uint8_t *end = data + size, *at = size ? folder_mark(data, end) : NULL;

    *f = (struct folder){.first = data, .n_first = at ? (size_t)(at - data) : size};
    while (at && f->n < FOLDER_FILES) {
        struct folder_file *x = &f->file[f->n];
        const uint8_t *line = memchr(at, '\n', (size_t)(end - at)), *next;
        size_t n = line ? (size_t)(line - at - 4) : 0;

        if (!line)
            return;
        next = folder_mark(line + 1, end);
        if (n > 0 && n < sizeof x->name && !memchr(at + 4, 0, n)) {
            memcpy(x->name, at + 4, n);
            x->name[n] = '\0';
            x->bytes = line + 1;
            x->n = (size_t)((next ? next : end) - x->bytes);
            x->n -= x->n > 0 && x->bytes[x->n - 1] == '\n';
            f->n += sl_source_plain_name(x->name);
        }
        at = next;
    }
}

static inline const struct folder_file *folder_find(const struct folder *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->file[i].name, name) == 0)
            return &f->file[i];
    return NULL;
}

/* Returns the file as JSON, as a checkpoint's config.json is read; NULL: it is not there, or refused. The caller's. */
static inline cJSON *folder_json(const struct folder *f, const char *name)
{
    const struct folder_file *x = folder_find(f, name);
    char *text = x ? strndup((const char *)x->bytes, x->n) : NULL;
    cJSON *json = NULL;

    if (text && sl_json_parse_python(name, text, strlen(text), &json, NULL) < 0)
        json = NULL;
    free(text);
    return json;
}

/* ---- on a disk, or rather in memory ---- */

/* The greatest end of data_offsets, in a text that may be anything. */
static inline uint64_t folder_data(const struct folder_file *f)
{
    static const char word[] = "\"data_offsets\":[";
    uint64_t most = 0;

    for (size_t i = 0; i + sizeof word < f->n; i++) {
        uint64_t end = 0;

        if (f->bytes[i] != '"' || memcmp(f->bytes + i, word, sizeof word - 1) != 0)
            continue;
        i += sizeof word - 1;
        while (i < f->n && f->bytes[i] != ',' && f->bytes[i] != ']')
            i++;
        for (i++; i < f->n && f->bytes[i] >= '0' && f->bytes[i] <= '9' && end < FOLDER_HOLE; i++)
            end = 10 * end + (uint64_t)(f->bytes[i] - '0');
        most = end > most ? end : most;
    }
    return most;
}

/* Writes the shard's bytes from the first such line on, at its hole. */
static inline void folder_bytes(int fd, const struct folder_file *x, size_t at, uint64_t hole, uint64_t end)
{
    while (at < x->n) {
        const uint8_t *line = x->bytes + at, *stop = memchr(line, '\n', x->n - at);
        size_t n = stop ? (size_t)(stop - line) : x->n - at;
        unsigned long long to;
        unsigned byte;
        char text[96] = "";
        int used = 0;

        memcpy(text, line, n < sizeof text ? n : sizeof text - 1);
        if (sscanf(text, "@%llu %n", &to, &used) == 1 && used)
            for (const char *h = text + used; to < end && sscanf(h, "%2x", &byte) == 1 && h[0] && h[1]; h += 2, to++)
                require(pwrite(fd, &byte, 1, (off_t)(hole + to)) == 1);
        at += n + 1;
    }
}

static inline size_t folder_header(const struct folder_file *x)
{
    const uint8_t *at = x->bytes, *end = x->bytes + x->n;

    while (at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL)
        if (++at < end && *at == '@')
            return (size_t)(at - x->bytes) - 1;
    return x->n;
}

static inline void folder_write(const struct folder *f)
{
    for (size_t i = 0; i < f->n; i++) {
        const struct folder_file *x = &f->file[i];
        char path[160];
        bool shard = sl_ends_with(x->name, ".safetensors");
        uint64_t n = shard ? folder_header(x) : x->n, data = shard ? folder_data(x) : 0;
        int fd;

        snprintf(path, sizeof path, "%s/%s", fuzz_dir(), x->name);
        fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
        require(fd >= 0);
        if (shard)
            require(write(fd, &n, 8) == 8 && ftruncate(fd, (off_t)(8 + n + data)) == 0);
        require(n == 0 || write(fd, x->bytes, n) == (ssize_t)n);
        if (shard)
            folder_bytes(fd, x, n, 8 + n, data);
        close(fd);
    }
}

static inline void folder_clear(const struct folder *f)
{
    for (size_t i = 0; i < f->n; i++) {
        char path[160];

        snprintf(path, sizeof path, "%s/%s", fuzz_dir(), f->file[i].name);
        (void)unlink(path);
    }
}

/* ---- mutations ---- */

/* Effect: `to` = the folder with file `at` as bytes[0..n), or without it (bytes NULL). Returns its length, 0: no room. */
static inline size_t folder_join(const struct folder *f, size_t at, const uint8_t *bytes, size_t n, uint8_t *to, size_t cap)
{
    size_t len = f->n_first;

    if (len > cap)
        return 0;
    if (len)
        memcpy(to, f->first, len);
    for (size_t i = 0; i < f->n; i++) {
        const struct folder_file *x = &f->file[i];
        const uint8_t *b = i == at ? bytes : x->bytes;
        size_t m = i == at ? n : x->n, name = strlen(x->name);

        if (!b)
            continue;
        if (len + name + m + 6 > cap)
            return 0;
        memcpy(to + len, "=== ", 4);
        memcpy(to + len + 4, x->name, name);
        to[len + 4 + name] = '\n';
        memcpy(to + len + 5 + name, b, m);
        len += 5 + name + m;
        to[len++] = '\n';
    }
    return len;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    uint64_t s = seed;
    struct folder f;
    uint8_t *part, *all;
    size_t at, n = 0;

    folder_cut(data, size, &f);
    if (f.n == 0 || json_random(&s) % 24 == 0)
        return LLVMFuzzerMutate(data, size, max);
    at = json_random(&s) % f.n;
    part = malloc(max);
    all = malloc(max);
    require(part && all);
    if (f.n > 1 && json_random(&s) % 32 == 0) {
        n = folder_join(&f, at, NULL, 0, all, max);
    } else if (f.file[at].n <= max) {
        memcpy(part, f.file[at].bytes, f.file[at].n);
        n = json_change(part, f.file[at].n, max, &s);
        n = folder_join(&f, at, part, n, all, max);
    }
    if (n)
        memcpy(data, all, n);
    free(part);
    free(all);
    return n ? n : LLVMFuzzerMutate(data, size, max);
}

/* One file of the other input in the place of the same, or beside the others. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b, uint8_t *to, size_t max, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b, uint8_t *to, size_t max, unsigned seed)
{
    uint64_t s = seed;
    struct folder f, g;
    size_t at = 0;

    folder_cut(a, n_a, &f);
    folder_cut(b, n_b, &g);
    if (g.n) {
        const struct folder_file *x = &g.file[json_random(&s) % g.n];

        while (at < f.n && strcmp(f.file[at].name, x->name) != 0)
            at++;
        if (at == f.n && f.n < FOLDER_FILES)
            f.file[f.n++] = *x;
        if (at < f.n)
            return folder_join(&f, at, x->bytes, x->n, to, max);
    }
    return 0;
}

#endif
