/* Runs a command and writes what it cost as one JSON object: seconds, processor
 * seconds, peak memory of its largest process, bytes moved by the command's own
 * process. SIGTERM and SIGINT go on to it. Its exit status is the command's.
 * usage: resources FILE COMMAND [ARG...] */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t child;

static void pass_on(int sig)
{
    if (child > 0)
        kill((pid_t)child, sig);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

/* What the kernel counted for a process that ended and was not yet waited for. */
static void print_io(FILE *f, pid_t pid)
{
    char path[64], name[32];
    uint64_t value;
    FILE *io;

    snprintf(path, sizeof path, "/proc/%d/io", (int)pid);
    io = fopen(path, "r");
    while (io && fscanf(io, "%31[^:]: %" SCNu64 "\n", name, &value) == 2)
        fprintf(f, ",\"%s\":%" PRIu64, name, value);
    if (io)
        fclose(io);
}

int main(int argc, char **argv)
{
    const struct sigaction act = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
    struct rusage ru;
    siginfo_t ended;
    double begin = now(), wall;
    int status = 0;
    pid_t pid;
    FILE *f;

    if (argc < 3) {
        fputs("usage: resources FILE COMMAND [ARG...]\n", stderr);
        return 2;
    }
    pid = fork();
    if (pid == 0) {
        execvp(argv[2], argv + 2);
        fprintf(stderr, "resources: %s: %s\n", argv[2], strerror(errno));
        _exit(127);
    }
    if (pid < 0)
        return 1;
    child = pid;
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    while (waitid(P_PID, (id_t)pid, &ended, WEXITED | WNOWAIT) != 0 && errno == EINTR)
        ;
    wall = now() - begin;
    f = fopen(argv[1], "w");
    if (!f) {
        fprintf(stderr, "resources: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    fprintf(f, "{\"wall\":%.3f", wall);
    print_io(f, pid);
    if (wait4(pid, &status, 0, &ru) != pid)
        return 1;
    status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    fprintf(f, ",\"user\":%.3f,\"sys\":%.3f,\"peak\":%ld,\"rc\":%d}\n", seconds(ru.ru_utime),
            seconds(ru.ru_stime), ru.ru_maxrss * 1024, status);
    return fclose(f) == 0 ? status : 1;
}
