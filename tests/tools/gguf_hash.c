/* The XXH64 of every tensor of a GGUF file, in llama-gguf-hash's line format,
 * by a reader of its own that shares nothing with Sluice.
 * usage: gguf_hash FILE...            lines for all tensors of all files
 *        gguf_hash --keys FILE        the keys, one a line, with their types
 *        gguf_hash --where FILE       name, offset in the file, bytes, type id */
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

struct reader {
    const char *path;
    const uint8_t *p;
    uint64_t at, size;
};

static void bad(const struct reader *r, const char *what)
{
    fprintf(stderr, "gguf_hash: %s: %s at byte %" PRIu64 "\n", r->path, what, r->at);
    exit(1);
}

static const uint8_t *take(struct reader *r, uint64_t n)
{
    if (n > r->size - r->at)
        bad(r, "file ends too early");
    r->at += n;
    return r->p + r->at - n;
}

static uint64_t u64(struct reader *r)
{
    uint64_t v;
    memcpy(&v, take(r, 8), 8);
    return v;
}

static uint32_t u32(struct reader *r)
{
    uint32_t v;
    memcpy(&v, take(r, 4), 4);
    return v;
}

static void skip_value(struct reader *r, uint32_t type)
{
    static const uint8_t size[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    if (type == 8) {
        take(r, u64(r));
    } else if (type == 9) {
        uint32_t elem = u32(r);
        uint64_t n = u64(r);
        if (elem == 9)
            bad(r, "array of arrays");
        for (uint64_t i = 0; i < n; i++)
            skip_value(r, elem);
    } else if (type < sizeof size) {
        take(r, size[type]);
    } else {
        bad(r, "unknown value type");
    }
}

static const struct { uint32_t block, bytes; } types[] = {
    [0] = { 1, 4 }, [1] = { 1, 2 }, [2] = { 32, 18 }, [3] = { 32, 20 }, [6] = { 32, 22 }, [7] = { 32, 24 },
    [8] = { 32, 34 }, [10] = { 256, 84 }, [11] = { 256, 110 }, [12] = { 256, 144 }, [13] = { 256, 176 },
    [26] = { 1, 4 }, [14] = { 256, 210 }, [16] = { 256, 66 }, [17] = { 256, 74 }, [18] = { 256, 98 }, [19] = { 256, 50 },
    [20] = { 32, 18 }, [21] = { 256, 110 }, [22] = { 256, 82 }, [23] = { 256, 136 }, [29] = { 256, 56 },
    [30] = { 1, 2 }, [34] = { 256, 54 }, [35] = { 256, 66 }, [39] = { 32, 17 }, [40] = { 64, 36 }, [41] = { 128, 18 }, [42] = { 64, 18 },
};

enum mode { HASH, KEYS, WHERE };

struct info {
    char name[65];
    uint32_t type;
    uint64_t bytes, offset;
};

static void one_file(const char *path, enum mode mode)
{
    struct reader r = { .path = path };
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) || st.st_size == 0) {
        perror(path);
        exit(1);
    }
    r.size = (uint64_t)st.st_size;
    r.p = mmap(NULL, r.size, PROT_READ, MAP_SHARED, fd, 0);
    if (r.p == MAP_FAILED)
        bad(&r, "cannot be mapped");
    if (memcmp(take(&r, 4), "GGUF", 4) || u32(&r) != 3)
        bad(&r, "not GGUF version 3");
    uint64_t n = u64(&r), n_kv = u64(&r);
    for (uint64_t i = 0; i < n_kv; i++) {
        uint64_t len = u64(&r);
        const char *key = (const char *)take(&r, len);
        uint32_t type = u32(&r);
        if (mode == KEYS)
            printf("%.*s %u\n", (int)len, key, type);
        if (len == 17 && !memcmp(key, "general.alignment", 17))
            bad(&r, "general.alignment is not expected");
        skip_value(&r, type);
    }
    if (mode == KEYS)
        return;
    if (n > r.size / 24)
        bad(&r, "too many tensors");
    struct info *t = calloc(n ? n : 1, sizeof *t);
    uint64_t expected = 0;
    if (!t)
        bad(&r, "out of memory");
    for (uint64_t i = 0; i < n; i++) {
        uint64_t len = u64(&r), elems = 1;
        if (len > 63)
            bad(&r, "name too long");
        memcpy(t[i].name, take(&r, len), len);
        for (uint32_t d = u32(&r); d; d--)
            elems *= u64(&r);
        t[i].type = u32(&r);
        t[i].offset = u64(&r);
        if (t[i].type >= sizeof types / sizeof *types || !types[t[i].type].block)
            bad(&r, "unknown tensor type");
        t[i].bytes = elems / types[t[i].type].block * types[t[i].type].bytes;
        if (t[i].offset != expected)
            bad(&r, "tensor offset is not the next one");
        expected += (t[i].bytes + 31) / 32 * 32;
    }
    uint64_t data = (r.at + 31) / 32 * 32;
    if (data + expected != r.size)
        bad(&r, "file length is not header plus tensors");
    for (uint64_t i = 0; i < n; i++) {
        r.at = data + t[i].offset;
        if (mode == WHERE)
            printf("%s %" PRIu64 " %" PRIu64 " %u\n", t[i].name, r.at, t[i].bytes, t[i].type);
        else
            printf("%-8s  %016" PRIx64 "  %s:%s\n", "xxh64",
                   (uint64_t)XXH64(take(&r, t[i].bytes), t[i].bytes, 0), path, t[i].name);
    }
    free(t);
    munmap((void *)(uintptr_t)r.p, r.size);
    close(fd);
}

int main(int argc, char **argv)
{
    enum mode mode = HASH;
    int first = 1;
    if (argc > 1 && !strcmp(argv[1], "--keys"))
        mode = KEYS, first = 2;
    else if (argc > 1 && !strcmp(argv[1], "--where"))
        mode = WHERE, first = 2;
    if (argc <= first) {
        fputs("usage: gguf_hash [--keys|--where] FILE...\n", stderr);
        return 2;
    }
    for (int i = first; i < argc; i++)
        one_file(argv[i], mode);
    return 0;
}
