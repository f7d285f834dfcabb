#include "worker/task_special.h"

#include "proto/clock.h"
#include "proto/wire.h"
#include "worker/claim.h"
#include "worker/former_set.h"
#include "worker/publish.h"
#include "worker/stitch.h"
#include "worker/verify.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PLAN_POLL_MS 20
#define VERIFY_BLOCKS 1000u /* of each tensor, made again from the source */

struct special {
    struct sl_job_cache *cache;
    const struct sl_work *w;
    const struct sl_special_hooks *hooks;
    struct sl_cached_job *j;
    struct sl_outcome *out;
    struct sl_error *e;
    uint64_t alive_ms;       /* when it was last known to go on; of the grant at first */
    struct claim_hold claim; /* fd < 0: none is held */
};

void sl_work_free(struct sl_work *w)
{
    if (!w)
        return;
    cJSON_Delete(w->spec);
    free(w->sums);
    free(w);
}

void sl_outcome_free(struct sl_outcome *o)
{
    if (!o)
        return;
    cJSON_Delete(o->plan);
    cJSON_Delete(o->files);
    free(o->bad);
    free(o);
}

static int on_progress(void *user, uint64_t n)
{
    struct special *s = user;

    if (s->hooks->progress && s->hooks->progress(s->hooks->user, n) < 0)
        return sl_fail(s->e, SL_EINTERRUPTED, "stopped at a safe point");
    return 0;
}

/* What is asked before each step that makes, renames or removes a file: this worker has not
 * stood still for longer than its lease, the output's folder has its name, and the claim that
 * it holds is still its own. */
static int still_ours(void *user, uint64_t n)
{
    struct special *s = user;
    uint64_t now = sl_boot_ms();

    (void)n;
    if (s->w->lease_ms && now >= s->alive_ms + s->w->lease_ms)
        return sl_fail(s->e, SL_EINTERRUPTED, "the lease has ended");
    s->alive_ms = now;
    if (s->j && sl_job_cache_same_folder(s->j, s->e) < 0) /* prepare begins again, where the name leads */
        return s->w->task == SL_TASK_PREPARE ? s->e->code = SL_EINTERRUPTED : s->e->code;
    return s->claim.fd >= 0 ? claim_check(&s->claim, s->e) : 0;
}

/* The same where work is done that lasts, n bytes or files of it since the last call: it is
 * told, so that the lease lasts longer, and whoever wants it to stop can. */
static int on_step(void *user, uint64_t n)
{
    SL_TRY(on_progress(user, n));
    return still_ours(user, n);
}

/* The same for cleaning up, which may come after the lease's end. */
static int on_cleaning(void *user, uint64_t n)
{
    struct special *s = user;
    struct sl_error ignored;

    (void)n;
    return claim_check(&s->claim, &ignored);
}

static struct claim_lease lease_of(const struct special *s, const char *fingerprint)
{
    uint64_t half = s->w->lease_ms / 2;

    return (struct claim_lease){
        .fingerprint = fingerprint, .job = s->w->job, .epoch = s->w->epoch,
        .wait_ms = half && half < CLAIM_WAIT_MS ? (uint32_t)half : CLAIM_WAIT_MS};
}

/* ---- prepare */

static int no_journal(const struct special *s)
{
    if (!output_has(s->j->out.journal))
        return 0;
    return sl_fail(s->e, SL_EEXISTS, "%s: unfinished work of 'sluice convert' is there; finish it, or "
                   "remove it with its .partial files", s->j->out.journal);
}

/* Changes nothing. A claim of this very plan, a torn one, or with --force another plan's,
 * will be taken over. */
static int look_at_output(struct special *s, const struct claim_lease *l)
{
    const struct output *o = &s->j->out;

    SL_TRY(output_not_source(o, s->j->j.ck, s->e));
    SL_TRY(output_absent(o, s->j->j.force, s->e));
    SL_TRY(former_set_absent(o, s->j->j.force, s->j->j.ck, s->e));
    SL_TRY(no_journal(s));
    SL_TRY(claim_free(o, l, s->j->j.force, s->e));
    return output_check_space(o, s->e);
}

