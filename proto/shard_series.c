#include "proto/shard_series.h"

#include "proto/source_file.h"
#include "proto/suffix.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "model"
#define SUFFIX ".safetensors"
#define MAX_DIGITS 6 /* of a shard's number: it bounds what is kept of a set */

/* "X-00001-of-00003.safetensors". MiniMax-M2's count from 0, and end before the number that they name: 124 of 130. */
struct numbered {
    const char *name;
    int before, width; /* bytes of "X-"; digits of the number */
    uint32_t number, of;
    const char *rest;  /* "-of-00003.safetensors" */
};

static const char *digits_before(const char *name, const char *end)
{
    while (end > name && end[-1] >= '0' && end[-1] <= '9')
        end--;
    return end;
}

static bool read_number(const char *from, const char *end, uint32_t *v)
{
    *v = 0;
    for (const char *s = from; s < end && end - from <= MAX_DIGITS; s++)
        *v = *v * 10 + (uint32_t)(*s - '0');
    return end > from && end - from <= MAX_DIGITS;
}

static bool is_numbered(const char *name, struct numbered *x)
{
    const char *end = name + sl_stem(name, SUFFIX), *of = digits_before(name, end), *from;

    if (of - name < 4 || strncmp(of - 4, "-of-", 4) != 0)
        return false;
    x->rest = of - 4;
    from = digits_before(name, x->rest);
    x->name = name;
    x->before = (int)(from - name);
    x->width = (int)(x->rest - from);
    return read_number(from, x->rest, &x->number) && read_number(of, end, &x->of) && x->of && x->number <= x->of;
}

uint32_t sl_shard_set_size(const char *name)
{
    struct numbered x;

    return is_numbered(name, &x) ? x.of : 0;
}

static bool same_set(const struct numbered *a, const struct numbered *b)
{
    return a->before == b->before && strncmp(a->name, b->name, (size_t)a->before) == 0 && strcmp(a->rest, b->rest) == 0;
}

/* ---- the set ---- */

/* Of the n that were seen none is missing between the first and the last. */
static int check_seen(const char *dir, const struct numbered *x, const uint8_t *seen, uint32_t n, struct sl_error *e)
{
    uint32_t first = seen[0] ? 0 : 1, all = x->of;

    if (seen[0])
        for (uint32_t i = 0; i <= x->of; i++)
            all = seen[i] ? i + 1 : all;
    if (n >= all)
        return 0;
    while (seen[first])
        first++;
    return sl_fail(e, SL_ESOURCE, "%s: %.*s%0*" PRIu32 "%s is missing (%" PRIu32 " of %" PRIu32 " shards are); "
                   "is the download complete?", dir, x->before, x->name, x->width, first, x->rest, all - n, all);
}

static int check_set(const char *dir, const struct sl_shard_series *s, struct sl_error *e)
{
    uint8_t *seen = NULL;
    struct numbered set = {.of = 0}, x;
    uint32_t n = 0;
    int rc = 0;

    for (uint32_t i = 0; i < s->n && rc == 0; i++) {
        if (!is_numbered(s->names[i], &x))
            continue;
        if (!seen) {
            set = x;
            seen = calloc((size_t)x.of + 1, 1);
        }
        if (!seen)
            return sl_fail(e, SL_EFAIL, "%s: out of memory for %" PRIu32 " shards", dir, x.of);
        if (!same_set(&x, &set)) {
            rc = sl_fail(e, SL_ESOURCE, "%s: %s and %s are of two sets, and there is no model.safetensors.index.json "
                         "that says which to read", dir, set.name, x.name);
        } else {
            set.width = x.width < set.width ? x.width : set.width;
            n += !seen[x.number];
            seen[x.number] = 1;
        }
    }
    if (rc == 0 && seen)
        rc = check_seen(dir, &set, seen, n, e);
    free(seen);
    return rc;
}

/* ---- the folder ---- */

static int is_shard(const struct dirent *d)
{
    return strncmp(d->d_name, PREFIX, sizeof PREFIX - 1) == 0 && sl_stem(d->d_name, SUFFIX) &&
           sl_source_plain_name(d->d_name);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int sl_shard_series_read(const char *dir, struct sl_shard_series *out, struct sl_error *e)
{
    struct dirent **found;
    int n = scandir(dir, &found, is_shard, by_name), rc = 0;

    *out = (struct sl_shard_series){NULL, 0};
    if (n < 0)
        return sl_fail(e, sl_source_code(errno), "%s: %s", dir, strerror(errno));
    out->names = calloc((size_t)n + 1, sizeof *out->names);
    for (int i = 0; i < n; i++) {
        if (rc == 0 && (!out->names || !(out->names[out->n++] = strdup(found[i]->d_name))))
            rc = sl_fail(e, SL_EFAIL, "%s: out of memory for %d shards", dir, n);
        free(found[i]);
    }
    free(found);
    rc = rc < 0 ? rc : check_set(dir, out, e);
    if (rc < 0)
        sl_shard_series_free(out);
    return rc;
}

void sl_shard_series_free(struct sl_shard_series *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        free(s->names[i]);
    free(s->names);
    *s = (struct sl_shard_series){NULL, 0};
}
