#include "client/convert_run.h"

#include "client/convert_store.h"
#include "client/interrupt.h"
#include "worker/stitch.h"

#include <cjson/cJSON.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECOND 1000000000ull
#define PENDING_MAX 64
#define COMMIT_NS 250000000ull /* finished work waits at most so long for its sync */
#define STITCH_TRIES 3
/* How long a stop waits for the tasks under way; what is not done then is made again. */
#define STOP_NS (3 * SECOND)
/* Source bytes handed to the engine ahead of what it has finished: enough that
 * its disk never waits, little enough that a stop is near. */
#define AHEAD_BYTES (384ull << 20)

struct run {
    const struct sl_checkpoint *ck;
    const struct sl_plan *plan;
    const struct output *out;
    const struct convert_opts *o;
    struct convert_store *store;
    struct sl_engine *engine;
    uint64_t *sum;       /* checksum of each finished task */
    bool *done;
    uint64_t done_bytes; /* source bytes of finished tasks */
    struct convert_done pending[PENDING_MAX]; /* finished, not yet synced and committed */
    uint32_t n_pending;
    uint64_t last_commit_ns;
    uint64_t stop_ns; /* when a stop was first seen */
    struct progress progress;
    uint64_t t0_ns, resumed_bytes;
};

static void on_done(void *user, uint32_t task, uint64_t checksum)
{
    struct run *r = user;

    if (task < r->plan->n_tasks && !r->done[task]) {
        r->done[task] = true;
        r->sum[task] = checksum;
        r->done_bytes += r->plan->tasks[task].src_bytes;
    }
}

/* Tasks whose segment file is gone must be made again, whatever the store says. */
static int revoke_lost(struct run *r, const bool *kept, struct sl_error *e)
{
    uint32_t n = 0, *lost = calloc(r->plan->n_tasks ? r->plan->n_tasks : 1, sizeof *lost);
    int rc = 0;

    if (!lost)
        return sl_fail(e, SL_EFAIL, "out of memory");
    for (uint32_t t = 0; t < r->plan->n_tasks; t++) {
        const struct sl_plan_task *task = &r->plan->tasks[t];
        bool ok = true;

        for (uint32_t i = 0; i < task->n_items; i++)
            ok &= kept[r->plan->tensors[r->plan->items[task->first_item + i].tensor].segment];
        if (!ok)
            lost[n++] = t;
    }
    if (n > 0)
        rc = convert_store_revoke(r->store, lost, n, e);
    free(lost);
    return rc;
}

/* What messages call the source: the resolved folder's own name, so that the
 * same folder spelled in another way is the same source. */
static const char *source_name(const struct sl_checkpoint *ck, char buf[PATH_MAX])
{
    const char *slash;

    if (!ck->dir || !realpath(ck->dir, buf))
        return ck->files[0].name;
    slash = strrchr(buf, '/');
    return slash && slash[1] ? slash + 1 : buf;
}

/* Opens the store and holds the plan against what it records. *fresh: there was
 * nothing yet. */
static int open_store(struct run *r, bool *fresh, struct sl_error *e)
{
    char buf[PATH_MAX];
    const char *source = source_name(r->ck, buf);
    int rc;

    SL_TRY(convert_store_open(r->out->journal, &r->store, e));
    SL_TRY(rc = convert_store_state(r->store, e));
    *fresh = rc == CONVERT_NEW;
    rc = convert_store_begin(r->store, r->plan, source, e);
    if (rc != SL_EEXISTS || !r->o->force)
        return rc;
    convert_store_close(r->store);
    r->store = NULL;
    convert_store_remove(r->out->journal);
    output_discard(r->out);
    *fresh = true;
    SL_TRY(convert_store_open(r->out->journal, &r->store, e));
    return convert_store_begin(r->store, r->plan, source, e);
}

