/* A name's IPv4 address. A resolver whose server does not answer blocks for half a minute: somebody is told of it. */
#ifndef SLUICE_WORKER_LOOKUP_H
#define SLUICE_WORKER_LOOKUP_H

#include <stdbool.h>

#define SL_LOOKUP_SLOW_MS 2000u

enum sl_lookup {
    SL_LOOKUP_NONE,       /* it has none, or this machine has no way to it */
    SL_LOOKUP_THERE,
    SL_LOOKUP_UNANSWERED, /* no server answered, or not now */
};

/* Who waits for it; both functions are called by the caller's thread, and may be NULL. */
struct sl_lookup_watch {
    void (*slow)(void *user, const char *host); /* it has taken longer than SL_LOOKUP_SLOW_MS */
    bool (*stop)(void *user);                   /* whether to wait no longer; asked ten times a second */
    void *user;
};

/* Returns whether the host, a name or digits, has an IPv4 address to which there is a way; nothing is sent there.
 * SL_LOOKUP_UNANSWERED, too, when stop said so: the resolver's thread then ends by itself. Without a thread
 * SL_LOOKUP_THERE. */
enum sl_lookup sl_lookup_ipv4(const char *host, const struct sl_lookup_watch *w);

#endif
