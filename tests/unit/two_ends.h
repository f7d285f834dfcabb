/* The two ends of the transport in one process, for tests. */
#ifndef SLUICE_TESTS_TWO_ENDS_H
#define SLUICE_TESTS_TWO_ENDS_H

#include "daemon/router.h"
#include "worker/dealer.h"

#include <time.h>

static struct sl_error e;

static uint64_t ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* One message from d to r, at most `wait` ms. Returns 1 when it came. */
static int pass(struct sl_router *r, struct sl_dealer *d, const void *bytes, size_t n,
                struct sl_received *m, uint64_t wait)
{
    uint64_t end = ms() + wait;
    int sent = 0, rc = 0;

    while (ms() < end && rc == 0) {
        if (!sent)
            sent = sl_dealer_send(d, bytes, n, &e);
        assert_true(sl_router_wait(r, -1, 20, &e) >= 0);
        rc = sl_router_receive(r, m, &e);
    }
    if (rc < 0)
        fail_msg("%s", e.text);
    return rc;
}

#endif
