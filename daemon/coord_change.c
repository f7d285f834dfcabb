/* The verbs that change jobs. */
#include "daemon/coord_priv.h"
#include "proto/text_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the queue says of a job. */
struct found {
    struct ask *a;
    struct sl_error *e;
    bool there;
    enum sl_job_state state;
    char user[65];
};

static int on_found(void *user, const struct sl_job_row *r)
{
    struct found *s = user;
    cJSON *spec;
    int rc;

    s->there = true;
    s->state = r->state;
    snprintf(s->user, sizeof s->user, "%s", r->user);
    if (!sl_job_ended(r->state) || s->a->m->id == SL_M_FORGET)
        return 0;
    rc = coord_read_spec(s->a->c, r, &spec, s->e); /* nobody has read it since it ended */
    cJSON_Delete(spec);
    if (rc == SL_EUSAGE)
        sl_fail(&s->a->why, SL_EFAIL, "%s", s->e->text);
    return rc;
}

static int may_change(struct ask *a, const char *owner, uint64_t id)
{
    if (a->s->role == SL_ROLE_ADMIN || strcmp(owner, a->s->user) == 0)
        return 0;
    return sl_fail(&a->why, SL_EUSAGE, "job %llu belongs to %s", (unsigned long long)id, owner);
}

/* *out = the job, which is read when it has ended or was interrupted. That it is damaged goes to a->why. */
static int revive(struct ask *a, struct job *j, uint64_t id, struct job **out, struct sl_error *e)
{
    if (!j) {
        int rc = coord_load_jobs(a->c, id, e);

        if (rc == SL_EUSAGE)
            sl_fail(&a->why, SL_EFAIL, "%s", e->text);
        SL_TRY(rc);
        j = coord_job(a->c, id);
    }
    if (!j)
        return sl_fail(e, SL_EFAIL, "queue: job %llu cannot be read", (unsigned long long)id);
    *out = j;
    return 0;
}

static void leave_memory(struct sl_coord *c, struct job *j)
{
    for (uint32_t i = 0; i < c->n_jobs; i++)
        if (c->jobs[i] == j)
            c->jobs[i] = c->jobs[--c->n_jobs];
    coord_free_job(j);
}

/* Who asked, and for what: the states that follow name nobody. */
static int tell_who(struct ask *a, const struct job *j, struct sl_error *e)
{
    return coord_event(a->c, "set", j, -1, NULL, e, "by %s %s", a->s->user, sl_message(a->m->id)->name);
}

static int retry(struct ask *a, struct job *j, uint64_t id, struct sl_error *e)
{
    SL_TRY(revive(a, j, id, &j, e));
    SL_TRY(tell_who(a, j, e));
    SL_TRY(coord_revoke_all(a->c, j, "the job begins again", e));
    coord_forget_lacks(a->c, j);
    SL_TRY(sl_queue_retry(a->c->q, id, e));
    SL_TRY(coord_set_state(a->c, j, SL_JOB_QUEUED, 0, NULL, e));
    leave_memory(a->c, j);
    SL_TRY(coord_load_jobs(a->c, id, e));
    j = coord_job(a->c, id);
    if (j->special[0].state == SL_TASK_DONE) /* the plan is known: queued means running */
        SL_TRY(coord_set_state(a->c, j, SL_JOB_RUNNING, 0, NULL, e));
    return coord_advance(a->c, j, e);
}

static int add_special(struct ask *a, struct job *j, uint32_t task, struct sl_error *e)
{
    struct task *t = &j->special[task - SL_TASKS_MAX];

    SL_TRY(sl_queue_add_task(a->c->q, j->id, task, e));
    coord_forget_lacks(a->c, j);
    t->exists = true;
    t->state = SL_TASK_READY;
    coord_turns_changed(a->c);
    t->attempts = 0;
    t->not_before_ms = 0;
    return 0;
}

static int set_cancelled(struct ask *a, struct job *j, struct sl_error *e)
{
    char why[96];

    snprintf(why, sizeof why, "cancelled by %s", a->s->user);
    if (j->state == SL_JOB_CANCELLED)
        return coord_set_error(a->c, j, why, e);
    return coord_set_state(a->c, j, SL_JOB_CANCELLED, -SL_EFAIL, why, e);
}

/* A prepare under way is waited for when its files are to go: what it makes after
 * their removal would stay. */
