#include "client/convert_run.h"

#include "client/convert_store.h"
#include "client/convert_threads.h"
#include "client/model_arg.h"
#include "proto/open_files.h"
#include "proto/size_text.h"
#include "worker/claim.h"
#include "worker/former_set.h"
#include "worker/publish.h"
#include "worker/srcfile.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Finished work waits at most so long for its sync. */
#define COMMIT_MS 250u

/* What the worker's threads tell. */
struct told {
    pthread_mutex_t lock;
    struct sl_engine_stats st;
    struct sl_engine_stats of_check; /* as they were when the check began; no threads: on_again has taken them */
    uint64_t checked;    /* bytes of finished files */
};

struct run {
    struct sl_job_plan *j;
    const struct sl_plan *plan;
    const struct output *out;
    const struct convert_opts *o;
    struct convert_store *store;
    bool fresh;          /* the store is this process's own making */
    bool reserved;       /* so are the temporary files */
    bool made_dir;       /* and the folder */
    uint64_t done_bytes; /* source bytes of the tasks that were done before this run */
    struct told told;
    bool checking;       /* the progress shown is that of the check */
    bool said_again;     /* and why tasks are made again was said, of what was checked last */
    struct progress progress;
    uint64_t t0_ns, convert_ns, convert_cpu_ns;
    uint64_t cpu_before_ns; /* processor time until tasks were made again */
};

static void on_done(void *user, uint32_t task, uint64_t checksum)
{
    struct run *r = user;

    (void)checksum;
    r->done_bytes += task < r->plan->n_tasks ? r->plan->tasks[task].src_bytes : 0;
}

