/* The second GGUF reader, of use to verify alone. It shares no code with
 * gguf_read.c: a header lies in memory as a whole, and is parsed anew with
 * more of the file when it turns out to be longer. */
#include "worker/verify.h"
#include "worker/verify_header.h"
#include "proto/cursor.h"
#include "proto/imatrix_use.h"
#include "proto/plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIRST_READ (1u << 20)
#define DIAGNOSE_MAX (64u << 20) /* bytes looked at to say what is damaged */
#define NEED_MORE 1 /* the header goes on past the bytes that were read */

/* Every step returns 0, NEED_MORE or a negative code; WANT passes the last two
 * on. NEED_MORE throws the parse away: it starts again with twice the bytes. */

/* A key-value's place in the header. */
struct place {
    const char *key; /* not terminated */
    uint64_t key_len, value, n;
    uint32_t type, elem;
};

struct parse {
    struct sl_cursor c;
    uint64_t file_size;
    const char *path;
    struct place *kv;
    uint64_t n_kv, kv_cap;
    struct verify_file *f;
    struct sl_error *e;
};

/* n more bytes: 0, NEED_MORE, or SL_EVERIFY when the file does not have them. */
static int need(struct parse *p, uint64_t n)
{
    if (n <= sl_cursor_left(&p->c))
        return 0;
    if (p->c.len < p->file_size && n <= p->file_size - p->c.at)
        return NEED_MORE;
    return sl_fail(p->e, SL_EVERIFY, "%s: header: the file ends inside it or a length in it is damaged (byte %llu)",
                   p->path, (unsigned long long)p->c.at);
}

#define WANT(call)              \
    do {                        \
        int want_rc_ = (call);  \
        if (want_rc_ != 0)      \
            return want_rc_;    \
    } while (0)

static int want_u32(struct parse *p, uint32_t *v)
{
    WANT(need(p, 4));
    return sl_cursor_u32(&p->c, v) ? 0 : SL_EVERIFY;
}

static int want_u64(struct parse *p, uint64_t *v)
{
    WANT(need(p, 8));
    return sl_cursor_u64(&p->c, v) ? 0 : SL_EVERIFY;
}

static int want_text(struct parse *p, const char **text, uint64_t *n)
{
    const uint8_t *bytes;

    WANT(want_u64(p, n));
    WANT(need(p, *n));
    if (!sl_cursor_bytes(&p->c, *n, &bytes))
        return SL_EVERIFY;
    *text = (const char *)bytes;
    return 0;
}

static int bad_key(struct parse *p, const struct place *k, const char *what)
{
    return sl_fail(p->e, SL_EVERIFY, "%s: metadata key %.*s: %s", p->path,
                   (int)(k->key_len < 128 ? k->key_len : 128), k->key, what);
}

/* Values are stepped over, only their places are kept. */
static int skip_value(struct parse *p, struct place *k)
{
    const uint8_t *bytes;
    const char *text;
    uint64_t size = verify_value_bytes(k->elem), n;

    k->value = p->c.at;
    if (k->elem == SL_KV_STR) {
        for (uint64_t i = 0; i < k->n; i++)
            WANT(want_text(p, &text, &n));
        return 0;
    }
    if (size == 0)
        return bad_key(p, k, "its value type does not exist");
    if (!sl_mul_u64(k->n, size, &n))
        return bad_key(p, k, "its length is damaged");
    WANT(need(p, n));
    if (!sl_cursor_bytes(&p->c, n, &bytes))
        return SL_EVERIFY;
    for (uint64_t i = 0; k->elem == SL_KV_BOOL && i < n; i++)
        if (bytes[i] > 1)
            return bad_key(p, k, "a bool is neither 0 nor 1");
    return 0;
}

