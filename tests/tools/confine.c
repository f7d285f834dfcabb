/* Runs a command under limits and says what it used.
 * usage: confine [--as BYTES] [--cpus N] [--no-uring] [--report FILE] -- COMMAND...
 * --as: address space of every process (RLIMIT_AS). --no-uring: io_uring_setup
 * fails with EPERM, as in many containers. --report: writes "maxrss_kib N" and
 * "status N". Exit status: the command's; 128 + signal when one ended it. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int forbid_uring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = { sizeof code / sizeof *code, code };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

int main(int argc, char **argv)
{
    const char *report = NULL;
    rlim_t as = 0;
    int uring = 1, i = 1;
    long cpus = 0;
    for (; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--no-uring"))
            uring = 0;
        else if (!strcmp(argv[i], "--as") && i + 1 < argc)
            as = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--cpus") && i + 1 < argc)
            cpus = strtol(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--report") && i + 1 < argc)
            report = argv[++i];
        else
            break;
    }
    if (i + 1 >= argc || strcmp(argv[i], "--")) {
        fputs("usage: confine [--as BYTES] [--cpus N] [--no-uring] [--report FILE] -- COMMAND...\n", stderr);
        return 2;
    }
    pid_t pid = fork();
    if (pid < 0) {
        perror("confine");
        return 1;
    }
    if (pid == 0) {
        struct rlimit lim = { as, as };
        cpu_set_t set;
        CPU_ZERO(&set);
        for (long k = 0; k < cpus; k++)
            CPU_SET((size_t)k, &set);
        if ((as && setrlimit(RLIMIT_AS, &lim)) || (cpus && sched_setaffinity(0, sizeof set, &set))
            || (!uring && forbid_uring())) {
            perror("confine");
            _exit(126);
        }
        execvp(argv[i + 1], argv + i + 1);
        perror(argv[i + 1]);
        _exit(127);
    }
    int status;
    struct rusage ru;
    while (wait4(pid, &status, 0, &ru) < 0)
        if (errno != EINTR)
            return 1;
    int rc = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (report) {
        FILE *f = fopen(report, "w");
        if (!f || fprintf(f, "maxrss_kib %ld\nstatus %d\n", ru.ru_maxrss, rc) < 0 || fclose(f)) {
            perror(report);
            return 1;
        }
    }
    return rc;
}