static int make_files(struct special *s)
{
    const struct output_watch watch = {on_step, s};
    bool *kept = calloc(s->j->j.plan->n_segments, sizeof *kept);
    int rc = kept ? on_step(s, 1) : sl_no_memory(s->e);

    if (rc == 0)
        rc = output_remove(&s->j->out, &watch, s->e);
    if (rc == 0)
        rc = output_reserve(&s->j->out, true, kept, &watch, s->e);
    free(kept);
    return rc;
}

/* The claim comes first: who holds it may touch the files. While a prepare is granted
 * no task is done, so that nothing of earlier files is worth keeping. What was made
 * goes again when it fails, unless a later lease has taken the claim over. */
static int prepare(struct special *s)
{
    const struct output_watch cleaning = {on_cleaning, s};
    const struct claim_lease l = lease_of(s, s->j->j.plan->fingerprint);
    const struct output *o = &s->j->out;
    struct sl_error ignored;
    int rc;

    SL_TRY(sl_job_plan_record(&s->j->j, &s->out->plan, s->e));
    SL_TRY(look_at_output(s, &l));
    SL_TRY(on_step(s, 0));
    SL_TRY(claim_make(o, &l, s->j->j.force, &s->claim, s->e));
    /* `convert` looks for the claim after its journal is there: one of the two gives way. */
    rc = no_journal(s);
    if (rc == 0) {
        rc = make_files(s);
        if (rc == SL_EEXISTS) /* somebody is just at it: not ours to remove, no reason to give the job up */
            return s->e->code = SL_EFAIL;
        if (rc < 0)
            (void)!output_remove(o, &cleaning, &ignored);
    }
    if (rc < 0)
        (void)!claim_drop(&s->claim, &ignored);
    return rc;
}

/* ---- stitch */

static int parse_sums(const struct special *s, uint64_t **sums)
{
    const char *text = s->w->sums ? s->w->sums : "";
    uint32_t n = s->j->j.plan->n_tasks;

    *sums = NULL;
    if (strlen(text) != 16 * (size_t)n)
        return sl_fail(s->e, SL_EFAIL, "checksums of %zu tasks came for a plan of %u",
                       strlen(text) / 16, n);
    *sums = calloc(n ? n : 1, sizeof **sums);
    if (!*sums)
        return sl_no_memory(s->e);
    for (uint32_t i = 0; i < n; i++) {
        char digits[17];

        memcpy(digits, text + 16 * (size_t)i, 16);
        digits[16] = '\0';
        (*sums)[i] = strtoull(digits, NULL, 16);
    }
    return 0;
}

/* Partial files that somebody removed or cut short are made anew; their bytes are then found
 * bad, and only their tasks are done again. Without a claim nothing there is this job's.
 * A publication that could not end gives back the names that it gave. */
static int restore_files(struct special *s)
{
    const struct output_watch watch = {on_step, s};
    const struct output *o = &s->j->out;
    const struct sl_plan *p = s->j->j.plan;
    const struct claim_lease l = lease_of(s, p->fingerprint);
    bool missing = false, *kept;
    struct stat st;
    int rc;

    for (uint32_t i = 0; i < p->n_segments; i++)
        missing |= lstat(o->partial[i], &st) != 0 || (uint64_t)st.st_size != p->segments[i].file_bytes;
    if (!missing && (s->j->given || claim_is_of(o, p->fingerprint, s->w->job)))
        return 0;
    SL_TRY(rc = s->j->given ? CLAIM_HELD : claim_take(o, &l, &s->claim, s->e));
    if (rc != CLAIM_HELD)
        return sl_job_cache_lost(s->j, s->e);
    if (s->j->given || s->claim.ending)
        SL_TRY(publish_undo(o, &watch, s->e));
    if (s->claim.ending)
        SL_TRY(claim_end(&s->claim, false, s->e));
    kept = calloc(p->n_segments, sizeof *kept);
    rc = kept ? output_reserve(o, false, kept, &watch, s->e)
              : sl_no_memory(s->e);
    free(kept);
    claim_release(&s->claim);
    return rc;
}

