/* The coordinator: messages in, messages out, and the queue between. No
 * sockets, no threads, no clock of its own; whoever calls it owns them.
 *
 *   sl_coord_receive / sl_coord_tick ...   any number, at the same `now`
 *   sl_coord_flush                         one commit for all of them
 *   sl_coord_next ...                      only now the answers may leave
 *
 * While a commit is under way in the background, messages that need the queue
 * wait inside; pulls do not, and are answered by grants. While commits fail, a client that only
 * asks is answered from what is on the disk, one that wants a change is refused after a few seconds, and workers wait. */
#ifndef SLUICE_DAEMON_COORDINATOR_H
#define SLUICE_DAEMON_COORDINATOR_H

#include "daemon/queue.h"
#include "proto/keyring.h"

struct sl_now {
    uint64_t run_ms;   /* CLOCK_MONOTONIC: leases, heartbeats, back-off; a machine's sleep costs nobody a lease */
    uint64_t wall_ms;  /* CLOCK_REALTIME: for people */
};

struct sl_coord_opts {
    uint32_t heartbeat_ms;       /* 0: 5000 */
    uint32_t lease_ms;           /* 0: 60000 */
    uint32_t attempts;           /* of a task, when the job says none; 0: 5 */
    uint32_t quarantine_workers; /* 0: 3 */
    uint32_t losses;             /* workers in a row that go away with a task before it is set aside, or with tasks of a job before that fails; 0: any number */
    const char *version;         /* of the program */
    const char *bytes_version;   /* SL_BYTES_VERSION; NULL: workers of any are taken */
    const char *daemon_id;       /* 32 hex digits, random */
    const char *state_dir;
    const char *const *roots;    /* for `about` */
    uint32_t n_roots;
    /* Says whether a path of a specification may be used; NULL: every path. */
    int (*check_path)(void *user, const char *path, bool output, struct sl_error *e);
    /* Says whether two names lead to one folder; NULL: equal names alone do. */
    bool (*same_folder)(void *user, const char *a, const char *b);
    /* Says whether this machine has no process of that number; NULL: that is never known. */
    bool (*no_process)(void *user, uint64_t pid);
    /* One call for each event that is durable now (logs, metrics). May be NULL. */
    void (*on_event)(void *user, const struct sl_event *ev);
    void *user;
    /* Commits are made by a thread, and sl_coord_flush does not wait for them: wake_fd, an
     * eventfd, is written to when one has ended, and sl_coord_flush is to be called then. */
    bool background;
    int wake_fd;
};

/* Who sent a message, as the transport proved it. */
struct sl_peer {
    uint64_t id;                 /* of the connection, never 0 */
    enum sl_role role;           /* the most that it may be */
    uint64_t pid;                /* of its process on this machine; 0: not known */
    char user[65];
};

struct sl_outgoing {
    uint64_t peer;
    uint8_t *bytes;              /* the caller's: free */
    size_t n;
};

#define SL_COORD_GPUS 64
struct sl_coord_gpu {
    char worker[65], device[17];
    uint64_t celsius, watts, memory_used, memory;
};

struct sl_coord_stats {
    uint64_t messages, grants, results, stale, failures, expired, commits, refused;
    uint64_t done_bytes;         /* source bytes of results committed since the start */
    uint64_t stages[SL_STAGES];  /* ms, of all workers, since they were first heard */
    uint32_t jobs[SL_JOB_STATES]; /* not ended, by state; of ended ones those whose files are to be removed */
    uint32_t workers, clients, leased, ready;
    struct sl_coord_gpu gpus[SL_COORD_GPUS]; /* of connected workers; the first so many that told all */
    uint32_t n_gpus;
};

struct sl_coord;

/* Effect: reads unfinished jobs from the queue; every lease found gets its full
 * time. The queue stays the caller's and must outlive the coordinator.
 * Strings in opts must, too. Errors: those of the queue. */
int sl_coord_open(struct sl_queue *q, const struct sl_coord_opts *o, struct sl_now now,
                  struct sl_coord **out, struct sl_error *e) SL_MUST_USE;
void sl_coord_close(struct sl_coord *c);

/* Effect: takes one message as received. A bad one is answered with `error`.
 * Errors: of the queue alone; then nothing since the last flush has happened,
 * and sl_coord_flush must follow. */
int sl_coord_receive(struct sl_coord *c, const struct sl_peer *from, const uint8_t *bytes,
                     size_t n, struct sl_now now, struct sl_error *e) SL_MUST_USE;

/* Effect: expires leases, ends those of dead processes, notices silent peers, ends back-offs, sends heartbeats
 * and status. Call it at least each heartbeat_ms / 4. Errors: as sl_coord_receive. */
int sl_coord_tick(struct sl_coord *c, struct sl_now now, struct sl_error *e) SL_MUST_USE;

/* Effect: every lease begins anew, and everybody counts as heard, as after a restart: for a caller that could not
 * listen for a while. Before the next tick. */
void sl_coord_woke(struct sl_coord *c, struct sl_now now);

/* Effect: hands out work and commits what an answer waits for; leases alone are
 * committed within SL_COORD_LEASES_MS. Answers whose commit succeeded may leave
 * (sl_coord_next), and so may grants of epochs reserved before. When a commit failed,
 * answers are dropped (every peer repeats what matters), and the memory is
 * read from the queue again before the next message counts. Then a small commit is tried once a second, until
 * one succeeds. Errors: SL_ENOSPACE, SL_EFAIL, of each that fails. */
#define SL_COORD_LEASES_MS 100u
int sl_coord_flush(struct sl_coord *c, struct sl_now now, struct sl_error *e) SL_MUST_USE;
/* Effect: the same, until nothing is left to commit; waits for the disk. */
int sl_coord_settle(struct sl_coord *c, struct sl_now now, struct sl_error *e) SL_MUST_USE;
/* Returns why the last commit failed, SL_ENOSPACE or another code; 0: it did not. */
int sl_coord_failing(const struct sl_coord *c);
/* Returns whether the queue could be read after its last failure. */
bool sl_coord_readable(const struct sl_coord *c);
/* Returns a number for the commit under way in the background; 0: none is. */
uint64_t sl_coord_committing(const struct sl_coord *c);
/* Returns whether so much waits for the commit under way that no more messages should be taken. */
bool sl_coord_full(const struct sl_coord *c);

/* Returns 1 with the next message to send in *out (its bytes are then the caller's), 0 when there is none. */
int sl_coord_next(struct sl_coord *c, struct sl_outgoing *out);

/* Effect: forgets a connection that the transport has lost, a worker's at the next tick. Its leases run on: the worker may
 * come back with them. */
void sl_coord_gone(struct sl_coord *c, uint64_t peer);

/* Effect: a `bye` to everybody, to be sent by sl_coord_next. Only after a
 * sl_coord_settle that succeeded. */
void sl_coord_say_bye(struct sl_coord *c, const char *text);

/* Returns how many hellos were refused; *last: whose, and why. */
uint64_t sl_coord_refused_hellos(const struct sl_coord *c, const char **last);

/* Effect: *out = what /metrics shows of jobs, tasks, workers and GPUs now. */
void sl_coord_stats(const struct sl_coord *c, struct sl_coord_stats *out);

#endif
