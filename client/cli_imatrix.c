#include "client/cli.h"

static void say(void *user, const char *line)
{
    fprintf(user, "sluice: note: %s\n", line);
}

void cli_job_notes(const struct sl_job_plan *j)
{
    sl_imatrix_use_notes(&j->weights, say, stderr);
}
