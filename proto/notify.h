/* What systemd is told (sd_notify(3)), without libsystemd: one datagram a
 * message to the socket in NOTIFY_SOCKET, a path or, with '@', a name in the
 * abstract space. Without that variable every call does nothing. One thread. */
#ifndef SLUICE_PROTO_NOTIFY_H
#define SLUICE_PROTO_NOTIFY_H

#include "proto/error.h"

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct sl_notify {
    int fd;                  /* -1: nobody listens */
    struct sockaddr_un to;
    socklen_t to_len;
    uint64_t watchdog_ms;    /* 0: no watchdog for this process */
    uint64_t fed_ms, extended_ms;
};

/* Effect: reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. Errors: SL_EUSAGE
 * (a variable that cannot be right), SL_EFAIL. */
int sl_notify_open(struct sl_notify *n, struct sl_error *e) SL_MUST_USE;
void sl_notify_close(struct sl_notify *n);

/* Effect: READY=1 with MAINPID and a status line. Errors: SL_EFAIL: systemd would
 * end the service later, so it had better end now. */
int sl_notify_ready(const struct sl_notify *n, const char *status, struct sl_error *e)
    SL_MUST_USE;

/* The rest is said as far as the socket takes it. A newline in a text is shown
 * as '?': it would begin another assignment. */
void sl_notify_stopping(const struct sl_notify *n, const char *status);

/* Effect: WATCHDOG=1, at most each third of the watchdog's time. To be called at
 * the end of a turn of the event loop whose work succeeded, and nowhere else:
 * a loop that hangs, or whose commits fail, is to be restarted. now_ms: any
 * steady clock. */
void sl_notify_progress(struct sl_notify *n, uint64_t now_ms);

/* Effect: while starting or stopping takes long and goes on: EXTEND_TIMEOUT_USEC,
 * ms from now, at most once a second. */
void sl_notify_extend(struct sl_notify *n, uint64_t now_ms, uint64_t ms);

#endif
