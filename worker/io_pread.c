/* The replacement where io_uring is forbidden: a few threads that block in
 * pread and pwrite. */
#include "worker/io.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define POOL_MAX 8

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct sl_io_op *head, **tail; /* queued */
    struct sl_io_op *finished;
    bool woken, stop;
    struct sl_faults *faults;
    unsigned n_threads;
    pthread_t thread[POOL_MAX];
};

static void *pool_thread(void *arg)
{
    struct pool *p = arg;

    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct sl_io_op *op;

        while (!p->head && !p->stop)
            pthread_cond_wait(&p->work, &p->lock);
        op = p->head;
        if (!op)
            break;
        p->head = op->next;
        if (!p->head)
            p->tail = &p->head;
        pthread_mutex_unlock(&p->lock);
        while (!sl_io_advance(op, sl_io_transfer(p->faults, op)))
            ;
        pthread_mutex_lock(&p->lock);
        op->next = p->finished;
        p->finished = op;
        pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void pool_close(void *priv)
{
    struct pool *p = priv;

    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int pool_open(const struct sl_io_conf *c, void **priv, struct sl_error *e)
{
    struct pool *p = calloc(1, sizeof *p);
    unsigned want = c->depth < POOL_MAX ? c->depth : POOL_MAX;
    int rc = 0;

    if (!p)
        return sl_fail(e, SL_EFAIL, "out of memory for the I/O threads");
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->tail = &p->head;
    p->faults = c->faults;
    while (p->n_threads < want &&
           !(rc = pthread_create(&p->thread[p->n_threads], NULL, pool_thread, p)))
        p->n_threads++;
    if (!p->n_threads) {
        pool_close(p);
        return sl_fail_thread(e, rc);
    }
    *priv = p;
    return 0;
}

static void pool_submit(void *priv, struct sl_io_op *op)
{
    struct pool *p = priv;

    pthread_mutex_lock(&p->lock);
    *p->tail = op;
    p->tail = &op->next;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
}

static int pool_wait(void *priv, struct sl_io_op **done, struct sl_error *e)
{
    struct pool *p = priv;

    (void)e;
    pthread_mutex_lock(&p->lock);
    while (!p->finished && !p->woken)
        pthread_cond_wait(&p->done, &p->lock);
    *done = p->finished;
    p->finished = NULL;
    p->woken = false;
    pthread_mutex_unlock(&p->lock);
    return 0;
}

static void pool_wake(void *priv)
{
    struct pool *p = priv;

    pthread_mutex_lock(&p->lock);
    p->woken = true;
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->lock);
}

static bool pool_registered(const void *priv)
{
    (void)priv;
    return false;
}

const struct sl_io_backend sl_io_backend_pread = {
    "pread", pool_open, pool_submit, pool_wait, pool_wake, pool_registered, pool_close,
};
