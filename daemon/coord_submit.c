/* New jobs, the keys by which a repeated request is known, and jobs of before that may not be any more. */
#include "daemon/coord_priv.h"

#include "proto/gguf.h"
#include "proto/recipe.h"
#include "proto/tensor_hash.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool coord_same_output(const struct sl_coord *c, const cJSON *a, const cJSON *b)
{
    const char *x = sl_get_str(a, "output"), *y = sl_get_str(b, "output");
    size_t n = strlen(x), k = strlen(y);

    if (strcmp(sl_get_str(a, "prefix"), sl_get_str(b, "prefix")) != 0)
        return false;
    while (n > 1 && x[n - 1] == '/')
        n--;
    while (k > 1 && y[k - 1] == '/')
        k--;
    return (n == k && memcmp(x, y, n) == 0) || (c->o.same_folder && c->o.same_folder(c->o.user, x, y));
}

uint64_t coord_output_hash(const cJSON *spec)
{
    const char *prefix = sl_get_str(spec, "prefix");

    return sl_xxh64(prefix, strlen(prefix));
}

int coord_output_free(struct ask *a, const cJSON *spec, uint64_t self)
{
    uint64_t hash = coord_output_hash(spec);

    for (uint32_t i = 0; i < a->c->n_jobs; i++)
        if (a->c->jobs[i]->output_hash == hash && a->c->jobs[i]->id != self && !sl_job_ended(a->c->jobs[i]->state) &&
            coord_same_output(a->c, a->c->jobs[i]->spec, spec))
            return sl_fail(&a->why, SL_EEXISTS, "job %llu writes to %s/%s already; choose another output",
                           (unsigned long long)a->c->jobs[i]->id, sl_get_str(spec, "output"),
                           sl_get_str(spec, "prefix"));
    return 0;
}

/* The names of the output's files have room in a message. */
static int paths_fit(const cJSON *spec, struct sl_error *why)
{
    const char *prefix = sl_get_str(spec, "prefix");

    if (strlen(sl_get_str(spec, "output")) + 1 + strlen(prefix) + strlen("-00001-of-00002.gguf") < PATH_MAX)
        return 0;
    return sl_fail(why, SL_EUSAGE, "the paths of %s's files would have more than %d bytes; choose a folder with a shorter one",
                   prefix, PATH_MAX - 1);
}

/* With all that goes beside it the specification has room in a message. */
static int has_room(const cJSON *spec, struct sl_error *why)
{
    char *text = cJSON_PrintUnformatted(spec);
    size_t n = text ? strlen(text) : 0;

    cJSON_free(text);
    if (!text)
        return sl_no_memory(why);
    return n <= SL_SPEC_BYTES ? 0 : sl_fail(why, SL_EUSAGE, "a specification of %zu bytes; %u are possible: give fewer or shorter "
                                            "lists", n, SL_SPEC_BYTES);
}

/* What it needs of messages is there. */
static int fits(const cJSON *spec, struct sl_error *why)
{
    SL_TRY(paths_fit(spec, why));
    return has_room(spec, why);
}

int coord_possible(const struct sl_coord *c, const struct job *j, struct sl_error *why)
{
    const char *paths[] = {sl_get_str(j->spec, "source"), sl_get_str(j->spec, "output"),
                           sl_get_str(sl_get(j->spec, "options"), "imatrix")};
    struct sl_error found; /* as much as that it is not there now */
    char roots[450] = "it has none";

    SL_TRY(fits(j->spec, why));
    for (uint32_t i = 0, n = 0; i < c->o.n_roots && n < sizeof roots; i++)
        n += (uint32_t)snprintf(roots + n, sizeof roots - n, "%s%s", i ? ", " : "", c->o.roots[i]);
    for (unsigned i = 0; i < 3; i++)
        if (c->o.check_path && paths[i] && c->o.check_path(c->o.user, paths[i], false, &found) == SL_EUSAGE)
            return sl_fail(why, SL_EUSAGE, "%.400s: is below no root of the daemon (%s)", paths[i], roots);
    return 0;
}

