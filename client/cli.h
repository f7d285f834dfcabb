/* What every verb of `sluice` shares: option parsing (popt), messages, sizes. */
#ifndef SLUICE_CLIENT_CLI_H
#define SLUICE_CLIENT_CLI_H

#include "proto/error.h"
#include "proto/job_spec.h"

#include <limits.h>
#include <popt.h>
#include <stdbool.h>
#include <stdint.h>

/* A number that no option gave. */
#define UNSET INT_MIN

/* One verb. run gets argv[0] = the verb and returns 0 or a negative code;
 * what went wrong is in *e, and main prints it. */
struct cli_verb {
    const char *name;
    const char *args;    /* "CHECKPOINT -o OUT [OPTION...]" */
    const char *summary; /* one line */
    int (*run)(int argc, const char **argv, struct sl_error *e);
};

extern const struct cli_verb cli_plan, cli_convert, cli_quantize, cli_verify, cli_inspect,
    cli_diff, cli_recipes, cli_types, cli_imatrix;
extern const struct cli_verb cli_submit, cli_queue, cli_show, cli_watch, cli_logs, cli_wait,
    cli_cancel, cli_hold, cli_release, cli_resume, cli_retry, cli_set, cli_stitch, cli_forget,
    cli_history, cli_workers, cli_drain;
extern const struct cli_verb cli_keys, cli_doctor, cli_config, cli_completion;

/* Verbs as the help groups them. */
struct cli_group {
    const char *title;
    const struct cli_verb *const *verbs; /* NULL ends them */
};
/* Returns the i-th group, NULL past the last. */
const struct cli_group *cli_group(unsigned i);

/* Effect: calls fn for every option of a verb, "--help" included, in the order
 * of its help. Runs no more of the verb than its parsing. */
void cli_each_option(const struct cli_verb *verb,
                     void (*fn)(void *user, const struct poptOption *option), void *user);

/* Parsed command line. Positional arguments are in pos[0..n_pos). */
struct cli_args {
    const struct poptOption *table;
    poptContext ctx;
    const char **pos;
    int n_pos;
};

/* Options of a verb's table, with the variable: given or not, a text, a whole number; one that calls cli_parse's on_val with
 * `val`; and other options under a heading. */
#define CLI_FLAG(name, letter, to, help) {name, letter, POPT_ARG_NONE, to, 0, help, NULL}
#define CLI_TEXT(name, letter, to, help, arg) {name, letter, POPT_ARG_STRING, to, 0, help, arg}
#define CLI_NUMBER(name, letter, to, help, arg) {name, letter, POPT_ARG_INT, to, 0, help, arg}
#define CLI_CALL(name, letter, val, help, arg) {name, letter, POPT_ARG_STRING, NULL, val, help, arg}
#define CLI_TABLE(options, heading) {NULL, 0, POPT_ARG_INCLUDE_TABLE, options, 0, heading, NULL}

/* Effect: parses argv by the table (values go to the table's variables; a
 * non-zero `val` calls on_val(val, argument, user) when given). "--help" prints
 * usage, the verb's text and options to stdout and gives 1. Errors: SL_EUSAGE
 * for an unknown option, a missing value, fewer than min_pos or more than
 * max_pos arguments. Release with cli_args_free after 0. */
int cli_parse(struct cli_args *a, const struct cli_verb *verb, int argc, const char **argv,
              const struct poptOption *table, int min_pos, int max_pos,
              int (*on_val)(int val, const char *arg, void *user, struct sl_error *e),
              void *user, struct sl_error *e) SL_MUST_USE;
void cli_args_free(struct cli_args *a);

/* A repeatable option's values. */
struct words {
    const char **word;
    int n;
};
/* Effect: appends a copy of text; words_free gives all back. Errors: SL_EFAIL. */
int words_add(struct words *w, const char *text, struct sl_error *e) SL_MUST_USE;
void words_free(struct words *w);
/* Effect: sets them as a message's field; none: sets nothing. */
void words_put(struct cJSON *object, const char *field, const struct words *w);

/* Effect: bytes from "48G", "1.5GiB", "300M", "4096": K M G T are powers of
 * 1000, Ki Mi Gi Ti powers of 1024. Errors: SL_EUSAGE naming the option. */
int cli_parse_size(const char *option, const char *text, uint64_t *out, struct sl_error *e)
    SL_MUST_USE;

