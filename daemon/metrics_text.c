#include "daemon/metrics_text.h"

#include "proto/text_line.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STAGES_TIMED 4 /* of sl_stage_name; the rest are queues */

static void head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP sluice_%s %s\n# TYPE sluice_%s %s\n", name, help, name, type);
}

static void whole(FILE *f, const char *name, const char *type, uint64_t v, const char *help)
{
    head(f, name, type, help);
    fprintf(f, "sluice_%s %llu\n", name, (unsigned long long)v);
}

static void real(FILE *f, const char *name, const char *type, double v, const char *help)
{
    head(f, name, type, help);
    fprintf(f, "sluice_%s %.3f\n", name, v);
}

static void label(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', f);
        fputc((unsigned char)*text < 0x20 ? ' ' : *text, f);
    }
}

static void queue_part(FILE *f, const struct sl_metrics_figures *g)
{
    const struct sl_coord_stats *c = &g->coord;
    const struct sl_event_tally *t = &g->events;

    head(f, "jobs", "gauge", "Jobs that have not ended, by state.");
    for (int s = 0; s < SL_JOB_STATES; s++)
        if (!sl_job_ended((enum sl_job_state)s))
            fprintf(f, "sluice_jobs{state=\"%s\"} %u\n", sl_job_state_name((enum sl_job_state)s),
                    c->jobs[s]);
    head(f, "jobs_ended_total", "counter", "Jobs that ended since the daemon started, by how.");
    for (int s = 0; s < SL_JOB_STATES; s++)
        if (sl_job_ended((enum sl_job_state)s))
            fprintf(f, "sluice_jobs_ended_total{state=\"%s\"} %llu\n",
                    sl_job_state_name((enum sl_job_state)s), (unsigned long long)t->ended[s]);
    whole(f, "jobs_submitted_total", "counter", t->submitted, "Jobs submitted.");
    head(f, "tasks", "gauge", "Tasks of unfinished jobs that are ready to be done, or leased.");
    fprintf(f, "sluice_tasks{state=\"ready\"} %u\nsluice_tasks{state=\"leased\"} %u\n", c->ready,
            c->leased);
    whole(f, "task_grants_total", "counter", c->grants, "Leases granted.");
    whole(f, "task_results_total", "counter", c->results, "Results committed.");
    whole(f, "task_results_stale_total", "counter", c->stale,
          "Results refused because their lease was not the current one.");
    whole(f, "task_failures_total", "counter", c->failures, "Failures that workers told.");
    whole(f, "task_leases_expired_total", "counter", c->expired,
          "Leases that ended without a result.");
    whole(f, "tasks_quarantined_total", "counter", t->quarantined,
          "Tasks set aside after failing, or losing their workers, too often.");
    whole(f, "source_bytes_total", "counter", c->done_bytes,
          "Bytes of source behind the results committed.");
    whole(f, "queue_commits_total", "counter", c->commits, "Commits of the queue to its disk.");
}

static void peer_part(FILE *f, const struct sl_metrics_figures *g)
{
    const struct sl_coord_stats *c = &g->coord;
    const struct sl_event_tally *t = &g->events;

    whole(f, "workers", "gauge", c->workers, "Workers connected.");
    whole(f, "clients", "gauge", c->clients, "Clients connected.");
    whole(f, "workers_joined_total", "counter", t->worker_joined, "Workers that said hello.");
    head(f, "workers_lost_total", "counter", "Workers that are gone, by how.");
    fprintf(f, "sluice_workers_lost_total{how=\"left\"} %llu\n"
               "sluice_workers_lost_total{how=\"silent\"} %llu\n",
            (unsigned long long)t->worker_left, (unsigned long long)t->worker_silent);
    head(f, "worker_stage_seconds_total", "counter",
         "Time of the workers: of all compute threads in kernels and waiting for data, of the I/O "
         "without a free slab, in syncs.");
    for (unsigned i = 0; i < STAGES_TIMED; i++)
        fprintf(f, "sluice_worker_stage_seconds_total{stage=\"%s\"} %.3f\n", sl_stage_name[i],
                (double)c->stages[i] / 1000);
    head(f, "worker_queue_slab_seconds_total", "counter",
         "Slabs of the workers in a queue, times how long: its rate is the queue's mean length.");
    for (unsigned i = STAGES_TIMED; i < SL_STAGES; i++)
        fprintf(f, "sluice_worker_queue_slab_seconds_total{queue=\"%s\"} %.3f\n", sl_stage_name[i],
                (double)c->stages[i] / 1000);
    whole(f, "messages_total", "counter", c->messages, "Messages received.");
    whole(f, "messages_refused_total", "counter", c->refused,
          "Messages that were answered by an error.");
    whole(f, "connections_refused_total", "counter", g->refused_connections,
          "Connections refused by user, key or identity.");
}

