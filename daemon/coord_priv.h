/* The coordinator's memory; inside daemon/coord*.c only. Everything here can be
 * read again from the queue, connections excepted. */
#ifndef SLUICE_DAEMON_COORD_PRIV_H
#define SLUICE_DAEMON_COORD_PRIV_H

#include "daemon/committer.h"
#include "daemon/coordinator.h"

#include <cjson/cJSON.h>

#define SPECIAL_TASKS (SL_TASK_LAST - SL_TASKS_MAX + 1)
#define STITCH_ROUNDS 3     /* times that bad bytes are made again */
#define BACKOFF_MAX_MS 60000u
#define SILENT_BEATS 4u     /* heartbeats without a word: lost */

struct worker;

struct task {
    uint8_t state;          /* enum sl_task_state */
    bool exists;
    uint32_t shard, attempts;
    uint32_t losses;        /* workers in a row that went away with it; since the queue was read */
    bool gpu_failed;        /* one of those told that its GPU failed */
    uint64_t epoch, src, out, checksum;
    struct worker *holder;  /* while leased */
    uint64_t granted_ms, not_before_ms, bytes_done;
    uint64_t tx;            /* transaction that made it ready */
    uint64_t avoid;         /* hash of the last worker's name that failed on it; 0: none */
    bool avoid_others;      /* it did not know how: workers of other releases may not either */
    char *tensor;           /* that one of those workers had in hand; NULL: none said it */
};

struct shard {
    uint32_t first, n, ready, leased;
};

enum dep_state { DEP_PENDING = 0, DEP_MET, DEP_FAILED };

struct job {
    struct sl_coord *c;
    uint64_t id, group;
    uint64_t tx;            /* transaction of its state and plan */
    enum sl_job_state state;
    uint32_t priority, attempts;
    bool manual_stitch, verify;
    char *user, *files, error[1024];
    cJSON *spec;
    uint64_t output_hash;
    int code;
    uint64_t submitted_ms, started_ms, ended_ms;
    char fingerprint[33];
    uint64_t after[SL_AFTER_MAX];
    uint8_t dep[SL_AFTER_MAX];
    uint32_t n_after;
    char *labels[SL_LABELS_MAX];
    uint32_t n_labels;
    struct task *tasks;
    uint32_t n_tasks;
    struct task special[SPECIAL_TASKS];
    struct shard *shards;
    uint32_t n_shards;
    uint32_t n_ready, n_leased, n_done, n_quarantined; /* plan's tasks */
    uint64_t src_bytes, done_bytes, file_bytes;
    uint32_t stitch_rounds;
    bool any_lost;          /* a task of the plan may have losses */
    bool doubted;           /* one was lost, and none was told of since: they go apart from other jobs' */
    uint32_t losses;        /* of the plan's tasks, in a row; since the queue was read */
    uint64_t lost_ms;       /* leases granted until then are the last of these losses */
    uint64_t left_ms;       /* a worker left that had tasks of it and did not lack it; 0: none since the start */
    bool begun, begun_before; /* a prepare may have made files (its epoch is not 0); one before the last granted */
    double pass;            /* of its stream, for fair shares */
};

struct held {
    struct job *job;
    uint32_t task;
};

/* A job whose folder or files a worker did not find, or for which it has too little memory, until it may look again. */
struct lack {
    uint64_t job, until_ms;
    enum lacking {
        LACKS_PLACE,
        LACKS_FILES,        /* there is such a folder, without files of the job */
        LACKS_MEMORY
    } what;
};

struct worker {
    char instance[33], name[65], host[65], device[65], user[65], tensor[129];
    char version[33];       /* of its program */
    uint64_t pid, mem, threads;
    uint64_t process;       /* its pid, where the transport proved that it is on this machine; 0: not known, or over */
    uint64_t peer;          /* 0: not connected */
    uint64_t seen_ms, progress_ms, bytes, rate;
    uint64_t cur_job, cur_task;
    uint32_t want;
    uint64_t stages[SL_STAGES];
    bool stages_told;
    struct cJSON *gpus;     /* as it told last; NULL: it has none */
    bool draining, silent, known; /* known: has said hello since the daemon started */
    struct held *held;
    uint32_t n_held, cap_held;
    uint64_t last_job;      /* where its disk is */
    uint32_t last_task;
    uint64_t done, done_bytes;
    struct lack *lacks;     /* since it said hello */
    uint32_t n_lacks, cap_lacks;
    uint64_t *specs;        /* jobs whose specification this connection has */
    uint32_t n_specs, cap_specs;
};

