/* Every verb, as the help groups them. */
#include "client/cli.h"

static const struct cli_verb *const convert[] = {
    &cli_plan, &cli_convert, &cli_quantize, &cli_verify, NULL,
};
static const struct cli_verb *const service[] = {
    &cli_submit, &cli_queue,  &cli_show,  &cli_watch, &cli_logs,   &cli_wait,    &cli_cancel,
    &cli_hold,   &cli_release, &cli_resume, &cli_retry, &cli_set,  &cli_stitch,  &cli_history,
    &cli_forget, &cli_workers, &cli_drain, NULL,
};
static const struct cli_verb *const tools[] = {
    &cli_inspect, &cli_diff, &cli_imatrix, &cli_recipes,    &cli_types,
    &cli_doctor,  &cli_keys, &cli_config,  &cli_completion, NULL,
};
static const struct cli_group groups[] = {
    {"Convert (in one process, no daemon):", convert},
    {"Service (a daemon's queue, any number of workers):", service},
    {"Tools:", tools},
};

const struct cli_group *cli_group(unsigned i)
{
    return i < sizeof groups / sizeof groups[0] ? &groups[i] : NULL;
}
