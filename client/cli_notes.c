#include "client/cli.h"

#include "client/progress.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <string.h>

/* Whether a line is new to `said`, which then has it; NULL takes all. */
static bool is_new(struct words *said, const char *line)
{
    struct sl_error ignored;

    for (int i = 0; said && i < said->n; i++)
        if (strcmp(said->word[i], line) == 0)
            return false;
    (void)!(said && words_add(said, line, &ignored) < 0);
    return true;
}

static void say(void *user, const char *line)
{
    if (is_new(user, line))
        fprintf(stderr, "sluice: note: %s\n", line);
}

void cli_each_warning(const struct sl_job_plan *j, void (*fn)(void *user, const char *line), void *user)
{
    for (const char *s = j->plan->idle; s && *s;) {
        char line[1024];
        size_t n = strcspn(s, "\n");

        snprintf(line, sizeof line, "%.*s", (int)n, s);
        sl_utf8_disarm(line); /* names come from files: shown as in errors */
        fn(user, line);
        s += n + (s[n] == '\n');
    }
}

static void warn(void *user, const char *line)
{
    if (is_new(user, line))
        fprintf(stderr, "sluice: warning: %s\n", line);
}

static void warn_json(void *user, const char *line)
{
    cJSON *o;

    if (!is_new(user, line))
        return;
    fprintf(stderr, "sluice: warning: %s\n", line);
    o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "text", line);
    json_line(o, "warning");
}

void cli_job_notes(const struct sl_job_plan *j, bool json, struct words *said)
{
    char line[160];

    if (j->model->n_vision) {
        snprintf(line, sizeof line, "the vision part (%u tensors) is left out: llama.cpp has it in a file of its own, which its "
                 "converter makes with --mmproj", j->model->n_vision);
        say(said, line);
    }
    sl_imatrix_use_notes(&j->weights, say, said);
    cli_each_warning(j, json ? warn_json : warn, said);
}