struct session {
    uint64_t peer;
    enum sl_role role;      /* what it said hello as */
    char user[65];
    struct worker *worker;  /* NULL: a client */
    uint64_t seen_ms, sent_ms;
    bool watching;
    uint64_t *watch_jobs;   /* NULL: all */
    uint32_t n_watch;
    uint64_t every_ms, status_ms, status_changes;
    bool lost;              /* its connection is gone: the next tick tells so */
    bool in_order;          /* nothing may overtake what is deferred */
    struct {
        uint64_t job;
        char re[65];
    } *waits;
    uint32_t n_waits, cap_waits;
};

struct grant {
    struct worker *w;
    struct job *j;
    uint32_t task;
    uint64_t epoch;
    bool early;             /* may leave before the commit */
    uint32_t with;          /* so many of the sweep's other jobs go along */
};

/* What came during a commit and needs the queue, or while that failed and is no mere question. */
struct deferred {
    struct sl_peer from;
    struct sl_msg m;
    size_t room;            /* coord_room_of */
    char re[65];
};

/* A grant of such a time: to be written when the queue is free again. */
struct unwritten {
    uint64_t job, epoch;
    uint32_t task;
    char worker[33], owner[65];
};

/* A message that waits for a transaction to be on disk. */
struct waiting {
    struct sl_outgoing m;
    uint64_t tx;
    enum sl_message_id id;
};

struct pending_event {
    struct sl_event ev;
    char worker[65], kind[33], text[1024];
};

struct sl_coord {
    struct sl_queue *q;
    struct sl_coord_opts o;
    struct sl_now now, opened;
    struct job **jobs;
    uint32_t n_jobs, cap_jobs;
    struct worker **workers;
    uint32_t n_workers, cap_workers;
    struct session **sessions;
    uint32_t n_sessions, cap_sessions;
    struct sl_outgoing *out; /* may leave */
    uint32_t n_out, cap_out, next_out;
    struct waiting *waiting;
    uint32_t n_waiting, cap_waiting;
    struct deferred *deferred;
    uint32_t n_deferred, cap_deferred;
    size_t deferred_room;   /* of them all */
    struct unwritten *unwritten;
    uint32_t n_unwritten, cap_unwritten;
    struct sl_committer *committer; /* NULL: commits are made here */
    bool committing, tick_due;
    uint64_t tx, synced;    /* transaction being filled; last one on disk */
    uint64_t tx_ms;         /* when it was first found to have something; 0: not yet */
    uint64_t epochs_synced;
    uint64_t adoptable;     /* epochs up to here were given before the queue was last read */
    struct grant *grants;
    uint32_t n_grants, cap_grants;
    struct pending_event *events;
    uint32_t n_events, cap_events;
    struct turns *turns;    /* coord_turns.c's */
    double vtime;
    uint32_t turn;          /* worker that is served first in the next round */
    bool broken;            /* the queue failed: read everything again */
    struct sl_error failed; /* why; code 0 once a commit succeeded again */
    uint64_t try_ms;        /* when that is tried next */
    uint64_t patient_ms;    /* until then clients' changes wait for it; 0: all that came is on the disk */
    uint64_t refused_hellos;
    char refused_hello[1200];
    uint64_t changes;       /* rises with whatever a status shows */
    struct sl_coord_stats stats;
};

/* Grows *array so that one more fits. Returns 0 or SL_EFAIL. */
int coord_grow(void *array, uint32_t n, uint32_t *cap, size_t size, struct sl_error *e)
    SL_MUST_USE;

/* ---- coordinator.c: sessions, messages in */
/* Effect: does what the message asks; its answers are queued with re, the mark that it came with.
 * Errors: those of the queue. */
int coord_dispatch(struct sl_coord *c, const struct sl_peer *from, const struct sl_msg *m,
                   const char *re, struct sl_error *e) SL_MUST_USE;
