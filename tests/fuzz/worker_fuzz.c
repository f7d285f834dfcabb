/* Fuzz target: what a daemon says to a worker. The input is lines: a message as received, behind one byte, or a jump of the clock. In
 * it "/r/" is the worker's root, which has a small GGUF file m.gguf, a folder out and a link that leads outside, and "/o/" is beside
 * it. Whatever comes, the worker says what the table allows, a task that fails says why, and nothing outside the root is touched,
 * nor the source. A fingerprint of Fs is that of the plan made last, checksums of Fs are right ones. */
#include "tests/fuzz/fuzz_dir.h"
#include "tests/fuzz/fuzz_source.h"

#include "proto/clock.h"
#include "proto/tensor_hash.h"
#include "proto/utf8.h"
#include "proto/wire.h"
#include "worker/worker_state.h"

#include <dirent.h>
#include <sys/stat.h>

#define STEPS 4000 /* of a special task, until it is stopped */

struct world {
    struct sl_worker *w;
    struct sl_job_cache *cache;
    struct sl_work *work, **end;
    char plan[33]; /* fingerprint */
    uint64_t now;
    int steps;
};

static char root[96], beside[96], source[112];
static struct sl_roots *roots;
static struct stat before;

static void make_folders(void)
{
    static char out[112], outside[112], file[112];
    const char *list[] = {root};
    struct sl_error e;
    int fd;

    snprintf(root, sizeof root, "%s/r", fuzz_dir());
    snprintf(beside, sizeof beside, "%s/o", fuzz_dir());
    snprintf(out, sizeof out, "%s/out", root);
    snprintf(outside, sizeof outside, "%s/link", root);
    snprintf(source, sizeof source, "%s/m.gguf", root);
    snprintf(file, sizeof file, "%s/x.gguf.partial", beside);
    require(mkdir(root, 0700) == 0 && mkdir(beside, 0700) == 0 && mkdir(out, 0700) == 0 && symlink(beside, outside) == 0);
    fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    require(fd >= 0);
    close(fd);
    fd = open(source, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    fuzz_source(fd);
    close(fd);
    require(stat(source, &before) == 0 && sl_roots_open(list, 1, &roots, &e) == 0);
}

/* Removes what a worker made in a folder. Returns how many there were. */
static int sweep(const char *path)
{
    static const char *const ours[] = {".", "..", "m.gguf", "out", "link"};
    DIR *d = opendir(path);
    const struct dirent *x;
    int n = 0;

    require(d != NULL);
    while ((x = readdir(d)) != NULL) {
        size_t i = 0;

        while (i < sizeof ours / sizeof *ours && strcmp(x->d_name, ours[i]) != 0)
            i++;
        if (i < sizeof ours / sizeof *ours)
            continue;
        require(unlinkat(dirfd(d), x->d_name, 0) == 0);
        n++;
    }
    closedir(d);
    return n;
}

/* Only what the worker may touch was. */
static void look_after(void)
{
    char out[112], file[112];
    struct stat now;

    snprintf(out, sizeof out, "%s/out", root);
    snprintf(file, sizeof file, "%s/x.gguf.partial", beside);
    (void)sweep(out);
    (void)sweep(root);
    require(stat(source, &now) == 0 && now.st_ino == before.st_ino && now.st_size == before.st_size &&
            now.st_mtim.tv_sec == before.st_mtim.tv_sec && now.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
    require(stat(file, &now) == 0 && now.st_size == 0 && sweep(beside) == 1);
    close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
}

/* ---- tasks, done by one thread */

static void on_work(void *user, struct sl_work *work)
{
    struct world *w = user;

    *w->end = work;
    w->end = &work->next;
}

static void on_drop(void *user, uint64_t job, uint32_t task, uint64_t epoch)
{
    (void)user, (void)job, (void)epoch;
    require(task <= SL_TASK_LAST);
}

static void on_over(void *user, uint64_t job)
{
    struct world *w = user;

    sl_job_cache_let_go(w->cache, job);
}

static int on_progress(void *user, uint64_t n)
{
    struct world *w = user;

    (void)n;
    return --w->steps < 0 ? SL_EINTERRUPTED : 0;
}

static int take_job(struct world *w, const struct sl_work *x, struct sl_cached_job **j, struct sl_error *e)
{
    int rc = sl_job_cache_get(w->cache, x->job, x->spec, x->fingerprint, w->now, j, e);

    return rc > 0 ? sl_fail(e, SL_EFAIL, "no room") : rc;
}

/* The checksums of an output that is all zeros. */
static void put_right_sums(struct world *w, struct sl_work *x)
{
    static const uint8_t zeros[1 << 18];
    struct sl_cached_job *j;
    struct sl_error e;
    uint64_t sums[64];
    const struct sl_plan *p;

    if (!x->sums || strspn(x->sums, "f") != strlen(x->sums) || take_job(w, x, &j, &e) < 0)
        return;
    p = j->j.plan;
    for (uint32_t t = 0; t < p->n_tasks && strlen(x->sums) >= 16 * ((size_t)t + 1); t++) {
        const struct sl_plan_task *task = &p->tasks[t];
        char digits[17];

        for (uint32_t i = 0; i < task->n_items && i < 64; i++) {
            const struct sl_plan_item *it = &p->items[task->first_item + i];
            uint64_t n = sl_type_bytes(p->tensors[it->tensor].type, it->elems);

            sums[i] = n <= sizeof zeros ? sl_xxh64(zeros, n) : 0;
        }
        if (task->n_items > 64)
            return;
        snprintf(digits, sizeof digits, "%016llx", (unsigned long long)sl_xxh64(sums, 8 * (uint64_t)task->n_items));
        memcpy(x->sums + 16 * (size_t)t, digits, 16);
    }
}

/* As a lane begins it, with an engine that can do all. */
static void do_plans_task(struct world *w, const struct sl_work *x, struct sl_outcome *o)
{
    struct sl_cached_job *j;
    int rc = take_job(w, x, &j, &o->error);

    if (rc == 0 && x->task >= j->j.plan->n_tasks)
        rc = sl_fail(&o->error, SL_EUSAGE, "task %u: the plan has %u", x->task, j->j.plan->n_tasks);
    o->kind = rc < 0 ? SL_OUTCOME_FAIL : SL_OUTCOME_RESULT;
    o->error.code = rc;
    o->has_checksum = rc == 0;
    o->bytes = rc == 0 ? j->j.plan->tasks[x->task].out_bytes : 0;
}

static void do_work(struct world *w, struct sl_work *x)
{
    const struct sl_special_hooks hooks = {on_progress, w};
    struct sl_outcome *o = calloc(1, sizeof *o);
    struct sl_error e;

    require(o && x->task <= SL_TASK_LAST && sl_record_check("spec", x->spec, &e) == 0);
    if (w->plan[0] && strspn(x->fingerprint, "f") == 32)
        memcpy(x->fingerprint, w->plan, sizeof w->plan);
    o->job = x->job;
    o->task = x->task;
    o->epoch = x->epoch;
    w->steps = STEPS;
    if (x->task == SL_TASK_STITCH)
        put_right_sums(w, x);
    if (x->task < SL_TASKS_MAX)
        do_plans_task(w, x, o);
    else
        sl_special_run(w->cache, x, &hooks, o);
    require(o->kind != SL_OUTCOME_FAIL || (o->error.code < 0 && o->error.text[0] && sl_utf8_all_shown(o->error.text)));
    if (o->plan)
        snprintf(w->plan, sizeof w->plan, "%s", sl_get_str(o->plan, "fingerprint"));
    if (getenv("FUZZ_SAYS"))
        fprintf(stderr, "task %u: %d %s\n", x->task, o->kind, o->kind == SL_OUTCOME_FAIL ? o->error.text : "");
    sl_worker_outcome(w->w, o, w->now);
    sl_work_free(x);
}

/* ---- */

static void hear(struct world *w)
{
    const struct sl_worker_progress p = {.tensor = ""};
    const uint8_t *bytes;
    struct sl_error e;
    struct sl_msg m;
    size_t n;

    (void)sl_worker_tick(w->w, &p, w->now);
    while (sl_worker_next(w->w, &bytes, &n)) {
        require(sl_wire_decode(bytes, n, SL_FROM_WORKER, &m, NULL, NULL, &e) == 0);
        sl_msg_free(&m);
        sl_worker_sent(w->w);
    }
}

/* "/r/" and "/o/" are as long for everybody. Returns the message, the caller's. */
static char *with_paths(const uint8_t *line, size_t n, size_t *len)
{
    size_t most = strlen(fuzz_dir()), k = 0;
    char *m = malloc(n * (most + 1) + 1);

    require(m != NULL);
    for (size_t i = 0; i < n; i++) {
        if (i + 3 <= n && (memcmp(line + i, "/r/", 3) == 0 || memcmp(line + i, "/o/", 3) == 0)) {
            memcpy(m + k, fuzz_dir(), most);
            k += most;
        }
        m[k++] = (char)line[i];
    }
    *len = k;
    return m;
}

static void one_line(struct world *w, const uint8_t *line, size_t n)
{
    size_t len;
    char *m;

    if (n == 0)
        return;
    w->now += 10;
    if (line[0] == 't') {
        w->now += n * 500;
    } else {
        m = with_paths(line + 1, n - 1, &len);
        sl_worker_receive(w->w, (const uint8_t *)m, len, w->now);
        free(m);
    }
    while (w->work) {
        struct sl_work *x = w->work;

        w->work = x->next;
        if (!w->work)
            w->end = &w->work;
        do_work(w, x);
    }
    sl_job_cache_idle(w->cache, w->now);
    hear(w);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    uint64_t s = seed;
    uint8_t *line = data, *end;
    size_t rest, n;

    for (uint64_t k = json_random(&s) % 12; k > 0; k--) {
        uint8_t *next = memchr(line, '\n', size - (size_t)(line - data));

        line = next && next + 2 < data + size ? next + 1 : data;
    }
    end = size ? memchr(line, '\n', size - (size_t)(line - data)) : NULL;
    if (!end || end - line < 2 || json_random(&s) % 16 == 0)
        return LLVMFuzzerMutate(data, size, max);
    /* The line goes to the end, is changed there, and comes back. */
    rest = size - (size_t)(end - data);
    {
        uint8_t *tail = malloc(rest), *text = malloc(max);
        size_t at = (size_t)(line + 1 - data);

        require(tail && text);
        memcpy(tail, end, rest);
        memcpy(text, line + 1, (size_t)(end - line) - 1);
        n = json_change(text, (size_t)(end - line) - 1, max, &s);
        if (at + n + rest <= max && !memchr(text, '\n', n)) {
            memcpy(data + at, text, n);
            memcpy(data + at + n, tail, rest);
            size = at + n + rest;
        }
        free(tail);
        free(text);
    }
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {.end = &w.work, .now = sl_boot_ms()};
    const struct sl_worker_opts o = {.instance = "00112233445566778899aabbccddeeff", .name = "w", .host = "h", .device = "cpu", .threads = 1,
                                     .mem_bytes = 1 << 30, .ahead = 3, .work = on_work, .drop = on_drop, .over = on_over, .user = &w};
    struct sl_job_cache_opts c = {.threads = 1, .mem_bytes = 64 << 20};
    struct sl_error e;

    if (size > 1 << 16)
        return 0;
    if (!root[0])
        make_folders();
    c.roots = roots;
    require(sl_worker_new(&o, w.now, &w.w, &e) == 0 && sl_job_cache_open(&c, &w.cache, &e) == 0);
    hear(&w);
    while (size > 0) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t n = end ? (size_t)(end - data) : size;

        one_line(&w, data, n);
        data += n + (end != NULL);
        size -= n + (end != NULL);
    }
    sl_job_cache_close(w.cache);
    sl_worker_free(w.w);
    look_after();
    return 0;
}
