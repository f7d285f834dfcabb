#include "client/cli.h"

#include "client/progress.h"

#include <cjson/cJSON.h>
#include <string.h>

static void say(void *user, const char *line)
{
    fprintf(user, "sluice: note: %s\n", line);
}

void cli_each_warning(const struct sl_job_plan *j, void (*fn)(void *user, const char *line), void *user)
{
    for (const char *s = j->plan->idle; s && *s;) {
        struct sl_error line;
        size_t n = strcspn(s, "\n");

        sl_fail(&line, SL_EWARN, "%.*s", (int)n, s); /* names come from files: shown as in errors */
        fn(user, line.text);
        s += n + (s[n] == '\n');
    }
}

static void warn(void *user, const char *line)
{
    fprintf(user, "sluice: warning: %s\n", line);
}

static void warn_json(void *user, const char *line)
{
    cJSON *o = cJSON_CreateObject();

    (void)user;
    cJSON_AddStringToObject(o, "text", line);
    json_line(o, "warning");
}

void cli_job_notes(const struct sl_job_plan *j, bool json)
{
    sl_imatrix_use_notes(&j->weights, say, stderr);
    cli_each_warning(j, warn, stderr);
    if (json)
        cli_each_warning(j, warn_json, NULL);
}