/* Effect: coord_refuse of a hello, which is counted for the log. */
int coord_refuse_hello(struct sl_coord *c, const struct sl_peer *from, const char *re, const struct sl_error *why,
                       struct sl_error *e) SL_MUST_USE;
/* The connection of this peer; the worker of this instance, connected or not. NULL: none. */
struct session *coord_session(struct sl_coord *c, uint64_t peer);
struct worker *coord_worker(struct sl_coord *c, const char *instance);
/* Effect: forgets the connection; a worker on it keeps its leases until they run out. */
void coord_drop_session(struct sl_coord *c, struct session *s);

/* ---- coord_commit.c */
/* Effect: holds back what comes during a commit, or while the disk fails; then a client that wants a change is told so,
 * and where there is no more room it is refused, and a worker's message dropped. Takes m. */
int coord_defer(struct sl_coord *c, struct session *s, const struct sl_peer *from, struct sl_msg *m,
                const char *re, struct sl_error *e) SL_MUST_USE;
/* Returns whether the disk has failed for so long that a client's changes are refused. */
bool coord_refuses_changes(const struct sl_coord *c);
/* Effect: says so to the client that sent such a message. */
int coord_refuse_change(struct sl_coord *c, uint64_t peer, const char *re, enum sl_message_id id, struct sl_error *e) SL_MUST_USE;
/* Effect: forgets what came during the commit. */
void coord_drop_deferred(struct sl_coord *c);

/* ---- coord_out.c: messages out, events */
/* Effect: queues the message; it leaves when the transaction under way is on disk. m is freed in every
 * case. Errors: SL_EFAIL. */
int coord_send(struct sl_coord *c, uint64_t peer, struct sl_msg *m, struct sl_error *e) SL_MUST_USE;
/* The same for what says nothing that is not on disk: it leaves at once, unless
 * something that must be heard before it waits. */
int coord_send_early(struct sl_coord *c, uint64_t peer, struct sl_msg *m, struct sl_error *e)
    SL_MUST_USE;
/* Effect: sends `error`: the code and text of why, and the name of the message that it is about. re NULL: no answer. */
int coord_send_error(struct sl_coord *c, uint64_t peer, const char *re, const char *name,
                     const struct sl_error *why, struct sl_error *e) SL_MUST_USE;
/* Effect: the same for a message that is refused by it. */
int coord_refuse(struct sl_coord *c, uint64_t peer, const char *re, const char *name,
                 const struct sl_error *why, struct sl_error *e) SL_MUST_USE;
/* A message of at most one number (field NULL: none). */
int coord_send_simple(struct sl_coord *c, uint64_t peer, enum sl_message_id id, const char *re,
                      const char *field, uint64_t v, struct sl_error *e) SL_MUST_USE;
/* Effect: tells the worker that these n of the job's tasks are not its own any more; of none: that nothing
 * of the job is to be done now. */
int coord_send_revoke(struct sl_coord *c, const struct worker *w, uint64_t job, const uint64_t *tasks, size_t n,
                      const char *text, struct sl_error *e) SL_MUST_USE;
/* What waited for transactions up to `synced` may leave. */
int coord_release(struct sl_coord *c, uint64_t synced, struct sl_error *e) SL_MUST_USE;
/* Effect: forgets messages that wait: the transaction that they tell of failed. */
void coord_drop_waiting(struct sl_coord *c);
/* Effect: an event of a job (NULL: of the daemon), for the queue's log, the log lines and watchers.
 * task -1, worker NULL: none. Errors: SL_EFAIL. */
int coord_event(struct sl_coord *c, const char *kind, const struct job *j, int64_t task,
                const char *worker, struct sl_error *e, const char *fmt, ...)
    __attribute__((format(printf, 7, 8))) SL_MUST_USE;

/* ---- coord_jobs.c: jobs in memory and their states */
/* The job in memory; its task of this number, prepare, stitch and the like included. NULL: there is none. */
struct job *coord_job(struct sl_coord *c, uint64_t id);
struct task *coord_task(struct job *j, uint32_t task);
/* Effect: *spec (the caller's) = the row's specification. Errors: SL_EUSAGE when that or its files are no longer
 * what the coordinator writes, SL_EFAIL; *spec is NULL then. */