int coord_fail_impossible(struct sl_coord *c, struct sl_error *e)
{
    for (uint32_t i = 0; i < c->n_jobs; i++) {
        struct job *j = c->jobs[i];
        char advice[96] = "", text[1024];
        struct sl_error why, ignored;
        int rc;

        if (sl_job_ended(j->state) || j->state == SL_JOB_HELD || (rc = coord_possible(c, j, &why)) == 0)
            continue;
        if (rc != SL_EUSAGE)
            return sl_fail(e, rc, "%s", why.text);
        if (fits(j->spec, &ignored) == 0)
            snprintf(advice, sizeof advice, "; start sluiced with a root for it again, and 'sluice retry %llu' goes on",
                     (unsigned long long)j->id);
        snprintf(text, sizeof text, "%.900s%s", why.text, advice);
        SL_TRY(coord_revoke_all(c, j, "the job has failed", e));
        SL_TRY(coord_set_state(c, j, SL_JOB_FAILED, -SL_EUSAGE, text, e));
    }
    return 0;
}

static int check_spec(struct ask *a, const cJSON *spec, const cJSON *first)
{
    const struct sl_coord_opts *o = &a->c->o;
    const char *prefix = sl_get_str(spec, "prefix");
    const char *imatrix = sl_get_str(sl_get(spec, "options"), "imatrix");
    struct sl_recipe *r = NULL;
    const cJSON *other;

    if (strcmp(sl_get_str(spec, "source"), sl_get_str(first, "source")) != 0)
        return sl_fail(&a->why, SL_EUSAGE, "the jobs of a sweep have one source");
    if (!prefix[0] || strpbrk(prefix, "/\t\n\r") || prefix[0] == '.') /* the wire holds no others */
        return sl_fail(&a->why, SL_EUSAGE, "prefix '%s': a file's base name is expected", prefix);
    if (sl_gguf_stem(prefix) != strlen(prefix)) /* another job's part may have that name */
        return sl_fail(&a->why, SL_EUSAGE, "prefix '%s': a base name without .gguf and a part's number is expected", prefix);
    SL_TRY(fits(spec, &a->why));
    for (other = first; other != spec; other = other->next)
        if (coord_same_output(a->c, other, spec))
            return sl_fail(&a->why, SL_EUSAGE, "two jobs of the sweep have the output %s/%s",
                           sl_get_str(spec, "output"), prefix);
    if (o->check_path && (imatrix ? o->check_path(o->user, imatrix, false, &a->why) : 0) < 0)
        return a->why.code;
    if (o->check_path && (o->check_path(o->user, sl_get_str(spec, "source"), false, &a->why) < 0 ||
                          o->check_path(o->user, sl_get_str(spec, "output"), true, &a->why) < 0))
        return a->why.code;
    SL_TRY(sl_recipe_parse(sl_get_str(spec, "recipe"), sl_get_str(spec, "recipe"),
                           sl_get_str(spec, "recipe_text"), &r, &a->why));
    sl_recipe_close(r);
    return coord_output_free(a, spec, 0);
}

static int exists(void *user, const struct sl_job_row *r)
{
    (void)r;
    *(bool *)user = true;
    return 0;
}

static int check_submit(struct ask *a, struct sl_error *e)
{
    const cJSON *specs = sl_get(a->m->tree, "specs"), *x;
    const char *label[SL_LABELS_MAX];
    uint32_t n = coord_strings(sl_get(a->m->tree, "labels"), label, SL_LABELS_MAX);

    if (!specs->child)
        return sl_fail(&a->why, SL_EUSAGE, "no specification");
    for (uint32_t i = 0; i < n; i++)
        if (!label[i][0] || strlen(label[i]) > 63)
            return sl_fail(&a->why, SL_EUSAGE, "a label has 1 to 63 bytes");
    cJSON_ArrayForEach(x, specs)
        SL_TRY(check_spec(a, x, specs->child));
    cJSON_ArrayForEach(x, sl_get(a->m->tree, "after")) {
        const struct sl_job_filter f = sl_job_only((uint64_t)x->valuedouble);
        bool there = false;

        SL_TRY(sl_queue_each_job(a->c->q, &f, exists, &there, e));
        if (!there)
            return sl_fail(&a->why, SL_ENOJOB, "after: no job %llu", (unsigned long long)f.id);
    }
    return 0;
}

