#include "worker/job_cache_priv.h"

#include "proto/wire.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENGINE_IDLE_MS 5000u
#define JOB_IDLE_MS 10000u /* where no daemon says that it is over; a plan made anew takes a second */
#define JOBS 64u

int sl_job_cache_open(const struct sl_job_cache_opts *o, struct sl_job_cache **out,
                      struct sl_error *e)
{
    struct sl_job_cache *c = calloc(1, sizeof *c);

    *out = c;
    if (!c)
        return sl_no_memory(e);
    c->o = *o;
    if (!c->o.mem_bytes)
        c->o.mem_bytes = SL_MEM_USUAL;
    c->max_engines = job_engines_most(c);
    return 0;
}

void sl_job_cache_watch(struct sl_job_cache *c, const struct sl_header_watch *w)
{
    c->watch = w;
}

/* Another job, listed before `until`, whose checkpoint and model are those of j; or NULL. */
static struct sl_cached_job *sharer(const struct sl_job_cache *c, const struct sl_cached_job *j,
                                    const struct sl_cached_job *until)
{
    struct sl_cached_job *k = c->jobs;

    while (k && k != until && (k == j || k->j.model != j->j.model))
        k = k->next;
    return k == until ? NULL : k;
}

uint64_t sl_job_cache_bytes(const struct sl_job_cache *c)
{
    uint64_t bytes = 0;

    for (const struct sl_cached_job *j = c->jobs; j; j = j->next)
        bytes += sl_job_plan_bytes(&j->j) + (sharer(c, j, j) ? 0 : sl_job_plan_model_bytes(&j->j));
    return bytes;
}

static void free_job(struct sl_job_cache *c, struct sl_cached_job *j)
{
    sl_job_cache_close_engine(c, j);
    if (!j->given) {
        output_free(&j->out);
        if (j->j.model && sharer(c, j, NULL)) {
            j->j.ck = NULL;
            j->j.model = NULL;
            j->source_fd = -1;
        }
        sl_job_plan_close(&j->j);
    }
    if (j->source_fd >= 0)
        close(j->source_fd);
    if (j->output_fd >= 0)
        close(j->output_fd);
    free(j->source);
    free(j->source_path);
    free(j->output);
    free(j->like);
    free(j);
}

void sl_job_cache_close(struct sl_job_cache *c)
{
    while (c && c->jobs)
        sl_job_cache_drop(c, c->jobs);
    free(c);
}

struct sl_cached_job *sl_job_cache_first(struct sl_job_cache *c)
{
    return c->jobs;
}

void sl_job_cache_drop(struct sl_job_cache *c, struct sl_cached_job *j)
{
    struct sl_cached_job **at = &c->jobs;

    while (*at && *at != j)
        at = &(*at)->next;
    if (*at) {
        *at = j->next;
        c->n_jobs--;
    }
    free_job(c, j);
}

static void replace(char *text, size_t cap, const char *from, const char *to)
{
    char out[1024];
    size_t n = 0, len = strlen(from);

    for (const char *p = text; len && *p && n + 1 < sizeof out;) {
        /* "/proc/self/fd/1" must not be found in "/proc/self/fd/12". */
        if (strncmp(p, from, len) == 0 && !(p[len] >= '0' && p[len] <= '9')) {
            n += (size_t)snprintf(out + n, sizeof out - n, "%s", to);
            n = n < sizeof out ? n : sizeof out - 1;
            p += len;
        } else {
            out[n++] = *p++;
        }
    }
    out[n] = '\0';
    snprintf(text, cap, "%s", out);
}

int sl_job_cache_told(const struct sl_cached_job *j, struct sl_error *e)
{
    if (j->output_fd >= 0)
        replace(e->text, sizeof e->text, j->output_pin, j->output);
    if (j->source_fd >= 0)
        replace(e->text, sizeof e->text, j->source_pin, j->source);
    return e->code;
}

static const char *this_host(char name[65])
{
    snprintf(name, 65, "this machine");
    gethostname(name, 64);
    return name;
}

/* The daemon has found the path below its own roots, and another machine's workers may: that this one does not
 * must not end the job. Errors: SL_ESOURCE when it is not there, else SL_ELACKS. */
static int open_place(const struct sl_job_cache *c, const char *path, int flags, struct sl_error *e)
{
    int fd = sl_roots_open_path(c->o.roots, path, flags, e);
    struct sl_error here;
    char host[65];

    if (fd >= 0 || fd == SL_ESOURCE)
        return fd;
    if (fd != SL_EUSAGE)
        return e->code = SL_ELACKS;
    here = *e;
    return sl_fail(e, SL_ELACKS, "%.900s, on %s", here.text, this_host(host));
}