static int parse_kv(struct parse *p)
{
    struct place k = {.n = 1};

    WANT(want_text(p, &k.key, &k.key_len));
    if (k.key_len == 0 || k.key_len > 65535 || memchr(k.key, 0, k.key_len))
        return bad_key(p, &k, "not a possible key");
    WANT(want_u32(p, &k.type));
    k.elem = k.type;
    if (k.type == SL_KV_ARR) {
        WANT(want_u32(p, &k.elem));
        WANT(want_u64(p, &k.n));
    }
    WANT(skip_value(p, &k));
    if (p->n_kv == p->kv_cap) {
        uint64_t cap = p->kv_cap ? p->kv_cap * 2 : 64;
        struct place *grown = realloc(p->kv, cap * sizeof *grown);

        if (!grown)
            return sl_fail(p->e, SL_EFAIL, "%s: out of memory", p->path);
        p->kv = grown;
        p->kv_cap = cap;
    }
    p->kv[p->n_kv++] = k;
    return 0;
}

static const struct place *find(const struct parse *p, const char *key)
{
    for (uint64_t i = 0; i < p->n_kv; i++)
        if (p->kv[i].key_len == strlen(key) && memcmp(p->kv[i].key, key, p->kv[i].key_len) == 0)
            return &p->kv[i];
    return NULL;
}

/* The scalar of `type` under key; *there says whether the key exists. */
static int scalar(struct parse *p, const char *key, uint32_t type, bool *there, uint64_t *v)
{
    const struct place *k = find(p, key);
    struct sl_cursor c = p->c;

    *there = k != NULL;
    if (!k)
        return 0;
    if (k->type != type)
        return bad_key(p, k, "has the wrong type");
    c.at = k->value;
    return sl_cursor_uint(&c, verify_value_bytes(type), v) ? 0 : SL_EVERIFY;
}

static int text_of(struct parse *p, const char *key, char **copy)
{
    const struct place *k = find(p, key);
    struct sl_cursor c = p->c;
    const uint8_t *bytes;
    uint64_t n;

    *copy = NULL;
    if (!k)
        return 0;
    if (k->type != SL_KV_STR)
        return bad_key(p, k, "has the wrong type");
    c.at = k->value;
    if (!sl_cursor_u64(&c, &n) || !sl_cursor_bytes(&c, n, &bytes))
        return SL_EVERIFY;
    *copy = strndup((const char *)bytes, n);
    return *copy ? 0 : sl_fail(p->e, SL_EFAIL, "%s: out of memory", p->path);
}

/* A list of strings, absent or whole. */
static int texts_of(struct parse *p, const char *key, char ***list, uint64_t *count)
{
    const struct place *k = find(p, key);
    struct sl_cursor c = p->c;

    if (!k || *list)
        return 0;
    if (k->type != SL_KV_ARR || k->elem != SL_KV_STR)
        return bad_key(p, k, "has the wrong type");
    c.at = k->value;
    *list = calloc(k->n ? k->n : 1, sizeof **list); /* every string has 8 bytes in the file */
    for (uint64_t i = 0; *list && i < k->n; i++) {
        const uint8_t *bytes;
        uint64_t n;

        if (!sl_cursor_u64(&c, &n) || !sl_cursor_bytes(&c, n, &bytes))
            return SL_EVERIFY;
        (*list)[i] = strndup((const char *)bytes, n);
        if (!(*list)[i])
            return sl_fail(p->e, SL_EFAIL, "%s: out of memory", p->path);
        *count = i + 1;
    }
    return *list ? 0 : sl_fail(p->e, SL_EFAIL, "%s: out of memory", p->path);
}

