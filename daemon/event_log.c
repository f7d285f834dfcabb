#include "daemon/event_log.h"

#include <string.h>

enum sl_log_level sl_event_level(const struct sl_event *ev)
{
    static const struct {
        const char *kind, *text; /* text: how the event's begins; NULL: any */
        enum sl_log_level level;
    } levels[] = {
        {"quarantined", NULL, SL_LOG_ERROR},   {"state", "failed", SL_LOG_ERROR},
        {"lease_lost", NULL, SL_LOG_WARNING},  {"task_failed", NULL, SL_LOG_WARNING},
        {"revoked", NULL, SL_LOG_WARNING},     {"worker_silent", NULL, SL_LOG_WARNING},
        {"submitted", NULL, SL_LOG_NOTICE},    {"state", "succeeded", SL_LOG_NOTICE},
        {"state", "cancelled", SL_LOG_NOTICE}, {"set", NULL, SL_LOG_NOTICE},
        {"worker_joined", NULL, SL_LOG_NOTICE}, {"worker_left", NULL, SL_LOG_NOTICE},
    };

    for (unsigned i = 0; i < sizeof levels / sizeof levels[0]; i++)
        if (strcmp(ev->kind, levels[i].kind) == 0
            && (!levels[i].text || strncmp(ev->text, levels[i].text, strlen(levels[i].text)) == 0))
            return levels[i].level;
    return SL_LOG_INFO;
}

void sl_event_log(const struct sl_log *log, const struct sl_event *ev)
{
    sl_log_write(log, sl_event_level(ev),
                 &(struct sl_log_fields){.event = ev->kind, .job = ev->job, .task = ev->task,
                                         .worker = ev->worker, .text = ev->text});
}