static int seal(struct special *s)
{
    struct stitch st = {.plan = s->j->j.plan, .out = &s->j->out, .sha256 = s->j->j.sha256,
                        .progress = on_progress, .user = s};
    uint64_t *sums;
    int rc;

    SL_TRY(restore_files(s));
    SL_TRY(parse_sums(s, &sums));
    st.task_sum = sums;
    rc = stitch_seal(&st, s->e);
    if (rc == 0)
        rc = output_sync_dir(&s->j->out, s->e);
    if (rc == 0)
        rc = sl_job_cache_same_folder(s->j, s->e);
    if (rc == SL_EVERIFY && st.n_bad) {
        s->out->bad = calloc(st.n_bad, sizeof *s->out->bad);
        for (uint32_t i = 0; s->out->bad && i < st.n_bad; i++)
            s->out->bad[s->out->n_bad++] = st.bad[i];
    }
    s->out->bytes = s->j->j.plan->file_bytes;
    free(st.bad);
    free(sums);
    return rc;
}

/* ---- publish, discard */

/* The set under the final names is the one that this job makes. */
static bool is_published(const struct special *s)
{
    const struct sl_plan *p = s->j->j.plan;
    struct verify_set set;
    struct sl_error ignored;
    bool yes = verify_set_open(s->j->out.final[0], &set, &ignored) == 0 && set.n == p->n_segments &&
               set.files[0].fingerprint && strcmp(set.files[0].fingerprint, p->output_id) == 0;

    verify_set_free(&set);
    return yes;
}

/* Takes the claim and gives it its ending name. Without one all was done before, or it is not
 * this job's folder; the job of `sluice convert` has none. */
static int claim_for_publish(struct special *s)
{
    const struct output *o = &s->j->out;
    const struct claim_lease l = lease_of(s, s->j->j.plan->fingerprint);
    int rc = s->j->given ? CLAIM_NONE : claim_take(o, &l, &s->claim, s->e);

    if (rc == CLAIM_OTHERS)
        return sl_fail(s->e, SL_EFAIL, "%s/%s: the unfinished files are another job's now; submit the "
                       "job again", o->dir, o->prefix);
    if (rc == CLAIM_NONE && !s->j->given && !is_published(s))
        return sl_job_cache_lost(s->j, s->e);
    return rc == CLAIM_HELD ? claim_end(&s->claim, true, s->e) : rc;
}

static int publish(struct special *s)
{
    const struct output_watch watch = {still_ours, s};
    const struct sl_plan *p = s->j->j.plan;
    char path[OUTPUT_PATH_BYTES], go_on[64] = "the same command goes on";

    SL_TRY(claim_for_publish(s));
    SL_TRY(still_ours(s, 0));
    if (!s->j->given)
        snprintf(go_on, sizeof go_on, "'sluice retry %llu' goes on", (unsigned long long)s->w->job);
    if (s->j->given || s->claim.fd >= 0) {
        SL_TRY(publish_check(&s->j->out, s->j->j.force, go_on, s->e));
        SL_TRY(publish_files(&s->j->out, s->j->j.force, go_on, &watch, s->e));
        SL_TRY(still_ours(s, 0));
        if (s->j->j.force)
            SL_TRY(former_set_remove(&s->j->out, s->j->j.ck, s->e));
    }
    if (s->claim.fd >= 0)
        SL_TRY(claim_drop(&s->claim, s->e));
    s->out->files = cJSON_CreateArray();
    for (uint32_t i = 0; i < p->n_segments && i < SL_FILES_MAX; i++) {
        snprintf(path, sizeof path, "%s/%s", s->j->output, p->segments[i].name);
        if (!cJSON_AddItemToArray(s->out->files, cJSON_CreateString(path)))
            return sl_no_memory(s->e);
    }
    s->out->bytes = p->file_bytes;
    return 0;
}