/* Numbers of layers, ascending. */
static int pruned_layers(struct parse *p)
{
    const struct place *k = find(p, SL_KEY_PRUNED);
    struct verify_file *f = p->f;
    struct sl_cursor c = p->c;

    if (!k)
        return 0;
    if (k->type != SL_KV_ARR || k->elem != SL_KV_U32 || k->n > 100000)
        return bad_key(p, k, "has the wrong type");
    c.at = k->value;
    f->pruned = malloc(k->n ? k->n * sizeof *f->pruned : 1);
    for (; f->pruned && f->n_pruned < k->n; f->n_pruned++)
        if (!sl_cursor_u32(&c, &f->pruned[f->n_pruned]) ||
            (f->n_pruned && f->pruned[f->n_pruned] <= f->pruned[f->n_pruned - 1]))
            return bad_key(p, k, "is no ascending list of layers");
    return f->pruned ? 0 : sl_fail(p->e, SL_EFAIL, "%s: out of memory", p->path);
}

static int cmp_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    uint64_t n = x->key_len < y->key_len ? x->key_len : y->key_len;
    int c = memcmp(x->key, y->key, n);

    return c ? c : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

/* Leaves p->kv sorted by key. */
static int check_keys(struct parse *p)
{
    struct verify_file *f = p->f;

    if (p->n_kv)
        qsort(p->kv, p->n_kv, sizeof *p->kv, cmp_places);
    for (uint64_t i = 0; i < p->n_kv; i++) {
        const struct place *k = &p->kv[i];

        if (i && cmp_places(k - 1, k) == 0)
            return bad_key(p, k, "is there twice");
        if (k->key_len > 7 && memcmp(k->key, "sluice.", 7) == 0)
            f->sluice = true;
        if (k->key_len > 17 && memcmp(k->key, "quantize.imatrix.", 17) == 0)
            f->imatrix = true;
    }
    return 0;
}

static int parse_tensor(struct parse *p, struct sl_gguf_tensor *t)
{
    const struct sl_type_info *info;
    const char *name;
    uint64_t n, elems = 1;
    uint32_t type;

    WANT(want_text(p, &name, &n));
    if (n == 0 || n >= SL_NAME_MAX || memchr(name, 0, n))
        return sl_fail(p->e, SL_EVERIFY, "%s: header: tensor %llu has no possible name", p->path,
                       (unsigned long long)p->f->g.n_tensors);
    memset(t, 0, sizeof *t);
    memcpy(t->name, name, n);
    WANT(want_u32(p, &t->n_dims));
    if (t->n_dims == 0 || t->n_dims > 4)
        return sl_fail(p->e, SL_EVERIFY, "%s: tensor %s: %u dimensions", p->path, t->name, t->n_dims);
    for (uint32_t i = 0; i < 4; i++) {
        t->ne[i] = 1;
        if (i < t->n_dims)
            WANT(want_u64(p, &t->ne[i]));
        if (t->ne[i] == 0 || !sl_mul_u64(elems, t->ne[i], &elems) || elems > INT64_MAX)
            return sl_fail(p->e, SL_EVERIFY, "%s: tensor %s: impossible shape", p->path, t->name);
    }
    WANT(want_u32(p, &type));
    WANT(want_u64(p, &t->offset));
    info = sl_type_info(type);
    if (!info)
        return sl_fail(p->e, p->f->sluice ? SL_EVERIFY : SL_EUNSUPPORTED,
                       "%s: tensor %s: type %u is not known to Sluice", p->path, t->name, type);
    t->type = (int)type;
    if (t->ne[0] % info->block || !sl_mul_u64(elems / info->block, info->bytes, &t->bytes))
        return sl_fail(p->e, SL_EVERIFY, "%s: tensor %s: its shape is no whole number of %s blocks",
                       p->path, t->name, info->name);
    return 0;
}

static int parse_tensors(struct parse *p, uint64_t n)
{
    struct sl_gguf *g = &p->f->g;
    uint64_t cap = 0;

    while (g->n_tensors < n) {
        if (g->n_tensors == cap) {
            struct sl_gguf_tensor *grown;

            cap = cap ? cap * 2 : 64;
            grown = realloc(g->tensors, cap * sizeof *grown);
            if (!grown)
                return sl_fail(p->e, SL_EFAIL, "%s: out of memory", p->path);
            g->tensors = grown;
        }
        WANT(parse_tensor(p, &g->tensors[g->n_tensors]));
        g->n_tensors++;
    }
    return 0;
}

