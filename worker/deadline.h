/* Waiting with a time-out: by CLOCK_MONOTONIC, which nobody sets. */
#ifndef SLUICE_WORKER_DEADLINE_H
#define SLUICE_WORKER_DEADLINE_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* Effect: a condition whose time-outs are sl_deadline's. Free with pthread_cond_destroy. */
static inline void sl_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attr);
    pthread_condattr_destroy(&attr);
}

/* Returns the time, ms from now. */
static inline struct timespec sl_deadline(uint32_t ms)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000l;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

#endif
