#include "client/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const struct cli_verb *const verbs[] = {
    &cli_plan,   &cli_convert, &cli_quantize, &cli_verify,
    &cli_inspect, &cli_diff,   &cli_recipes,  &cli_types,    &cli_imatrix,
};
#define N_VERBS (sizeof verbs / sizeof verbs[0])

static void print_usage(FILE *to)
{
    fputs("Usage: sluice VERB [ARGUMENT...]\n\n"
          "Turns FP8 and BF16 checkpoints into quantized GGUF files, streaming, byte for byte\n"
          "what llama.cpp's tools would write.\n\n", to);
    for (size_t i = 0; i < N_VERBS; i++)
        fprintf(to, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    fputs("\n'sluice VERB --help' shows a verb's options. Exit codes: 0 ok, 1 failed, 2 usage,\n"
          "3 finished with warnings, 6 unsupported model or tensor, 7 source damaged or missing,\n"
          "8 verification mismatch, 9 no space, 13 output exists, 75 interrupted, goes on with\n"
          "the same command.\n", to);
}

/* A file opened later must not become a standard stream that was closed: a
 * message would then be written into it. */
static void fill_standard_streams(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)!open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
}

int main(int argc, char **argv)
{
    struct sl_error e = {0};
    const char *name = argc > 1 ? argv[1] : NULL;
    int rc;

    fill_standard_streams();
    if (!name) {
        print_usage(stderr);
        return -SL_EUSAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        puts("sluice " SLUICE_VERSION);
        return 0;
    }
    for (size_t i = 0; i < N_VERBS; i++) {
        if (strcmp(name, verbs[i]->name) != 0)
            continue;
        rc = verbs[i]->run(argc - 1, (const char **)(argv + 1), &e);
        if ((fflush(stdout) != 0 || ferror(stdout)) && rc == 0)
            rc = sl_fail(&e, SL_EFAIL, "standard output cannot be written");
        if (rc < 0 && e.text[0])
            fprintf(stderr, "sluice %s: %s\n", name, e.text);
        return rc < 0 ? -rc : 0;
    }
    fprintf(stderr, "sluice: '%s' is no verb; 'sluice --help' lists them\n", name);
    return -SL_EUSAGE;
}