/* Where the data section begins, and that the tensors fill it in turn. */
static int place_data(struct parse *p)
{
    struct sl_gguf *g = &p->f->g;
    uint64_t end = 0, room;

    if (!sl_align_u64(p->c.at, g->align, &g->header_bytes) || g->header_bytes > p->file_size) {
        if (g->n_tensors || p->f->sluice)
            return sl_fail(p->e, SL_EVERIFY, "%s: header: the file ends inside it", p->path);
        g->header_bytes = p->c.at;
    }
    WANT(need(p, g->header_bytes - p->c.at));
    room = p->file_size - g->header_bytes;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct sl_gguf_tensor *t = &g->tensors[i];

        if (t->offset != end)
            return sl_fail(p->e, SL_EVERIFY, "%s: tensor %s: offset %llu, must be %llu", p->path,
                           t->name, (unsigned long long)t->offset, (unsigned long long)end);
        if (!sl_add_u64(end, t->bytes, &end) || end > room)
            return sl_fail(p->e, SL_EVERIFY, "%s: tensor %s: the file ends before its data do", p->path,
                           t->name);
        if (!sl_align_u64(end, g->align, &end))
            return sl_fail(p->e, SL_EVERIFY, "%s: tensor %s: impossible offset", p->path, t->name);
    }
    g->data_bytes = end;
    return 0;
}

/* The checksums' values, which are required in files with "sluice." keys. */
static int check_sums(struct parse *p)
{
    struct verify_file *f = p->f;
    const struct place *tensors = find(p, SL_KEY_SUM_TENSORS), *header = find(p, SL_KEY_SUM_HEADER);
    uint64_t n = f->g.n_tensors, want, sum;
    struct sl_cursor c = p->c;

    if (!f->sluice)
        return 0;
    if (!tensors || !header)
        return sl_fail(p->e, SL_EVERIFY, "%s: metadata key %s is missing in a file of Sluice's", p->path,
                       tensors ? SL_KEY_SUM_HEADER : SL_KEY_SUM_TENSORS);
    if (header->type != SL_KV_U64)
        return bad_key(p, header, "has the wrong type");
    if (tensors->type != SL_KV_ARR || tensors->elem != SL_KV_U64 || tensors->n > n)
        return bad_key(p, tensors, "is not one u64 for each tensor");
    if (tensors->n < n) {
        f->merged = true; /* no damage: there is no tensor info beyond the last */
        return sl_fail(p->e, SL_EVERIFY, "%s: another program made it of a file of Sluice's: it has %llu tensors, its checksums are "
                       "of %llu; verify what it was made of (the parts), then compare: sluice diff FIRST_PART %s", p->path,
                       (unsigned long long)n, (unsigned long long)tensors->n, p->path);
    }
    f->sums = malloc(n ? n * sizeof *f->sums : 1);
    if (!f->sums)
        return sl_fail(p->e, SL_EFAIL, "%s: out of memory", p->path);
    c.at = header->value;
    if (!sl_cursor_u64(&c, &want))
        return SL_EVERIFY;
    c.at = tensors->value;
    for (uint64_t i = 0; i < n; i++)
        if (!sl_cursor_u64(&c, &f->sums[i]))
            return SL_EVERIFY;
    if (sl_gguf_header_checksum(p->c.base, f->g.header_bytes, header->value, tensors->value, n, &sum) < 0)
        return sl_fail(p->e, SL_EFAIL, "%s: out of memory", p->path);
    f->header_sum_ok = sum == want;
    return 0;
}

