#include "client/verify_job.h"

#include "client/follow.h"

int verify_job(const struct service_args *a, const char *job, bool json, bool quiet,
               struct sl_error *e)
{
    struct ids ids;
    struct follow f = {.verb = "verify", .ids = &ids, .show = !quiet, .json = json,
                       .plain = stderr, .every_ms = 10000};
    struct service s = {0};
    struct sl_msg m;
    int rc;

    SL_TRY(ids_parse(&job, 1, &ids, e));
    if (ids.n != 1)
        return sl_fail(e, SL_EUSAGE, "--job %s: one job at a time", job);
    rc = service_open(&s, a, e);
    if (rc == 0)
        rc = sl_msg_new(SL_M_VERIFY, NULL, &m, e);
    if (rc == 0) {
        sl_put_uint(m.tree, "job", ids.id[0]);
        rc = daemon_link_ask(s.link, &m, SL_M_DONE, NULL, e);
    }
    if (rc == 0)
        rc = follow_jobs(s.link, &f, e);
    if (rc == 0 && !json && !quiet)
        printf("ok      job %llu: its files are what its source gives\n",
               (unsigned long long)ids.id[0]);
    service_close(&s);
    return rc;
}
