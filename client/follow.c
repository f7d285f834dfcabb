#include "client/follow.h"

#include "client/interrupt.h"
#include "client/progress.h"
#include "client/record_fields.h"
#include "client/term.h"
#include "client/time_text.h"
#include "client/watch_view.h"
#include "proto/clock.h"
#include "proto/gguf.h"
#include "proto/size_text.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DRAW_MS 500
#define FAILURES 64

struct state {
    struct daemon_link *l;
    const struct follow *f;
    bool draw;              /* a terminal that can */
    char *drawn;            /* lines on the screen; NULL: none */
    uint64_t last_event;
    uint64_t next_plain;    /* ms: when plain lines are due */
    uint64_t end_ms;        /* when it gives up */
    cJSON *kept;            /* event of a task that failed for good: its job's end may say the same */
    char *failure[FAILURES]; /* of a task, as it was shown last for a job: at its number */
    bool told[IDS_MAX];     /* whose failure stands on standard error, by place in ids */
    unsigned n_ended;
    cJSON *ended[IDS_MAX];  /* record `job`, by place in ids */
};

static struct winsize window(void)
{
    struct winsize ws = {0};

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) != 0 || !ws.ws_col || !ws.ws_row)
        ws = (struct winsize){.ws_row = 24, .ws_col = 80};
    return ws;
}

static void erase(struct state *s)
{
    struct winsize ws = window();
    unsigned rows = s->drawn ? watch_rows(s->drawn, ws.ws_col) : 0;

    if (rows)
        fprintf(stderr, "\033[%uA\r\033[J", rows < ws.ws_row ? rows : ws.ws_row);
    free(s->drawn);
    s->drawn = NULL;
}

/* Watch for what is seen, wait for the ends. */
static int ask_again(struct state *s, struct sl_error *e)
{
    const struct ids *ids = s->f->ids;
    struct sl_msg m;

    if (s->f->show || s->f->json) {
        SL_TRY(sl_msg_new(SL_M_WATCH, NULL, &m, e));
        if (ids->n)
            sl_put_uints(m.tree, "jobs", ids->id, ids->n);
        if (s->last_event)
            sl_put_uint(m.tree, "since", s->last_event);
        sl_put_uint(m.tree, "every_ms", s->draw ? DRAW_MS : 1000);
        SL_TRY(daemon_link_send(s->l, &m, "watch", e));
    }
    if (ids->n) {
        SL_TRY(sl_msg_new(SL_M_WAIT, NULL, &m, e));
        sl_put_uints(m.tree, "jobs", ids->id, ids->n);
        SL_TRY(daemon_link_send(s->l, &m, "wait", e));
    }
    return 0;
}

static void show_status(struct state *s, const cJSON *m)
{
    cJSON *jobs = sl_get(m, "jobs"), *j;
    char buf[1400];
    uint64_t now = now_ms();

    if (s->f->names && !s->f->json)
        record_name_users(jobs);
    if (!s->f->json) {
        record_disarm(jobs);
        record_disarm(sl_get(m, "workers"));
    }
    if (s->draw) {
        struct winsize ws = window();

        erase(s);
        watch_screen(jobs, sl_get(m, "workers"), ws.ws_col - 1, ws.ws_row > 2 ? ws.ws_row - 1u : 2,
                     &s->drawn);
        if (s->drawn)
            fputs(s->drawn, stderr);
        fflush(stderr);
        return;
    }
    if (now < s->next_plain)
        return;
    s->next_plain = now + s->f->every_ms;
    if (s->f->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddItemToObject(o, "jobs", record_json(jobs));
        cJSON_AddItemToObject(o, "workers", record_json(sl_get(m, "workers")));
        json_line(o, "status");
        return;
    }
    cJSON_ArrayForEach(j, jobs)
        fprintf(s->f->plain, "%s\n", watch_plain(buf, sizeof buf, j));
    fflush(s->f->plain);
}

/* Whether a task fails as the last one of its job did. */
static bool same_failure(struct state *s, const cJSON *ev)
{
    uint64_t job = sl_get_uint(ev, "job", 0);
    char text[1400], **last = &s->failure[job % FAILURES];

    snprintf(text, sizeof text, "%llu %s", (unsigned long long)job, sl_get_str(ev, "text"));
    if (*last && strcmp(*last, text) == 0)
        return true;
    free(*last);
    *last = strdup(text);
    return false;
}

static void print_event(struct state *s, const cJSON *ev, const char *text)
{
    const char *kind = sl_get_str(ev, "kind"), *worker = sl_get_str(ev, "worker");
    FILE *to = s->draw ? stderr : s->f->plain;
    char when[32];

    erase(s);
    if (strcmp(kind, "task_failed") == 0 && same_failure(s, ev))
        text = "failed again in the same way";
    fprintf(to, "%s  ", time_short(when, sl_get_uint(ev, "time", 0), sl_wall_ms()));
    if (sl_get(ev, "job"))
        fprintf(to, "job %llu: ", (unsigned long long)sl_get_uint(ev, "job", 0));
    else /* "w1: worker joined: cpu on node7": its text alone would say too little */
        fprintf(to, "%s%s%s: ", worker && *worker ? worker : "", worker && *worker ? ": " : "", kind);
    fprintf(to, "%s\n", text);
    fflush(to);
}

