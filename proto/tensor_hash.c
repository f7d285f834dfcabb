/* The only file that talks to xxHash and to OpenSSL's digests. */
#include "proto/tensor_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define PIECE (4u << 20)
#define PAGE 4096u
/* A larger file is read past the page cache: from the disk itself, and without
 * pushing everything else out. */
#define DIRECT_ABOVE (UINT64_C(2) << 30)

struct sl_hash {
    XXH64_state_t *xxh;
    EVP_MD_CTX *sha;
};

struct sl_hash *sl_hash_new(bool sha256)
{
    struct sl_hash *h = calloc(1, sizeof *h);

    if (!h)
        return NULL;
    h->xxh = XXH64_createState();
    if (sha256)
        h->sha = EVP_MD_CTX_new();
    if (!h->xxh || XXH64_reset(h->xxh, 0) != XXH_OK ||
        (sha256 && (!h->sha || !EVP_DigestInit_ex(h->sha, EVP_sha256(), NULL)))) {
        sl_hash_free(h);
        return NULL;
    }
    return h;
}

void sl_hash_free(struct sl_hash *h)
{
    if (!h)
        return;
    XXH64_freeState(h->xxh);
    EVP_MD_CTX_free(h->sha);
    free(h);
}

int sl_hash_update(struct sl_hash *h, const void *bytes, uint64_t n)
{
    if (n == 0)
        return 0;
    if (XXH64_update(h->xxh, bytes, n) != XXH_OK)
        return SL_EFAIL;
    return !h->sha || EVP_DigestUpdate(h->sha, bytes, n) ? 0 : SL_EFAIL;
}

int sl_hash_final(struct sl_hash *h, uint64_t *xxh64, uint8_t *sha256)
{
    uint8_t digest[EVP_MAX_MD_SIZE];

    *xxh64 = XXH64_digest(h->xxh);
    if (XXH64_reset(h->xxh, 0) != XXH_OK)
        return SL_EFAIL;
    if (!h->sha)
        return 0;
    if (!EVP_DigestFinal_ex(h->sha, digest, NULL) ||
        !EVP_DigestInit_ex(h->sha, EVP_sha256(), NULL))
        return SL_EFAIL;
    if (sha256)
        memcpy(sha256, digest, SL_SHA256_BYTES);
    return 0;
}

struct sl_hash128 {
    XXH3_state_t *state;
};

struct sl_hash128 *sl_hash128_new(void)
{
    struct sl_hash128 *h = calloc(1, sizeof *h);

    if (h && !(h->state = XXH3_createState())) {
        free(h);
        return NULL;
    }
    if (h)
        XXH3_128bits_reset(h->state);
    return h;
}

void sl_hash128_free(struct sl_hash128 *h)
{
    if (h)
        XXH3_freeState(h->state);
    free(h);
}

void sl_hash128_update(struct sl_hash128 *h, const void *bytes, uint64_t n)
{
    XXH3_128bits_update(h->state, bytes, n);
}

void sl_hash128_final(struct sl_hash128 *h, char hex[33])
{
    XXH128_hash_t v = XXH3_128bits_digest(h->state);

    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)v.high64, (unsigned long long)v.low64);
    XXH3_128bits_reset(h->state);
}

uint64_t sl_xxh64(const void *bytes, uint64_t n)
{
    return XXH64(bytes, n, 0);
}

/* One pass over the data section, through a window of the file. */
struct stream {
    int fd;
    const char *path;
    const struct sl_gguf *g;
    const struct sl_stream_ops *ops;
    uint8_t *window;
    uint64_t window_at, window_n; /* what the window holds */
    const uint8_t *piece; /* what next_piece gave */
    uint64_t at; /* file offset */
    struct sl_error *e;
};

