/* What must hold between the files of a split set. llama.cpp's loader looks at
 * split.no, the sum of tensors and duplicate names only. */
#include "worker/verify.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

int verify_failed(struct verify_report *r, const char *fmt, ...)
{
    struct sl_error now;
    va_list ap;

    va_start(ap, fmt);
    sl_vfail(&now, SL_EVERIFY, fmt, ap);
    va_end(ap);
    if (r->failures++ == 0)
        r->first = now;
    if (r->fail)
        r->fail(r->user, now.text);
    return SL_EVERIFY;
}

void verify_unchecked(struct verify_report *r, const char *fmt, ...)
{
    struct sl_error now;
    va_list ap;

    va_start(ap, fmt);
    sl_vfail(&now, SL_EWARN, fmt, ap);
    va_end(ap);
    r->gaps++;
    if (r->unchecked)
        r->unchecked(r->user, now.text);
}

struct named {
    const char *name, *path;
};

static int cmp_named(const void *a, const void *b)
{
    const struct named *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static int check_names(const struct verify_set *s, struct sl_error *e)
{
    struct named *all = malloc((s->n_tensors ? s->n_tensors : 1) * sizeof *all);
    uint64_t n = 0;
    int rc = 0;

    if (!all)
        return sl_no_memory(e);
    for (uint32_t f = 0; f < s->n; f++)
        for (uint64_t i = 0; i < s->files[f].g.n_tensors; i++)
            all[n++] = (struct named){s->files[f].g.tensors[i].name, s->files[f].g.path};
    qsort(all, n, sizeof *all, cmp_named);
    for (uint64_t i = 1; i < n && rc == 0; i++)
        if (strcmp(all[i - 1].name, all[i].name) == 0)
            rc = sl_fail(e, SL_EVERIFY, "%s: tensor %s is there twice", all[i].path, all[i].name);
    free(all);
    return rc;
}

static int check_part(const struct verify_set *s, uint32_t i, struct sl_error *e)
{
    const struct verify_file *f = &s->files[i], *first = &s->files[0];

    if (s->n == 1) {
        if (f->has_split && f->split_count > 1)
            return sl_fail(e, SL_EVERIFY, "%s: metadata key split.count: this is one of %llu parts, but its name does not say so",
                           f->g.path, (unsigned long long)f->split_count);
        return 0;
    }
    if (!f->has_split || f->split_no != i || f->split_count != s->n)
        return sl_fail(e, SL_EVERIFY, "%s: metadata keys split.no and split.count say part %llu of %llu, the name %u of %u",
                       f->g.path, (unsigned long long)f->split_no + 1,
                       (unsigned long long)f->split_count, i + 1, s->n);
    if (f->split_tensors != s->n_tensors)
        return sl_fail(e, SL_EVERIFY, "%s: metadata key split.tensors.count is %llu, the set has %llu tensors",
                       f->g.path, (unsigned long long)f->split_tensors,
                       (unsigned long long)s->n_tensors);
    if (f->sluice != first->sluice)
        return sl_fail(e, SL_EVERIFY, "%s: some parts of the set are Sluice's and some are not", f->g.path);
    if (f->fingerprint && first->fingerprint && strcmp(f->fingerprint, first->fingerprint) != 0)
        return sl_fail(e, SL_EVERIFY, "%s: metadata key sluice.fingerprint: this part is of another conversion than %s",
                       f->g.path, first->g.path);
    return 0;
}

static int check_set(const struct verify_set *s, struct sl_error *e)
{
    for (uint32_t i = 0; i < s->n; i++)
        SL_TRY(check_part(s, i, e));
    return check_names(s, e);
}

int verify_set_open(const char *path, struct verify_set *s, struct sl_error *e)
{
    char part[PATH_MAX];
    uint32_t n;
    int rc;

    *s = (struct verify_set){0};
    SL_TRY(sl_gguf_split_count(path, &n, e));
    s->files = calloc(n, sizeof *s->files);
    if (!s->files)
        return sl_no_memory(e);
    for (; s->n < n; s->n++) {
        struct verify_file *f = &s->files[s->n];

        SL_TRY(sl_gguf_part_path(part, sizeof part, path, s->n, e));
        rc = verify_structure(part, f, e);
        if (rc < 0) {
            verify_file_free(f);
            return rc;
        }
        s->n_tensors += f->g.n_tensors;
        s->bytes += f->g.file_size;
    }
    rc = check_set(s, e);
    for (uint32_t i = 0; i < n && rc == SL_EVERIFY; i++)
        if (s->files[i].damage) /* that is the reason */
            return sl_fail(e, rc, "%s", s->files[i].damage);
    return rc;
}

void verify_set_free(struct verify_set *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        verify_file_free(&s->files[i]);
    free(s->files);
    *s = (struct verify_set){0};
}