/* Tasks whose segment file is gone must be made again, whatever the store says. */
static int revoke_lost(struct run *r, const bool *kept, struct sl_error *e)
{
    uint32_t n = 0, *lost = calloc(r->plan->n_tasks ? r->plan->n_tasks : 1, sizeof *lost);
    int rc = 0;

    if (!lost)
        return sl_no_memory(e);
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

/* A store that this very call began and could not open stays behind as a file. */
static int open_file(struct run *r, struct sl_error *e)
{
    bool there = output_has(r->out->journal);
    struct stat st;
    int rc;

    if (lstat(r->out->journal, &st) == 0 && !S_ISREG(st.st_mode))
        return sl_fail(e, SL_EEXISTS, "%s: a %s has the name of the file that keeps what is done; move it away or choose "
                       "another name", r->out->journal, S_ISDIR(st.st_mode) ? "folder" : S_ISLNK(st.st_mode) ? "link" : "device");
    if (there && access(r->out->journal, R_OK | W_OK) != 0 && errno == EACCES)
        return sl_fail(e, SL_EEXISTS, "%s: unfinished work that another user began; let its owner finish it or remove it with its "
                       ".partial files, or choose another name", r->out->journal);
    rc = convert_store_open(r->out->journal, &r->store, e);
    if (rc < 0 && rc != SL_EEXISTS && !there)
        convert_store_remove(r->out->journal);
    return rc;
}

/* The job's specification, as `submit` would write it but for the options, which
 * are this process's own. *text is the caller's (free). */
static int make_spec(const struct run *r, char **text, struct sl_error *e)
{
    const char *path = r->j->ck->dir ? r->j->ck->dir : r->j->ck->files[0].path;
    char *source = realpath(path, NULL), *dir = source ? realpath(r->out->dir, NULL) : NULL;
    cJSON *o;
    int rc;

    if (!dir) {
        rc = sl_fail(e, SL_EFAIL, "%s: its full path cannot be found out: %s", source ? r->out->dir : path, strerror(errno));
        free(source);
        return rc;
    }
    o = cJSON_CreateObject();
    sl_put_text(o, "source", source);
    sl_put_text(o, "output", dir);
    sl_put_text(o, "prefix", r->j->prefix);
    sl_put_str(o, "recipe", sl_recipe_name(r->j->recipe));
    sl_put_str(o, "recipe_text", sl_recipe_text(r->j->recipe));
    rc = sl_record_check("spec", o, e);
    *text = rc == 0 ? cJSON_PrintUnformatted(o) : NULL;
    if (rc == 0 && !*text)
        rc = sl_no_memory(e);
    cJSON_Delete(o);
    free(source);
    free(dir);
    return rc;
}

static int begin_store(struct run *r, struct sl_error *e)
{
    char buf[PATH_MAX], *spec = NULL;
    int rc;

    SL_TRY(make_spec(r, &spec, e));
    rc = convert_store_begin(r->store, r->plan, source_name(r->j->ck, buf), spec, e);
    free(spec);
    return rc;
}

/* Nothing that is there already is touched without --force. */
static int output_is_free(const struct run *r, struct sl_error *e)
{
    SL_TRY(output_absent(r->out, r->o->force, e));
    return former_set_absent(r->out, r->o->force, r->j->ck, e);
}

/* Opens the store and holds the plan against what it records. */
static int open_store(struct run *r, struct sl_error *e)
{
    bool over; /* it only outlived its run, for which nothing was left to do */
    int rc;

    SL_TRY(open_file(r, e));
    SL_TRY(rc = convert_store_state(r->store, e));
    r->fresh = rc == CONVERT_NEW;
    over = rc == CONVERT_PUBLISHED;
    /* A job of the service claims first and looks for the store then: one of the two gives way. */
    SL_TRY(claim_absent(r->out, e));
    rc = begin_store(r, e);
    if (rc == 0 && over && !publish_is_done(r->out))
        rc = SL_EEXISTS;
    if (rc != SL_EEXISTS || !(r->o->force || over))
        return rc;
    convert_store_close(r->store);
    r->store = NULL;
    convert_store_remove(r->out->journal);
    SL_TRY(output_is_free(r, e));
    output_discard(r->out);
    SL_TRY(open_file(r, e));
    r->fresh = true;
    return begin_store(r, e);
}

/* The temporary files, in full size; tasks whose file was lost are taken back. */
static int take_files(struct run *r, struct sl_error *e)
{
    bool *kept = calloc(r->plan->n_segments, sizeof *kept);
    int rc = kept ? output_is_free(r, e) : sl_no_memory(e);

    if (rc == 0)
        rc = output_check_space(r->out, e);
    if (rc == 0 && r->fresh)
        output_discard(r->out); /* of a run whose journal is gone */
    if (rc == 0) {
        r->reserved = r->fresh;
        rc = output_reserve(r->out, r->fresh, kept, NULL, e);
    }
    if (rc == 0 && !r->fresh)
        rc = revoke_lost(r, kept, e);
    free(kept);
    return rc;
}

/* Takes the job: the store first, since it keeps other processes out. */
static int take_job(struct run *r, int *state, struct sl_error *e)
{
    SL_TRY(claim_absent(r->out, e));
    if (access(r->out->journal, F_OK) != 0) {
        SL_TRY(output_is_free(r, e));
        SL_TRY(output_check_space(r->out, e));
    }
    SL_TRY(open_store(r, e));
    SL_TRY(*state = convert_store_state(r->store, e));
    if (*state < CONVERT_PUBLISHING)
        SL_TRY(take_files(r, e));
    return convert_store_each(r->store, on_done, r, e);
}

/* ---- what the threads tell, and what is shown of it */

static void on_converted(void *user, const struct sl_engine_stats *st)
{
    struct told *t = user;

    pthread_mutex_lock(&t->lock);
    t->st = *st;
    pthread_mutex_unlock(&t->lock);
}

static void on_checked(void *user, uint64_t bytes)
{
    struct told *t = user;

    pthread_mutex_lock(&t->lock);
    if (!t->of_check.threads)
        t->of_check = t->st;
    t->checked += bytes;
    pthread_mutex_unlock(&t->lock);
}

static uint64_t cpu_ns(void)
{
    struct timespec t = {0, 0};

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void show_progress(void *user)
{
    struct run *r = user;
    struct sl_engine_stats st;
    uint64_t checked;

    pthread_mutex_lock(&r->told.lock);
    st = r->told.st;
    checked = r->told.checked;
    pthread_mutex_unlock(&r->told.lock);
    if (checked && !r->checking) {
        progress_end(&r->progress);
        r->convert_ns = now_ns() - r->progress.t0_ns;
        r->convert_cpu_ns = cpu_ns();
        progress_begin(&r->progress, r->o->progress, "check", r->plan->file_bytes, 0);
        r->checking = true;
        r->said_again = false;
    }
    if (r->checking)
        progress_update(&r->progress, checked, checked, 0);
    else
        progress_update(&r->progress, r->done_bytes + st.source_bytes, st.read_bytes,
                        st.written_bytes);
}

/* Of an engine, and of the check that followed. */
static void print_stats(const struct run *r, const struct sl_engine_stats *st)
{
    uint64_t passed = now_ns() - r->progress.t0_ns;

    if (!r->o->stats || !st->threads)
        return;
    if (!r->checking) {
        convert_print_stats(st, passed, cpu_ns() - r->cpu_before_ns);
        return;
    }
    convert_print_stats(st, r->convert_ns, r->convert_cpu_ns - r->cpu_before_ns);
    convert_print_check(r->plan->file_bytes, passed);
}

/* Called for each task; why is the same for all that one check found. Another engine makes them, and may be at
 * work or have ended by now. */
static void on_again(void *user, const char *why)
{
    struct run *r = user;
    struct sl_engine_stats st;

    pthread_mutex_lock(&r->told.lock);
    st = r->told.of_check.threads ? r->told.of_check : r->told.st;
    r->told.checked = 0;
    if (!r->said_again && st.read_bytes == r->told.st.read_bytes)
        r->told.st = (struct sl_engine_stats){0};
    r->told.of_check = (struct sl_engine_stats){0};
    pthread_mutex_unlock(&r->told.lock);
    if (!r->said_again) {
        progress_end(&r->progress);
        fprintf(stderr, "sluice: %s; making them again\n", why);
        print_stats(r, &st);
        r->cpu_before_ns = cpu_ns();
        progress_begin(&r->progress, r->o->progress, "convert", r->plan->src_bytes, r->done_bytes);
    }
    r->checking = false;
    r->said_again = true;
}

/* Tasks, stitch and publication. */
static int work(struct run *r, struct sl_error *e)
{
    const struct sl_given_job given = {.j = r->j, .out = r->out, .converted = on_converted,
                                       .checked = on_checked, .user = &r->told};
    const struct convert_threads t = {
        .queue = convert_store_queue(r->store),
        .job = convert_store_job(r->store),
        .worker = {.given = &given, .threads = (unsigned)r->o->threads,
                   .mem_bytes = r->o->mem_bytes, .io = r->o->io, .direct = r->o->direct,
                   .backend = r->o->backend, .devices = &r->o->devices,
                   .vram_bytes = r->o->vram_bytes, .sync_ms = COMMIT_MS},
        .tick = show_progress, .again = on_again, .user = r};
    int rc;

    SL_TRY(convert_store_go_on(r->store, e));
    progress_begin(&r->progress, r->o->progress, "convert", r->plan->src_bytes, r->done_bytes);
    rc = convert_threads_run(&t, e);
    progress_end(&r->progress);
    if (rc == 0)
        print_stats(r, &r->told.st);
    return rc;
}

/* Takes a job back of which nothing was done: no file of it stays. */
static void abandon(struct run *r)
{
    convert_store_close(r->store);
    r->store = NULL;
    if (r->fresh)
        convert_store_remove(r->out->journal);
    if (r->reserved)
        output_discard(r->out);
    if (r->made_dir)
        rmdir(r->out->dir);
}

static int make_folder(struct run *r, struct sl_error *e)
{
    char dir[CLI_SHOWN_BYTES];
    int rc;

    if (!r->out->new_dir)
        return 0;
    SL_TRY(rc = output_make_dir(r->out, e));
    r->made_dir = rc == 1;
    if (r->made_dir && r->o->progress != PROGRESS_QUIET)
        fprintf(stderr, "sluice: made the folder %s\n", cli_shown(dir, r->out->dir));
    return 0;
}

static bool nothing_done(struct run *r)
{
    struct sl_error e;
    int state = r->store ? convert_store_state(r->store, &e) : CONVERT_NEW;

    r->done_bytes = 0;
    return state == CONVERT_NEW ||
           (state == CONVERT_CONVERTING && convert_store_each(r->store, on_done, r, &e) == 0 &&
            r->done_bytes == 0);
}

static int take_and_convert(struct run *r, struct sl_error *e)
{
    int state, rc;

    SL_TRY(take_job(r, &state, e));
    if (state == CONVERT_PUBLISHED)
        return 0;
    if (r->done_bytes > 0 && state < CONVERT_PUBLISHING && r->o->progress != PROGRESS_QUIET)
        fprintf(stderr, "sluice: going on with earlier work: %.0f %% is done\n",
                100.0 * (double)r->done_bytes / (double)r->plan->src_bytes);
    rc = work(r, e);
    if (rc == SL_EINTERRUPTED) {
        struct sl_error later; /* the state is for people; without it, it is "running" */

        (void)!convert_store_interrupted(r->store, &later);
    }
    return rc;
}

/* At once, beside those open already: shards and parts, each once more for O_DIRECT, libzmq's, and
 * 8 of the job store, the ring and folders that are synced. */
static unsigned files_opened(const struct run *r)
{
    uint32_t shards = r->j->ck->n_files < SL_SRCFILES_OPEN ? r->j->ck->n_files : SL_SRCFILES_OPEN;
    unsigned n = SL_ZMQ_FILES + 8 + shards * (r->o->direct == SL_DIRECT_OFF ? 1 : 2) + r->plan->n_segments;

    for (uint32_t i = 0; i < r->plan->n_segments; i++)
        n += sl_engine_opens_direct(r->o->direct, r->plan->segments[i].file_bytes);
    return n;
}

/* The former set goes with the publication, when the new one has its names. */
static int run_job(struct run *r, struct sl_error *e)
{
    uint32_t former = 0;
    int rc;

    sl_open_files_allow();
    SL_TRY(sl_open_files_room(files_opened(r), e));
    SL_TRY(output_not_source(r->out, r->j->ck, e));
    SL_TRY(make_folder(r, e));
    if (r->o->force)
        SL_TRY(former_set_count(r->out, r->j->ck, &former, e));
    rc = take_and_convert(r, e);
    if (rc < 0 && rc != SL_EINTERRUPTED && nothing_done(r))
        abandon(r);
    SL_TRY(rc);
    if (former && r->o->progress != PROGRESS_QUIET)
        fprintf(stderr, "sluice: removed %u part%s of the former set\n", former,
                former == 1 ? "" : "s");
    convert_store_close(r->store);
    r->store = NULL;
    convert_store_remove(r->out->journal);
    return output_sync_dir(r->out, e);
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
        const char *imatrix = r->j->synthetic || !r->j->imatrix ? "synthetic" : r->j->imatrix->path;

        for (uint32_t i = 0; i < n; i++)
            cJSON_AddItemToArray(files, json_text(r->out->final[i], strlen(r->out->final[i])));
        cJSON_AddNumberToObject(o, "file_bytes", (double)r->plan->file_bytes);
        cJSON_AddNumberToObject(o, "source_bytes", (double)r->plan->src_bytes);
        cJSON_AddNumberToObject(o, "seconds", s);
        cJSON_AddNumberToObject(o, "peak_memory_bytes", (double)ru.ru_maxrss * 1024);
        cJSON_AddStringToObject(o, "fingerprint", r->plan->fingerprint);
        if (r->j->synthetic || r->j->imatrix)
            cJSON_AddItemToObject(o, "imatrix", json_text(imatrix, strlen(imatrix)));
        json_line(o, "summary");
        return;
    }
    if (r->o->progress == PROGRESS_QUIET)
        return;
    for (uint32_t i = 0; i < n; i++)
        printf("%s\n", r->out->final[i]);
    fflush(stdout); /* before what is said of them, where both go to one place */
    fprintf(stderr, "sluice: %s in %u file%s from %s in %.1f s; every task checked on disk; peak memory %s\n",
            sl_size_text(a, r->plan->file_bytes), n, n == 1 ? "" : "s",
            sl_size_text(b, r->plan->src_bytes), s, sl_size_text(c, (uint64_t)ru.ru_maxrss * 1024));
}

int convert_run(struct sl_job_plan *j, const struct output *out, const struct convert_opts *o,
                struct sl_error *e)
{
    struct run r = {.j = j, .plan = j->plan, .out = out, .o = o, .t0_ns = now_ns(),
                    .told = {.lock = PTHREAD_MUTEX_INITIALIZER}};
    int rc;

    j->sha256 = o->sha256;
    j->force = o->force;
    rc = run_job(&r, e);
    progress_end(&r.progress);
    convert_store_close(r.store);
    if (rc == 0)
        print_summary(&r);
    return rc;
}