/* The temporary files, in full size; tasks whose file was lost are taken back. */
static int take_files(struct run *r, bool fresh, struct sl_error *e)
{
    bool *kept = calloc(r->plan->n_segments, sizeof *kept);
    int rc = kept ? 0 : sl_fail(e, SL_EFAIL, "out of memory");

    if (rc == 0 && !r->o->force)
        rc = output_absent(r->out, e);
    if (rc == 0)
        rc = output_check_space(r->out, e);
    if (rc == 0)
        rc = output_reserve(r->out, fresh, kept, e);
    if (rc == 0 && !fresh)
        rc = revoke_lost(r, kept, e);
    free(kept);
    return rc;
}

/* Takes the job: the store first, since it keeps other processes out. A new
 * job that has no room leaves nothing behind. */
static int take_job(struct run *r, int *state, struct sl_error *e)
{
    bool fresh = false;
    int rc = 0;

    if (access(r->out->journal, F_OK) != 0) {
        if (!r->o->force)
            SL_TRY(output_absent(r->out, e));
        SL_TRY(output_check_space(r->out, e));
    }
    SL_TRY(open_store(r, &fresh, e));
    SL_TRY(*state = convert_store_state(r->store, e));
    if (*state != CONVERT_PUBLISHING)
        rc = take_files(r, fresh, e);
    if (rc < 0 && fresh) {
        convert_store_close(r->store);
        r->store = NULL;
        convert_store_remove(r->out->journal);
    }
    SL_TRY(rc);
    return convert_store_each(r->store, on_done, r, e);
}

/* Syncs the segments and records the pending tasks: only then are they done. */
static int commit_pending(struct run *r, struct sl_error *e)
{
    r->last_commit_ns = now_ns();
    if (r->n_pending == 0)
        return 0;
    SL_TRY(sl_engine_sync(r->engine, e));
    SL_TRY(convert_store_commit(r->store, r->pending, r->n_pending, e));
    for (uint32_t i = 0; i < r->n_pending; i++)
        on_done(r, r->pending[i].task, r->pending[i].checksum);
    r->n_pending = 0;
    return 0;
}

static void show_progress(struct run *r)
{
    struct sl_engine_stats st;

    sl_engine_stats(r->engine, &st);
    progress_update(&r->progress, r->resumed_bytes + st.source_bytes, st.read_bytes,
                    st.written_bytes);
}

static bool stop_is_due(struct run *r)
{
    if (!interrupt_asked())
        return false;
    if (r->stop_ns == 0)
        r->stop_ns = now_ns();
    return now_ns() - r->stop_ns > STOP_NS;
}

/* Submits what is missing and collects results, until all is done, a task
 * fails, or a stop is asked for. Whatever was finished is committed. */
static int convert_tasks(struct run *r, struct sl_error *e)
{
    const struct sl_plan *p = r->plan;
    uint32_t next = 0, in_flight = 0;
    uint64_t ahead = 0;
    int failed = 0;

    for (;;) {
        struct sl_task_result res;
        int rc;

        while (!failed && !interrupt_asked() && next < p->n_tasks &&
               (in_flight < 2 || ahead < AHEAD_BYTES)) {
            if (!r->done[next]) {
                SL_TRY(sl_engine_submit(r->engine, next, e));
                in_flight++;
                ahead += p->tasks[next].src_bytes;
            }
            next++;
        }
        if (in_flight == 0 || stop_is_due(r))
            break;
        SL_TRY(rc = sl_engine_wait(r->engine, &res, 100, e));
        if (rc == 1) {
            in_flight--;
            ahead -= p->tasks[res.task].src_bytes;
            if (res.code < 0 && !failed) {
                failed = res.code;
                *e = res.error;
            } else if (res.code == 0) {
                r->pending[r->n_pending++] = (struct convert_done){res.task, res.checksum};
            }
        }
        show_progress(r);
        if (r->n_pending == PENDING_MAX || now_ns() - r->last_commit_ns > COMMIT_NS) {
            struct sl_error later;

            SL_TRY(commit_pending(r, failed ? &later : e));
        }
    }
    if (failed) {
        struct sl_error later; /* the task's failure is what counts */

        (void)!commit_pending(r, &later);
        return failed;
    }
    SL_TRY(commit_pending(r, e));
    if (interrupt_asked())
        return sl_fail(e, SL_EINTERRUPTED,
                       "stopped at a safe point; the same command goes on from there");
    return 0;
}

