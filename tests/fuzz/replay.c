/* Runs a fuzz target without an engine: each input as it is, then changes of them for so many seconds. For a compiler that has no
 * libFuzzer, and for some seconds in `make check`.
 *
 *   NAME_replay SECONDS SEED FOUND FILE...      FOUND: where the input goes that the target fails on
 *
 * Prints how many were run. It ends with the target's signal, or with SIGPROF when an input takes more than SLOW seconds of a
 * processor. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOST 65536u
#ifndef SLOW
#define SLOW 20 /* sanitized programs take ten times as long */
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) __attribute__((weak));
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b, uint8_t *to, size_t max, unsigned seed)
    __attribute__((weak));

static const char *found;
static uint8_t input[MOST], before[2][MOST];
static size_t n_input;
static uint64_t state;

static uint64_t next_random(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* A byte changed, bytes left out, repeated, or moved. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max)
{
    size_t at = size ? next_random() % size : 0, n = 1 + next_random() % 8;

    switch (size ? next_random() % 5 : 3) {
    case 0:
        data[at] = (uint8_t)next_random();
        return size;
    case 1:
        data[at] ^= (uint8_t)(1u << next_random() % 8);
        return size;
    case 2:
        n = n < size - at ? n : size - at;
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 3:
        if (size + n > max)
            return size;
        memmove(data + at + n, data + at, size - at);
        for (size_t i = 0; i < n; i++)
            data[at + i] = (uint8_t)" 0a{}[]\",:-\n\x80\xff"[next_random() % 14];
        return size + n;
    default:
        n = n < size - at ? n : size - at;
        memmove(data + next_random() % (size - n + 1), data + at, n);
        return size;
    }
}

/* Keeps the input and lets the signal end the program. */
static void keep(int sig)
{
    static const char slow[] = "an input takes too long\n";
    int fd = open(found, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    if (sig == SIGPROF && write(STDERR_FILENO, slow, sizeof slow - 1) < 0)
        _exit(1);
    if (fd >= 0 && write(fd, input, n_input) < 0)
        _exit(1);
    signal(sig, SIG_DFL);
    raise(sig);
}

static void run_input(void)
{
    const struct itimerval most = {.it_value.tv_sec = SLOW}, none = {0};

    setitimer(ITIMER_PROF, &most, NULL);
    LLVMFuzzerTestOneInput(input, n_input);
    setitimer(ITIMER_PROF, &none, NULL);
}

static void take_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, input, MOST) : -1;

    if (n < 0) {
        perror(path);
        exit(2);
    }
    close(fd);
    n_input = (size_t)n;
}

static void change(char **files, int n)
{
    unsigned seed = (unsigned)next_random();

    take_file(files[next_random() % (unsigned)n]);
    if (LLVMFuzzerCustomCrossOver && next_random() % 4 == 0) {
        size_t n_first = n_input, joined;

        memcpy(before[0], input, n_first);
        take_file(files[next_random() % (unsigned)n]);
        memcpy(before[1], input, n_input);
        joined = LLVMFuzzerCustomCrossOver(before[0], n_first, before[1], n_input, input, MOST, seed);
        n_input = joined ? joined : n_input;
    }
    for (uint64_t k = next_random() % 4 + 1; k > 0; k--)
        n_input = LLVMFuzzerCustomMutator ? LLVMFuzzerCustomMutator(input, n_input, MOST, seed + (unsigned)k)
                                          : LLVMFuzzerMutate(input, n_input, MOST);
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGTRAP, SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGPROF};
    time_t end;
    unsigned long runs = 0;

    if (argc < 5) {
        fputs("usage: NAME_replay SECONDS SEED FOUND FILE...\n", stderr);
        return 2;
    }
    found = argv[3];
    state = strtoull(argv[2], NULL, 10);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], keep);
    end = time(NULL) + strtol(argv[1], NULL, 10);
    for (int i = 4; i < argc; i++, runs++) {
        take_file(argv[i]);
        run_input();
    }
    while (time(NULL) < end) {
        change(argv + 4, argc - 4);
        run_input();
        runs++;
    }
    printf("%lu inputs\n", runs);
    return 0;
}