/* Nothing, when nothing of this job is there; else the outcome counts a byte. Parts of a publication that did not end go too, so
 * that no set is half of this job's and half of the one it was to replace; a complete set stays. */
static int remove_unfinished(struct special *s, const struct output *o, const char *fingerprint)
{
    const struct output_watch watch = {on_step, s};
    const struct claim_lease l = lease_of(s, fingerprint);
    int rc = claim_take(o, &l, &s->claim, s->e);

    SL_TRY(rc);
    if (rc != CLAIM_HELD)
        return 0;
    s->out->bytes = 1;
    if (s->claim.ending && o->plan && !publish_is_done(o))
        rc = publish_undo(o, &watch, s->e);
    else
        rc = claim_end(&s->claim, true, s->e);
    if (rc >= 0)
        rc = output_remove(o, &watch, s->e);
    if (rc == 0)
        rc = claim_drop(&s->claim, s->e);
    claim_release(&s->claim); /* o goes before s */
    return rc;
}

/* A header was read: of a source far away all of them may take longer than a lease. Nothing is changed yet, so that
 * a task that waited long for its turn is not given back for that. */
static int on_header(void *user, struct sl_error *e)
{
    struct special *s = user;
    uint64_t now = sl_boot_ms();
    int rc = on_progress(s, 1);

    if (now < s->alive_ms + s->w->lease_ms)
        s->alive_ms = now;
    if (rc < 0 && e != s->e)
        *e = *s->e;
    return rc;
}

/* The job's plan; fingerprint NULL: as it is now. Waits while the other lane makes one. */
static int get_job(struct special *s, const char *fingerprint, struct sl_error *e)
{
    const struct sl_header_watch watch = {on_header, s};
    int rc;

    sl_job_cache_watch(s->cache, &watch);
    while ((rc = sl_job_cache_get(s->cache, s->w->job, s->w->spec, fingerprint, sl_boot_ms(), &s->j, e)) == 1) {
        if (on_progress(s, 0) < 0) {
            rc = sl_fail(e, SL_EINTERRUPTED, "stopped at a safe point");
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = PLAN_POLL_MS * 1000000}, NULL);
    }
    sl_job_cache_watch(s->cache, NULL);
    return rc;
}

/* Whether a job that has no plan, for the reason `why`, left nothing; rc: what opening its output's folder gave. One that
 * is not here may be on the machine of the worker that began the prepare. */
static bool left_nothing(const struct sl_work *w, const struct output *o, int rc, const struct sl_error *why)
{
    if (rc == 0)
        return !claim_there(o);
    return !sl_get_str(w->spec, "prefix") || why->code == SL_EUSAGE || why->code == SL_EUNSUPPORTED;
}