#define CLI_SHOWN_BYTES 4200
/* Writes text, a path for example, to line as a message shows it: '?' for what a terminal
 * would obey, cut to fit. Returns line. */
const char *cli_shown(char line[CLI_SHOWN_BYTES], const char *text);

/* The options that decide a plan, shared by plan, convert, quantize and submit
 * (one table, one meaning). */
struct cli_plan_args {
    const char *recipe;
    const char *layout;
    int no_mtp;
    const char *round_through;
    const char *split_max_size;
    int split_max_tensors;
    int no_tensor_first_split;
    int keep_split;             /* quantize only: split as the source is */
    const char *model_name;
    const char *output_type, *embedding_type;
    int leave_output, pure;
    const char *rules;          /* "2026" or "2025" */
    const char *task_size;
    /* filled by cli_plan_on_val: repeatable options */
    struct words tensor_type;   /* in their order: CLI_PAIR and REGEX=TYPE, or CLI_PAIRS and the name of a file of such */
    struct words override_kv, include_weights, exclude_weights;
    const char *imatrix;
    int allow_requantize;
    const uint32_t *prune;      /* quantize only: layers left out, ascending */
    uint32_t n_prune;
    int sizes_only;             /* types that cannot be written are no error */
    bool silent;                /* nothing is shown while a plan takes its time */
};

#define CLI_PAIR '='
#define CLI_PAIRS '@'
#define CLI_PLAN_TABLE_MAX 28
/* Effect: fills table with the plan options, ended by POPT_TABLEEND, pointing into *a;
 * include it with POPT_ARG_INCLUDE_TABLE. Repeatable options arrive in
 * cli_plan_on_val (pass every val >= CLI_PLAN_VAL to it, user = a). */
#define CLI_PLAN_VAL 1000
void cli_plan_table(struct cli_plan_args *a, struct poptOption table[CLI_PLAN_TABLE_MAX]);
int cli_plan_on_val(int val, const char *arg, void *a, struct sl_error *e) SL_MUST_USE;
void cli_plan_args_free(struct cli_plan_args *a);

/* Effect: the arguments as options of a job; strings stay the arguments'. Recipe,
 * types of tensors and key-values are not among them. Errors: SL_EUSAGE. */
int cli_job_options(const struct cli_plan_args *a, struct sl_job_options *o, struct sl_error *e)
    SL_MUST_USE;

/* Effect: opens source, model, recipe and plan. out_prefix: base name of the
 * output, or NULL to derive it from the model (GGUF naming convention).
 * Errors: those of the steps. Release with sl_job_plan_close in every case. */
int cli_job_open(struct sl_job_plan *j, const char *source, bool config_only,
                 const struct cli_plan_args *a, const char *out_prefix, struct sl_error *e)
    SL_MUST_USE;

/* Effect: the same with a recipe's text in place of a->recipe. */
int cli_job_open_text(struct sl_job_plan *j, const char *source, const struct cli_plan_args *a,
                      const char *name, const char *text, struct sl_error *e) SL_MUST_USE;

/* Effect: where this is an earlier text of *j's stock recipe, and the plan made of it has this fingerprint, *j becomes
 * that plan's. Returns whether it did. Errors: those of the steps; *j is as it was. */
int cli_job_go_back(struct sl_job_plan *j, const char *source, const struct cli_plan_args *a, const char *recipe,
                    const char *text, const char *fingerprint, struct sl_error *e) SL_MUST_USE;

/* Returns how many tensors are quantized in the source already, and to be in another type:
 * without --allow-requantize that is refused. */
uint32_t cli_requantized(const struct sl_job_plan *j);

/* Effect: says on stderr what the imatrix does not cover and which rules decide nothing;
 * json: the latter also as JSON lines, message_type "warning". What is in `said` is not said
 * again, and what is said is added (NULL: everything is said). */
void cli_job_notes(const struct sl_job_plan *j, bool json, struct words *said);
/* Effect: says one such line. */
void cli_warn(const char *line, bool json);
/* Effect: calls fn for each line of the latter. */
void cli_each_warning(const struct sl_job_plan *j, void (*fn)(void *user, const char *line), void *user);

/* Effect: prints an object as one line on stdout. Takes it. Errors: SL_EFAIL. */
int cli_print_json(struct cJSON *object, struct sl_error *e) SL_MUST_USE;

#endif
