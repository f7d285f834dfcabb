#include "client/record_fields.h"

#include "client/cli.h"
#include "client/time_text.h"
#include "proto/clock.h"
#include "proto/size_text.h"
#include "proto/utf8.h"
#include "proto/wire.h"

#include <cjson/cJSON.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

static void put(char out[CELL_MAX], const char *text)
{
    snprintf(out, CELL_MAX, "%s", text ? text : "");
}

static void put_number(char out[CELL_MAX], const cJSON *r, const char *field)
{
    out[0] = 0;
    if (sl_get(r, field))
        snprintf(out, CELL_MAX, "%llu", (unsigned long long)sl_get_uint(r, field, 0));
}

/* Bytes, per second where `unit` says so. */
#define BYTES(fn, field, unit)                                             \
    static void fn(const cJSON *r, bool raw, char out[CELL_MAX])           \
    {                                                                      \
        put_bytes(out, r, field, unit, raw);                               \
    }
#define TIME(fn, field)                                                    \
    static void fn(const cJSON *r, bool raw, char out[CELL_MAX])           \
    {                                                                      \
        put_time(out, r, field, raw);                                      \
    }

static void put_bytes(char out[CELL_MAX], const cJSON *r, const char *field, const char *unit,
                      bool raw)
{
    char size[32];
    uint64_t v = sl_get_uint(r, field, 0);

    if (raw)
        put_number(out, r, field);
    else if (v)
        snprintf(out, CELL_MAX, "%s%s", sl_size_text(size, v), unit);
    else
        out[0] = 0;
}

static void put_time(char out[CELL_MAX], const cJSON *r, const char *field, bool raw)
{
    uint64_t ms = sl_get_uint(r, field, 0);
    char text[32];

    out[0] = 0;
    if (ms)
        put(out, raw ? time_utc(text, ms) : time_short(text, ms, sl_wall_ms()));
}

TIME(submitted, "submitted")
TIME(started, "started")
TIME(ended, "ended")
BYTES(source_bytes, "src_bytes", "")
BYTES(done_bytes, "done_bytes", "")
BYTES(file_bytes, "file_bytes", "")
BYTES(rate, "rate", "/s")
TIME(event_time, "time")
BYTES(mem, "mem", "")
BYTES(worker_bytes, "bytes", "")

/* One of each GPU, "61,58"; nothing for a worker without. */
static void put_gpus(char out[CELL_MAX], const cJSON *r, const char *field, bool raw)
{
    const cJSON *g;
    size_t n = 0;

    out[0] = 0;
    cJSON_ArrayForEach(g, sl_get(r, "gpus")) {
        char text[CELL_MAX];

        if (strcmp(field, "name") == 0)
            put(text, sl_get_str(g, field));
        else if (strcmp(field, "memory_used") == 0)
            put_bytes(text, g, field, "", raw);
        else
            put_number(text, g, field);
        if (n < CELL_MAX)
            n += (size_t)snprintf(out + n, CELL_MAX - n, "%s%s", n ? "," : "", *text ? text : "-");
    }
    if (n == 0 && !raw)
        put(out, "-");
}

#define GPUS(fn, field)                                                    \
    static void fn(const cJSON *r, bool raw, char out[CELL_MAX])           \
    {                                                                      \
        put_gpus(out, r, field, raw);                                      \
    }
GPUS(gpu, "name")
GPUS(celsius, "celsius")
GPUS(watts, "watts")
GPUS(vram, "memory_used")

void record_why(const cJSON *job, char *buf, size_t cap)
{
    const char *text = sl_get_str(job, "reason"), *state = sl_get_str(job, "state");

    if (!text || !*text)
        text = sl_get_str(job, "error");
    if (text && state && strcmp(state, "held") == 0)
        snprintf(buf, cap, "%s; 'sluice release %llu' lets it go on", text,
                 (unsigned long long)sl_get_uint(job, "id", 0));
    else
        snprintf(buf, cap, "%s", text ? text : "");
}

/* Why it waits, or why it failed. */
static void reason(const cJSON *r, bool raw, char out[CELL_MAX])
{
    const char *text = sl_get_str(r, "reason");

    if (raw)
        put(out, text && *text ? text : sl_get_str(r, "error"));
    else
        record_why(r, out, CELL_MAX);
}

void record_source_name(const cJSON *r, bool raw, char out[CELL_MAX])
{
    const char *path = sl_get_str(r, "source");
    size_t n = path ? strlen(path) : 0, from;

    (void)raw;
    while (n > 1 && path[n - 1] == '/')
        n--;
    for (from = n; from > 0 && path[from - 1] != '/'; from--)
        ;
    snprintf(out, CELL_MAX, "%.*s", (int)(n - from), n ? path + from : "");
}