static int cancel(struct ask *a, struct job *j, struct sl_error *e)
{
    bool discard = sl_get_bool(a->m->tree, "discard");

    if (!discard || j->special[0].state != SL_TASK_LEASED)
        SL_TRY(coord_revoke_all(a->c, j, "the job was cancelled", e));
    if (discard)
        SL_TRY(add_special(a, j, SL_TASK_DISCARD, e));
    return set_cancelled(a, j, e);
}

static bool is_to_be_discarded(struct job *j)
{
    const struct task *t = coord_task(j, SL_TASK_DISCARD);

    return !t || t->state == SL_TASK_QUARANTINED;
}

/* A job that ended without its files, by failing or a cancel: what it left goes now.
 * *did: whether that was still to be done. */
static int discard(struct ask *a, struct job *j, uint64_t id, bool *did, struct sl_error *e)
{
    SL_TRY(revive(a, j, id, &j, e));
    *did = is_to_be_discarded(j);
    if (!*did)
        return 0;
    SL_TRY(add_special(a, j, SL_TASK_DISCARD, e));
    a->c->changes++;
    SL_TRY(coord_event(a->c, "set", j, -1, NULL, e, "by %s discard", a->s->user));
    return set_cancelled(a, j, e);
}

static bool has_string(const cJSON *list, const char *text)
{
    const cJSON *x;

    cJSON_ArrayForEach(x, list)
        if (strcmp(x->valuestring, text) == 0)
            return true;
    return false;
}

/* Whether the labels that `set` leaves are good ones. */
static int check_labels(struct ask *a, const struct job *j)
{
    const cJSON *add = sl_get(a->m->tree, "add_labels"), *x, *before;
    uint32_t n = 0;

    for (uint32_t i = 0; i < j->n_labels; i++)
        n += !has_string(sl_get(a->m->tree, "remove_labels"), j->labels[i]) && !has_string(add, j->labels[i]);
    cJSON_ArrayForEach(x, add) {
        for (before = add->child; strcmp(before->valuestring, x->valuestring) != 0; before = before->next)
            ;
        n += before == x;
        if (!x->valuestring[0] || strlen(x->valuestring) > 63 || n > SL_LABELS_MAX)
            return sl_fail(&a->why, SL_EUSAGE, "job %llu: a label has 1 to 63 bytes, a job at most %u of them",
                           (unsigned long long)j->id, SL_LABELS_MAX);
    }
    return 0;
}

static int set(struct ask *a, struct job *j, uint64_t id, struct sl_error *e)
{
    const cJSON *t = a->m->tree, *x;
    uint64_t priority = sl_get_uint(t, "priority", 101), attempts = sl_get_uint(t, "attempts", 0);
    struct sl_line text = {.n = 0};

    SL_TRY(revive(a, j, id, &j, e));
    if (priority <= 100) {
        SL_TRY(sl_queue_set_priority(a->c->q, id, (uint32_t)priority, e));
        j->priority = (uint32_t)priority;
        coord_turns_changed(a->c);
        sl_line_add(&text, " priority %u", (unsigned)priority);
    }
    if (attempts) {
        SL_TRY(sl_queue_set_attempts(a->c->q, id, (uint32_t)attempts, e));
        j->attempts = (uint32_t)attempts;
        sl_line_add(&text, " attempts %u", (unsigned)attempts);
    }
    cJSON_ArrayForEach(x, sl_get(t, "remove_labels")) {
        SL_TRY(sl_queue_set_label(a->c->q, id, x->valuestring, false, e));
        sl_line_add(&text, " -label %s", x->valuestring);
        for (uint32_t i = 0; i < j->n_labels; i++)
            if (strcmp(j->labels[i], x->valuestring) == 0) {
                free(j->labels[i]);
                j->labels[i--] = j->labels[--j->n_labels];
            }
    }
    cJSON_ArrayForEach(x, sl_get(t, "add_labels")) {
        char *copy;
        bool known = false;

        for (uint32_t i = 0; i < j->n_labels; i++)
            known |= strcmp(j->labels[i], x->valuestring) == 0;
        SL_TRY(sl_queue_set_label(a->c->q, id, x->valuestring, true, e));
        sl_line_add(&text, " +label %s", x->valuestring);
        if (!known) {
            if (!(copy = strdup(x->valuestring)))
                return sl_no_memory(e);
            j->labels[j->n_labels++] = copy;
        }
    }
    return coord_event(a->c, "set", j, -1, NULL, e, "by %s%s", a->s->user, text.text);
}