static int insert_jobs(struct ask *a, uint64_t ids[SL_SWEEP_MAX], uint32_t *n, struct sl_error *e)
{
    const cJSON *t = a->m->tree, *specs = sl_get(t, "specs"), *x;
    const char *labels[SL_LABELS_MAX];
    uint64_t after[SL_AFTER_MAX];
    struct sl_new_job j = {
        .user = a->s->user, .labels = labels, .after = after,
        .state = sl_get_bool(t, "hold") ? SL_JOB_HELD : SL_JOB_QUEUED,
        .priority = (uint32_t)sl_get_uint(t, "priority", 50),
        .attempts = (uint32_t)sl_get_uint(t, "attempts", a->c->o.attempts),
        .manual_stitch = sl_get_bool(t, "manual_stitch"), .verify = sl_get_bool(t, "verify"),
        .group = specs->child->next ? UINT64_MAX : 0};

    j.n_labels = coord_strings(sl_get(t, "labels"), labels, SL_LABELS_MAX);
    j.attempts = j.attempts ? j.attempts : 1;
    cJSON_ArrayForEach(x, sl_get(t, "after"))
        after[j.n_after++] = (uint64_t)x->valuedouble;
    *n = 0;
    cJSON_ArrayForEach(x, specs) {
        char *spec = cJSON_PrintUnformatted(x);
        int rc = spec ? 0 : sl_no_memory(e);

        j.spec = spec;
        if (rc == 0)
            rc = sl_queue_submit(a->c->q, &j, a->c->now.wall_ms, &ids[*n], e);
        cJSON_free(spec);
        SL_TRY(rc);
        if (j.group)
            j.group = ids[0];
        SL_TRY(coord_load_jobs(a->c, ids[(*n)++], e));
        if (j.state == SL_JOB_HELD)
            SL_TRY(coord_hold(a->c, coord_job(a->c, ids[*n - 1]), a->s->user, e));
        SL_TRY(coord_event(a->c, "submitted", coord_job(a->c, ids[*n - 1]), -1, NULL, e, "%s: %.300s by %s",
                           a->s->user, sl_get_str(x, "source"), sl_get_str(x, "recipe")));
    }
    return 0;
}

static int digest_of(const cJSON *specs, uint64_t *digest, struct sl_error *e)
{
    char *text = specs ? cJSON_PrintUnformatted(specs) : NULL;

    if (!text)
        return sl_no_memory(e);
    *digest = sl_xxh64(text, strlen(text));
    cJSON_free(text);
    return 0;
}

/* What a key stands for: the specifications without the texts of stock recipes, which another release
 * may change. *whole: with them, as earlier releases kept it. */
static int request_digests(const cJSON *specs, uint64_t *digest, uint64_t *whole, struct sl_error *e)
{
    cJSON *asked = cJSON_Duplicate(specs, 1), *x;
    int rc;

    cJSON_ArrayForEach(x, asked)
        if (sl_recipe_is_stock(sl_get_str(x, "recipe"), sl_get_str(x, "recipe_text")))
            cJSON_DeleteItemFromObjectCaseSensitive(x, "recipe_text");
    rc = digest_of(asked, digest, e);
    cJSON_Delete(asked);
    return rc < 0 ? rc : digest_of(specs, whole, e);
}

int coord_on_submit(struct ask *a, struct sl_error *e)
{
    const char *key = sl_get_str(a->m->tree, "key");
    uint64_t ids[SL_SWEEP_MAX], digest = 0, whole = 0;
    uint32_t n;
    struct sl_msg m;
    int seen;

    SL_TRY(request_digests(sl_get(a->m->tree, "specs"), &digest, &whole, e));
    seen = sl_queue_seen(a->c->q, a->s->user, key, digest, whole, ids, &a->why);
    if (seen == SL_EUSAGE)
        return coord_refuse_ask(a, e);
    if (seen < 0) {
        *e = a->why;
        return seen;
    }
    n = (uint32_t)seen;
    if (seen == 0) {
        int rc = check_submit(a, e);

        if (rc < 0)
            return a->why.code ? coord_refuse_ask(a, e) : rc;
        SL_TRY(insert_jobs(a, ids, &n, e));
        SL_TRY(sl_queue_remember(a->c->q, a->s->user, key, digest, ids, n, a->c->now.wall_ms, e));
    }
    SL_TRY(sl_msg_new(SL_M_SUBMITTED, a->re, &m, e));
    sl_put_uints(m.tree, "jobs", ids, n);
    sl_put_bool(m.tree, "again", seen > 0);
    return coord_send(a->c, a->s->peer, &m, e);
}