static void show_kept(struct state *s)
{
    if (s->kept)
        print_event(s, s->kept, sl_get_str(s->kept, "text"));
    cJSON_Delete(s->kept);
    s->kept = NULL;
}

/* What follows "failed: " or "cancelled: " in a job's state; NULL: it did not end so. */
static const char *why_ended(const cJSON *ev)
{
    const char *text = sl_get_str(ev, "text");
    bool ended = strncmp(text, "failed: ", 8) == 0 || strncmp(text, "cancelled: ", 11) == 0;

    return ended && strcmp(sl_get_str(ev, "kind"), "state") == 0 ? strchr(text, ':') + 2 : NULL;
}

/* A job's end that is no good one: said once, and in full by the verdict where that is of one job. */
static void show_end(struct state *s, const cJSON *ev, const char *why)
{
    const struct ids *ids = s->f->ids;
    uint64_t job = sl_get_uint(ev, "job", 0);
    const char *text = sl_get_str(ev, "text"), *kept = s->kept ? sl_get_str(s->kept, "text") : "";
    bool here = s->draw || s->f->plain == stderr; /* where the verdict goes */
    char word[16];

    snprintf(word, sizeof word, "%.*s", (int)strcspn(text, ":"), text);
    if (s->kept && sl_get_uint(s->kept, "job", 0) == job
        && strncmp(why, kept, strlen(kept) < 600 ? strlen(kept) : 600) == 0) {
        cJSON_Delete(s->kept);
        s->kept = NULL;
    }
    show_kept(s);
    if (ids->n != 1 || !here)
        print_event(s, ev, ids->n == 1 ? word : text);
    for (unsigned i = 0; ids->n > 1 && i < ids->n; i++)
        s->told[i] |= here && ids->id[i] == job;
}

static void show_event(struct state *s, cJSON *ev)
{
    uint64_t id = sl_get_uint(ev, "id", 0);
    const char *why;

    if (id > s->last_event)
        s->last_event = id;
    if (s->f->json) {
        json_line(record_json(ev), "event");
        return;
    }
    if (!s->f->show)
        return;
    if (s->f->names)
        record_name_users(ev);
    record_disarm(ev);
    why = why_ended(ev);
    if (why) {
        show_end(s, ev, why);
        return;
    }
    show_kept(s);
    if (strcmp(sl_get_str(ev, "kind"), "quarantined") == 0)
        s->kept = cJSON_Duplicate(ev, 1);
    if (!s->kept)
        print_event(s, ev, sl_get_str(ev, "text"));
}

/* Keeps the end of a job, once. */
static int take_end(struct state *s, const cJSON *job, struct sl_error *e)
{
    uint64_t id = sl_get_uint(job, "id", 0);

    for (unsigned i = 0; i < s->f->ids->n; i++) {
        if (s->f->ids->id[i] != id || s->ended[i])
            continue;
        s->ended[i] = cJSON_Duplicate(job, 1);
        if (!s->ended[i])
            return sl_no_memory(e);
        s->n_ended++;
        if (s->f->json)
            json_line(record_json(job), "job_ended");
    }
    return 0;
}

static int take(struct state *s, const struct sl_msg *m, struct sl_error *e)
{
    const char *re = sl_get_str(m->tree, "re");
    uint64_t last;

    switch (m->id) {
    case SL_M_WATCHING:
        last = sl_get_uint(m->tree, "last", 0);
        if (s->last_event == 0)
            s->last_event = last;
        return 0;
    case SL_M_STATUS:
        show_status(s, m->tree);
        return 0;
    case SL_M_EVENT:
        show_event(s, sl_get(m->tree, "event"));
        return 0;
    case SL_M_ENDED:
        return take_end(s, sl_get(m->tree, "job"), e);
    case SL_M_ERROR:
        if (!re || (strcmp(re, "watch") != 0 && strcmp(re, "wait") != 0))
            return 0;
        return sl_msg_fail(m, e);
    default:
        return 0;
    }
}

static int out_of_time(const struct state *s, struct sl_error *e)
{
    unsigned i = 0, left = s->f->ids->n - s->n_ended;

    while (s->ended[i])
        i++;
    if (left > 1)
        return sl_fail(e, SL_ETIMEOUT, "job %llu and %u more have not ended in that time; they go on",
                       (unsigned long long)s->f->ids->id[i], left - 1);
    return sl_fail(e, SL_ETIMEOUT, "job %llu has not ended in that time; it goes on",
                   (unsigned long long)s->f->ids->id[i]);
}