/* The same for what is read. Errors: SL_ENOSOURCE, SL_ELACKS. */
static int open_source(const struct sl_job_cache *c, const char *path, int flags, struct sl_error *e)
{
    int fd = open_place(c, path, flags, e);

    return fd == SL_ESOURCE ? e->code = SL_ENOSOURCE : fd;
}

/* Pins the folder of the source: its own, or that of its file. */
static int pin_source(struct sl_job_cache *c, struct sl_cached_job *j, struct sl_error *e)
{
    const char *base = strrchr(j->source, '/');
    struct stat st;
    char *dir;

    SL_TRY(j->source_fd = open_source(c, j->source, O_PATH, e));
    if (fstat(j->source_fd, &st) != 0)
        return sl_fail(e, SL_ESOURCE, "%s: %s", j->source, strerror(errno));
    sl_roots_pin(j->source_fd, j->source_pin);
    if (S_ISDIR(st.st_mode)) {
        j->source_path = strdup(j->source_pin);
        return j->source_path ? 0 : sl_no_memory(e);
    }
    close(j->source_fd);
    j->source_fd = -1;
    dir = strndup(j->source, base == j->source ? 1 : (size_t)(base - j->source));
    if (!dir)
        return sl_no_memory(e);
    j->source_fd = open_source(c, dir, O_PATH | O_DIRECTORY, e);
    if (j->source_fd >= 0)
        sl_roots_pin(j->source_fd, j->source_pin);
    if (j->source_fd >= 0 && asprintf(&j->source_path, "%s%s", j->source_pin, base) < 0)
        j->source_path = NULL;
    /* Errors name files by their folder. */
    free(j->source);
    j->source = dir;
    SL_TRY(j->source_fd);
    return j->source_path ? 0 : sl_no_memory(e);
}

/* ---- the output's folder */

int sl_job_cache_lost(struct sl_cached_job *j, struct sl_error *e)
{
    unsigned long long id = (unsigned long long)j->id;

    if (j->given)
        return sl_fail(e, SL_EFAIL, "%s/%s: the unfinished files are gone; begin again", j->out.dir, j->out.prefix);
    j->lost = true;
    return sl_fail(e, SL_ELACKS, "%s: the files of job %llu are not there: the folder was renamed, removed or "
                   "replaced, or something else is mounted there. Put it back, and 'sluice retry %llu' goes on; "
                   "if it is gone for good, 'sluice cancel --discard %llu' and submit it again",
                   j->output, id, id, id);
}

/* By the name alone, as its owner sees it: nothing is opened in it. */
int sl_job_cache_same_folder(struct sl_cached_job *j, struct sl_error *e)
{
    struct stat now, own;

    if (j->given || (stat(j->output, &now) == 0 && fstat(j->output_fd, &own) == 0 &&
                     now.st_dev == own.st_dev && now.st_ino == own.st_ino))
        return 0;
    return sl_job_cache_lost(j, e);
}

static int pin_output(struct sl_job_cache *c, struct sl_cached_job *j, bool prepared, struct sl_error *e)
{
    char host[65];

    j->output_fd = open_place(c, j->output, O_PATH | O_DIRECTORY, e);
    if (j->output_fd < 0)
        return j->output_fd != SL_ESOURCE ? j->output_fd : prepared ? sl_job_cache_lost(j, e)
               : sl_fail(e, SL_ELACKS, "%s: no such folder on %s; create it, or mount it there", j->output, this_host(host));
    sl_roots_pin(j->output_fd, j->output_pin);
    j->out.dir = strdup(j->output_pin);
    return j->out.dir ? 0 : sl_no_memory(e);
}

static int take_given(const struct sl_given_job *g, struct sl_cached_job *j, struct sl_error *e)
{
    j->given = true;
    j->j = *g->j;
    j->out = *g->out;
    j->output = strdup(g->out->dir);
    return j->output ? 0 : sl_no_memory(e);
}

