/* The coordinator's events as log lines: one for each, with job, task, worker. */
#ifndef SLUICE_DAEMON_EVENT_LOG_H
#define SLUICE_DAEMON_EVENT_LOG_H

#include "daemon/queue.h"
#include "proto/log_line.h"

/* How much an operator must care: error for a quarantined task and a failed job,
 * warning for what the daemon gets over by itself. */
enum sl_log_level sl_event_level(const struct sl_event *ev);

/* Effect: writes the line. For on_event of sl_coord_opts. */
void sl_event_log(const struct sl_log *log, const struct sl_event *ev);

#endif