static void progress(const cJSON *r, bool raw, char out[CELL_MAX])
{
    uint64_t all = sl_get_uint(r, "src_bytes", 0), part = sl_get_uint(r, "done_bytes", 0);
    const char *s = sl_get_str(r, "state");
    double share = all ? 100.0 * (double)part / (double)all : 0;

    if (s && strcmp(s, "succeeded") == 0)
        share = 100;
    else if (share > 99.9 && sl_get_uint(r, "done", 0) < sl_get_uint(r, "tasks", 0))
        share = 99.9;
    if (all == 0 && share == 0)
        put(out, raw ? "" : "-");
    else if (raw)
        snprintf(out, CELL_MAX, "%.1f", share);
    else
        snprintf(out, CELL_MAX, "%d%%", (int)share);
}

static void eta(const cJSON *r, bool raw, char out[CELL_MAX])
{
    uint64_t all = sl_get_uint(r, "src_bytes", 0), part = sl_get_uint(r, "done_bytes", 0);
    uint64_t speed = sl_get_uint(r, "rate", 0);
    char text[32];

    out[0] = 0;
    if (!speed || part >= all)
        return;
    if (raw)
        snprintf(out, CELL_MAX, "%llu", (unsigned long long)((all - part) / speed));
    else
        put(out, time_left(text, all - part, speed));
}

static void elapsed(const cJSON *r, bool raw, char out[CELL_MAX])
{
    uint64_t from = sl_get_uint(r, "started", 0), to = sl_get_uint(r, "ended", sl_wall_ms());
    char text[32];

    out[0] = 0;
    if (!from || to < from)
        return;
    if (raw)
        snprintf(out, CELL_MAX, "%llu", (unsigned long long)((to - from) / 1000));
    else
        put(out, time_span(text, to - from));
}

static void seen(const cJSON *r, bool raw, char out[CELL_MAX])
{
    char text[32];

    if (raw)
        put_number(out, r, "seen");
    else
        snprintf(out, CELL_MAX, "%s ago", time_span(text, sl_get_uint(r, "seen", 0)));
}

const char *const job_states[] = {"queued",    "held",   "running",   "stitching",   "verifying",
                                  "succeeded", "failed", "cancelled", "interrupted", NULL};

/* What each means is in sluice(1), "Form of lists". */
const struct column job_columns[] = {
    {"id", true, NULL}, {"state", false, NULL}, {"reason", false, reason}, {"priority", true, NULL},
    {"recipe", false, NULL}, {"name", false, record_source_name}, {"source", false, NULL}, {"output", false, NULL},
    {"prefix", false, NULL}, {"user", false, NULL}, {"labels", false, NULL}, {"after", false, NULL},
    {"group", true, NULL}, {"progress", true, progress}, {"rate", true, rate}, {"eta", true, eta},
    {"elapsed", true, elapsed}, {"submitted", false, submitted}, {"started", false, started}, {"ended", false, ended},
    {"tasks", true, NULL}, {"done", true, NULL}, {"leased", true, NULL}, {"quarantined", true, NULL},
    {"source_bytes", true, source_bytes}, {"done_bytes", true, done_bytes}, {"file_bytes", true, file_bytes}, {"code", true, NULL},
    {"error", false, NULL}, {"files", false, NULL}, {NULL, false, NULL},
};

const struct column worker_columns[] = {
    {"name", false, NULL}, {"host", false, NULL}, {"device", false, NULL}, {"state", false, NULL},
    {"held", true, NULL}, {"job", true, NULL}, {"task", true, NULL}, {"tensor", false, NULL}, {"rate", true, rate},
    {"done", true, NULL}, {"done_bytes", true, worker_bytes}, {"seen", true, seen}, {"threads", true, NULL}, {"mem", true, mem},
    {"gpu", false, gpu}, {"celsius", true, celsius}, {"watts", true, watts}, {"vram", true, vram},
    {"pid", true, NULL}, {"instance", false, NULL}, {NULL, false, NULL},
};

const struct column event_columns[] = {
    {"id", true, NULL}, {"time", false, event_time}, {"job", true, NULL}, {"task", true, NULL},
    {"worker", false, NULL}, {"kind", false, NULL}, {"text", false, NULL}, {NULL, false, NULL},
};

