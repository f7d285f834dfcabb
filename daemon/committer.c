#include "daemon/committer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct sl_committer {
    struct sl_queue *q;
    int wake_fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool busy, stop;         /* busy: from begin until the thread is through */
    int rc;
    struct sl_error error;
};

static void *commit_thread(void *arg)
{
    struct sl_committer *c = arg;
    const uint64_t one = 1;

    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        struct sl_error error = {0};
        int rc;

        if (!c->busy) {
            pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        pthread_mutex_unlock(&c->lock);
        rc = sl_queue_commit(c->q, &error);
        pthread_mutex_lock(&c->lock);
        c->rc = rc;
        c->error = error;
        c->busy = false;
        pthread_cond_broadcast(&c->changed);
        while (write(c->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

int sl_committer_open(struct sl_queue *q, int wake_fd, struct sl_committer **out,
                      struct sl_error *e)
{
    struct sl_committer *c = calloc(1, sizeof *c);
    int err;

    *out = NULL;
    if (!c)
        return sl_no_memory(e);
    c->q = q;
    c->wake_fd = wake_fd;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    err = pthread_create(&c->thread, NULL, commit_thread, c);
    if (err) {
        pthread_cond_destroy(&c->changed);
        pthread_mutex_destroy(&c->lock);
        free(c);
        return sl_fail_thread(e, err);
    }
    *out = c;
    return 0;
}

void sl_committer_close(struct sl_committer *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    while (c->busy)
        pthread_cond_wait(&c->changed, &c->lock);
    c->stop = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

void sl_committer_begin(struct sl_committer *c)
{
    pthread_mutex_lock(&c->lock);
    c->busy = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

int sl_committer_end(struct sl_committer *c, bool wait, struct sl_error *e)
{
    int rc;

    pthread_mutex_lock(&c->lock);
    while (wait && c->busy)
        pthread_cond_wait(&c->changed, &c->lock);
    rc = c->busy ? 1 : c->rc;
    if (rc < 0)
        *e = c->error;
    pthread_mutex_unlock(&c->lock);
    return rc;
}
