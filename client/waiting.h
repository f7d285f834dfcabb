/* A line on a terminal while something takes longer than about a second and has no bar. */
#ifndef SLUICE_CLIENT_WAITING_H
#define SLUICE_CLIENT_WAITING_H

#include <pthread.h>
#include <stdbool.h>

struct waiting {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char what[200];
    bool running, stop;
};

/* Effect: after a second, and each second from then on, a thread shows "WHAT NAME ... 3 s" on
 * stderr, until waiting_end. Nothing when silent, when stderr is no terminal that can
 * draw, or when there is no thread to be had. Only waiting_end may write to stderr meanwhile. */
void waiting_begin(struct waiting *w, bool silent, const char *what, const char *name);
/* Effect: removes the line; nothing more is shown when it returns. */
void waiting_end(struct waiting *w);

#endif
