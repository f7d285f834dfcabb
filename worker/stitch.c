#include "worker/stitch.h"

#include "proto/header_seal.h"
#include "proto/tensor_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One segment's pass. Bytes arrive in file order; every item is a contiguous
 * run of one tensor, so items are met in the order (tensor, elem0). */
struct pass {
    const struct stitch *s;
    const struct sl_plan_segment *seg;
    const uint32_t *order;   /* items sorted by (tensor, elem0) */
    uint32_t next, n_order;  /* the item that the next byte belongs to */
    uint64_t *item_sum;
    struct sl_hash *tensor, *item, *file;
    uint64_t *sums;          /* of this segment's tensors */
    FILE *manifest;
    const char *name;        /* base name of the final file */
    struct sl_error *e;
};

static int on_data(void *user, uint64_t index, uint64_t off, const uint8_t *bytes, uint64_t n)
{
    struct pass *p = user;
    const struct sl_plan *plan = p->s->plan;
    uint32_t tensor = p->seg->first_tensor + (uint32_t)index;

    if (sl_hash_update(p->tensor, bytes, n) < 0 || sl_hash_update(p->file, bytes, n) < 0)
        return sl_no_memory(p->e);
    while (n > 0) {
        const struct sl_plan_item *it =
            p->next < p->n_order ? &plan->items[p->order[p->next]] : NULL;
        uint64_t end, take;

        if (!it || it->tensor != tensor)
            return sl_fail(p->e, SL_EFAIL, "%s: the plan has no task for byte %llu of %s", p->name,
                           (unsigned long long)off, plan->tensors[tensor].t->name);
        end = sl_type_bytes(plan->tensors[tensor].type, it->elem0 + it->elems);
        take = end - off < n ? end - off : n;
        if (sl_hash_update(p->item, bytes, take) < 0)
            return sl_no_memory(p->e);
        bytes += take;
        off += take;
        n -= take;
        if (off == end && sl_hash_final(p->item, &p->item_sum[p->order[p->next++]], NULL) < 0)
            return sl_no_memory(p->e);
    }
    return 0;
}

static int on_tensor(void *user, uint64_t index)
{
    struct pass *p = user;
    uint8_t sha[SL_SHA256_BYTES];
    const char *name = p->s->plan->tensors[p->seg->first_tensor + index].t->name;

    if (sl_hash_final(p->tensor, &p->sums[index], p->s->sha256 ? sha : NULL) < 0)
        return sl_no_memory(p->e);
    if (sl_manifest_tensor(p->manifest, p->name, name, p->sums[index],
                           p->s->sha256 ? sha : NULL) < 0)
        return sl_fail(p->e, SL_EFAIL, "%s: the manifest cannot be written: %s", p->name,
                       strerror(errno));
    return 0;
}

static int on_progress(void *user, uint64_t bytes)
{
    struct pass *p = user;

    return p->s->progress ? p->s->progress(p->s->user, bytes) : 0;
}

/* The plan's segment as sl_gguf_stream wants it. */
static int stand_in(const struct sl_plan *plan, const struct sl_plan_segment *seg,
                    struct sl_gguf *g, struct sl_error *e)
{
    memset(g, 0, sizeof *g);
    g->align = SL_GGUF_ALIGN;
    g->header_bytes = seg->header_bytes;
    g->data_bytes = seg->data_bytes;
    g->n_tensors = seg->n_tensors;
    g->tensors = calloc(seg->n_tensors ? seg->n_tensors : 1, sizeof *g->tensors);
    if (!g->tensors)
        return sl_no_memory(e);
    for (uint32_t i = 0; i < seg->n_tensors; i++) {
        const struct sl_plan_tensor *pt = &plan->tensors[seg->first_tensor + i];
        struct sl_gguf_tensor *t = &g->tensors[i];

        memcpy(t->name, pt->t->name, sizeof t->name);
        t->offset = pt->offset;
        t->bytes = pt->bytes;
    }
    return 0;
}