/* A job whose prepare did not end may have left files as well: its plan says which. */
static int discard(struct special *s)
{
    const struct sl_work *w = s->w;
    const char *fingerprint = *w->fingerprint ? w->fingerprint : NULL;
    struct sl_error why;
    struct output o;
    int fd, rc;

    rc = get_job(s, fingerprint, &why);
    if (rc == SL_EINTERRUPTED)
        return *s->e = why, rc;
    if (rc == 0) {
        rc = remove_unfinished(s, &s->j->out, s->j->j.plan->fingerprint);
        if (rc == 0)
            rc = output_sync_dir(&s->j->out, s->e);
        sl_job_cache_told(s->j, s->e);
        sl_job_cache_drop(s->cache, s->j);
        s->j = NULL;
        return rc;
    }
    rc = sl_job_cache_output(s->cache, w->spec, &o, &fd, s->e);
    if (!fingerprint && left_nothing(w, &o, rc, &why)) {
        rc = 0;
    } else if (rc == SL_ESOURCE) {
        rc = sl_fail(s->e, SL_ELACKS, "%s: there is no such folder; if it was renamed, remove the .partial "
                     "files in it by hand", sl_get_str(w->spec, "output"));
    } else if (rc == 0 && fingerprint) {
        rc = remove_unfinished(s, &o, fingerprint);
        if (rc == 0)
            rc = output_sync_dir(&o, s->e);
    } else {
        rc = sl_fail(s->e, rc < 0 ? rc : why.code, "%.600s; the .partial files of '%s' in %s must be removed by hand", why.text,
                     sl_get_str(w->spec, "prefix"), sl_get_str(w->spec, "output"));
    }
    output_free(&o);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* ---- verify */

static int verify_files(struct special *s, const struct verify_set *set)
{
    const struct sl_plan *p = s->j->j.plan;
    const struct verify_sample sample = {.blocks = VERIFY_BLOCKS, .seed = s->w->job, .ck = s->j->j.ck, .model = s->j->j.model,
                                         .roots = s->j->j.roots, .progress = on_progress, .user = s};
    struct verify_report r = {0};
    struct verify_tally tally = {0};
    struct sl_hash_total *totals;
    char count[48] = "";
    int rc;

    if (set->n != p->n_segments || !set->files[0].fingerprint ||
        strcmp(set->files[0].fingerprint, p->output_id) != 0)
        return sl_fail(s->e, SL_EVERIFY, "%s: is not the file that this job makes", s->j->out.final[0]);
    totals = calloc(set->n, sizeof *totals);
    if (!totals)
        return sl_no_memory(s->e);
    rc = verify_data(set, false, totals, &r, on_progress, s, s->e);
    free(totals);
    SL_TRY(rc);
    SL_TRY(verify_source(set, s->j->source_path,
                         s->j->j.imatrix ? s->j->j.imatrix->path : NULL, &sample, &r, &tally, s->e));
    s->out->bytes = set->bytes;
    if (r.failures > 1)
        snprintf(count, sizeof count, "%llu failures; the first: ", (unsigned long long)r.failures);
    return r.failures ? sl_fail(s->e, SL_EVERIFY, "%s%.800s ('sluice submit --force' makes it anew)", count, r.first.text)
                      : 0;
}

static int verify_job(struct special *s)
{
    struct verify_set set;
    int rc = verify_set_open(s->j->out.final[0], &set, s->e);

    if (rc == 0)
        rc = verify_files(s, &set);
    verify_set_free(&set);
    return rc;
}

/* ---- */

static int run(struct special *s)
{
    const struct sl_work *w = s->w;

    if (w->task == SL_TASK_DISCARD)
        return discard(s);
    SL_TRY(get_job(s, w->task == SL_TASK_PREPARE ? NULL : w->fingerprint, s->e));
    switch (w->task) {
    case SL_TASK_PREPARE:
        return prepare(s);
    case SL_TASK_STITCH:
        return seal(s);
    case SL_TASK_PUBLISH:
        return publish(s);
    case SL_TASK_VERIFY:
        return verify_job(s);
    default:
        return sl_fail(s->e, SL_EUSAGE, "task %u is not known to this worker", w->task);
    }
}

void sl_special_run(struct sl_job_cache *c, const struct sl_work *w,
                    const struct sl_special_hooks *h, struct sl_outcome *out)
{
    struct special s = {.cache = c, .w = w, .hooks = h, .out = out, .e = &out->error,
                        .alive_ms = w->granted_ms, .claim = {.fd = -1}};
    int rc = run(&s);

    if (s.j)
        s.j->used_ms = sl_boot_ms();
    claim_release(&s.claim);
    out->job = w->job;
    out->task = w->task;
    out->epoch = w->epoch;
    out->kind = rc == 0 ? SL_OUTCOME_RESULT
                : rc == SL_EINTERRUPTED ? SL_OUTCOME_GIVEBACK : SL_OUTCOME_FAIL;
    out->error.code = rc;
    if (rc < 0 && s.j)
        sl_job_cache_told(s.j, &out->error);
    /* Whoever hears that the job has ended may unmount its folders. */
    if (rc == 0 && s.j && (w->task == SL_TASK_PUBLISH || w->task == SL_TASK_VERIFY))
        sl_job_cache_drop(c, s.j);
}
