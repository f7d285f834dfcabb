#include "worker/lookup.h"

#include "worker/deadline.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

struct watch {
    void (*slow)(void *user, const char *host);
    void *user;
    const char *host;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool running, over;
};

static void *tell_when_slow(void *arg)
{
    const struct timespec end = sl_deadline(SL_LOOKUP_SLOW_MS);
    struct watch *w = arg;

    pthread_mutex_lock(&w->lock);
    while (!w->over)
        if (pthread_cond_timedwait(&w->changed, &w->lock, &end) == ETIMEDOUT && !w->over) {
            w->slow(w->user, w->host);
            break;
        }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Without a thread nobody is told. */
static void begin(struct watch *w)
{
    sigset_t all, before;

    pthread_mutex_init(&w->lock, NULL);
    sl_cond_init(&w->changed);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the caller's */
    w->running = w->slow && pthread_create(&w->thread, NULL, tell_when_slow, w) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void end(struct watch *w)
{
    pthread_mutex_lock(&w->lock);
    w->over = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    if (w->running)
        pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
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

enum sl_lookup sl_lookup_ipv4(const char *host, void (*slow)(void *user, const char *host), void *user)
{
    /* Of both families: a name that /etc/hosts has with IPv6's alone is no matter for a server. */
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct watch w = {.slow = slow, .user = user, .host = host};
    struct addrinfo *found = NULL;
    bool there = false;
    int rc;

    begin(&w);
    rc = getaddrinfo(host, NULL, &hints, &found);
    end(&w);
    if (rc != 0)
        return rc == EAI_AGAIN ? SL_LOOKUP_UNANSWERED : SL_LOOKUP_NONE;
    for (const struct addrinfo *a = found; a && !there; a = a->ai_next)
        there = a->ai_family == AF_INET && has_route(a);
    freeaddrinfo(found);
    return there ? SL_LOOKUP_THERE : SL_LOOKUP_NONE;
}
