#include "worker/lookup.h"

#include "proto/clock.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OTHER_MS 100u /* after which the other family is asked for too */
#define GRACE_MS 500u /* for the first one when the other has an address */
#define PENDING 1     /* getaddrinfo returns none above 0 */

/* One of a name's families: asked for both at once, a resolver waits for a server that answers to one alone. It can be
 * left, but not stopped: whoever of the two comes last frees it. */
struct question {
    pthread_mutex_t lock;
    bool left;
    int family, rc;
    struct addrinfo *found;
    char host[];
};

struct sl_lookup {
    struct question *asked[2]; /* IPv4, IPv6; NULL: not yet */
    uint64_t began_ms;
    char host[];
};

static void free_question(struct question *q)
{
    if (q->found)
        freeaddrinfo(q->found);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

static void *resolver(void *arg)
{
    struct question *q = arg;
    const struct addrinfo hints = {.ai_family = q->family, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(q->host, NULL, &hints, &found);
    bool left;

    pthread_mutex_lock(&q->lock);
    q->found = found;
    q->rc = rc;
    left = q->left;
    pthread_mutex_unlock(&q->lock);
    if (left)
        free_question(q);
    return NULL;
}

static int ask(const char *host, int family, struct question **out, struct sl_error *e)
{
    struct question *q = calloc(1, sizeof *q + strlen(host) + 1);
    sigset_t all, before;
    pthread_t thread;
    int err;

    if (!q)
        return sl_no_memory(e);
    q->family = family;
    q->rc = PENDING;
    memcpy(q->host, host, strlen(host) + 1);
    pthread_mutex_init(&q->lock, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are the caller's */
    err = pthread_create(&thread, NULL, resolver, q);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        free_question(q);
        return sl_fail_thread(e, err);
    }
    pthread_detach(thread);
    *out = q;
    return 0;
}

/* What getaddrinfo has returned, or PENDING. */
static int answer(struct question *q)
{
    int rc;

    if (!q)
        return PENDING;
    pthread_mutex_lock(&q->lock);
    rc = q->rc;
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static void leave(struct question *q)
{
    bool over;

    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    q->left = true;
    over = q->rc != PENDING;
    pthread_mutex_unlock(&q->lock);
    if (over)
        free_question(q);
}

int sl_lookup_begin(const char *host, struct sl_lookup **out, struct sl_error *e)
{
    struct sl_lookup *l = calloc(1, sizeof *l + strlen(host) + 1);
    int rc;

    if (!l)
        return sl_no_memory(e);
    memcpy(l->host, host, strlen(host) + 1);
    l->began_ms = sl_boot_ms();
    rc = ask(host, AF_INET, &l->asked[0], e);
    if (rc == 0)
        *out = l;
    else
        free(l);
    return rc;
}

uint64_t sl_lookup_ms(const struct sl_lookup *l)
{
    return sl_boot_ms() - l->began_ms;
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

static unsigned count(const struct addrinfo *a, bool routed)
{
    unsigned n = 0;

    for (; a; a = a->ai_next)
        n += !routed || has_route(a);
    return n;
}

/* The nth of them in digits, counted round. */
static bool take(const struct question *q, bool routed, unsigned nth, char address[SL_ADDRESS_CHARS])
{
    unsigned n = count(q->found, routed);

    for (const struct addrinfo *a = n ? q->found : NULL; a; a = a->ai_next)
        if ((!routed || has_route(a)) && nth-- % n == 0)
            return getnameinfo(a->ai_addr, a->ai_addrlen, address, SL_ADDRESS_CHARS, NULL, 0, NI_NUMERICHOST) == 0;
    return false;
}

static bool is_none(int rc)
{
    return rc == EAI_NONAME || rc == EAI_NODATA || rc == EAI_ADDRFAMILY;
}

/* Only its owner asks; what is found does not change any more once there is an answer. */
enum sl_lookup_state sl_lookup_has(struct sl_lookup *l, const char *address)
{
    bool six = strchr(address, ':') != NULL;
    char digits[SL_ADDRESS_CHARS];
    struct sl_error none;
    int rc;

    if (!l->asked[six])
        (void)!ask(l->host, six ? AF_INET6 : AF_INET, &l->asked[six], &none); /* without a thread: with the next call */
    rc = answer(l->asked[six]);
    for (const struct addrinfo *a = rc == 0 ? l->asked[six]->found : NULL; a; a = a->ai_next)
        if (getnameinfo(a->ai_addr, a->ai_addrlen, digits, sizeof digits, NULL, 0, NI_NUMERICHOST) == 0 &&
            strcmp(digits, address) == 0)
            return SL_LOOKUP_FOUND;
    return rc == PENDING ? SL_LOOKUP_PENDING : rc == 0 || is_none(rc) ? SL_LOOKUP_NONE : SL_LOOKUP_UNANSWERED;
}

enum sl_lookup_state sl_lookup_answer(struct sl_lookup *l, unsigned turn, char address[SL_ADDRESS_CHARS])
{
    struct question **first = &l->asked[turn % 2], **other = &l->asked[1 - turn % 2];
    uint64_t ms = sl_lookup_ms(l);
    unsigned nth = turn / 2;
    struct sl_error none;
    int a = answer(*first), b;

    if (a == 0 && take(*first, true, nth, address))
        return SL_LOOKUP_FOUND;
    for (unsigned i = 0; i < 2; i++)
        if (!l->asked[i] && (turn % 2 == 1 || answer(l->asked[1 - i]) != PENDING || ms >= OTHER_MS))
            (void)!ask(l->host, i ? AF_INET6 : AF_INET, &l->asked[i], &none); /* without a thread: with the next call */
    b = answer(*other);
    if (b == 0 && (a != PENDING || ms >= GRACE_MS) && take(*other, a == 0, nth, address))
        return SL_LOOKUP_FOUND;
    if (a == PENDING || b == PENDING)
        return SL_LOOKUP_PENDING;
    if (a == 0 && take(*first, false, nth, address))
        return SL_LOOKUP_FOUND;
    return is_none(a) && is_none(b) ? SL_LOOKUP_NONE : SL_LOOKUP_UNANSWERED;
}

void sl_lookup_leave(struct sl_lookup *l)
{
    if (!l)
        return;
    leave(l->asked[0]);
    leave(l->asked[1]);
    free(l);
}
