/* Fuzz target: the journal that `convert` goes on by, as a disk or somebody else left it. The first byte says how far the work was;
 * each line that follows is a change to the journal: SQL, or "@OFFSET HEX", bytes of the file. Whatever it is, it is refused by
 * name, or gone on with to the end: a coordinator grants tasks of the plan alone, and waits for nothing else. */
#include "tests/fuzz/fuzz_dir.h"

#include "client/convert_store.h"
#include "daemon/coordinator.h"
#include "proto/utf8.h"

#include <sqlite3.h>

#define TASKS 3
#define INSTANCE "00000000000000000000000000000001"
#define MARK "/x.journal"
#define PAGES (128u << 10) /* bytes of a journal that is kept */

static char path[96];
static bool odd_tables; /* bytes were changed, of which some say what the tables are */
static struct sl_error unheard; /* why the queue could not take a message; code 0: it could */

/* As much of a plan as the journal knows. */
static const struct sl_plan *the_plan(void)
{
    static char options[] = "layout=mla\n";
    static struct sl_plan_segment segment;
    static struct sl_plan_task task[TASKS] = {{.src_bytes = 1000, .out_bytes = 100}, {.src_bytes = 1000, .out_bytes = 100}, {.src_bytes = 500, .out_bytes = 50}};
    static struct sl_plan p = {.segments = &segment, .n_segments = 1, .tasks = task, .n_tasks = TASKS, .options = options,
                               .file_bytes = 300, .fingerprint = "00112233445566778899aabbccddeeff",
                               .parts = {.source = "s", .recipe = "r", .version = "1"}};

    return &p;
}

static int begin(struct convert_store *s, struct sl_error *e)
{
    static const char spec[] = "{\"source\":\"/s\",\"output\":\"/o\",\"prefix\":\"x\",\"recipe\":\"r\",\"recipe_text\":\"default q4_k\\n\"}";

    return convert_store_begin(s, the_plan(), "dir", spec, e);
}

/* ---- a journal, and changes to it */

static void do_task(struct convert_store *s, uint32_t task, bool end)
{
    struct sl_queue *q = convert_store_queue(s);
    const struct sl_new_lease l = {.job = convert_store_job(s), .task = task, .epoch = sl_queue_take_epoch(q), .worker = INSTANCE, .owner = "w"};
    struct sl_error e;

    require(sl_queue_lease(q, &l, &e) == 1 && (!end || sl_queue_finish(q, l.job, task, l.epoch, 7, &e) == 1));
    require(sl_queue_commit(q, &e) == 0);
}

/* Step 0: no file; then one that was begun, has tasks done, all, is stitched, published. */
static size_t make_journal(int step, uint8_t *bytes)
{
    struct convert_store *s;
    struct sl_error e;
    ssize_t n;
    int fd;

    if (step == 0)
        return 0;
    require(convert_store_open(path, &s, &e) == 0 && begin(s, &e) == 0);
    for (uint32_t t = 0; t < TASKS && step > 1; t++)
        do_task(s, t, t == 0 || step > 2);
    if (step > 3)
        do_task(s, SL_TASK_STITCH, true);
    if (step > 4)
        do_task(s, SL_TASK_PUBLISH, true);
    convert_store_close(s);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    require(fd >= 0 && (n = read(fd, bytes, PAGES)) > 0 && n < (ssize_t)PAGES);
    close(fd);
    convert_store_remove(path);
    return (size_t)n;
}

static void write_at(uint64_t at, const void *bytes, size_t n)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    require(fd >= 0 && pwrite(fd, bytes, n, (off_t)at) == (ssize_t)n);
    close(fd);
}

static int give_up(void *user)
{
    return --*(int *)user < 0;
}

static void run_line(const char *line)
{
    unsigned long long at;
    int used = 0, steps = 100;
    unsigned byte;
    sqlite3 *db;

    if (sscanf(line, "@%llu %n", &at, &used) == 1 && used) {
        odd_tables = true;
        for (const char *h = line + used; at < PAGES && sscanf(h, "%2x", &byte) == 1 && h[0] && h[1]; h += 2, at++)
            write_at(at, &(uint8_t){(uint8_t)byte}, 1);
        return;
    }
    require(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 1 << 16);
    sqlite3_progress_handler(db, 1000, give_up, &steps);
    (void)sqlite3_exec(db, line, NULL, NULL, NULL);
    sqlite3_close(db);
}

/* Returns whether nothing was changed. */
static bool put_journal(const uint8_t *data, size_t size)
{
    static struct {
        uint8_t bytes[PAGES];
        size_t n;
        bool made;
    } kept[6];
    int step = data[0] % 6;
    char *lines = strndup((const char *)data + 1, size - 1), *rest = lines, *line;
    bool same = true;

    odd_tables = false;
    require(lines != NULL);
    if (!kept[step].made)
        kept[step].n = make_journal(step, kept[step].bytes);
    kept[step].made = true;
    if (step)
        write_at(0, kept[step].bytes, kept[step].n);
    while (step && (line = strsep(&rest, "\n")) != NULL)
        if (*line) {
            run_line(line);
            same = false;
        }
    free(lines);
    return same;
}

