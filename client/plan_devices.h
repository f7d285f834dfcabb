/* --devices: the machines that a model should fit. */
#ifndef SLUICE_CLIENT_PLAN_DEVICES_H
#define SLUICE_CLIENT_PLAN_DEVICES_H

#include "client/cli.h"
#include "proto/plan.h"

/* One set of devices. */
struct plan_devices {
    uint32_t count;
    uint64_t bytes;            /* of one device; 0: they differ */
    bool machine;              /* llama.cpp's: GPUs one by one, beside host memory or not */
    struct sl_machine m;       /* of such a one */
};

/* Effect: reads the sets of a text, at most `max`; *n is how many. NxSIZE is a set of equal devices, and commas stand
 * between such sets. A list that ends with +RAM is one machine, up to the list before it, as is one with a size that has no
 * count; `+RAM` alone has no GPU. Errors: SL_EUSAGE. */
int plan_devices_parse(const char *text, struct plan_devices *sets, uint32_t max, uint32_t *n, struct sl_error *e)
    SL_MUST_USE;

#define PLAN_DEVICES_TEXT 400
/* Effect: writes "2 x 24.0 GB, 1 x 12.0 GB and 192.0 GB of RAM". Returns buf. */
const char *plan_devices_text(const struct plan_devices *d, char buf[PLAN_DEVICES_TEXT]);

#endif