int coord_read_spec(const struct sl_coord *c, const struct sl_job_row *r, cJSON **spec, struct sl_error *e) SL_MUST_USE;
/* Returns SL_EUSAGE, with a line that names the job, why, and what to do. */
int coord_damaged(const struct sl_coord *c, uint64_t job, enum sl_job_state state, const char *why, struct sl_error *e)
    SL_MUST_USE;
/* Effect: reads a job from the queue; id 0: all that have not ended, and cancelled ones whose files are
 * still there. Errors: those of the queue; of one job SL_EUSAGE when it is damaged: it is not in memory then. */
int coord_load_jobs(struct sl_coord *c, uint64_t id, struct sl_error *e) SL_MUST_USE;
/* The plan's tasks, all of them ready, in place of what was there. */
int coord_set_tasks(struct job *j, const struct sl_queue_plan *p, struct sl_error *e) SL_MUST_USE;
/* One job; all jobs. The queue keeps them. */
void coord_free_job(struct job *j);
void coord_forget_jobs(struct sl_coord *c);
/* Moves a task between states, counters and holder included. */
void coord_move(struct job *j, uint32_t task, enum sl_task_state to);
/* Makes w the holder of a ready task, in memory and, once the queue is free, there. */
int coord_lease(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, uint64_t epoch,
                struct sl_error *e) SL_MUST_USE;
/* Gives a leased task back to the queue. */
int coord_return(struct sl_coord *c, struct job *j, uint32_t task, struct sl_error *e) SL_MUST_USE;
/* Effect: the job's state, in memory and in the queue, with an event; code and error of a failed one. */
int coord_set_state(struct sl_coord *c, struct job *j, enum sl_job_state s, int code,
                    const char *error, struct sl_error *e) SL_MUST_USE;
/* Effect: another error of a job that has ended, as it ended and when. */
int coord_set_error(struct sl_coord *c, struct job *j, const char *error, struct sl_error *e) SL_MUST_USE;
/* The job is held: its error says by whom and since when, and is shown as its reason. */
int coord_hold(struct sl_coord *c, struct job *j, const char *user, struct sl_error *e) SL_MUST_USE;
/* Takes the leases of a job back, one worker's or all, and tells who had them. */
int coord_revoke_from(struct sl_coord *c, struct worker *w, struct job *j, const char *why, struct sl_error *e)
    SL_MUST_USE;
int coord_revoke_all(struct sl_coord *c, struct job *j, const char *why, struct sl_error *e)
    SL_MUST_USE;
/* Effect: the workers that were granted tasks of the job hear that it needs nothing more of them now. */
int coord_tell_over(struct sl_coord *c, const struct job *j, struct sl_error *e) SL_MUST_USE;
/* Goes on to the state that the job's tasks say. */
int coord_advance(struct sl_coord *c, struct job *j, struct sl_error *e) SL_MUST_USE;
/* A failure's text says itself what to do. */
bool coord_advises(const char *text);
/* The job has ended and its files are still to be removed. */
bool coord_discards(struct job *j);
/* Removes ended jobs without tasks to do from memory. */
void coord_sweep_ended(struct sl_coord *c);
/* Effect: an rc below 0 is the queue's failure: everything is to be read again. Returns rc. */
int coord_broke(struct sl_coord *c, int rc, const struct sl_error *e) SL_MUST_USE;

/* ---- coord_turns.c: when a job may begin. What is asked walks over all jobs once, and again
 * after coord_turns_changed. */
#define COORD_ENOUGH_AHEAD 2u /* ready tasks for each worker, with which a job is not near its end */
/* Effect: room for cap_jobs jobs. */
int coord_turns_room(struct sl_coord *c, struct sl_error *e) SL_MUST_USE;
void coord_turns_free(struct sl_coord *c);
/* To be called after each change to a job's state, priority, group, tasks or dependencies, and to
 * the workers there are. */
void coord_turns_changed(struct sl_coord *c);
/* Its dependencies are met. */
bool coord_started(const struct job *j);
/* Its program is not of the daemon's release. */
bool coord_other_release(const struct sl_coord *c, const struct worker *w);
/* The task may be granted now; w: to this worker, NULL: to any. */
bool coord_grantable(const struct sl_coord *c, const struct task *t, const struct worker *w);
bool coord_has_grantable(const struct sl_coord *c, const struct job *j);
/* Tasks of the plan may go out. */
bool coord_has_work(const struct sl_coord *c, const struct job *j);
/* An ended job with j's output whose files are still to be removed, or 0: j's
 * prepare waits for that. */