/* ---- going on with it */

static void refused(int rc, const struct sl_error *e)
{
    require((rc == SL_EFAIL || rc == SL_EEXISTS || rc == SL_ENOSPACE) && e->code == rc && strstr(e->text, MARK) && sl_utf8_all_shown(e->text));
}

static void count_done(void *user, uint32_t task, uint64_t checksum)
{
    (void)checksum;
    require(task < SL_TASKS_MAX);
    ++*(uint32_t *)user;
}

static void say(struct sl_coord *c, struct sl_now now, struct sl_msg *m)
{
    const struct sl_peer worker = {.id = 1, .role = SL_ROLE_ADMIN, .user = "w"};
    struct sl_error e;
    uint8_t *bytes;
    size_t n;

    require(sl_wire_encode(m, &bytes, &n, &e) == 0);
    if (sl_coord_receive(c, &worker, bytes, n, now, &e) < 0)
        unheard = e;
    free(bytes);
    sl_msg_free(m);
}

static void hello(struct sl_coord *c, struct sl_now now)
{
    struct sl_error e;
    struct sl_msg m;

    require(sl_msg_new(SL_M_HELLO, NULL, &m, &e) == 0);
    sl_put_str(m.tree, "role", "worker");
    sl_put_str(m.tree, "version", "f");
    sl_put_str(m.tree, "instance", INSTANCE);
    sl_put_str(m.tree, "name", "convert");
    sl_put_str(m.tree, "host", "h");
    sl_put_str(m.tree, "bytes", "1");
    say(c, now, &m);
    require(sl_msg_new(SL_M_PULL, NULL, &m, &e) == 0);
    sl_put_uint(m.tree, "want", 64);
    say(c, now, &m);
}

/* What a worker that can do all says to a grant. */
static void do_granted(struct sl_coord *c, struct sl_now now, const cJSON *grant)
{
    const cJSON *lease;

    cJSON_ArrayForEach(lease, sl_get(grant, "tasks")) {
        uint64_t task = sl_get_uint(lease, "task", UINT64_MAX);
        struct sl_error e;
        struct sl_msg m;

        require(task < TASKS || (task >= SL_TASKS_MAX && task <= SL_TASK_LAST));
        require(sl_msg_new(SL_M_RESULT, NULL, &m, &e) == 0);
        sl_put_uint(m.tree, "job", sl_get_uint(grant, "job", 0));
        sl_put_uint(m.tree, "task", task);
        sl_put_uint(m.tree, "epoch", sl_get_uint(lease, "epoch", 0));
        sl_put_uint(m.tree, "bytes", task < TASKS ? the_plan()->tasks[task].out_bytes : the_plan()->file_bytes);
        if (task < TASKS)
            sl_put_hex64(m.tree, "checksum", 7);
        if (task == SL_TASK_PUBLISH)
            sl_put_strs(m.tree, "files", (const char *const[]){"/o/x.gguf"}, 1);
        say(c, now, &m);
    }
}

static void read_answers(struct sl_coord *c, struct sl_now now)
{
    struct sl_outgoing out;

    while (sl_coord_next(c, &out)) {
        struct sl_error e;
        struct sl_msg m;

        require(sl_wire_decode(out.bytes, out.n, SL_FROM_DAEMON, &m, NULL, NULL, &e) == 0);
        if (m.id == SL_M_GRANT)
            do_granted(c, now, m.tree);
        sl_msg_free(&m);
        free(out.bytes);
    }
}

/* As convert_threads.c sets it up. Errors: those of the coordinator, in its words. */
static int coordinate(struct convert_store *s, struct sl_error *e)
{
    const struct sl_coord_opts o = {.heartbeat_ms = 3600000, .lease_ms = 3600000, .attempts = 1, .version = "f", .bytes_version = "1",
                                    .daemon_id = "000102030405060708090a0b0c0d0e0f"};
    struct sl_now now = {1000, 1700000000000};
    struct sl_coord *c;
    int rc = sl_coord_open(convert_store_queue(s), &o, now, &c, e);

    if (rc < 0)
        return rc;
    unheard.code = 0;
    hello(c, now);
    for (int round = 0; round < 12 && rc == 0 && !unheard.code; round++) {
        now.run_ms += 2000;
        if ((rc = sl_coord_tick(c, now, e)) == 0 && (rc = sl_coord_flush(c, now, e)) == 0)
            read_answers(c, now);
    }
    if (rc == 0 && unheard.code)
        rc = (*e = unheard).code;
    if (rc == 0)
        rc = sl_coord_settle(c, now, e);
    sl_coord_close(c);
    return rc;
}

