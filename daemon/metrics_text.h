/* The text of /metrics, apart from the server so that tests can hold it against
 * the dashboard and the rules. */
#ifndef SLUICE_DAEMON_METRICS_TEXT_H
#define SLUICE_DAEMON_METRICS_TEXT_H

#include "daemon/metrics.h"

#include <stddef.h>

/* What the process knows of itself when it is asked. */
struct sl_process_figures {
    const char *version, *bytes_version;
    double start_seconds;          /* since 1970 */
    double cpu_seconds;
    double loop_age_seconds;       /* since the last publication; under 0: never */
    uint64_t resident_bytes, open_fds, max_fds;
    bool has_state;
    uint64_t state_free_bytes, state_size_bytes;
};

/* Effect: *text (new memory, the caller's) = the whole page. Errors: SL_EFAIL. */
int sl_metrics_text(const struct sl_metrics_figures *f, const struct sl_process_figures *p,
                    char **text, size_t *n, struct sl_error *e) SL_MUST_USE;

#endif
