#include "worker/lookup.h"

#include "worker/deadline.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICK_MS 100u

/* The resolver can be left alone, but not stopped: whoever of the two comes last frees it. */
struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over, left;
    int rc;
    struct addrinfo *found;
    char host[];
};

/* Of both families: a name that /etc/hosts has with IPv6's alone is no matter for a server. */
static int resolve(const char *host, struct addrinfo **found)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};

    return getaddrinfo(host, NULL, &hints, found);
}

static void free_lookup(struct lookup *l)
{
    if (l->found)
        freeaddrinfo(l->found);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l);
}

static void *resolver(void *arg)
{
    struct addrinfo *found = NULL;
    struct lookup *l = arg;
    int rc = resolve(l->host, &found);
    bool left;

    pthread_mutex_lock(&l->lock);
    l->rc = rc;
    l->found = found;
    l->over = true;
    left = l->left;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    if (left)
        free_lookup(l);
    return NULL;
}

/* NULL where no thread can be had. */
static struct lookup *begin(const char *host)
{
    struct lookup *l = calloc(1, sizeof *l + strlen(host) + 1);
    sigset_t all, before;
    pthread_t thread;
    int err;

    if (!l)
        return NULL;
    memcpy(l->host, host, strlen(host) + 1);
    pthread_mutex_init(&l->lock, NULL);
    sl_cond_init(&l->changed);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the caller's */
    err = pthread_create(&thread, NULL, resolver, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        free_lookup(l);
        return NULL;
    }
    pthread_detach(thread);
    return l;
}

/* What getaddrinfo returned; EAI_AGAIN when it is left alone. */
static int end(struct lookup *l, const struct sl_lookup_watch *w, struct addrinfo **found)
{
    uint32_t ms = 0;
    int rc = EAI_AGAIN;
    bool left;

    pthread_mutex_lock(&l->lock);
    while (!l->over && !(w->stop && w->stop(w->user))) {
        const struct timespec tick = sl_deadline(TICK_MS);

        if (pthread_cond_timedwait(&l->changed, &l->lock, &tick) == ETIMEDOUT && (ms += TICK_MS) == SL_LOOKUP_SLOW_MS && w->slow)
            w->slow(w->user, l->host);
    }
    left = l->left = !l->over;
    if (!left) {
        rc = l->rc;
        *found = l->found;
        l->found = NULL;
    }
    pthread_mutex_unlock(&l->lock);
    if (!left)
        free_lookup(l);
    return rc;
}

/* This machine has a way to the address: of a machine with IPv6 alone there is none to IPv4's. Nothing is sent. */
static bool has_route(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) == 0;

    if (fd >= 0)
        close(fd);
    return yes;
}

enum sl_lookup sl_lookup_ipv4(const char *host, const struct sl_lookup_watch *w)
{
    struct addrinfo *found = NULL;
    struct lookup *l = begin(host);
    int rc = l ? end(l, w, &found) : resolve(host, &found);
    bool there = false;

    if (rc != 0)
        return rc == EAI_AGAIN ? SL_LOOKUP_UNANSWERED : SL_LOOKUP_NONE;
    for (const struct addrinfo *a = found; a && !there; a = a->ai_next)
        there = a->ai_family == AF_INET && has_route(a);
    freeaddrinfo(found);
    return there ? SL_LOOKUP_THERE : SL_LOOKUP_NONE;
}
