#include "worker/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define CLAIM "sluice-job"
#define CLAIM_ENDING "sluice-job-ending"

static void claim_path(const struct output *o, const char *end, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s/%s.%s", o->dir, o->prefix, end);
}

/* The claim's text, "" when it cannot be read. Returns whether it could be opened. */
static bool read_text(const struct output *o, const char *end, char text[128])
{
    char path[4400];
    ssize_t n = -1;
    int fd;

    claim_path(o, end, path, sizeof path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0) {
        n = read(fd, text, 127);
        close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
    return fd >= 0;
}

void claim_read(const struct output *o, bool ending, char fingerprint[33])
{
    char text[128];

    (void)read_text(o, ending ? CLAIM_ENDING : CLAIM, text);
    text[strlen(text) >= 32 ? 32 : 0] = '\0';
    memcpy(fingerprint, text, strlen(text) + 1);
}

static int make_mark(char mark[33], struct sl_error *e)
{
    uint64_t random[2];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return sl_fail(e, SL_EFAIL, "no random bytes: %s", strerror(errno));
    snprintf(mark, 33, "%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    return 0;
}

/* The fields are of one length, so that one write replaces a claim whole. */
int claim_write(const struct output *o, const char *fingerprint, uint64_t job, bool over,
                char mark[33], struct sl_error *e)
{
    char path[4400], text[128];
    int fd, n, rc = 0;

    SL_TRY(make_mark(mark, e));
    n = snprintf(text, sizeof text, "%s\njob %015llu\n%s\n", fingerprint, (unsigned long long)job, mark);
    claim_path(o, CLAIM, path, sizeof path);
    fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | (over ? 0 : O_CREAT | O_EXCL), 0666);
    if (fd < 0 && errno == EEXIST)
        rc = sl_fail(e, SL_EFAIL, "%s: another worker prepares this output just now", path);
    else if (fd < 0 || pwrite(fd, text, (size_t)n, 0) != n || fsync(fd) != 0)
        rc = sl_fail(e, errno == ENOSPC || errno == EDQUOT ? SL_ENOSPACE : SL_EFAIL, "%s: %s", path,
                     strerror(errno));
    if (fd >= 0)
        close(fd);
    return rc < 0 ? rc : output_sync_dir(o, e);
}

bool claim_is_mine(const struct output *o, const char mark[33])
{
    char text[128];

    (void)read_text(o, CLAIM, text);
    return strstr(text, mark) != NULL;
}

bool claim_there(const struct output *o)
{
    char path[4400];

    claim_path(o, CLAIM, path, sizeof path);
    if (access(path, F_OK) == 0)
        return true;
    claim_path(o, CLAIM_ENDING, path, sizeof path);
    return access(path, F_OK) == 0;
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
    char path[4400], text[128], id[32] = "";
    uint64_t job = 0;

    claim_path(o, CLAIM, path, sizeof path);
    if (!read_text(o, CLAIM, text)) {
        claim_path(o, CLAIM_ENDING, path, sizeof path);
        if (!read_text(o, CLAIM_ENDING, text))
            return 0;
    }
    if (strlen(text) > 37 && strncmp(text + 32, "\njob ", 5) == 0)
        job = strtoull(text + 37, NULL, 10);
    if (job)
        snprintf(id, sizeof id, " %llu", (unsigned long long)job);
    return sl_fail(e, SL_EEXISTS, "%s: job%s of the service is at work on this output; wait for it "
                   "('sluice wait%s'), 'sluice cancel --discard%s', or choose another name (when that "
                   "service is gone for good: remove this file and the .partial files)", path,
                   id, job ? id : " JOB", job ? id : " JOB");
}