/* No task writes the bytes between tensors, so that no task could mend them. */
static int clear_padding(const struct pass *p, const char *path, struct sl_error *e)
{
    static const uint8_t zeros[SL_GGUF_ALIGN];
    const struct sl_plan_tensor *t = &p->s->plan->tensors[p->seg->first_tensor];
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc = fd < 0 ? SL_EFAIL : 0;

    for (uint32_t i = 0; i < p->seg->n_tensors && rc == 0; i++) {
        uint64_t end = t[i].offset + t[i].bytes;
        uint64_t n = (i + 1 < p->seg->n_tensors ? t[i + 1].offset : p->seg->data_bytes) - end;

        if (n && n < sizeof zeros && pwrite(fd, zeros, n, (off_t)(p->seg->header_bytes + end)) != (ssize_t)n)
            rc = SL_EFAIL;
    }
    if (rc < 0)
        rc = sl_fail(e, sl_write_code(errno), "%s: the padding between tensors cannot be "
                     "written: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Writes the finished header into the temporary file and syncs it. */
static int write_header(const struct pass *p, const char *path, struct sl_error *e)
{
    const struct sl_plan_segment *seg = p->seg;
    uint8_t *h = NULL;
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), rc = SL_EFAIL;

    if (fd < 0 || sl_plan_header(p->s->plan, (uint32_t)(seg - p->s->plan->segments), &h) < 0)
        goto done;
    if (sl_gguf_seal_header(h, seg->header_bytes, &seg->kvs, p->sums, seg->n_tensors) < 0)
        goto done;
    rc = 0;
    for (uint64_t at = 0; at < seg->header_bytes && rc == 0;) {
        ssize_t n = pwrite(fd, h + at, seg->header_bytes - at, (off_t)at);

        if (n < 0 && errno != EINTR)
            rc = SL_EFAIL;
        at += n > 0 ? (uint64_t)n : 0;
    }
    if (rc == 0 && fdatasync(fd) != 0)
        rc = SL_EFAIL;
done:
    if (rc < 0)
        rc = sl_fail(e, sl_write_code(errno), "%s: the header cannot be written: %s", path, strerror(errno));
    free(h);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int close_manifest(struct pass *p, const char *final, const struct sl_hash_total *total, struct sl_error *e)
{
    int bad = sl_manifest_file(p->manifest, p->name, total) < 0;

    bad |= fflush(p->manifest) != 0 || fsync(fileno(p->manifest)) != 0;
    bad |= fclose(p->manifest) != 0;
    p->manifest = NULL;
    return bad ? sl_fail(e, sl_write_code(errno), "%s.xxh64: cannot be written: %s", final, strerror(errno)) : 0;
}

/* What is checked is what the disk has. After a sync that failed the cache may show more. */
static void forget_cached(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

    if (fd < 0)
        return;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static int stream_segment(struct pass *p, uint32_t i, struct sl_error *e)
{
    const struct sl_stream_ops ops = {on_data, on_tensor, on_progress, p};
    struct sl_hash_total total = {.has_sha256 = p->s->sha256};
    struct sl_gguf g;
    int rc = stand_in(p->s->plan, p->seg, &g, e);

    forget_cached(p->s->out->partial[i]);
    if (rc == 0)
        rc = clear_padding(p, p->s->out->partial[i], e);
    if (rc == 0)
        rc = sl_gguf_stream(p->s->out->partial[i], &g, &ops, e);
    free(g.tensors);
    SL_TRY(rc);
    if (sl_hash_final(p->file, &total.xxh64, total.has_sha256 ? total.sha256 : NULL) < 0)
        return sl_no_memory(e);
    SL_TRY(close_manifest(p, p->s->out->final[i], &total, e));
    return write_header(p, p->s->out->partial[i], e);
}

/* A stranger may write to the output's folder: what is there (a link, a FIFO that would
 * never open) goes, and is not written through. */
static FILE *open_new(const char *path)
{
    int fd = unlink(path) == 0 || errno == ENOENT
             ? open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;

    if (!f && fd >= 0)
        close(fd);
    return f;
}

static int seal_segment(struct pass *p, uint32_t i, struct sl_error *e)
{
    char path[OUTPUT_PATH_BYTES];
    int rc;

    p->seg = &p->s->plan->segments[i];
    p->name = p->seg->name;
    p->e = e;
    p->tensor = sl_hash_new(p->s->sha256);
    p->file = sl_hash_new(p->s->sha256);
    p->item = sl_hash_new(false);
    p->sums = calloc(p->seg->n_tensors ? p->seg->n_tensors : 1, sizeof *p->sums);
    snprintf(path, sizeof path, "%s.xxh64.partial", p->s->out->final[i]);
    p->manifest = open_new(path);
    if (!p->tensor || !p->file || !p->item || !p->sums)
        rc = sl_no_memory(e);
    else if (!p->manifest)
        rc = sl_fail(e, sl_write_code(errno), "%s: %s", path, strerror(errno));
    else
        rc = stream_segment(p, i, e);
    if (p->manifest)
        fclose(p->manifest);
    p->manifest = NULL;
    sl_hash_free(p->tensor);
    sl_hash_free(p->file);
    sl_hash_free(p->item);
    free(p->sums);
    return rc;
}

static int by_place(const void *a, const void *b, void *user)
{
    const struct sl_plan *plan = user;
    const struct sl_plan_item *x = &plan->items[*(const uint32_t *)a];
    const struct sl_plan_item *y = &plan->items[*(const uint32_t *)b];

    if (x->tensor != y->tensor)
        return x->tensor < y->tensor ? -1 : 1;
    return (x->elem0 > y->elem0) - (x->elem0 < y->elem0);
}

/* Compares every task's checksum; fills s->bad. */
static int check_tasks(struct stitch *s, const uint64_t *item_sum, struct sl_error *e)
{
    s->bad = calloc(s->plan->n_tasks ? s->plan->n_tasks : 1, sizeof *s->bad);
    if (!s->bad)
        return sl_no_memory(e);
    s->n_bad = 0;
    for (uint32_t t = 0; t < s->plan->n_tasks; t++) {
        const struct sl_plan_task *task = &s->plan->tasks[t];

        if (sl_xxh64(item_sum + task->first_item, 8 * (uint64_t)task->n_items) != s->task_sum[t])
            s->bad[s->n_bad++] = t;
    }
    if (s->n_bad == 0)
        return 0;
    return sl_fail(e, SL_EVERIFY,
                   "%u of %u tasks are not on the disk as they were written, the first of them in "
                   "%s; check the disk", s->n_bad, s->plan->n_tasks,
                   s->plan->tensors[s->plan->items[s->plan->tasks[s->bad[0]].first_item].tensor]
                       .t->name);
}

int stitch_seal(struct stitch *s, struct sl_error *e)
{
    uint32_t n = s->plan->n_items;
    uint32_t *order = calloc(n ? n : 1, sizeof *order);
    uint64_t *item_sum = calloc(n ? n : 1, sizeof *item_sum);
    struct pass p = {.s = s, .order = order, .n_order = n, .item_sum = item_sum};
    int rc = order && item_sum ? 0 : sl_no_memory(e);

    for (uint32_t i = 0; rc == 0 && i < n; i++)
        order[i] = i;
    if (rc == 0)
        qsort_r(order, n, sizeof *order, by_place, (void *)(uintptr_t)s->plan);
    for (uint32_t i = 0; rc == 0 && i < s->plan->n_segments; i++)
        rc = seal_segment(&p, i, e);
    if (rc == 0)
        rc = check_tasks(s, item_sum, e);
    free(order);
    free(item_sum);
    return rc;
}
