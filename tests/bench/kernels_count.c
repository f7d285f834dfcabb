/* Instructions that a quantizer takes for each weight, by kind: the call is single-stepped, and
 * each address looked up in `objdump -d`. For what counters cannot say in a virtual machine, nor
 * valgrind about AVX-512.
 *
 *   kernels_count BACKEND TYPE... ("q4_k", "q4_k.weighted") */
#include "kernels/backend.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define N (16 * 256)
#define TEXT (8u << 20) /* bytes of the program's text at most */

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

static int quantize_stopped(enum sl_backend b, int type, const float *x, const float *w, uint8_t *out)
{
    uint64_t bad;

    if (sl_quantize_on(b, type, x, w, N, N, out, &bad)) /* the grids are made here */
        return 1;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) || raise(SIGSTOP))
        return 1;
    if (sl_quantize_on(b, type, x, w, N, N, out, &bad))
        return 1;
    raise(SIGSTOP);
    return 0;
}

static int count(enum sl_backend b, int type, bool weighted, const uint8_t *kinds, const float *x, const float *w, uint8_t *out)
{
    uint64_t n[KINDS] = {0}, all = 0, base = (uint64_t)(uintptr_t)&__executable_start;
    pid_t child = fork();
    int status;

    if (child == 0)
        _exit(quantize_stopped(b, type, x, weighted ? w : NULL, out));
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        return -1;
    for (;;) {
        struct user_regs_struct r;
        uint64_t at;

        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
            return -1;
        if (WSTOPSIG(status) == SIGSTOP)
            break;
        if (ptrace(PTRACE_GETREGS, child, NULL, &r))
            return -1;
        at = r.rip - base;
        if (at < TEXT && kinds[at])
            n[kinds[at] - 1]++;
        all++;
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    printf("%-9s %-8s %-8s %7.2f", sl_backend_name(b), sl_type_info(type)->name, weighted ? "weighted" : "plain", (double)all / N);
    for (int k = 0; k < KINDS; k++)
        printf(" %10.2f", (double)n[k] / N);
    printf("\n");
    return 0;
}

int main(int argc, char **argv)
{
    static uint8_t kinds[TEXT], out[N * 4];
    static float x[N], w[N];
    enum sl_backend b = SL_BACKEND_AVX512;
    char program[400] = "";
    uint64_t s = 88172645463325252;
    int wrong = 0;

    while (b > SL_BACKEND_AUTO && (argc < 2 || strcmp(argv[1], sl_backend_name(b))))
        b--;
    if (argc < 3 || !b || !sl_backend_usable(b)) {
        fprintf(stderr, "usage: kernels_count BACKEND TYPE[.weighted]...\n");
        return 2;
    }
    if (readlink("/proc/self/exe", program, sizeof program - 1) < 0 || read_kinds(program, kinds))
        return 1;
    for (int i = 0; i < N; i++) {
        double u[2];

        for (int k = 0; k < 2; k++) {
            s ^= s << 13, s ^= s >> 7, s ^= s << 17;
            u[k] = ((double)(s >> 11) + 0.5) * 0x1p-53;
        }
        x[i] = (float)(0.02 * sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]));
        w[i] = (float)pow(10, 2 * u[0] - 1);
    }
    printf("%-27s %7s", "instructions for a weight", "all");
    for (int k = 0; k < KINDS; k++)
        printf(" %10s", kind_names[k]);
    printf("\n");
    for (int i = 2; i < argc; i++) {
        char *dot = strchr(argv[i], '.');
        int type = 0;

        if (dot)
            *dot = 0;
        while (type < SL_TYPE_LIMIT && (!sl_type_info(type) || strcmp(sl_type_info(type)->name, argv[i])))
            type++;
        if (type == SL_TYPE_LIMIT || count(b, type, dot != NULL, kinds, x, w, out)) {
            fprintf(stderr, "kernels_count: %s cannot be counted\n", argv[i]);
            wrong = 1;
        }
        fflush(stdout);
    }
    return wrong;
}
