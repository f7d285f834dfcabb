#include "worker/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLAIM "sluice-job"
#define CLAIM_ENDING "sluice-job-ending"

static void claim_path(const struct output *o, const char *end, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s/%s.%s", o->dir, o->prefix, end);
}

/* Reads "FINGERPRINT\njob N\n"; *job is 0 where the second line is missing. Returns
 * whether a file of that name could be opened. */
static bool read_file(const struct output *o, const char *end, char fingerprint[33], uint64_t *job)
{
    char path[4400], text[80] = "";
    ssize_t n = -1;
    int fd;

    fingerprint[0] = '\0';
    *job = 0;
    claim_path(o, end, path, sizeof path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    if (strlen(text) >= 32) {
        memcpy(fingerprint, text, 32);
        fingerprint[32] = '\0';
        if (strncmp(text + 32, "\njob ", 5) == 0)
            *job = strtoull(text + 37, NULL, 10);
    }
    return true;
}

void claim_read(const struct output *o, bool ending, char fingerprint[33])
{
    uint64_t job;

    (void)!read_file(o, ending ? CLAIM_ENDING : CLAIM, fingerprint, &job);
}

int claim_write(const struct output *o, const char *fingerprint, uint64_t job, struct sl_error *e)
{
    char path[4400], line[80];
    int fd, rc = 0;
    int n = snprintf(line, sizeof line, "%s\njob %llu\n", fingerprint, (unsigned long long)job);

    claim_path(o, CLAIM, path, sizeof path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0 || write(fd, line, (size_t)n) != n || fsync(fd) != 0)
        rc = sl_fail(e, errno == ENOSPC || errno == EDQUOT ? SL_ENOSPACE : SL_EFAIL, "%s: %s", path,
                     strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc < 0 ? rc : output_sync_dir(o, e);
}

void claim_end(const struct output *o)
{
    char from[4400], to[4400];

    claim_path(o, CLAIM, from, sizeof from);
    claim_path(o, CLAIM_ENDING, to, sizeof to);
    (void)!rename(from, to);
}

void claim_drop(const struct output *o)
{
    char path[4400];

    claim_path(o, CLAIM, path, sizeof path);
    unlink(path);
    claim_path(o, CLAIM_ENDING, path, sizeof path);
    unlink(path);
}

int claim_absent(const struct output *o, struct sl_error *e)
{
    char path[4400], fingerprint[33], id[32] = "";
    uint64_t job;

    claim_path(o, CLAIM, path, sizeof path);
    if (!read_file(o, CLAIM, fingerprint, &job)) {
        claim_path(o, CLAIM_ENDING, path, sizeof path);
        if (!read_file(o, CLAIM_ENDING, fingerprint, &job))
            return 0;
    }
    if (job)
        snprintf(id, sizeof id, " %llu", (unsigned long long)job);
    return sl_fail(e, SL_EEXISTS, "%s: job%s of the service is at work on this output; wait for it "
                   "('sluice wait%s'), 'sluice cancel --discard%s', or choose another name (when that "
                   "service is gone for good: remove this file and the .partial files)", path,
                   id, job ? id : " JOB", job ? id : " JOB");
}