/* The keys that verification itself goes by. */
static int check_metadata(struct parse *p)
{
    struct verify_file *f = p->f;
    uint64_t align = SL_GGUF_ALIGN;
    bool there, no, count;

    WANT(check_keys(p));
    WANT(scalar(p, "general.alignment", SL_KV_U32, &there, &align));
    if (align == 0 || (align & (align - 1)))
        return sl_fail(p->e, SL_EVERIFY, "%s: metadata key general.alignment: not a power of 2", p->path);
    f->g.align = align;
    WANT(scalar(p, "split.no", SL_KV_U16, &no, &f->split_no));
    WANT(scalar(p, "split.count", SL_KV_U16, &count, &f->split_count));
    WANT(scalar(p, "split.tensors.count", SL_KV_I32, &there, &f->split_tensors));
    f->has_split = no || count || there;
    if (f->has_split && !(no && count && there))
        return sl_fail(p->e, SL_EVERIFY, "%s: metadata keys split.no, split.count and split.tensors.count must be there together",
                       p->path);
    WANT(text_of(p, "sluice.layout", &f->layout));
    WANT(text_of(p, "sluice.round_through", &f->round_through));
    WANT(text_of(p, SL_KEY_IMATRIX, &f->imatrix_hash));
    if (f->sluice) /* the other keys may be copies of its source's */
        f->imatrix = f->imatrix_hash != NULL;
    WANT(pruned_layers(p));
    WANT(texts_of(p, SL_KEY_IMATRIX_INCLUDE, &f->imatrix_words, &f->n_imatrix_words));
    f->imatrix_keep = f->imatrix_words != NULL;
    WANT(texts_of(p, SL_KEY_IMATRIX_EXCLUDE, &f->imatrix_words, &f->n_imatrix_words));
    return text_of(p, SL_KEY_FINGERPRINT, &f->fingerprint);
}

static int parse_header(struct parse *p)
{
    struct sl_gguf *g = &p->f->g;
    uint8_t magic[4] = {0};
    uint64_t n_tensors, n_kv;

    WANT(need(p, 24));
    if (!sl_cursor_copy(&p->c, magic, 4) || memcmp(magic, "GGUF", 4) != 0)
        return sl_fail(p->e, SL_EVERIFY, "%s: header: it does not begin with \"GGUF\"", p->path);
    WANT(want_u32(p, &g->version));
    if (g->version != 3 && g->version != 2)
        return sl_fail(p->e, SL_EVERIFY, "%s: header: GGUF version %u, must be 3", p->path, g->version);
    WANT(want_u64(p, &n_tensors));
    WANT(want_u64(p, &n_kv));
    if (n_tensors > SL_GGUF_MAX_TENSORS || n_kv > SL_GGUF_MAX_KEYS)
        return sl_fail(p->e, SL_EVERIFY, "%s: header: %llu tensors and %llu metadata keys; %u and %u at most are read",
                       p->path, (unsigned long long)n_tensors, (unsigned long long)n_kv, SL_GGUF_MAX_TENSORS,
                       SL_GGUF_MAX_KEYS);
    for (uint64_t i = 0; i < n_kv; i++)
        WANT(parse_kv(p));
    WANT(check_metadata(p));
    WANT(parse_tensors(p, n_tensors));
    WANT(place_data(p));
    return check_sums(p);
}

/* Back to what is known before a parse: path and size. */
static void reset(struct verify_file *f)
{
    free(f->g.tensors);
    free(f->sums);
    free(f->layout);
    free(f->round_through);
    free(f->fingerprint);
    free(f->imatrix_hash);
    for (uint64_t i = 0; i < f->n_imatrix_words; i++)
        free(f->imatrix_words[i]);
    free(f->imatrix_words);
    free(f->pruned);
    free(f->damage);
    *f = (struct verify_file){.g = {.path = f->g.path, .file_size = f->g.file_size}};
}

void verify_file_free(struct verify_file *f)
{
    reset(f);
    free(f->g.path);
    f->g.path = NULL;
}

