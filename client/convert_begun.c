#include "client/convert_run.h"

#include "client/convert_store.h"

#include <stdlib.h>
#include <sys/stat.h>

/* Effect: *b, all NULL, = what is recorded there, if it can be read. */
static void look(const char *journal, struct convert_begun *b)
{
    struct convert_store *s;
    struct sl_error e;
    struct stat st;

    if (lstat(journal, &st) != 0 || !S_ISREG(st.st_mode) || convert_store_open(journal, &s, &e) < 0)
        return;
    (void)!convert_store_begun(s, b, &e);
    convert_store_close(s);
}

void convert_as_begun(struct sl_job_plan *j, const struct output *out, const char *source,
                      const struct cli_plan_args *a, const struct convert_opts *o)
{
    char *journal = output_journal(out, j->prefix);
    struct convert_begun b = {NULL, NULL, NULL};
    struct sl_error e, line;

    if (journal && !o->force)
        look(journal, &b);
    if (b.recipe && b.recipe_text && b.fingerprint &&
        cli_job_go_back(j, source, a, b.recipe, b.recipe_text, b.fingerprint, &e) == 1 && o->progress != PROGRESS_QUIET) {
        sl_fail(&line, SL_EWARN, "this was begun with another text of %s than this release's, and goes on with that one; "
                                 "--force begins it anew", b.recipe);
        cli_warn(line.text, o->progress == PROGRESS_JSON);
    }
    convert_begun_free(&b);
    free(journal);
}