static int wrong_state(struct ask *a, uint64_t id, enum sl_job_state s, const char *what)
{
    return sl_fail(&a->why, SL_EUSAGE, "job %llu %s %s; %s", (unsigned long long)id,
                   s == SL_JOB_SUCCEEDED || s == SL_JOB_FAILED ? "has" : "is", sl_job_state_name(s), what);
}

static int stitch(struct ask *a, struct job *j, const struct found *s, uint64_t id,
                  struct sl_error *e)
{
    SL_TRY(revive(a, j, id, &j, e));
    SL_TRY(sl_queue_stitch_asked(a->c->q, id, e));
    j->manual_stitch = false;
    if (s->state == SL_JOB_FAILED)
        return retry(a, j, id, e);
    SL_TRY(tell_who(a, j, e));
    return coord_advance(a->c, j, e);
}

static int verify(struct ask *a, struct job *j, const struct found *s, uint64_t id,
                  struct sl_error *e)
{
    if (s->state == SL_JOB_VERIFYING)
        return 0;
    SL_TRY(revive(a, j, id, &j, e));
    SL_TRY(tell_who(a, j, e));
    SL_TRY(add_special(a, j, SL_TASK_VERIFY, e));
    return coord_set_state(a->c, j, SL_JOB_VERIFYING, 0, NULL, e);
}

/* An ended job may go on: within the roots of now, with an output that no other has. */
static int may_begin(struct ask *a, const struct job *j)
{
    SL_TRY(coord_possible(a->c, j, &a->why));
    return coord_output_free(a, j->spec, j->id);
}

/* Whether the verb may be done to the job; what the client did wrong goes to a->why. Changes nothing. */
static int check_job(struct ask *a, const struct found *s, uint64_t id, struct sl_error *e)
{
    struct job *j = coord_job(a->c, id);
    bool ended = sl_job_ended(s->state), discards = sl_get_bool(a->m->tree, "discard");

    switch (a->m->id) {
    case SL_M_CANCEL:
        if (!ended || (s->state == SL_JOB_CANCELLED && !discards))
            return 0;
        if (s->state == SL_JOB_SUCCEEDED || !discards)
            return wrong_state(a, id, s->state, "it has ended");
        SL_TRY(revive(a, j, id, &j, e));
        return is_to_be_discarded(j) ? coord_output_free(a, j->spec, id) : 0;
    case SL_M_HOLD:
    case SL_M_RELEASE:
        if (ended)
            return wrong_state(a, id, s->state, "it has ended");
        return s->state == SL_JOB_HELD && a->m->id == SL_M_RELEASE ? coord_possible(a->c, j, &a->why) : 0;
    case SL_M_RETRY:
        if (s->state == SL_JOB_SUCCEEDED)
            return wrong_state(a, id, s->state, "there is nothing to do again");
        if (s->state == SL_JOB_HELD)
            return wrong_state(a, id, s->state, "'sluice release' lets it go on");
        if (!ended && s->state != SL_JOB_INTERRUPTED)
            return 0;
        SL_TRY(revive(a, j, id, &j, e));
        return may_begin(a, j);
    case SL_M_SET:
        SL_TRY(revive(a, j, id, &j, e));
        return check_labels(a, j);
    case SL_M_STITCH:
        SL_TRY(revive(a, j, id, &j, e));
        if (j->n_tasks == 0 || j->n_done != j->n_tasks || (ended && s->state != SL_JOB_FAILED))
            return wrong_state(a, id, s->state, s->state == SL_JOB_SUCCEEDED ? "it is stitched already"
                                                                             : "it can be stitched when all its tasks are done");
        return s->state == SL_JOB_FAILED ? may_begin(a, j) : 0;
    case SL_M_VERIFY:
        if (s->state != SL_JOB_VERIFYING && s->state != SL_JOB_SUCCEEDED)
            return wrong_state(a, id, s->state,
                               s->state == SL_JOB_FAILED ? "'sluice retry' tries again what failed, a verification too"
                                                         : "it can be verified when it has succeeded");
        SL_TRY(revive(a, j, id, &j, e));
        return coord_possible(a->c, j, &a->why);
    default: /* forget */
        if (j && coord_discards(j))
            return wrong_state(a, id, s->state, "a worker is still to remove its files, then it can be forgotten");
        return ended ? 0 : wrong_state(a, id, s->state, "only what has ended can be forgotten");
    }
}

