#include "client/service_args.h"

#include "client/interrupt.h"
#include "client/progress.h"
#include "client/record_fields.h"
#include "client/term.h"
#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void service_table(struct service_args *a, struct poptOption table[SERVICE_TABLE_MAX])
{
    const struct poptOption t[] = {
        CLI_TEXT("connect", 0, &a->connect,
                 "the daemon's endpoint: ipc:///PATH or tcp://HOST:PORT (default: $SLUICE_ENDPOINT, sluice.conf)", "ENDPOINT"),
        CLI_TEXT("key", 0, &a->key, "own key file, for tcp ('sluice keys' makes it)", "FILE"),
        CLI_TEXT("server-key", 0, &a->server_key, "the daemon's public key file, for tcp", "FILE"),
        CLI_FLAG("plain-tcp", 0, &a->plain_tcp, "tcp on loopback without keys"),
        CLI_NUMBER("timeout", 0, &a->timeout,
                   "how long to wait for the daemon, and for its name's address (default 10; by ipc at once when nobody listens)",
                   "SECONDS"),
        CLI_TEXT("config", 0, &a->config, "this configuration file in place of the user's and the system's", "FILE"),
        POPT_TABLEEND,
    };

    _Static_assert(sizeof t / sizeof t[0] <= SERVICE_TABLE_MAX, "table too small");
    memcpy(table, t, sizeof t);
    a->timeout = UNSET;
}

/* Paths of options may be relative; the configuration's may not. */
static int set_path(struct sl_config *c, enum sl_config_key k, const char *path,
                    const char *option, struct sl_error *e)
{
    char *full;
    int rc;

    if (!path)
        return 0;
    full = realpath(path, NULL);
    if (!full)
        return sl_fail(e, SL_EUSAGE, "%s %s: %s", option, path, strerror(errno));
    rc = sl_config_set(c, k, full, option, e);
    free(full);
    return rc;
}

static int set_options(struct sl_config *c, const struct service_args *a, struct sl_error *e)
{
    if (a->connect)
        SL_TRY(sl_config_set(c, SL_CONFIG_ENDPOINT, a->connect, "--connect", e));
    SL_TRY(set_path(c, SL_CONFIG_KEY, a->key, "--key", e));
    SL_TRY(set_path(c, SL_CONFIG_SERVER_KEY, a->server_key, "--server-key", e));
    if (a->plain_tcp)
        SL_TRY(sl_config_set(c, SL_CONFIG_PLAIN_TCP, "yes", "--plain-tcp", e));
    return 0;
}

int service_config(const struct service_args *a, struct sl_config **out, struct sl_error *e)
{
    const struct sl_config_opts o = {.path = a->config, .system_socket = SL_CONFIG_SOCKET};
    int rc;

    *out = NULL;
    if (a->timeout != UNSET && (a->timeout < 1 || a->timeout > 86400))
        return sl_fail(e, SL_EUSAGE, "--timeout %d: expected 1 to 86400 seconds", a->timeout);
    SL_TRY(sl_config_open(&o, out, e));
    rc = set_options(*out, a, e);
    if (rc < 0) {
        sl_config_close(*out);
        *out = NULL;
    }
    return rc;
}

int service_open(struct service *s, const struct service_args *a, struct sl_error *e)
{
    memset(s, 0, sizeof *s);
    SL_TRY(service_config(a, &s->config, e));
    interrupt_install();
    return daemon_link_open(s->config, a->timeout == UNSET ? 0 : (uint32_t)a->timeout * 1000, &s->link, e);
}

void service_close(struct service *s)
{
    daemon_link_close(s->link);
    sl_config_close(s->config);
    memset(s, 0, sizeof *s);
}

bool service_is_local(const struct service *s)
{
    return strncmp(daemon_link_endpoint(s->link), "ipc:", 4) == 0;
}

