/* Following jobs until they end: what watch, wait and submit --wait do. */
#ifndef SLUICE_CLIENT_FOLLOW_H
#define SLUICE_CLIENT_FOLLOW_H

#include "client/service_args.h"

struct follow {
    const char *verb;        /* for messages on standard error */
    const struct ids *ids;   /* n 0: all jobs, without an end */
    bool show;               /* progress: drawn on a terminal, plain lines elsewhere */
    bool json;               /* events, status and ends as JSON lines on stdout */
    FILE *plain;             /* where plain lines go */
    unsigned every_ms;       /* between plain lines or JSON status lines */
    uint64_t limit_ms;       /* after so long it gives up; 0: never */
    bool names;              /* users of this machine are shown by name */
};

/* Effect: returns when all the jobs have ended, or after a signal, through
 * restarts of the daemon. Errors: the exit code of the first of the jobs, in
 * order, that did not end with 0, with its words; SL_EINTERRUPTED after a signal
 * (the jobs go on), SL_ETIMEOUT (so do they); SL_ENOJOB. */
int follow_jobs(struct daemon_link *l, const struct follow *f, struct sl_error *e) SL_MUST_USE;

#endif