/* One verb on one job that check_job has let through. *did is set to false where nothing was left
 * to do. */
static int change_job(struct ask *a, const struct found *s, uint64_t id, bool *did, struct sl_error *e)
{
    struct job *j = coord_job(a->c, id);
    bool ended = sl_job_ended(s->state);

    switch (a->m->id) {
    case SL_M_CANCEL:
        if (!ended)
            return cancel(a, j, e);
        *did = false;
        return sl_get_bool(a->m->tree, "discard") ? discard(a, j, id, did, e) : 0;
    case SL_M_HOLD:
        *did = s->state != SL_JOB_HELD;
        if (!*did)
            return 0;
        SL_TRY(coord_revoke_all(a->c, j, "the job is held", e));
        return coord_hold(a->c, j, a->s->user, e);
    case SL_M_RELEASE:
        *did = s->state == SL_JOB_HELD;
        if (!*did)
            return 0;
        SL_TRY(tell_who(a, j, e));
        SL_TRY(coord_set_state(a->c, j, j->started_ms ? SL_JOB_RUNNING : SL_JOB_QUEUED, 0, NULL, e));
        return coord_advance(a->c, j, e);
    case SL_M_RETRY:
        *did = ended || s->state == SL_JOB_INTERRUPTED;
        return *did ? retry(a, j, id, e) : 0;
    case SL_M_SET:
        return set(a, j, id, e);
    case SL_M_STITCH:
        return stitch(a, j, s, id, e);
    case SL_M_VERIFY:
        return verify(a, j, s, id, e);
    default: /* forget */
        if (j)
            leave_memory(a->c, j);
        return sl_queue_forget(a->c->q, id, e);
    }
}

static int answer(struct ask *a, const uint64_t *did, uint32_t n, struct sl_error *e)
{
    struct sl_msg m;

    SL_TRY(sl_msg_new(SL_M_DONE, a->re, &m, e));
    sl_put_uints(m.tree, "jobs", did, n);
    return coord_send(a->c, a->s->peer, &m, e);
}

static uint32_t add_once(uint64_t *ids, uint32_t n, uint64_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] == id)
            return n;
    ids[n] = id;
    return n + 1;
}

/* Checks one job, and with `change` changes it. Returns 1 when that did something; below 0 with why what the
 * client did wrong, or else the queue's failure. */
static int visit(struct ask *a, uint64_t id, bool change, struct sl_error *e)
{
    const struct sl_job_filter f = sl_job_only(id);
    struct found s = {.a = a, .e = e};
    bool did = change;

    SL_TRY(sl_queue_each_job(a->c->q, &f, on_found, &s, e));
    if (!s.there)
        return sl_fail(&a->why, SL_ENOJOB, "no job %llu", (unsigned long long)id);
    SL_TRY(may_change(a, s.user, id));
    SL_TRY(check_job(a, &s, id, e));
    if (change)
        SL_TRY(change_job(a, &s, id, &did, e));
    return did;
}

/* All jobs are checked before the first is changed. One may still be refused afterwards, for what was
 * done to another: the answer then says so. */
int coord_on_change(struct ask *a, struct sl_error *e)
{
    const cJSON *list = sl_get(a->m->tree, "jobs"), *x;
    uint64_t ids[SL_ASK_MAX], did[SL_ASK_MAX];
    uint32_t n = 0, n_did = 0;

    if (!list)
        ids[n++] = sl_get_uint(a->m->tree, "job", 0);
    cJSON_ArrayForEach(x, list)
        n = add_once(ids, n, (uint64_t)x->valuedouble);
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < n; i++) {
            int rc = visit(a, ids[i], pass == 1, e);

            if (a->why.code && n_did > 0)
                sl_fail_context(&a->why, "%u of %u jobs changed, then", n_did, n);
            else if (a->why.code && n > 1)
                sl_fail_context(&a->why, "none of %u jobs changed", n);
            if (a->why.code)
                return coord_refuse_ask(a, e);
            SL_TRY(rc);
            if (rc == 1)
                did[n_did++] = ids[i];
        }
    return answer(a, did, n_did, e);
}
