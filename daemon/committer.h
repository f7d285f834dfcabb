/* A thread that commits, so that who owns the queue need not wait for the disk:
 * an fdatasync takes milliseconds, and now and then many. */
#ifndef SLUICE_DAEMON_COMMITTER_H
#define SLUICE_DAEMON_COMMITTER_H

#include "daemon/queue.h"

struct sl_committer;

/* Effect: starts the thread. wake_fd: an eventfd that is written to when a commit
 * has ended. The queue stays the caller's and must outlive it. Errors: SL_EFAIL. */
int sl_committer_open(struct sl_queue *q, int wake_fd, struct sl_committer **out,
                      struct sl_error *e) SL_MUST_USE;
/* Waits for the commit under way. */
void sl_committer_close(struct sl_committer *c);

/* Effect: begins a commit. Until sl_committer_end says that it is over the queue is the
 * thread's: of its functions only sl_queue_take_epoch may be called. */
void sl_committer_begin(struct sl_committer *c);
/* Returns 1 while the commit is under way (with wait: waits for its end first), else
 * what sl_queue_commit returned. */
int sl_committer_end(struct sl_committer *c, bool wait, struct sl_error *e) SL_MUST_USE;

#endif
