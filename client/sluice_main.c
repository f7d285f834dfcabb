#include "client/cli.h"
#include "client/other_tools.h"
#include "client/progress.h"
#include "client/term.h"
#include "proto/option_help.h"
#include "proto/standard_streams.h"
#include "proto/suggest.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static void print_usage(FILE *to)
{
    fputs("Usage: sluice VERB [ARGUMENT...]\n\n"
          "Turns FP8 and BF16 checkpoints into quantized GGUF files, streaming, byte for\n"
          "byte what llama.cpp's tools would write.\n", to);
    for (unsigned g = 0; cli_group(g); g++) {
        fprintf(to, "\n%s\n", cli_group(g)->title);
        for (const struct cli_verb *const *v = cli_group(g)->verbs; *v; v++) {
            fprintf(to, "  %-10s ", (*v)->name);
            sl_print_wrapped(to, (*v)->summary, 13);
        }
    }
    fputs("\n'sluice VERB --help' shows a verb's options, 'man sluice' all of them.\n\n"
          "Exit codes: 0 ok, 1 failed, 2 usage, 3 finished with warnings,\n"
          "4 daemon unreachable, 5 no such job or worker, 6 unsupported model,\n"
          "tensor or device, 7 source damaged or missing, 8 verification mismatch,\n"
          "9 no space, 10 GPU failed or lost, 13 output exists, 75 interrupted, goes on\n"
          "with the same command, 124 wait --timeout: not ended in that time, 130 and 143\n"
          "ended at once by a second signal.\n", to);
}

static const struct cli_verb *find(const char *name)
{
    for (unsigned g = 0; cli_group(g); g++)
        for (const struct cli_verb *const *v = cli_group(g)->verbs; *v; v++)
            if (strcmp((*v)->name, name) == 0)
                return *v;
    return NULL;
}

static int no_verb(const char *name)
{
    struct suggestion s = {.word = name};
    const char *instead = other_tools_verb(name);

    if (instead) {
        fprintf(stderr, "sluice: '%s' is no verb: %s\n", name, instead);
        return -SL_EUSAGE;
    }
    if (name[0] == '-') {
        fprintf(stderr, "sluice: %s: a verb stands first, then its options; 'sluice --help' lists the verbs\n", name);
        return -SL_EUSAGE;
    }
    for (unsigned g = 0; cli_group(g); g++)
        for (const struct cli_verb *const *v = cli_group(g)->verbs; *v; v++)
            suggest_try(&s, (*v)->name);
    fprintf(stderr, "sluice: '%s' is no verb; ", name);
    if (s.best)
        fprintf(stderr, "did you mean '%s'? ", s.best);
    fputs("'sluice --help' lists them\n", stderr);
    return -SL_EUSAGE;
}

/* Ends as a program does that never ignored SIGPIPE: `sluice logs | head`. */
static void end_without_reader(void)
{
    signal(SIGPIPE, SIG_DFL);
    raise(SIGPIPE);
}

/* After the usage or the version, which are no verb's. */
static int written(void)
{
    struct sl_error e;

    if (sl_stdout_flush(&e) == 0)
        return 0;
    if (term_reader_gone())
        end_without_reader();
    fprintf(stderr, "sluice: %s\n", e.text);
    return -SL_EFAIL;
}

/* A verb whose JSON memory was denied to has failed; what it says itself stays. */
static int may_lack(int rc, struct sl_error *e)
{
    if (rc >= 0 || !e->text[0])
        return sl_fail(e, rc < 0 ? rc : SL_EFAIL, "out of memory");
    if (!strstr(e->text, "out of memory"))
        sl_fail_context(e, "out of memory, so something may be missing");
    return rc;
}

static int run_verb(const struct cli_verb *verb, int argc, const char **argv)
{
    struct sl_error e = {0}, out;
    int rc = verb->run(argc, argv, &e);
    bool lost = sl_stdout_flush(&out) < 0;

    /* A verb that goes on for long notices it itself, and has nothing to say. */
    if ((lost || (rc < 0 && !e.text[0])) && term_reader_gone())
        end_without_reader();
    if (json_lost())
        rc = may_lack(rc, &e);
    if (lost && (rc == 0 || rc == SL_EWARN))
        rc = sl_fail(&e, SL_EFAIL, "%s", out.text);
    if (rc < 0 && e.text[0])
        fprintf(stderr, "sluice %s: %s\n", verb->name, e.text);
    return rc < 0 ? -rc : 0;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    const struct cli_verb *verb;

    sl_streams_fill();
    signal(SIGXFSZ, SIG_IGN); /* a file past the limit is an error like a full disk */
    json_note_memory();
    if (!name) {
        print_usage(stderr);
        return -SL_EUSAGE;
    }
    if (is_help(name) && argc > 2 && !is_help(argv[2])) {
        const char *help[] = {argv[2], "--help", NULL};

        return find(argv[2]) ? run_verb(find(argv[2]), 2, help) : no_verb(argv[2]);
    }
    if (is_help(name)) {
        print_usage(stdout);
        return written();
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0 || strcmp(name, "version") == 0) {
        puts("sluice " SLUICE_VERSION);
        return written();
    }
    verb = find(name);
    if (verb)
        return run_verb(verb, argc - 1, (const char **)(argv + 1));
    return no_verb(name);
}