static int fill_window(struct stream *s)
{
    ssize_t n;

    s->window_at = s->at / PAGE * PAGE;
    do {
        n = pread(s->fd, s->window, PIECE, (off_t)s->window_at);
        /* Opened with O_DIRECT, refused when it came to it. */
        if (n < 0 && errno == EINVAL && fcntl(s->fd, F_SETFL, 0) == 0)
            n = pread(s->fd, s->window, PIECE, (off_t)s->window_at);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return sl_fail(s->e, SL_EFAIL, "%s: read error: %s", s->path, strerror(errno));
    s->window_n = (uint64_t)n;
    return 0;
}

/* Up to PIECE bytes from s->at on; *got = 0 at the end of the file. */
static int next_piece(struct stream *s, uint64_t want, uint64_t *got)
{
    if (s->at < s->window_at || s->at - s->window_at >= s->window_n)
        SL_TRY(fill_window(s));
    *got = 0;
    if (s->at - s->window_at >= s->window_n)
        return 0;
    *got = s->window_n - (s->at - s->window_at);
    *got = want < *got ? want : *got;
    s->piece = s->window + (s->at - s->window_at);
    s->at += *got;
    return s->ops->progress ? s->ops->progress(s->ops->user, *got) : 0;
}

static int stream_tensor(struct stream *s, uint64_t index)
{
    const struct sl_gguf_tensor *t = &s->g->tensors[index];
    uint64_t got;

    for (uint64_t off = 0; off < t->bytes; off += got) {
        SL_TRY(next_piece(s, t->bytes - off, &got));
        if (got == 0)
            return sl_fail(s->e, SL_EVERIFY, "%s: tensor %s: the file ends at its byte %llu of %llu",
                           s->path, t->name, (unsigned long long)off, (unsigned long long)t->bytes);
        if (s->ops->on_data)
            SL_TRY(s->ops->on_data(s->ops->user, index, off, s->piece, got));
    }
    return s->ops->on_tensor ? s->ops->on_tensor(s->ops->user, index) : 0;
}

/* n zero bytes after tensor `index`. */
static int stream_padding(struct stream *s, uint64_t index, uint64_t n)
{
    const char *name = s->g->tensors[index].name;
    uint64_t got;

    for (; n; n -= got) {
        SL_TRY(next_piece(s, n, &got));
        if (got == 0)
            return sl_fail(s->e, SL_EVERIFY, "%s: the file ends in the padding after tensor %s", s->path,
                           name);
        for (uint64_t i = 0; i < got; i++)
            if (s->piece[i])
                return sl_fail(s->e, SL_EVERIFY, "%s: padding after tensor %s: byte %llu of the file is not zero",
                               s->path, name, (unsigned long long)(s->at - got + i));
    }
    return 0;
}

/* Tensors and padding in turn, then the end of the file. Offsets are checked
 * here too, since a caller's stand-in has not passed the reader. */
static int stream_all(struct stream *s)
{
    const struct sl_gguf *g = s->g;
    uint64_t got;

    s->at = g->header_bytes;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        uint64_t next = i + 1 < g->n_tensors ? g->tensors[i + 1].offset : g->data_bytes;
        uint64_t end;

        if (s->at - g->header_bytes != g->tensors[i].offset ||
            __builtin_add_overflow(g->tensors[i].offset, g->tensors[i].bytes, &end) || next < end)
            return sl_fail(s->e, SL_EVERIFY, "%s: tensor %s: offsets are not in turn", s->path,
                           g->tensors[i].name);
        SL_TRY(stream_tensor(s, i));
        SL_TRY(stream_padding(s, i, next - end));
    }
    SL_TRY(next_piece(s, 1, &got));
    if (got)
        return sl_fail(s->e, SL_EVERIFY, "%s: bytes follow the last tensor, from byte %llu on", s->path,
                       (unsigned long long)(s->at - got));
    return 0;
}

int sl_gguf_stream(const char *path, const struct sl_gguf *g, const struct sl_stream_ops *ops,
                   struct sl_error *e)
{
    struct stream s = {.path = path, .g = g, .ops = ops, .e = e};
    bool large = g->data_bytes > DIRECT_ABOVE;
    int rc;