/* Every segment stays open while it is written: as many files as the system lets us. */
static void allow_open_files(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < l.rlim_max) {
        l.rlim_cur = l.rlim_max;
        (void)!setrlimit(RLIMIT_NOFILE, &l);
    }
}

static int open_engine(struct run *r, struct sl_error *e)
{
    struct sl_engine_opts eo = {
        .threads = (unsigned)r->o->threads,
        .mem_bytes = r->o->mem_bytes,
        .io = r->o->io,
        .direct = r->o->direct,
        .backend = r->o->backend,
        .round_bf16 = r->o->round_bf16,
        .segment_paths = (const char *const *)r->out->partial,
        .weights = r->o->weights,
    };

    return sl_engine_open(r->ck, r->plan, &eo, &r->engine, e);
}

struct stitch_progress {
    struct run *r;
    uint64_t done;
    struct sl_error *e;
};

static int on_stitch_bytes(void *user, uint64_t bytes)
{
    struct stitch_progress *sp = user;

    sp->done += bytes;
    progress_update(&sp->r->progress, sp->done, sp->done, 0);
    if (interrupt_asked())
        return sl_fail(sp->e, SL_EINTERRUPTED,
                       "stopped while checking; the same command goes on from there");
    return 0;
}

/* Checks the finished files; tasks that are not on the disk as they were
 * written are taken back. Returns 0, or SL_EVERIFY when some were. */
static int seal(struct run *r, struct sl_error *e)
{
    struct stitch_progress sp = {r, 0, e};
    struct stitch s = {.plan = r->plan, .out = r->out, .task_sum = r->sum,
                       .sha256 = r->o->sha256, .progress = on_stitch_bytes, .user = &sp};
    int rc;

    progress_begin(&r->progress, r->o->progress, "check", r->plan->file_bytes, 0);
    rc = stitch_seal(&s, e);
    progress_end(&r->progress);
    if (rc == SL_EVERIFY && s.n_bad > 0) {
        struct sl_error later;

        if (convert_store_revoke(r->store, s.bad, s.n_bad, &later) < 0)
            rc = SL_EFAIL;
        for (uint32_t i = 0; i < s.n_bad; i++) {
            r->done[s.bad[i]] = false;
            r->done_bytes -= r->plan->tasks[s.bad[i]].src_bytes;
        }
    }
    free(s.bad);
    return rc;
}

static int convert_and_seal(struct run *r, struct sl_error *e)
{
    int rc = 0;

    for (int attempt = 0; attempt < STITCH_TRIES; attempt++) {
        r->resumed_bytes = r->done_bytes;
        r->last_commit_ns = now_ns();
        progress_begin(&r->progress, r->o->progress, "convert", r->plan->src_bytes,
                       r->done_bytes);
        SL_TRY(open_engine(r, e));
        rc = convert_tasks(r, e);
        progress_end(&r->progress);
        if (r->o->stats && rc == 0)
            convert_print_stats(r->engine, now_ns() - r->progress.t0_ns);
        sl_engine_close(r->engine);
        r->engine = NULL;
        SL_TRY(rc);
        rc = seal(r, e);
        if (rc != SL_EVERIFY)
            break;
        if (attempt + 1 < STITCH_TRIES)
            fprintf(stderr, "sluice: %s; making them again\n", e->text);
    }
    return rc;
}

static int publish(struct run *r, struct sl_error *e)
{
    SL_TRY(stitch_publish_manifests(r->out, e));
    SL_TRY(output_publish(r->out, e));
    convert_store_close(r->store);
    r->store = NULL;
    convert_store_remove(r->out->journal);
    return output_sync_dir(r->out, e);
}

