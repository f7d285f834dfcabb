/* The checkpoint's files of tensors: shards and their index. With --holes a shard has its full size and hardly any
 * data: scales and small tensors are drawn, and of the large ones a few; the others are holes, which read as zeros. */
#include "generator.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of --holes: tensors up to HOLE_MIN bytes are drawn, and one in DRAWN_OF up to DRAWN_MAX. */
#define HOLE_MIN 65536
#define DRAWN_MAX (24 << 20)
#define DRAWN_OF 1500

enum { CHUNK = 1 << 20, HEAD = 4096 }; /* elements: drawn at a time; of --sparse */

static const char *dtype_name(enum kind k)
{
    switch (k) {
    case FP8: return "F8_E4M3";
    case BF16: return "BF16";
    case SCALE_E8M0: return "F8_E8M0";
    case PACKED:
    case SHAPE: return "I32";
    case FP4:
    case INT8: return "I8";
    case FP4_U8:
    case SCALE_U8: return "U8";
    default: return "F32";
    }
}

static void shard_name(char buf[64], const struct config *c, unsigned i)
{
    if (c->shards == 1)
        strcpy(buf, "model.safetensors");
    else
        snprintf(buf, 64, "model-%05u-of-%05u.safetensors", i + 1, (unsigned)c->shards);
}

/* With --holes: whether tensor i holds data all the same. */
static bool is_drawn(const struct config *c, const struct tensor *t, size_t i)
{
    if (!c->holes || t->fill == SCALES || t->bytes <= HOLE_MIN)
        return true;
    return t->bytes <= DRAWN_MAX && i * 0x9e3779b97f4a7c15u >> 32 < UINT32_MAX / DRAWN_OF;
}

/* The header's JSON, the caller's to free; *data = the bytes behind it. */
static char *shard_header(const struct list *l, unsigned shard, size_t *len, uint64_t *data)
{
    char *header = NULL;
    uint64_t at = 0;
    FILE *m = open_memstream(&header, len);
    if (!m)
        die("out of memory");
    fputs("{\"__metadata__\":{\"format\":\"pt\"}", m);
    for (size_t i = 0; i < l->n; i++) {
        const struct tensor *t = &l->t[i];
        if (t->shard != shard)
            continue;
        fprintf(m, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, dtype_name(t->kind));
        if (t->rows)
            fprintf(m, "%" PRIu64 ",", t->rows);
        fprintf(m, "%" PRIu64 "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->cols, at, at + t->bytes);
        at += t->bytes;
    }
    fputc('}', m);
    while (ftell(m) % 8)
        fputc(' ', m);
    fclose(m);
    *data = at;
    return header;
}

/* Draws tensor i at the file's position; of --sparse its beginning alone. buf holds CHUNK elements. */
static void write_tensor(const struct config *c, const struct tensor *t, size_t i, uint8_t *buf, FILE *f)
{
    uint64_t n = (t->rows ? t->rows : 1) * t->cols, s = c->seed * 0x100000001b3u + i * 0x9e3779b9u + 1;
    while (n) {
        uint64_t k = n < CHUNK ? n : CHUNK;
        if (c->sparse && t->fill == GAUSS && t->rows && n > HEAD)
            k = HEAD;
        draw(t, k, buf, &s);
        fwrite(buf, kind_bytes(t->kind), k, f);
        n -= k;
        if (k == HEAD) {
            fseeko(f, (off_t)(n * kind_bytes(t->kind)), SEEK_CUR);
            n = 0;
        }
    }
}

static void write_shard(const struct config *c, const struct list *l, unsigned shard)
{
    char name[64];
    size_t len = 0;
    uint64_t data, n64;
    char *header = shard_header(l, shard, &len, &data);
    shard_name(name, c, shard);
    FILE *f = open_out(c, name);
    n64 = len;
    fwrite(&n64, 8, 1, f);
    fwrite(header, 1, len, f);
    free(header);
    uint8_t *buf = malloc(CHUNK * 4);
    if (!buf)
        die("out of memory");
    for (size_t i = 0; i < l->n; i++) {
        const struct tensor *t = &l->t[i];
        if (t->shard != shard)
            continue;
        if (is_drawn(c, t, i))
            write_tensor(c, t, i, buf, f);
        else if (fseeko(f, (off_t)t->bytes, SEEK_CUR))
            die("%s: %s", name, strerror(errno));
    }
    free(buf);
    if (fflush(f) || ftruncate(fileno(f), (off_t)(8 + len + data))) /* a hole may be last */
        die("%s: %s", name, strerror(errno));
    close_out(f, name);
}

static void write_index(const struct config *c, const struct list *l, uint64_t total)
{
    if (c->shards == 1)
        return;
    FILE *f = open_out(c, "model.safetensors.index.json");
    fprintf(f, "{\"metadata\":{\"total_size\":%" PRIu64 "},\"weight_map\":{", total);
    for (size_t i = 0; i < l->n; i++) {
        char name[64];
        shard_name(name, c, l->t[i].shard);
        fprintf(f, "%s\n\"%s\":\"%s\"", i ? "," : "", l->t[i].name, name);
    }
    fputs("}}\n", f);
    close_out(f, "model.safetensors.index.json");
}

uint64_t write_shards(const struct config *c, struct list *l)
{
    uint64_t total = 0, at = 0;
    for (size_t i = 0; i < l->n; i++)
        total += l->t[i].bytes;
    for (size_t i = 0; i < l->n; i++) {
        l->t[i].shard = (unsigned)((double)at / (double)total * (double)c->shards);
        at += l->t[i].bytes;
    }
    for (unsigned i = 0; i < c->shards; i++)
        write_shard(c, l, i);
    write_index(c, l, total);
    return total;
}
