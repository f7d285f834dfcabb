#include "client/waiting.h"

#include "client/term.h"
#include "proto/utf8.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void show(const char *what, unsigned seconds)
{
    char line[240];
    int columns = term_width(STDERR_FILENO) - 1; /* a line that wraps could not be drawn over */

    snprintf(line, sizeof line, "%s ... %u s", what, seconds);
    fprintf(stderr, "\r%.*s\033[K", (int)term_fit(line, columns), line);
    fflush(stderr);
}

static void *tick(void *arg)
{
    struct waiting *w = arg;
    struct timespec next;
    unsigned shown = 0;

    clock_gettime(CLOCK_MONOTONIC, &next);
    pthread_mutex_lock(&w->lock);
    for (next.tv_sec++; !w->stop;) {
        if (pthread_cond_timedwait(&w->changed, &w->lock, &next) == 0)
            continue;
        show(w->what, ++shown);
        next.tv_sec++;
    }
    if (shown)
        fputs("\r\033[K", stderr);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* A condition that waits by a clock which nobody sets. */
static bool make_condition(pthread_cond_t *c)
{
    pthread_condattr_t a;
    bool ok = pthread_condattr_init(&a) == 0;

    if (!ok)
        return false;
    ok = pthread_condattr_setclock(&a, CLOCK_MONOTONIC) == 0 && pthread_cond_init(c, &a) == 0;
    pthread_condattr_destroy(&a);
    return ok;
}

void waiting_begin(struct waiting *w, bool silent, const char *what, const char *name)
{
    sigset_t all, before;

    memset(w, 0, sizeof *w);
    if (silent || !term_can_draw(STDERR_FILENO) || !make_condition(&w->changed))
        return;
    pthread_mutex_init(&w->lock, NULL);
    snprintf(w->what, sizeof w->what, "%s %.150s", what, name);
    sl_utf8_disarm(w->what); /* control characters of a name must not reach the terminal */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the main thread's */
    w->running = pthread_create(&w->thread, NULL, tick, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (w->running)
        return;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
}

void waiting_end(struct waiting *w)
{
    if (!w->running)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    w->running = false;
}