/* Takes a job back of which nothing was done: no file of it stays. */
static int abandon(struct run *r, int rc)
{
    convert_store_close(r->store);
    r->store = NULL;
    convert_store_remove(r->out->journal);
    output_discard(r->out);
    return rc;
}

static int run_job(struct run *r, struct sl_error *e)
{
    bool resuming = access(r->out->journal, F_OK) == 0;
    int rc, state;

    allow_open_files();
    SL_TRY(output_not_source(r->out, r->ck, e));
    SL_TRY(take_job(r, &state, e));
    if (state != CONVERT_PUBLISHING) {
        if (r->done_bytes > 0 && r->o->progress != PROGRESS_QUIET)
            fprintf(stderr, "sluice: going on with earlier work: %.0f %% is done\n",
                    100.0 * (double)r->done_bytes / (double)r->plan->src_bytes);
        rc = convert_and_seal(r, e);
        if (rc < 0 && rc != SL_EINTERRUPTED && !resuming && r->done_bytes == 0)
            return abandon(r, rc);
        SL_TRY(rc);
        SL_TRY(output_sync_dir(r->out, e));
        SL_TRY(convert_store_seal(r->store, e));
    }
    return publish(r, e);
}

static void print_summary(const struct run *r)
{
    double s = (double)(now_ns() - r->t0_ns) / 1e9;
    uint32_t n = r->plan->n_segments;
    struct rusage ru;
    char a[32], b[32], c[32];

    getrusage(RUSAGE_SELF, &ru);
    if (r->o->progress == PROGRESS_JSON) {
        cJSON *o = cJSON_CreateObject(), *files = cJSON_AddArrayToObject(o, "files");

        for (uint32_t i = 0; i < n; i++)
            cJSON_AddItemToArray(files, cJSON_CreateString(r->out->final[i]));
        cJSON_AddNumberToObject(o, "bytes", (double)r->plan->file_bytes);
        cJSON_AddNumberToObject(o, "source_bytes", (double)r->plan->src_bytes);
        cJSON_AddNumberToObject(o, "seconds", s);
        cJSON_AddNumberToObject(o, "peak_memory_bytes", (double)ru.ru_maxrss * 1024);
        cJSON_AddStringToObject(o, "fingerprint", r->plan->fingerprint);
        if (r->o->imatrix)
            cJSON_AddStringToObject(o, "imatrix", r->o->imatrix);
        json_line(o, "summary");
        return;
    }
    if (r->o->progress == PROGRESS_QUIET)
        return;
    for (uint32_t i = 0; i < n; i++)
        printf("%s\n", r->out->final[i]);
    fprintf(stderr, "sluice: %s in %u file%s from %s in %.1f s; every task checked on disk; peak memory %s\n",
            cli_size(a, r->plan->file_bytes), n, n == 1 ? "" : "s",
            cli_size(b, r->plan->src_bytes), s, cli_size(c, (uint64_t)ru.ru_maxrss * 1024));
}

int convert_run(const struct sl_checkpoint *ck, const struct sl_plan *plan,
                const struct output *out, const struct convert_opts *o, struct sl_error *e)
{
    struct run r = {.ck = ck, .plan = plan, .out = out, .o = o, .t0_ns = now_ns()};
    uint32_t n = plan->n_tasks ? plan->n_tasks : 1;
    int rc;

    r.sum = calloc(n, sizeof *r.sum);
    r.done = calloc(n, sizeof *r.done);
    if (!r.sum || !r.done)
        rc = sl_fail(e, SL_EFAIL, "out of memory");
    else
        rc = run_job(&r, e);
    progress_end(&r.progress);
    sl_engine_close(r.engine);
    convert_store_close(r.store);
    if (rc == 0)
        print_summary(&r);
    free(r.sum);
    free(r.done);
    return rc;
}