/* What a model depends on beside its files: as texts, and the folder itself. */
static int take_likeness(struct sl_cached_job *j, const struct cJSON *spec, struct sl_error *e)
{
    char *options = cJSON_PrintUnformatted(sl_get(spec, "options"));
    struct stat st = {0};

    if ((!options && sl_get(spec, "options")) || fstat(j->source_fd, &st) < 0 ||
        asprintf(&j->like, "%s\n%s", sl_get_str(spec, "source"), options ? options : "") < 0)
        j->like = NULL;
    cJSON_free(options);
    j->source_dev = st.st_dev;
    j->source_ino = st.st_ino;
    return j->like ? 0 : sl_no_memory(e);
}

/* Takes the model of a job that is like j, and its hold on the folder with it. */
static int share_model(struct sl_job_cache *c, struct sl_cached_job *j, struct sl_error *e)
{
    struct sl_cached_job *k = c->jobs;

    while (k && (!k->like || strcmp(k->like, j->like) != 0 || k->source_dev != j->source_dev ||
                 k->source_ino != j->source_ino))
        k = k->next;
    if (!k)
        return 0;
    free(j->source_path);
    j->source_path = strdup(k->source_path);
    if (!j->source_path)
        return sl_no_memory(e);
    close(j->source_fd);
    j->source_fd = k->source_fd;
    memcpy(j->source_pin, k->source_pin, sizeof j->source_pin);
    j->j.ck = k->j.ck;
    j->j.model = k->j.model;
    return 1;
}

/* *shared: whether the model is another job's. */
static int build(struct sl_job_cache *c, struct sl_cached_job *j, const struct cJSON *spec,
                 bool prepared, bool *shared, struct sl_error *e)
{
    const char *imatrix = sl_get_str(sl_get(spec, "options"), "imatrix");
    bool share = *shared;
    int fd, rc = 0;

    *shared = false;
    if (c->o.given)
        return take_given(c->o.given, j, e);
    j->source = strdup(sl_get_str(spec, "source"));
    j->output = strdup(sl_get_str(spec, "output"));
    if (!j->source || !j->output)
        return sl_no_memory(e);
    if (imatrix) {
        SL_TRY(fd = open_source(c, imatrix, O_PATH, e));
        close(fd);
    }
    SL_TRY(pin_output(c, j, prepared, e));
    SL_TRY(pin_source(c, j, e));
    SL_TRY(take_likeness(j, spec, e));
    if (share)
        SL_TRY(rc = share_model(c, j, e));
    *shared = rc;
    j->j.roots = c->o.roots;
    j->j.watch = c->watch;
    SL_TRY(sl_job_plan_open(&j->j, spec, j->source_path, e));
    j->j.watch = NULL;
    j->out.sparse = j->j.sparse;
    j->out.prefix = strdup(j->j.prefix);
    if (!j->out.prefix)
        return sl_no_memory(e);
    return output_attach(&j->out, j->j.plan, e);
}

/* Drops what is too much, the job unused for longest first, never `keep`. Returns 0 when what is
 * in use is too much by itself. */
static int make_room(struct sl_job_cache *c, unsigned most, const struct sl_cached_job *keep)
{
    while (c->n_jobs > most || sl_job_cache_bytes(c) > c->o.mem_bytes / JOB_PLANS_SHARE) {
        struct sl_cached_job *oldest = NULL;
        uint64_t used;

        for (struct sl_cached_job *j = c->jobs; j; j = j->next)
            if (j != keep && !j->busy && (!j->engine || job_engine_idle(c, j->engine, &used)) &&
                (!oldest || j->used_ms < oldest->used_ms))
                oldest = j;
        if (!oldest)
            return 0;
        sl_job_cache_drop(c, oldest);
    }
    return 1;
}

static int make_job(struct sl_job_cache *c, uint64_t id, const struct cJSON *spec, const char *fingerprint,
                    uint64_t now_ms, bool *shared, struct sl_cached_job **out, struct sl_error *e)
{
    struct sl_cached_job *j = calloc(1, sizeof *j);
    int rc;

    if (!j)
        return sl_no_memory(e);
    j->id = id;
    j->source_fd = j->output_fd = -1;
    j->used_ms = now_ms;
    rc = build(c, j, spec, fingerprint != NULL, shared, e);
    if (rc == 0 && fingerprint && strcmp(j->j.plan->fingerprint, fingerprint) != 0)
        rc = sl_fail(e, SL_ESOURCE, "%s: the plan is not the job's (fingerprint %.12s, must be %.12s): "
                     "the source was changed, or this worker is of another release",
                     j->source ? j->source : "plan", j->j.plan->fingerprint, fingerprint);
    if (rc < 0) {
        if (j->source && j->output)
            sl_job_cache_told(j, e);
        free_job(c, j);
        return rc;
    }
    *out = j;
    return 0;
}