    s.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (large ? O_DIRECT : 0));
    if (s.fd < 0 && large && errno == EINVAL)
        s.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (s.fd < 0)
        return sl_fail(e, sl_source_code(errno), "%s: %s", path, strerror(errno));
    (void)posix_fadvise(s.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    s.window = aligned_alloc(PAGE, PIECE);
    rc = s.window ? stream_all(&s) : sl_fail(e, SL_EFAIL, "%s: out of memory", path);
    free(s.window);
    close(s.fd);
    return rc;
}

/* Hashes [*at, end) and goes on to `end`. */
static int hash_to(XXH64_state_t *x, const uint8_t *header, uint64_t *at, uint64_t end)
{
    if (end > *at && XXH64_update(x, header + *at, end - *at) != XXH_OK)
        return SL_EFAIL;
    *at = end;
    return 0;
}

static int hash_zeros(XXH64_state_t *x, uint64_t *at, uint64_t n)
{
    static const uint8_t zeros[256];

    *at += n;
    for (; n; n -= n < sizeof zeros ? n : sizeof zeros)
        if (XXH64_update(x, zeros, n < sizeof zeros ? n : sizeof zeros) != XXH_OK)
            return SL_EFAIL;
    return 0;
}

int sl_gguf_header_checksum(const uint8_t *header, uint64_t len, uint64_t off_sum_header,
                            uint64_t off_sum_tensors, uint64_t n_tensors, uint64_t *sum)
{
    bool header_first = off_sum_header < off_sum_tensors;
    uint64_t at = 0, bytes, first, first_n, second, second_n;
    XXH64_state_t *x;
    int rc = SL_EFAIL;

    if (__builtin_mul_overflow(n_tensors, (uint64_t)8, &bytes) || off_sum_header > len ||
        len - off_sum_header < 8 || off_sum_tensors > len || len - off_sum_tensors < bytes)
        return SL_EFAIL;
    first = header_first ? off_sum_header : off_sum_tensors;
    first_n = header_first ? 8 : bytes;
    second = header_first ? off_sum_tensors : off_sum_header;
    second_n = header_first ? bytes : 8;
    if (second - first < first_n)
        return SL_EFAIL;
    x = XXH64_createState();
    if (x && XXH64_reset(x, 0) == XXH_OK && hash_to(x, header, &at, first) == 0 &&
        hash_zeros(x, &at, first_n) == 0 && hash_to(x, header, &at, second) == 0 &&
        hash_zeros(x, &at, second_n) == 0 && hash_to(x, header, &at, len) == 0) {
        *sum = XXH64_digest(x);
        rc = 0;
    }
    XXH64_freeState(x);
    return rc;
}

static int manifest_line(FILE *out, const char *kind, const uint8_t *digest, size_t n,
                         const char *file, const char *tensor)
{
    fprintf(out, "%-8s  ", kind);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%02x", digest[i]);
    fprintf(out, "  %s%s%s\n", file, tensor ? ":" : "", tensor ? tensor : "");
    return ferror(out) ? SL_EFAIL : 0;
}

/* llama-gguf-hash prints XXH64 as a big-endian number. */
static int manifest_lines(FILE *out, uint64_t xxh64, const uint8_t *sha256, const char *file,
                          const char *tensor)
{
    uint8_t big_endian[8];

    for (int i = 0; i < 8; i++)
        big_endian[i] = (uint8_t)(xxh64 >> (8 * (7 - i)));
    SL_TRY(manifest_line(out, "xxh64", big_endian, 8, file, tensor));
    return sha256 ? manifest_line(out, "sha256", sha256, SL_SHA256_BYTES, file, tensor) : 0;
}

int sl_manifest_tensor(FILE *out, const char *file, const char *tensor, uint64_t xxh64,
                       const uint8_t *sha256_or_null)
{
    return manifest_lines(out, xxh64, sha256_or_null, file, tensor);
}

int sl_manifest_file(FILE *out, const char *file, const struct sl_hash_total *total)
{
    return manifest_lines(out, total->xxh64, total->has_sha256 ? total->sha256 : NULL, file, NULL);
}