static int read_bytes(int fd, const char *path, uint8_t *to, uint64_t from, uint64_t end,
                      struct sl_error *e)
{
    while (from < end) {
        ssize_t got = pread(fd, to + from, end - from, (off_t)from);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return sl_fail(e, SL_EFAIL, "%s: read error: %s", path,
                           got ? strerror(errno) : "it shrank");
        from += (uint64_t)got;
    }
    return 0;
}

/* After a parse that failed, or of a header that does not match its checksums: says
 * which tensor or key it is, where the header's checksums of its records tell. */
static int name_damage(int fd, struct verify_file *f, int rc, uint8_t **buf, uint64_t have, struct sl_error *e)
{
    uint64_t size = f->g.file_size, want = size < DIAGNOSE_MAX ? size : DIAGNOSE_MAX;
    bool whole = rc == 0, sums_damaged, other;
    struct sl_error unread;
    char text[sizeof e->text];

    if (whole)
        want = f->g.header_bytes;
    if (want > have) {
        uint8_t *grown = realloc(*buf, want);

        if (!grown)
            return rc;
        *buf = grown;
        if (read_bytes(fd, f->g.path, *buf, have, want, &unread) < 0)
            return rc;
        have = want;
    }
    if (!verify_diagnose(*buf, have, whole ? f->g.header_bytes : 0, whole && f->header_sum_ok, f->g.path, text, sizeof text,
                         &sums_damaged, &other))
        return rc;
    if (!whole || other)
        return sl_fail(e, SL_EVERIFY, "%s", text);
    f->damage = strdup(text);
    if (sums_damaged) { /* then the tensors cannot be held against them */
        free(f->sums);
        f->sums = NULL;
    }
    return f->damage ? rc : sl_fail(e, SL_EFAIL, "%s: out of memory", f->g.path);
}

/* Parses with ever more of the file until the header is complete. */
static int parse_file(int fd, struct verify_file *f, struct sl_error *e)
{
    uint64_t size = f->g.file_size, have = 0, want = size < FIRST_READ ? size : FIRST_READ;
    uint8_t *buf = NULL;
    int rc = NEED_MORE;

    while (rc == NEED_MORE) {
        uint8_t *grown = realloc(buf, want ? want : 1);
        struct parse p = {.file_size = size, .path = f->g.path, .f = f, .e = e};

        if (!grown) {
            rc = sl_fail(e, SL_EFAIL, "%s: out of memory for its header", f->g.path);
            break;
        }
        buf = grown;
        rc = read_bytes(fd, f->g.path, buf, have, want, e);
        if (rc < 0)
            break;
        have = want;
        reset(f);
        p.c = sl_cursor(buf, have);
        rc = parse_header(&p);
        free(p.kv);
        want = size / 2 < have ? size : have * 2;
        if (rc == NEED_MORE && have >= SL_GGUF_MAX_HEADER)
            rc = sl_fail(e, SL_EVERIFY, "%s: header: longer than %u MB, or damaged", f->g.path,
                         SL_GGUF_MAX_HEADER / 1000000);
    }
    if ((rc == SL_EVERIFY && !f->merged) || (rc == 0 && f->sluice))
        rc = name_damage(fd, f, rc, &buf, have, e);
    free(buf);
    return rc;
}

int verify_structure(const char *path, struct verify_file *f, struct sl_error *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;

    *f = (struct verify_file){.g = {.path = strdup(path)}};
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        rc = sl_fail(e, SL_ESOURCE, "%s: %s", path,
                     fd < 0 ? strerror(errno) : "not a regular file");
    } else if (!f->g.path) {
        rc = sl_fail(e, SL_EFAIL, "%s: out of memory", path);
    } else {
        f->g.file_size = (uint64_t)st.st_size;
        rc = parse_file(fd, f, e);
    }
    if (fd >= 0)
        close(fd);
    return rc;
}
