/* sluice completion: scripts for shells. */
#include "client/cli.h"
#include "client/completion_text.h"

#include <string.h>

static int run(int argc, const char **argv, struct sl_error *e)
{
    const struct poptOption table[] = {POPT_TABLEEND};
    struct cli_args args;
    int rc = cli_parse(&args, &cli_completion, argc, argv, table, 1, 1, NULL, NULL, e);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (strcmp(args.pos[0], "list") == 0)
        completion_list(stdout);
    else
        rc = completion_text(stdout, args.pos[0], e);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_completion = {
    "completion", "bash|zsh|fish|list",
    "Print a shell's completion script, or a plain list of all options", run};
