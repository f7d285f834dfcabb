/* Instructions that a quantizer takes for each weight, by kind: the call is single-stepped (the
 * processor's trap flag; a signal handler notes each address), and each address looked up in
 * `objdump -d`. For what counters cannot say in a virtual machine, nor valgrind about AVX-512.
 *
 *   kernels_count [--json] BACKEND TYPE... ("q4_k", "q4_k.weighted"; BACKEND "best": the best here) */
#include "bench_weights.h"
#include "kernels/backend.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#define N (16 * 256)
#define TEXT (8u << 20) /* bytes of the program's text at most */

#define TRAP 0x100u     /* in the flags */

enum { ARITHMETIC, COMPARE, SHUFFLE, MOVE, DIVIDE, MASK, SCALAR, KINDS };
static const char *const kind_names[KINDS] = {"arithmetic", "compare", "shuffle", "move", "divide", "mask", "scalar"};

extern char __executable_start;

/* Kind of a mnemonic. arithmetic: an add, multiply, clamp, shift or conversion in vector registers. */
static int kind_of(const char *m)
{
    static const struct { const char *start; int kind; } rules[] = {
        {"vdiv", DIVIDE}, {"vsqrt", DIVIDE}, {"vcmp", COMPARE}, {"vpcmp", COMPARE}, {"vptest", COMPARE}, {"vblend", COMPARE},
        {"vpblend", COMPARE}, {"vunpck", SHUFFLE}, {"vpunpck", SHUFFLE}, {"vshuf", SHUFFLE}, {"vpshuf", SHUFFLE},
        {"vperm", SHUFFLE}, {"vpack", SHUFFLE}, {"vpmov", SHUFFLE}, {"vextract", SHUFFLE}, {"vinsert", SHUFFLE},
        {"vbroadcast", SHUFFLE}, {"vpbroadcast", SHUFFLE}, {"vmov", MOVE}, {"vzero", MOVE}, {"k", MASK}, {"v", ARITHMETIC}};

    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (!strncmp(m, rules[i].start, strlen(rules[i].start)))
            return rules[i].kind;
    return SCALAR;
}

/* kinds[offset in the program] = kind + 1. */
static int read_kinds(const char *program, uint8_t *kinds)
{
    char command[600], line[400], m[40];
    unsigned long at;
    FILE *p;

    snprintf(command, sizeof command, "objdump -d --no-show-raw-insn '%s'", program);
    p = popen(command, "r");
    while (p && fgets(line, sizeof line, p))
        if (sscanf(line, " %lx: %39s", &at, m) == 2 && at < TEXT)
            kinds[at] = (uint8_t)(kind_of(m) + 1);
    return p && pclose(p) == 0 ? 0 : -1;
}

/* What the handler writes. */
static struct { uint64_t at[TEXT], all; } steps;

static void step(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *c = context;
    uint64_t at = (uint64_t)c->uc_mcontext.gregs[REG_RIP] - (uint64_t)(uintptr_t)&__executable_start;

    (void)signal, (void)info;
    steps.all++;
    if (at < TEXT)
        steps.at[at]++;
}

static int count(enum sl_backend b, int type, const float *w, const uint8_t *kinds, const float *x, uint8_t *out, uint64_t *n)
{
    uint64_t bad;
    int rc = sl_quantize_on(b, type, x, w, N, N, out, &bad); /* the grids are made here */

    memset(&steps, 0, sizeof steps);
    if (rc)
        return rc;
    __writeeflags(__readeflags() | TRAP);
    rc = sl_quantize_on(b, type, x, w, N, N, out, &bad);
    __writeeflags(__readeflags() & ~(unsigned long long)TRAP);
    memset(n, 0, KINDS * sizeof *n);
    for (size_t i = 0; i < TEXT; i++)
        if (steps.at[i] && kinds[i])
            n[kinds[i] - 1] += steps.at[i];
    return rc || steps.all < N / 64;
}

static void print(bool json, bool first, const char *backend, const char *type, bool weighted, const uint64_t *n)
{
    if (json)
        printf("%s\n  {\"backend\": \"%s\", \"type\": \"%s\", \"weighted\": %s, \"all\": %.3f", first ? "[" : ",", backend, type,
               weighted ? "true" : "false", (double)steps.all / N);
    else
        printf("%-9s %-8s %-8s %7.2f", backend, type, weighted ? "weighted" : "plain", (double)steps.all / N);
    for (int k = 0; k < KINDS; k++)
        if (json)
            printf(", \"%s\": %.3f", kind_names[k], (double)n[k] / N);
        else
            printf(" %10.2f", (double)n[k] / N);
    printf(json ? "}" : "\n");
    fflush(stdout);
}

static enum sl_backend backend_named(const char *name)
{
    enum sl_backend b = SL_BACKEND_AVX512;

    while (b > SL_BACKEND_AUTO && (strcmp(name, "best") || !sl_backend_usable(b)) && strcmp(name, sl_backend_name(b)))
        b--;
    return b;
}

int main(int argc, char **argv)
{
    static uint8_t kinds[TEXT], out[N * 4];
    static float x[N], w[N];
    struct sigaction trap = {.sa_sigaction = step, .sa_flags = SA_SIGINFO};
    bool json = argc > 1 && !strcmp(argv[1], "--json");
    char **arg = argv + 1 + json;
    enum sl_backend b = *arg ? backend_named(*arg) : SL_BACKEND_AUTO;
    char program[400] = "";
    int wrong = 0;

    if (!b || !sl_backend_usable(b) || !arg[1]) {
        fprintf(stderr, "usage: kernels_count [--json] BACKEND|best TYPE[.weighted]...\n");
        return 2;
    }
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0 || read_kinds(program, kinds) || sigaction(SIGTRAP, &trap, NULL))
        return 1;
    bench_weights(x, w, N, N);
    if (!json) {
        printf("%-27s %7s", "instructions for a weight", "all");
        for (int k = 0; k < KINDS; k++)
            printf(" %10s", kind_names[k]);
        printf("\n");
    }
    for (char **t = arg + 1; *t; t++) {
        char *dot = strchr(*t, '.');
        uint64_t n[KINDS];
        int type = 0;

        if (dot)
            *dot = 0;
        while (type < SL_TYPE_LIMIT && (!sl_type_info(type) || strcmp(sl_type_info(type)->name, *t)))
            type++;
        if (type == SL_TYPE_LIMIT || count(b, type, dot ? w : NULL, kinds, x, out, n)) {
            fprintf(stderr, "kernels_count: %s cannot be counted\n", *t);
            wrong = 1;
        } else {
            print(json, t == arg + 1, sl_backend_name(b), sl_type_info(type)->name, dot != NULL, n);
        }
    }
    if (json)
        printf("\n]\n");
    return wrong;
}
