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
#define GRACE_MS 500u /* for an IPv4 address when there is an IPv6 one */
#define PENDING 1     /* getaddrinfo returns none above 0 */

/* One of a name's families: asked for both at once, a resolver waits for a server that answers to one alone. It can be
 * left, but not stopped: whoever of the two comes last frees it. */
struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool left;
    int family, rc;
    struct addrinfo *found;
    char host[];
};

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
    struct lookup *l = arg;
    const struct addrinfo hints = {.ai_family = l->family, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(l->host, NULL, &hints, &found);
    bool left;

    pthread_mutex_lock(&l->lock);
    l->found = found;
    l->rc = rc;
    left = l->left;
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
    if (left)
        free_lookup(l);
    return NULL;
}

/* NULL where no thread can be had. */
static struct lookup *begin(const char *host, int family)
{
    struct lookup *l = calloc(1, sizeof *l + strlen(host) + 1);
    sigset_t all, before;
    pthread_t thread;
    int err;

    if (!l)
        return NULL;
    l->family = family;
    l->rc = PENDING;
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

/* What getaddrinfo has returned, after ms at most, or PENDING. */
static int answer(struct lookup *l, uint32_t ms)
{
    const struct timespec end = sl_deadline(ms);
    int rc;

    if (!l)
        return EAI_AGAIN;
    pthread_mutex_lock(&l->lock);
    while (l->rc == PENDING && pthread_cond_timedwait(&l->changed, &l->lock, &end) != ETIMEDOUT)
        ;
    rc = l->rc;
    pthread_mutex_unlock(&l->lock);
    return rc;
}

static void leave(struct lookup *l)
{
    bool over;

    if (!l)
        return;
    pthread_mutex_lock(&l->lock);
    l->left = true;
    over = l->rc != PENDING;
    pthread_mutex_unlock(&l->lock);
    if (over)
        free_lookup(l);
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
    struct lookup *l4 = begin(host, AF_INET), *l6 = NULL;
    int four, six = PENDING;
    bool there = false;

    if (!l4)
        return SL_LOOKUP_THERE; /* libzmq has no thread either */
    for (uint32_t ms = TICK_MS; ((four = answer(l4, TICK_MS)) == PENDING || four == EAI_AGAIN); ms += TICK_MS) {
        l6 = l6 ? l6 : begin(host, AF_INET6);
        six = answer(l6, four == PENDING ? 0 : TICK_MS);
        if (four == PENDING ? six == 0 && ms >= GRACE_MS : six != PENDING)
            break;
        if (w->stop && w->stop(w->user))
            break;
        if (ms == SL_LOOKUP_SLOW_MS && w->slow)
            w->slow(w->user, host);
    }
    for (const struct addrinfo *a = four == 0 ? l4->found : NULL; a && !there; a = a->ai_next)
        there = has_route(a);
    leave(l4);
    leave(l6);
    return there ? SL_LOOKUP_THERE : six != 0 && (four == PENDING || four == EAI_AGAIN) ? SL_LOOKUP_UNANSWERED : SL_LOOKUP_NONE;
}
