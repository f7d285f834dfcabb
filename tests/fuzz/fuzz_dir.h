/* A folder in memory, for fuzz targets that need files with names. */
#ifndef SLUICE_TESTS_FUZZ_DIR_H
#define SLUICE_TESTS_FUZZ_DIR_H

#include "tests/fuzz/fuzz_json.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* Returns the folder, the same one for all inputs. A child that waits for this process to end, however it does, removes it. */
static inline const char *fuzz_dir(void)
{
    static char path[64];
    int ends[2];
    char none;
    pid_t pid;

    if (path[0])
        return path;
    snprintf(path, sizeof path, "%s/sluice-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    require(mkdtemp(path) != NULL && pipe2(ends, O_CLOEXEC) == 0);
    pid = fork();
    require(pid >= 0);
    if (pid == 0) {
        setsid(); /* Ctrl-C is not for it */
        close(ends[1]);
        while (read(ends[0], &none, 1) < 0) {
        }
        execlp("rm", "rm", "-rf", "--", path, (char *)NULL);
        _exit(1);
    }
    close(ends[0]);
    return path;
}

#endif
