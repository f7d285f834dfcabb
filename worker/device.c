#include "worker/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int add(struct sl_devices *d, int number, struct sl_error *e)
{
    size_t at = strlen(d->label);

    for (unsigned i = 0; i < d->n; i++)
        if (d->number[i] == number)
            return sl_fail(e, SL_EUSAGE, "device cuda:%d is named twice", number);
    if (d->n == SL_DEVICES_MAX)
        return sl_fail(e, SL_EUSAGE, "more than %d devices", SL_DEVICES_MAX);
    d->number[d->n++] = number;
    snprintf(d->label + at, sizeof d->label - at, "%scuda:%d", at ? "," : "", number);
    return 0;
}

/* An instance of a divided GPU has a UUID of its own. */
static bool is_uuid(const char *text)
{
    return (strncmp(text, "GPU-", 4) == 0 || strncmp(text, "MIG-", 4) == 0) && text[4];
}

static int by_uuid(struct sl_devices *d, const char *text, int n, struct sl_error *e)
{
    int found = -1;

    for (int i = 0; i < n; i++) {
        struct sl_gpu_info info;

        if (d->api->info(i, &info) || strncmp(info.uuid, text, strlen(text)) != 0)
            continue;
        if (found >= 0)
            return sl_fail(e, SL_EUSAGE, "device %s: more than one GPU begins like this", text);
        found = i;
    }
    if (found < 0)
        return sl_fail(e, SL_EUNSUPPORTED, "device %s: no GPU here has this UUID", text);
    return add(d, found, e);
}

static int take_cores(struct sl_devices *d, struct sl_error *e)
{
    if (d->cores)
        return sl_fail(e, SL_EUSAGE, "device cpu is named twice");
    d->cores = true;
    return 0;
}

static int one(struct sl_devices *d, const char *text, struct sl_error *e)
{
    int n = sl_gpu_count(d->api);
    char *end;
    long number;

    if (strcmp(text, "cpu") == 0)
        return take_cores(d, e);
    if (is_uuid(text) && n > 0)
        return by_uuid(d, text, n, e);
    if (is_uuid(text))
        return sl_fail(e, SL_EUNSUPPORTED, "device %s: %s", text, sl_gpu_absence(d->api));
    if (strncmp(text, "cuda:", 5) != 0 || text[5] < '0' || text[5] > '9')
        return sl_fail(e, SL_EUSAGE, "device '%s': auto, cpu, cuda:N or GPU-UUID is expected", text);
    number = strtol(text + 5, &end, 10);
    if (*end)
        return sl_fail(e, SL_EUSAGE, "device '%s': a number is expected after cuda:", text);
    if (n == 0)
        return sl_fail(e, SL_EUNSUPPORTED, "device %s: %s", text, sl_gpu_absence(d->api));
    if (number >= n)
        return sl_fail(e, SL_EUNSUPPORTED, "device %s: there %s %d CUDA device%s here", text, n == 1 ? "is" : "are", n,
                       n == 1 ? "" : "s");
    return add(d, (int)number, e);
}

/* Every GPU that the kernels run on; one that does not answer is the engine's to tell of. */
static int all(struct sl_devices *d, struct sl_error *e)
{
    for (int i = 0; i < sl_gpu_count(d->api) && d->n < SL_DEVICES_MAX; i++) {
        struct sl_gpu_info info;

        if (d->api->info(i, &info) || sl_gpu_fits(&info))
            SL_TRY(add(d, i, e));
    }
    return 0;
}

int sl_devices_choose(const char *text, struct sl_devices *out, struct sl_error *e)
{
    char copy[512], *list = copy, *word;

    memset(out, 0, sizeof *out);
    out->api = sl_gpu_api();
    if (strcmp(text, "auto") == 0)
        SL_TRY(all(out, e));
    out->cores = strcmp(text, "auto") == 0;
    if (strcmp(text, "auto") != 0 && strcmp(text, "cpu") != 0) {
        if (!*text || strlen(text) >= sizeof copy)
            return sl_fail(e, SL_EUSAGE, "device '%.40s': auto, cpu, cuda:N or GPU-UUID is expected", text);
        strcpy(copy, text);
        while ((word = strsep(&list, ",")))
            SL_TRY(one(out, word, e));
    }
    if (!out->n)
        out->cores = false;
    if (!out->n || out->cores)
        strcat(out->label, out->n ? ",cpu" : "cpu");
    return 0;
}