#define N_TIMES 4
static void times_as_text(cJSON *item)
{
    static const char *const names[N_TIMES] = {"time", "submitted", "started", "ended"};
    cJSON *child, *next;

    for (child = item->child; child; child = next) {
        size_t which = 0;
        char text[32];

        next = child->next;
        while (which < N_TIMES && (!child->string || strcmp(child->string, names[which]) != 0))
            which++;
        if (which < N_TIMES && cJSON_IsNumber(child) && child->valuedouble >= 0)
            cJSON_ReplaceItemInObjectCaseSensitive(
                item, names[which], cJSON_CreateString(time_utc(text, (uint64_t)child->valuedouble)));
        else
            times_as_text(child);
    }
}

/* The wire's names of what JSON calls otherwise everywhere. */
static void rename_fields(cJSON *item)
{
    cJSON *child, *next;

    for (child = item->child; child; child = next) {
        const char *name = !child->string ? NULL : strcmp(child->string, "src_bytes") == 0 ? "source_bytes"
                           : strcmp(child->string, "bytes") == 0 ? "done_bytes" : NULL;

        next = child->next;
        rename_fields(child);
        if (name)
            cJSON_AddItemToObject(item, name, cJSON_DetachItemViaPointer(item, child));
    }
}

cJSON *record_json(const struct cJSON *record)
{
    cJSON *copy = cJSON_Duplicate(record, 1);

    if (copy) {
        times_as_text(copy);
        rename_fields(copy);
    }
    return copy;
}

#define NAMES 16

/* Names that were looked up; each once, for the user database may be far away. */
struct names {
    unsigned n, next;
    struct {
        unsigned long uid;
        char name[65];       /* "": it has none */
    } of[NAMES];
};

static const char *look_up(struct names *names, unsigned long uid)
{
    const struct passwd *p;
    unsigned i;

    for (i = 0; i < names->n; i++)
        if (names->of[i].uid == uid)
            return names->of[i].name;
    i = names->n < NAMES ? names->n++ : names->next++ % NAMES;
    p = getpwuid((uid_t)uid);
    names->of[i].uid = uid;
    snprintf(names->of[i].name, sizeof names->of[i].name, "%s", p ? p->pw_name : "");
    return names->of[i].name;
}

/* The name behind the "uid:N" that text begins with, and *n = its bytes; NULL when there is none. */
static const char *name_of_uid(struct names *names, const char *text, size_t *n)
{
    const char *name;
    unsigned long uid;
    char *end;

    if (strncmp(text, "uid:", 4) != 0)
        return NULL;
    uid = strtoul(text + 4, &end, 10);
    if (end == text + 4 || (*end && *end != ' ' && *end != ':'))
        return NULL;
    *n = (size_t)(end - text);
    name = look_up(names, uid);
    return *name ? name : NULL;
}

/* Effect: the "uid:N" behind `before` becomes a name. before: what the field's text begins with, or has anywhere. */
static void name_user(struct names *names, cJSON *record, const char *field, const char *before, bool anywhere)
{
    const char *text = sl_get_str(record, field), *at = text, *name;
    size_t n;
    char *named;

    if (text && anywhere)
        at = strstr(text, before);
    if (!at || strncmp(at, before, strlen(before)) != 0)
        return;
    at += strlen(before);
    if (!(name = name_of_uid(names, at, &n)) ||
        asprintf(&named, "%.*s%s%s", (int)(at - text), text, name, at + n) < 0)
        return;
    cJSON_ReplaceItemInObjectCaseSensitive(record, field, cJSON_CreateString(named));
    free(named);
}

static void name_all(struct names *names, struct cJSON *record)
{
    const char *kind = sl_get_str(record, "kind");
    cJSON *item;

    if (cJSON_IsArray(record)) {
        cJSON_ArrayForEach(item, record)
            name_all(names, item);
        return;
    }
    name_user(names, record, "user", "", false);
    name_user(names, record, "reason", "held by ", false);
    name_user(names, record, "error", "cancelled by ", false);
    if (kind && strcmp(kind, "set") == 0)
        name_user(names, record, "text", "by ", false);
    else if (kind && strcmp(kind, "submitted") == 0)
        name_user(names, record, "text", "", false);
    else if (kind && strcmp(kind, "state") == 0) {
        name_user(names, record, "text", "held: held by ", false);
        name_user(names, record, "text", "cancelled: cancelled by ", false);
    } else if (kind && strcmp(kind, "worker_joined") == 0)
        name_user(names, record, "text", ", ", true);
}

void record_name_users(struct cJSON *record)
{
    struct names names = {.n = 0};

    name_all(&names, record);
}

void record_disarm(struct cJSON *record)
{
    cJSON *x;

    if (cJSON_IsString(record))
        sl_utf8_disarm(record->valuestring);
    cJSON_ArrayForEach(x, record)
        record_disarm(x);
}