static void gpu_part(FILE *f, const struct sl_coord_stats *c)
{
    static const struct { const char *name, *help; size_t at; } figures[] = {
        {"worker_gpu_temperature_celsius", "Temperature of a worker's GPU.", offsetof(struct sl_coord_gpu, celsius)},
        {"worker_gpu_power_watts", "Power that it draws.", offsetof(struct sl_coord_gpu, watts)},
        {"worker_gpu_memory_used_bytes", "Its memory in use, by everybody.", offsetof(struct sl_coord_gpu, memory_used)},
        {"worker_gpu_memory_bytes", "Its memory.", offsetof(struct sl_coord_gpu, memory)}};

    for (unsigned i = 0; i < sizeof figures / sizeof figures[0]; i++) {
        head(f, figures[i].name, "gauge", figures[i].help);
        for (uint32_t g = 0; g < c->n_gpus; g++) {
            uint64_t v;

            memcpy(&v, (const char *)&c->gpus[g] + figures[i].at, sizeof v);
            fprintf(f, "sluice_%s{worker=\"", figures[i].name);
            label(f, c->gpus[g].worker);
            fputs("\",gpu=\"", f);
            label(f, c->gpus[g].device);
            fprintf(f, "\"} %llu\n", (unsigned long long)v);
        }
    }
}

static void process_part(FILE *f, const struct sl_metrics_figures *g,
                         const struct sl_process_figures *p)
{
    head(f, "build_info", "gauge", "Always 1; the labels say which program this is.");
    fputs("sluice_build_info{version=\"", f);
    label(f, p->version);
    fputs("\",bytes_version=\"", f);
    label(f, p->bytes_version);
    fputs("\"} 1\n", f);
    whole(f, "ready", "gauge", g->ready, "1 while the daemon answers its peers.");
    whole(f, "event_loop_turns_total", "counter", g->loop_turns,
          "Turns of the event loop whose work succeeded.");
    if (p->loop_age_seconds >= 0)
        real(f, "event_loop_age_seconds", "gauge", p->loop_age_seconds,
             "Time since the event loop last ended a turn.");
    if (p->has_state) {
        whole(f, "state_free_bytes", "gauge", p->state_free_bytes,
              "Free space on the file system of the queue.");
        whole(f, "state_size_bytes", "gauge", p->state_size_bytes,
              "Size of the file system of the queue.");
    }
    real(f, "process_start_time_seconds", "gauge", p->start_seconds,
         "When the process started, since 1970.");
    real(f, "process_cpu_seconds_total", "counter", p->cpu_seconds,
         "Processor time of the process, user and system.");
    whole(f, "process_resident_memory_bytes", "gauge", p->resident_bytes,
          "Resident memory of the process.");
    whole(f, "process_open_fds", "gauge", p->open_fds, "Open file descriptors.");
    whole(f, "process_max_fds", "gauge", p->max_fds, "File descriptors allowed.");
}

int sl_metrics_text(const struct sl_metrics_figures *f, const struct sl_process_figures *p,
                    char **text, size_t *n, struct sl_error *e)
{
    FILE *out = open_memstream(text, n);

    if (!out)
        return sl_no_memory(e);
    process_part(out, f, p);
    queue_part(out, f);
    peer_part(out, f);
    gpu_part(out, &f->coord);
    return sl_text_close(out, text) < 0 ? sl_no_memory(e) : 0;
}

void sl_event_count(struct sl_event_tally *t, const struct sl_event *ev)
{
    const struct {
        const char *kind;
        uint64_t *count;
    } kinds[] = {
        {"submitted", &t->submitted}, {"quarantined", &t->quarantined},
        {"worker_joined", &t->worker_joined}, {"worker_left", &t->worker_left},
        {"worker_silent", &t->worker_silent},
    };

    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(ev->kind, kinds[i].kind) == 0)
            ++*kinds[i].count;
    if (strcmp(ev->kind, "state") == 0) {
        for (int s = 0; s < SL_JOB_STATES; s++) {
            const char *name = sl_job_state_name((enum sl_job_state)s);
            size_t len = strlen(name);

            if (sl_job_ended((enum sl_job_state)s) && strncmp(ev->text, name, len) == 0
                && (ev->text[len] < 'a' || ev->text[len] > 'z'))
                t->ended[s]++;
        }
    }
}
