/* A name's IPv4 address. A resolver whose server does not answer blocks for half a minute: somebody is told of it. */
#ifndef SLUICE_WORKER_LOOKUP_H
#define SLUICE_WORKER_LOOKUP_H

#define SL_LOOKUP_SLOW_MS 2000u

enum sl_lookup {
    SL_LOOKUP_NONE,       /* it has none, or this machine has no way to it */
    SL_LOOKUP_THERE,
    SL_LOOKUP_UNANSWERED, /* no server answered, or not now */
};

/* Returns whether the host, a name or digits, has an IPv4 address to which there is a way; nothing is sent there. slow (may be
 * NULL) is called once, by another thread, when that takes longer than SL_LOOKUP_SLOW_MS. */
enum sl_lookup sl_lookup_ipv4(const char *host, void (*slow)(void *user, const char *host), void *user);

#endif