void form_table(struct form_args *a, struct poptOption table[FORM_TABLE_MAX])
{
    const struct poptOption t[] = {
        CLI_FLAG("json", 0, &a->json, "JSON lines, one for each"),
        CLI_FLAG("parsable", 0, &a->parsable, "for programs: no head, fields separated by |, numbers and times in full"),
        CLI_TEXT("format", 'o', &a->fields, "fields to show, in this order: names with commas between them, or all", "FIELDS"),
        POPT_TABLEEND,
    };

    _Static_assert(sizeof t / sizeof t[0] <= FORM_TABLE_MAX, "table too small");
    memcpy(table, t, sizeof t);
}

int form_columns(const struct form_args *a, const struct column *all, const char *usual,
                 struct columns *out, struct sl_error *e)
{
    if (a->json && (a->parsable || a->fields))
        return sl_fail(e, SL_EUSAGE, "--json has every field; it goes without --parsable and -o");
    SL_TRY(columns_choose(all, a->fields ? a->fields : usual, out, e));
    if (!a->fields)
        out->drop = all == job_columns ? JOB_COLUMNS_DROP : all == worker_columns ? WORKER_COLUMNS_DROP : NULL;
    return 0;
}

void form_print(const struct form_args *a, const struct columns *c, const struct cJSON *array,
                const char *message_type)
{
    const cJSON *record;

    if (!a->json) {
        columns_print(stdout, c, array, a->parsable ? COLUMNS_PARSABLE : COLUMNS_TABLE,
                      term_width(STDOUT_FILENO), term_can_colour());
        return;
    }
    cJSON_ArrayForEach(record, array)
        json_line(record_json(record), message_type);
}

int output_alive(struct sl_error *e)
{
    if (term_reader_gone()) {
        *e = (struct sl_error){.code = SL_EFAIL};
        return SL_EFAIL;
    }
    return ferror(stdout) ? sl_fail(e, SL_EFAIL, "standard output cannot be written") : 0;
}

static int ids_add(struct ids *out, uint64_t id, struct sl_error *e)
{
    for (unsigned i = 0; i < out->n; i++)
        if (out->id[i] == id)
            return 0;
    if (out->n == IDS_MAX)
        return sl_fail(e, SL_EUSAGE, "more than %d jobs", IDS_MAX);
    out->id[out->n++] = id;
    return 0;
}

/* A number of a job at *p, which moves past it; 0: none there. */
static uint64_t read_id(const char **p)
{
    uint64_t v = 0;

    for (; **p >= '0' && **p <= '9'; (*p)++) {
        if (v > 99999999999999)
            return 0;
        v = v * 10 + (uint64_t)(**p - '0');
    }
    return v;
}

int ids_parse(const char *const *texts, int n, struct ids *out, struct sl_error *e)
{
    out->n = 0;
    for (int i = 0; i < n; i++) {
        const char *p = texts[i];

        do {
            uint64_t first = read_id(&p), last = first;

            if (*p == '-') {
                p++;
                last = read_id(&p);
            }
            if (first == 0 || last < first || (*p && *p != ',') || (*p == ',' && !p[1]))
                return sl_fail(e, SL_EUSAGE, "'%s' is no job; expected a number, 3,5 or 3-9",
                               texts[i]);
            if (last - first >= IDS_MAX)
                return sl_fail(e, SL_EUSAGE, "%s: more than %d jobs", texts[i], IDS_MAX);
            for (; first <= last; first++)
                SL_TRY(ids_add(out, first, e));
        } while (*p++ == ',');
    }
    return 0;
}

void put_words(struct cJSON *object, const char *field, const char *text)
{
    cJSON *array = text ? sl_put_array(object, field) : NULL;

    while (array && *text) {
        size_t n = strcspn(text, ",");
        char word[128];

        snprintf(word, sizeof word, "%.*s", (int)n, text);
        if (!cJSON_AddItemToArray(array, cJSON_CreateString(word)))
            sl_put(object, field, NULL);
        text += n + (text[n] == ',');
    }
}

int words_add_label(struct words *w, const char *label, struct sl_error *e)
{
    if (!*label || strlen(label) > 63 || !sl_utf8_all_shown(label))
        return sl_fail(e, SL_EUSAGE, "label '%s': expected 1 to 63 bytes of UTF-8 without control characters", label);
    return words_add(w, label, e);
}