uint64_t coord_cleared_by(const struct sl_coord *c, const struct job *j);
/* The job of the same user and priority that keeps j from beginning, or 0. */
uint64_t coord_turn_behind(const struct sl_coord *c, const struct job *j);
/* ---- coord_lack.c */
/* Effect: the worker lacks that for the job: for ten minutes, until it says hello again or coord_forget_lacks. *another: whether a worker is connected
 * that is not known to lack them, or one that had tasks of the job left less than a lease ago. Errors: SL_EFAIL. */
int coord_note_lack(struct sl_coord *c, struct worker *w, const struct job *j, enum lacking what, bool *another,
                    struct sl_error *e) SL_MUST_USE;
/* A worker is connected that has the folder, and no files of the job there. */
bool coord_saw_none(const struct sl_coord *c, const struct job *j);
/* Effect: the worker goes: of the jobs of which it had tasks it may be the only one that has them, and be back soon. */
void coord_note_left(struct sl_coord *c, const struct worker *w);
/* Effect: every worker may be asked for the job again. */
void coord_forget_lacks(struct sl_coord *c, const struct job *j);
/* The job's tasks are not for w: it lacks them, and another may have them. */
bool coord_lacks(const struct sl_coord *c, const struct worker *w, const struct job *j);
/* It has said that it lacks this. */
bool coord_lacks_what(const struct sl_coord *c, const struct worker *w, const struct job *j, enum lacking what);
/* ---- coord_lost.c */
enum lost { LOST_LEASE, LOST_PROCESS, LOST_GPU };
/* Effect: the lease of w's task has run out, or w's process is gone (LOST_PROCESS): it is ready again, in the latter
 * case after a rest that grows from a second to a lease, as w may be back at once and go the same way. When w is the last of so many workers in a row that
 * went away with it, it is quarantined, or the job fails, when they went away with any of its tasks. Errors: those of
 * the queue. */
int coord_lose(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, enum lost how, struct sl_error *e) SL_MUST_USE;
/* Effect: the same for a task at which w's GPU failed: it ends, as its text says, and begins anew. */
int coord_lose_gpu(struct sl_coord *c, struct worker *w, struct job *j, uint32_t task, const char *text,
                   struct sl_error *e) SL_MUST_USE;
/* A worker that had the task lives. j NULL, and a task that is not there: nothing happens. */
void coord_outlived(struct job *j, uint32_t task);
/* The task may go out beside what the worker holds: what was lost with a worker goes alone, and
 * a job of which something was lost apart from others. */
bool coord_goes_beside(const struct worker *w, struct job *j, uint32_t task);
/* The task goes alone, and the worker has one of a job's own, which may take hours: it gets something else. */
bool coord_waits_long(const struct worker *w, struct job *j, uint32_t task);
/* The worker has a task that goes alone. */
bool coord_is_alone(const struct worker *w);
/* GPUs failed at all that is left of the job, and a worker without one is there to do it. */
bool coord_waits_for_cpu(const struct sl_coord *c, const struct job *j);
/* Returns the lost task of the plan that may go to w and was lost least often, or -1. */
int64_t coord_least_lost(const struct sl_coord *c, const struct job *j, const struct worker *w);

/* ---- coord_schedule.c */
/* One job, or two of a sweep. */
bool coord_same_stream(const struct job *a, const struct job *b);
/* It was granted tasks of the job on this connection. */
bool coord_has_spec(const struct worker *w, uint64_t job);
/* Whether some worker could be granted a task of the job now. */
bool coord_runnable(const struct sl_coord *c, const struct job *j);
/* Effect: grants tasks to the workers that asked for some, one each in turn. Errors: those of the queue. */
int coord_schedule(struct sl_coord *c, struct sl_error *e) SL_MUST_USE;

/* ---- coord_hello.c */
/* Effect: makes the session, and answers with `welcome` or `error`. */
int coord_on_hello(struct sl_coord *c, const struct sl_peer *from, const struct sl_msg *m,
                   const char *re, struct sl_error *e) SL_MUST_USE;
