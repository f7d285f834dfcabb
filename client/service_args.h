/* What the verbs of the service share: which daemon, which form of output,
 * numbers of jobs. */
#ifndef SLUICE_CLIENT_SERVICE_ARGS_H
#define SLUICE_CLIENT_SERVICE_ARGS_H

#include "client/cli.h"
#include "client/columns.h"
#include "client/daemon_link.h"

struct cJSON;

/* Options that name the daemon. */
struct service_args {
    const char *connect, *key, *server_key, *config;
    int plain_tcp, timeout;
};
#define SERVICE_TABLE_MAX 8
void service_table(struct service_args *a, struct poptOption table[SERVICE_TABLE_MAX]);

/* Effect: *out = the configuration with these options on top. The caller closes
 * it. Errors: SL_EUSAGE. */
int service_config(const struct service_args *a, struct sl_config **out, struct sl_error *e)
    SL_MUST_USE;

/* A connection and the configuration that it came from. */
struct service {
    struct sl_config *config;
    struct daemon_link *link;
};
/* Effect: connects. *s is zeroed first; service_close in every case. */
int service_open(struct service *s, const struct service_args *a, struct sl_error *e) SL_MUST_USE;
void service_close(struct service *s);

/* Whether the daemon is one of this machine. */
bool service_is_local(const struct service *s);

/* Options of a list's form. */
struct form_args {
    int json, parsable;
    const char *fields;
};
#define FORM_TABLE_MAX 4
void form_table(struct form_args *a, struct poptOption table[FORM_TABLE_MAX]);

/* Effect: prints an array of records as the form asks: the fields of c (form_columns), or as
 * JSON, one line each, whole, of that message_type. Of an empty array only a table's head. */
void form_print(const struct form_args *a, const struct columns *c, const struct cJSON *array,
                const char *message_type);
/* Effect: chooses fields: those asked for, else usual. Errors: SL_EUSAGE. */
int form_columns(const struct form_args *a, const struct column *all, const char *usual,
                 struct columns *out, struct sl_error *e) SL_MUST_USE;

/* Errors: SL_EFAIL when standard output cannot be written any more: with words, or
 * without when it is a pipe that nobody reads (a verb that goes on ends quietly). */
int output_alive(struct sl_error *e) SL_MUST_USE;

#define IDS_MAX ((int)SL_ASK_MAX)
struct ids {
    uint64_t id[IDS_MAX];
    unsigned n;
};
/* Effect: numbers of jobs from "7", "3,5", "3-9", in order, each once. Errors:
 * SL_EUSAGE naming the text. */
int ids_parse(const char *const *texts, int n, struct ids *out, struct sl_error *e) SL_MUST_USE;

/* Effect: the parts of "a,b,c" as an array of strings in a message's field. */
void put_words(struct cJSON *object, const char *field, const char *text);

/* Effect: words_add of a label. Errors: SL_EUSAGE for what can be none (1 to 63 bytes of UTF-8, nothing that
 * a terminal would obey). */
int words_add_label(struct words *w, const char *label, struct sl_error *e) SL_MUST_USE;

#endif
