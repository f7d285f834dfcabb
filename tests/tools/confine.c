/* Runs a command under limits and says what it used.
 * usage: confine [--as BYTES] [--cpus N] [--no-uring] [--report FILE] -- COMMAND...
 * --as: address space of every process (RLIMIT_AS). --no-uring: io_uring_setup
 * fails with EPERM, as in many containers. --report: writes "maxrss_kib N" and
 * "status N". Exit status: the command's; 128 + signal when one ended it. */
#include "no_uring.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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