/* ---- coord_work.c, coord_client.c: one message each */
enum counted { NO_ATTEMPT, ATTEMPT, LAST_ATTEMPT, ENDS_JOB };
/* Effect: a failure of a task that the worker holds: it is ready again or quarantined, and the job may have failed. */
int coord_task_failed(struct sl_coord *c, const struct worker *w, struct job *j, uint32_t task, int code,
                      enum counted counts, const char *text, struct sl_error *e) SL_MUST_USE;
/* How long a task rests that failed so often. */
uint64_t coord_backoff_ms(uint32_t times);
/* A worker's message. */
int coord_on_work(struct sl_coord *c, struct session *s, const struct sl_msg *m,
                  struct sl_error *e) SL_MUST_USE;
/* A client's. */
int coord_on_client(struct sl_coord *c, struct session *s, const struct sl_msg *m, const char *re,
                    struct sl_error *e) SL_MUST_USE;

/* One request of a client under way. What the client did wrong is in why; it is answered. */
struct ask {
    struct sl_coord *c;
    struct session *s;
    const struct sl_msg *m;
    const char *re;
    struct sl_error why;
};
/* Answers with `error` from why. */
int coord_refuse_ask(struct ask *a, struct sl_error *e) SL_MUST_USE;
/* Effect: out[] = the first strings of an array, which keeps them. Returns how many. */
uint32_t coord_strings(const cJSON *array, const char **out, uint32_t max);
/* ---- coord_submit.c */
int coord_on_submit(struct ask *a, struct sl_error *e) SL_MUST_USE;
/* Returns 0, or SL_EEXISTS in why when a job other than self is under way with
 * this output. */
int coord_output_free(struct ask *a, const cJSON *spec, uint64_t self);
/* Returns 0, or SL_EUSAGE in why when a path of the job lies outside the daemon's roots (one that is not there
 * now is no reason), or its output's or the specification itself have no room in a message, as an earlier release took
 * them. SL_EFAIL: no memory to tell. */
int coord_possible(const struct sl_coord *c, const struct job *j, struct sl_error *why) SL_MUST_USE;
/* Effect: jobs that have not ended, are not held and are so, fail. */
int coord_fail_impossible(struct sl_coord *c, struct sl_error *e) SL_MUST_USE;
/* Whether two jobs' specs name the same output file. */
bool coord_same_output(const struct sl_coord *c, const cJSON *a, const cJSON *b);
/* Equal for equal outputs. */
uint64_t coord_output_hash(const cJSON *spec);
/* ---- coord_change.c */
/* Effect: cancel, hold, release, retry, set, stitch and verify: as asked, and answered. */
int coord_on_change(struct ask *a, struct sl_error *e) SL_MUST_USE;

/* ---- coord_report.c: records, watchers */
/* Whether this session is told of the job's events. */
bool coord_watches(const struct session *s, uint64_t job);
/* Effect: fills the record `job` of PROTOCOL.md, from memory; from a row of the queue and its specification
 * (coord_read_spec). files: with its files. */
void coord_put_job(struct sl_coord *c, cJSON *into, const struct job *j, bool files);
void coord_put_row(cJSON *into, const struct sl_job_row *r, const cJSON *spec, bool files);
/* Jobs of one message have at most so many bytes. */
#define COORD_LISTED_BYTES (4u << 20)
/* Returns how many bytes the item, NULL or not, has in a message at most. */
size_t coord_room_of(const cJSON *item);
/* Effect: fills the record `event`. */
void coord_put_event(cJSON *into, const struct sl_event *ev);
/* Effect: adds the worker's GPUs to those that metrics tell of. */
void coord_gpu_stats(const struct worker *w, struct sl_coord_stats *out);
/* Effect: fills the record `worker`. */
void coord_put_worker(const struct sl_coord *c, cJSON *into, const struct worker *w);
/* Effect: sends the event to those who watch; a status to each watcher whose time has come, if anything
 * changed; `ended` to those who wait for this job. Errors: SL_EFAIL. */
int coord_tell_watchers(struct sl_coord *c, const struct sl_event *ev, struct sl_error *e) SL_MUST_USE;
int coord_status(struct sl_coord *c, struct sl_error *e) SL_MUST_USE;
int coord_tell_waiters(struct sl_coord *c, const struct job *j, struct sl_error *e) SL_MUST_USE;

#endif
