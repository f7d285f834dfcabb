#include "client/cli.h"

int cli_imatrix_open(const char *path, const char *const *include, int n_include,
                     const char *const *exclude, int n_exclude, struct sl_imatrix **out,
                     struct sl_error *e)
{
    bool keep = n_include > 0;
    struct sl_imatrix *im;
    int rc = 0;

    *out = NULL;
    if (n_include && n_exclude)
        return sl_fail(e, SL_EUSAGE, "--include-weights and --exclude-weights cannot be used together");
    SL_TRY(sl_imatrix_open(path, &im, e));
    if (n_include || n_exclude)
        rc = sl_imatrix_filter(im, keep ? include : exclude, (uint32_t)(keep ? n_include : n_exclude),
                               keep, e);
    if (rc == 0)
        rc = sl_imatrix_check(im, e);
    if (rc < 0 || im->n_entries == 0) {
        sl_imatrix_close(im);
        return rc;
    }
    *out = im;
    return 0;
}

static void say(void *user, const char *line)
{
    fprintf(user, "sluice: note: %s\n", line);
}

void cli_job_notes(const struct cli_job *j)
{
    sl_imatrix_use_notes(&j->weights, say, stderr);
}