static int one_event(struct state *s, struct sl_error *e)
{
    struct sl_msg m;
    uint64_t now = now_ms();
    int rc;

    if (now >= s->end_ms)
        return out_of_time(s, e);
    rc = daemon_link_next(s->l, s->end_ms - now < 1000 ? (int)(s->end_ms - now) : 1000, &m, e);
    SL_TRY(rc);
    if (rc != DAEMON_LINK_MESSAGE || m.id != SL_M_EVENT)
        show_kept(s);
    if (rc == DAEMON_LINK_MESSAGE) {
        rc = take(s, &m, e);
        sl_msg_free(&m);
        return rc;
    }
    if (rc == DAEMON_LINK_LOST) {
        erase(s);
        fprintf(stderr, "sluice %s: the daemon at %s is away; waiting for it (the jobs are safe)\n",
                s->f->verb, daemon_link_endpoint(s->l));
    } else if (rc == DAEMON_LINK_BACK) {
        return ask_again(s, e);
    }
    return 0;
}

/* Where the files of what succeeded are. */
static void show_files(const struct state *s)
{
    for (unsigned i = 0; i < s->f->ids->n; i++) {
        cJSON *files = sl_get(s->ended[i], "files");
        const char *first = cJSON_GetStringValue(cJSON_GetArrayItem(files, 0));
        uint32_t no, n;
        char size[32];

        if (!first || strcmp(sl_get_str(s->ended[i], "state"), "succeeded") != 0)
            continue;
        if (!sl_gguf_split_suffix(first, &no, &n))
            n = 1;
        record_disarm(files);
        fprintf(s->draw ? stderr : s->f->plain, "job %llu made %s",
                (unsigned long long)s->f->ids->id[i], first);
        if (n > 1)
            fprintf(s->draw ? stderr : s->f->plain, " and %u more", n - 1);
        fprintf(s->draw ? stderr : s->f->plain, ", %s\n",
                sl_size_text(size, sl_get_uint(s->ended[i], "file_bytes", 0)));
    }
}

static bool ended_well(const cJSON *job)
{
    const char *state = sl_get_str(job, "state");

    return sl_get_uint(job, "code", 0) == 0 && state && strcmp(state, "succeeded") == 0;
}

/* The first job, in order, that did not end well decides. */
static int verdict(const struct state *s, struct sl_error *e)
{
    unsigned first = 0, more = 0;
    const char *state, *why;
    char others[64] = "";
    int code;

    while (first < s->f->ids->n && ended_well(s->ended[first]))
        first++;
    if (first == s->f->ids->n)
        return 0;
    for (unsigned i = first + 1; i < s->f->ids->n; i++)
        more += !ended_well(s->ended[i]);
    if (more)
        snprintf(others, sizeof others, "; %u more did not end well", more);
    record_name_users(s->ended[first]);
    state = sl_get_str(s->ended[first], "state");
    why = s->told[first] ? "see above" : sl_get_str(s->ended[first], "error");
    code = (int)sl_get_uint(s->ended[first], "code", 0);
    return sl_fail(e, code ? -code : SL_EFAIL, "job %llu %s%s%s%s", (unsigned long long)s->f->ids->id[first],
                   code == -SL_EWARN && state && strcmp(state, "succeeded") == 0
                       ? "succeeded with warnings" : state ? state : "ended",
                   why && *why ? ": " : "", why ? why : "", others);
}

int follow_jobs(struct daemon_link *l, const struct follow *f, struct sl_error *e)
{
    struct state *s = calloc(1, sizeof *s);
    int rc;

    if (!s)
        return sl_no_memory(e);
    s->l = l;
    s->f = f;
    s->end_ms = f->limit_ms ? now_ms() + f->limit_ms : UINT64_MAX;
    s->draw = f->show && !f->json && term_can_draw(STDERR_FILENO);
    rc = ask_again(s, e);
    while (rc == 0 && !interrupt_asked() && (f->ids->n == 0 || s->n_ended < f->ids->n)) {
        rc = one_event(s, e);
        if (rc == 0 && (f->json || (f->show && !s->draw && f->plain == stdout)))
            rc = json_lost() ? sl_no_memory(e) : output_alive(e);
    }
    show_kept(s);
    erase(s);
    if (rc == 0 && f->show && !f->json && !interrupt_asked())
        show_files(s);
    if (rc == 0)
        rc = interrupt_asked() ? sl_fail(e, SL_EINTERRUPTED, "detached; the jobs go on")
                               : verdict(s, e);
    for (unsigned i = 0; i < f->ids->n; i++)
        cJSON_Delete(s->ended[i]);
    for (unsigned i = 0; i < FAILURES; i++)
        free(s->failure[i]);
    free(s);
    return rc;
}