/* What convert_begun.c looks at, then what convert_run.c does. */
static int go_on(struct convert_store *s, struct sl_error *e)
{
    struct convert_begun b;
    uint32_t n = 0;
    int state;

    SL_TRY(convert_store_begun(s, &b, e));
    require(!b.recipe == !b.recipe_text && !b.recipe == !b.fingerprint);
    convert_begun_free(&b);
    SL_TRY(state = convert_store_state(s, e));
    SL_TRY(begin(s, e));
    SL_TRY(convert_store_each(s, count_done, &n, e));
    require(convert_store_job(s) != 0);
    if (state == CONVERT_PUBLISHED)
        return 0;
    SL_TRY(convert_store_go_on(s, e));
    SL_TRY(coordinate(s, e));
    SL_TRY(state = convert_store_state(s, e));
    require(state == CONVERT_PUBLISHED || odd_tables); /* it stands still for nobody */
    return convert_store_interrupted(s, e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct convert_store *s;
    struct sl_error e = {0};
    bool same;
    int rc;

    if (size < 1 || size > 1 << 14)
        return 0;
    snprintf(path, sizeof path, "%s" MARK, fuzz_dir());
    same = put_journal(data, size);
    rc = convert_store_open(path, &s, &e);
    if (rc == 0) {
        rc = go_on(s, &e);
        convert_store_close(s);
    }
    if (getenv("FUZZ_SAYS"))
        fprintf(stderr, "%d %s\n", rc, rc < 0 ? e.text : "");
    if (rc < 0)
        refused(rc, &e);
    require(!same || rc == 0);
    convert_store_remove(path);
    return 0;
}

/* ---- mutations */

static const char *one_of(const char *const *words, size_t n, uint64_t *s)
{
    return words[json_random(s) % n];
}
#define ONE_OF(words) one_of(words, sizeof(words) / sizeof *(words), &s)

/* A value of a row becomes another, a row goes or comes twice. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    static const char *const numbers[] = {"0", "1", "2", "3", "4", "5", "8", "9", "-1", "65535", "65536", "65537", "65538", "65540", "65541",
                                          "2147483648", "4294967295", "4294967298", "9223372036854775807", "-9223372036854775808"};
    static const char *const texts[] = {"''", "'{}'", "'x'", "printf('%.9000c','y')", "char(27)||'[31m'", "CAST(x'ff00' AS TEXT)", "'[1]'",
                                        "'{\"source\":\"/s\",\"output\":\"/o\",\"recipe\":1,\"recipe_text\":[]}'", "fingerprint", "spec", "error"};
    static const char *const job[] = {"id", "grp", "state", "priority", "attempts", "manual", "verify", "submitted", "started", "ended", "code",
                                      "n_tasks", "src_bytes", "file_bytes"};
    static const char *const job_text[] = {"user", "spec", "error", "files", "fingerprint", "p_source", "p_recipe", "p_options", "p_version"};
    static const char *const task[] = {"job", "task", "state", "epoch", "attempts", "checksum", "src", "out", "shard"};
    static const char *const other[] = {"DELETE FROM counters", "UPDATE counters SET value=-1", "UPDATE counters SET value=9223372036854775807",
                                        "INSERT INTO after VALUES(1,1)", "INSERT INTO labels VALUES(1,'a')", "DELETE FROM jobs",
                                        "INSERT INTO tasks(job,task,state) VALUES(1,65540,0)", "PRAGMA user_version=1", "PRAGMA user_version=3",
                                        "DROP TABLE tasks", "CREATE TABLE x(y)", "DROP TABLE failures", "PRAGMA application_id=0",
                                        "INSERT INTO failures VALUES(1,0,1,'w',9,'no',1,1)", "PRAGMA journal_mode=DELETE"};
    uint64_t s = seed, way = json_random(&s) % 8;
    char line[400] = "";
    size_t n;

    if (size == 0 || way == 0)
        return LLVMFuzzerMutate(data, size, max);
    if (way < 3)
        snprintf(line, sizeof line, "\nUPDATE tasks SET %s=%s WHERE task=%s", ONE_OF(task), ONE_OF(numbers), ONE_OF(numbers));
    else if (way < 5)
        snprintf(line, sizeof line, "\nUPDATE jobs SET %s=%s", ONE_OF(job), ONE_OF(numbers));
    else if (way < 6)
        snprintf(line, sizeof line, "\nUPDATE jobs SET %s=%s", ONE_OF(job_text), ONE_OF(texts));
    else if (way < 7)
        snprintf(line, sizeof line, "\n%s", ONE_OF(other));
    else
        snprintf(line, sizeof line, "\n@%llu %02x%02x", (unsigned long long)(json_random(&s) % 70000), (unsigned)(json_random(&s) & 255),
                 (unsigned)(json_random(&s) & 255));
    n = strlen(line);
    if (size + n > max || (size > 1000 && json_random(&s) % 2))
        return 1;
    memcpy(data + size, line, n);
    return size + n;
}