/* Whether the plan kept is of this very job. A queue that was restored or begun anew gives numbers again, and a
 * fingerprint does not tell where the files go, nor how. */
static bool is_of(const struct sl_cached_job *j, const struct cJSON *spec, const char *fingerprint)
{
    const cJSON *o = sl_get(spec, "options");

    return strcmp(j->j.plan->fingerprint, fingerprint) == 0 &&
           (j->given || (strcmp(j->output, sl_get_str(spec, "output")) == 0 && j->j.force == sl_get_bool(o, "force") &&
                         j->j.sparse == sl_get_bool(o, "sparse") && j->j.sha256 == sl_get_bool(o, "sha256")));
}

int sl_job_cache_get(struct sl_job_cache *c, uint64_t id, const struct cJSON *spec,
                     const char *fingerprint, uint64_t now_ms, struct sl_cached_job **out,
                     struct sl_error *e)
{
    struct sl_cached_job *j = c->jobs;
    bool share = fingerprint != NULL; /* else it is what the files say now */
    uint64_t used;
    int rc;

    while (j && j->id != id)
        j = j->next;
    rc = j && fingerprint && is_of(j, spec, fingerprint)
         ? j->lost ? sl_job_cache_lost(j, e) : sl_job_cache_same_folder(j, e)
         : sl_fail(e, SL_EFAIL, "job %llu got another plan while this worker is at it", (unsigned long long)id);
    if (j && rc == 0) {
        j->used_ms = now_ms;
        j->over = false;
        *out = j;
        return 0;
    }
    if (j && (j->busy || (j->engine && !job_engine_idle(c, j->engine, &used))))
        return rc;
    if (j)
        sl_job_cache_drop(c, j);
    if (!make_room(c, JOBS - 1, NULL) || (c->o.planning && pthread_mutex_trylock(c->o.planning) != 0))
        return 1;
    rc = make_job(c, id, spec, fingerprint, now_ms, &share, &j, e);
    if (rc < 0 && rc != SL_EINTERRUPTED && share) { /* the model of before is not this job's */
        share = false;
        rc = make_job(c, id, spec, fingerprint, now_ms, &share, &j, e);
    }
    if (c->o.planning)
        pthread_mutex_unlock(c->o.planning);
    SL_TRY(rc);
    j->next = c->jobs;
    c->jobs = j;
    c->n_jobs++;
    (void)!make_room(c, JOBS, j);
    *out = j;
    return 0;
}

void sl_job_cache_checked(struct sl_job_cache *c, uint64_t n)
{
    const struct sl_given_job *g = c->o.given;

    if (g && g->checked)
        g->checked(g->user, n);
}

void sl_job_cache_let_go(struct sl_job_cache *c, uint64_t id)
{
    for (struct sl_cached_job *j = c->jobs; j; j = j->next)
        j->over |= j->id == id;
}

void sl_job_cache_idle(struct sl_job_cache *c, uint64_t now_ms)
{
    unsigned before = c->n_jobs;

    for (struct sl_cached_job *j = c->jobs, *next; j; j = next) {
        uint64_t used;

        next = j->next;
        if (j->busy || (j->engine && !job_engine_idle(c, j->engine, &used)))
            continue;
        if (j->engine && (j->lost || j->over || now_ms - used > ENGINE_IDLE_MS))
            sl_job_cache_close_engine(c, j);
        if (!j->engine && (j->lost || j->over || now_ms - j->used_ms > JOB_IDLE_MS))
            sl_job_cache_drop(c, j);
    }
    if (c->n_jobs < before) /* the allocator would keep it, however long the worker waits */
        (void)malloc_trim(0);
}

int sl_job_cache_output(struct sl_job_cache *c, const struct cJSON *spec, struct output *out,
                        int *fd, struct sl_error *e)
{
    const char *prefix = sl_get_str(spec, "prefix");
    char pin[32];

    memset(out, 0, sizeof *out);
    *fd = -1;
    if (!prefix || strchr(prefix, '/'))
        return sl_fail(e, SL_EFAIL, "the names of the output's files are not known without its source");
    SL_TRY(*fd = open_place(c, sl_get_str(spec, "output"), O_PATH | O_DIRECTORY, e));
    sl_roots_pin(*fd, pin);
    out->dir = strdup(pin);
    out->prefix = strdup(prefix);
    return out->dir && out->prefix ? 0 : sl_no_memory(e);
}
