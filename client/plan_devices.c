#include "client/plan_devices.h"

#include "proto/size_text.h"

#include <stdlib.h>
#include <string.h>

#define DEVICE_LEAST 1000000u /* bytes; "8" is no device of 8 bytes */
#define COUNT_MOST 65536u

struct item {
    uint32_t count;
    uint64_t bytes;
};

/* Items that are no set yet. */
struct list {
    struct item item[SL_MAX_GPUS];
    uint32_t n;
    bool bare; /* one has no count */
};

/* A size that has a unit. */
static int parse_size(const char *item, const char *size, const char *example, uint64_t *bytes, struct sl_error *e)
{
    SL_TRY(cli_parse_size("--devices", size, bytes, e));
    return *bytes < DEVICE_LEAST
               ? sl_fail(e, SL_EUSAGE, "--devices: '%s': expected %s: '%s' is %llu byte%s without a unit", item, example,
                         size, (unsigned long long)*bytes, *bytes == 1 ? "" : "s") : 0;
}

/* "8x80G" or "80G". */
static int parse_item(const char *item, struct list *l, struct sl_error *e)
{
    const char *size = strpbrk(item, "xX");
    unsigned long count = 1;
    char *end;

    if (l->n == SL_MAX_GPUS)
        return sl_fail(e, SL_EUSAGE, "--devices: at most %d sets, or devices of one machine", SL_MAX_GPUS);
    if (size == item)
        return sl_fail(e, SL_EUSAGE, "--devices: '%s': expected COUNTxSIZE, such as 8x80G: how many?", item);
    if (size) {
        count = strtoul(item, &end, 10);
        if (end != size || *item < '0' || *item > '9')
            return sl_fail(e, SL_EUSAGE, "--devices: '%s': expected COUNTxSIZE, such as 8x80G", item);
        if (count < 1 || count > COUNT_MOST)
            return sl_fail(e, SL_EUSAGE, "--devices: '%s': expected 1 to %u devices", item, COUNT_MOST);
        if (!size[1])
            return sl_fail(e, SL_EUSAGE, "--devices: '%s': expected COUNTxSIZE, such as 8x80G: of what size?", item);
    }
    l->bare = l->bare || !size;
    l->item[l->n].count = (uint32_t)count;
    SL_TRY(parse_size(item, size ? size + 1 : item, "COUNTxSIZE, such as 8x80G", &l->item[l->n].bytes, e));
    l->n++;
    return 0;
}

/* What stands behind '+'. */
static int parse_host(const char *item, const char *plus, uint64_t *bytes, struct sl_error *e)
{
    if (!plus[1])
        return sl_fail(e, SL_EUSAGE, "--devices: '%s': expected the size of host memory after '+', such as 1x24G+512G", item);
    if (strpbrk(plus + 1, "+xX"))
        return sl_fail(e, SL_EUSAGE, "--devices: '%s': expected one size of host memory after '+'; commas stand between GPUs, "
                       "as in 2x24G,1x12G+192G", item);
    return parse_size(item, plus + 1, "the size of host memory after '+', such as 1x24G+512G", bytes, e);
}

static int add_machine(const struct list *l, uint64_t host, struct plan_devices *d, struct sl_error *e)
{
    memset(d, 0, sizeof *d);
    d->machine = true;
    d->m.host = host;
    for (uint32_t i = 0; i < l->n; i++) {
        if (l->item[i].count > SL_MAX_GPUS - d->m.gpus)
            return sl_fail(e, SL_EUSAGE, "--devices: at most %d GPUs in one machine", SL_MAX_GPUS);
        for (uint32_t g = 0; g < l->item[i].count; g++)
            d->m.gpu[d->m.gpus++] = l->item[i].bytes;
    }
    d->count = d->m.gpus;
    d->bytes = d->m.gpu[0];
    for (uint32_t g = 1; g < d->m.gpus; g++)
        d->bytes = d->m.gpu[g] == d->bytes ? d->bytes : 0;
    return 0;
}

static int add_sets(const struct list *l, struct plan_devices *sets, uint32_t max, uint32_t *n, struct sl_error *e)
{
    bool machine = l->bare && l->n > 1;

    if (*n + (machine ? 1 : l->n) > max)
        return sl_fail(e, SL_EUSAGE, "--devices: at most %u sets", max);
    if (machine)
        return add_machine(l, SL_HOST_UNKNOWN, &sets[(*n)++], e);
    for (uint32_t i = 0; i < l->n; i++)
        sets[(*n)++] = (struct plan_devices){.count = l->item[i].count, .bytes = l->item[i].bytes};
    return 0;
}

/* Item by item of a text that may be written to. */
static int parse_list(char *rest, struct plan_devices *sets, uint32_t max, uint32_t *n, struct sl_error *e)
{
    struct list l = {0};
    char *item;

    while ((item = strsep(&rest, ",")) != NULL) {
        char *plus = strchr(item, '+');
        uint64_t host;

        item += strspn(item, " ");
        if (!*item)
            return sl_fail(e, SL_EUSAGE, "--devices: nothing before or after a comma; expected sizes, such as 24G,16G,12G");
        if (plus)
            SL_TRY(parse_host(item, plus, &host, e));
        if (plus)
            *plus = '\0';
        if (*item)
            SL_TRY(parse_item(item, &l, e));
        if (!plus)
            continue;
        if (*n == max)
            return sl_fail(e, SL_EUSAGE, "--devices: at most %u sets", max);
        SL_TRY(add_machine(&l, host, &sets[(*n)++], e));
        memset(&l, 0, sizeof l);
    }
    return add_sets(&l, sets, max, n, e);
}

int plan_devices_parse(const char *text, struct plan_devices *sets, uint32_t max, uint32_t *n, struct sl_error *e)
{
    char *copy = strdup(text);
    int rc = copy ? 0 : sl_no_memory(e);

    *n = 0;
    if (rc == 0)
        rc = parse_list(copy, sets, max, n, e);
    free(copy);
    return rc;
}

const char *plan_devices_text(const struct plan_devices *d, char buf[PLAN_DEVICES_TEXT])
{
    uint32_t last = 0;
    char size[32];
    size_t n = 0;

    buf[0] = '\0';
    if (!d->machine) {
        snprintf(buf, PLAN_DEVICES_TEXT, "%u x %s", d->count, sl_size_text(size, d->bytes));
        return buf;
    }
    for (uint32_t g = 0; g < d->m.gpus; g = last) {
        while (last < d->m.gpus && d->m.gpu[last] == d->m.gpu[g])
            last++;
        n += (size_t)snprintf(buf + n, PLAN_DEVICES_TEXT - n, "%s%u x %s",
                              !g ? "" : last == d->m.gpus && d->m.host == SL_HOST_UNKNOWN ? " and " : ", ", last - g,
                              sl_size_text(size, d->m.gpu[g]));
    }
    if (d->m.host != SL_HOST_UNKNOWN)
        snprintf(buf + n, PLAN_DEVICES_TEXT - n, "%s%s of RAM", d->m.gpus ? " and " : "", sl_size_text(size, d->m.host));
    return buf;
}
