#include "worker/claim.h"

#include "proto/clock.h"
#include "proto/random_hex.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLAIM "sluice-job"
#define CLAIM_ENDING "sluice-job-ending"
#define CLAIM_NEW "sluice-job.partial" /* replaces one that is held; output_remove knows it */
#define TEXT_BYTES 160
#define LOOK_MS 20
#define BUSY (CLAIM_OTHERS + 1)

struct claim {
    bool there;
    char text[TEXT_BYTES];
    char fingerprint[33];    /* "": torn */
    uint64_t job, epoch;     /* 0: an older release's */
};

static void claim_path(const struct output *o, const char *end, char buf[OUTPUT_PATH_BYTES])
{
    snprintf(buf, OUTPUT_PATH_BYTES, "%s/%s.%s", o->dir, o->prefix, end);
}

static const char *end_of(bool ending)
{
    return ending ? CLAIM_ENDING : CLAIM;
}

/* ---- its text */

static uint64_t number_behind(const char *text, const char *word)
{
    const char *at = strstr(text, word);

    return at ? strtoull(at + strlen(word), NULL, 10) : 0;
}

static int cannot_read(const char *path, struct sl_error *e)
{
    return sl_fail(e, SL_EFAIL, "%s: cannot be read: %s; it says whose unfinished files are here", path, strerror(errno));
}

static int read_fd(int fd, const char *path, struct claim *c, struct sl_error *e)
{
    size_t at = 0;
    ssize_t n;

    while ((n = pread(fd, c->text + at, sizeof c->text - 1 - at, (off_t)at)) > 0 || (n < 0 && errno == EINTR))
        at += n > 0 ? (size_t)n : 0;
    if (n < 0)
        return cannot_read(path, e);
    c->text[at] = '\0';
    c->fingerprint[0] = '\0';
    if (strlen(c->text) >= 32)
        snprintf(c->fingerprint, sizeof c->fingerprint, "%.32s", c->text);
    c->job = number_behind(c->text, "\njob ");
    c->epoch = number_behind(c->text, "\nepoch ");
    return 0;
}

static int read_claim(const struct output *o, bool ending, struct claim *c, struct sl_error *e)
{
    char path[OUTPUT_PATH_BYTES];
    int fd, rc;

    memset(c, 0, sizeof *c);
    claim_path(o, end_of(ending), path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : cannot_read(path, e);
    c->there = true;
    rc = read_fd(fd, path, c, e);
    close(fd);
    return rc;
}

bool claim_is_of(const struct output *o, const char *fingerprint, uint64_t job)
{
    struct claim c;

    return read_claim(o, false, &c, NULL) == 0 && strcmp(c.fingerprint, fingerprint) == 0 && (!c.job || c.job == job);
}

/* The fields are of one length, so that one write replaces a claim whole. */
static int write_fd(int fd, const char *path, const struct claim_lease *l, const char mark[33],
                    struct sl_error *e)
{
    char text[TEXT_BYTES];
    int n = snprintf(text, sizeof text, "%s\njob %015llu\n%s\nepoch %015llu\n", l->fingerprint,
                     (unsigned long long)l->job, mark, (unsigned long long)l->epoch);

    if (pwrite(fd, text, (size_t)n, 0) != n || ftruncate(fd, n) != 0 || fsync(fd) != 0)
        return sl_fail(e, sl_write_code(errno), "%s: %s", path, strerror(errno));
    return 0;
}

/* ---- whose it is */

static int late(const struct claim *c, const char *path, struct sl_error *e)
{
    return sl_fail(e, SL_EEXISTS, "%s: a later lease of job %llu has this output (epoch %llu): this one "
                   "gives way (when that service is gone for good: remove this file and the .partial "
                   "files)", path, (unsigned long long)c->job, (unsigned long long)c->epoch);
}

static int others(const struct output *o, struct sl_error *e)
{
    return sl_fail(e, SL_EEXISTS, "%s/%s: unfinished work of another job is there; finish it, "
                   "cancel it with --discard, or use --force", o->dir, o->prefix);
}

static bool same_plan(const struct claim *c, const struct claim_lease *l)
{
    return strcmp(c->fingerprint, l->fingerprint) == 0;
}

/* Under its ending name a claim may have lost its files already, to publication or removal. */
static bool keeps_files(const struct output *o, const struct claim *ending, const struct claim_lease *l)
{
    return ending->fingerprint[0] && !same_plan(ending, l) && output_unfinished(o);
}

int claim_free(const struct output *o, const struct claim_lease *l, bool any_plan,
               struct sl_error *e)
{
    struct claim c[2];
    char path[OUTPUT_PATH_BYTES];

    for (unsigned i = 0; i < 2; i++) {
        SL_TRY(read_claim(o, i, &c[i], e));
        claim_path(o, end_of(i), path);
        if (c[i].epoch > l->epoch)
            return late(&c[i], path, e);
    }
    if (any_plan || (c[0].fingerprint[0] && same_plan(&c[0], l)))
        return 0;
    return c[0].fingerprint[0] || keeps_files(o, &c[1], l) ? others(o, e) : 0;
}

/* What a claim is wanted for: to go on with it, to make it where none of another plan is
 * there, to make it over any. */
enum want { TAKE, MAKE, MAKE_OVER };

/* What the lease may do with a claim as it was read. Returns CLAIM_HELD when it may have it. */
static int judge(const struct claim *c, const struct claim_lease *l, enum want want, const char *path,
                 struct sl_error *e)
{
    if (c->epoch > l->epoch)
        return late(c, path, e);
    if (!c->fingerprint[0])
        return want == TAKE ? CLAIM_NONE : CLAIM_HELD;
    if (want == TAKE)
        return same_plan(c, l) && (!c->job || c->job == l->job) ? CLAIM_HELD : CLAIM_OTHERS;
    return want == MAKE_OVER || same_plan(c, l) ? CLAIM_HELD : CLAIM_OTHERS;
}

/* ---- holding */

/* Whether `path` is the file that fd has open; looked up anew, so that NFS asks its server. */
static bool is_at(const char *path, const struct stat *own)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    bool same = fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == own->st_dev && st.st_ino == own->st_ino;

    if (fd >= 0)
        close(fd);
    return same;
}

/* A filesystem without locks counts as locked: the looks remain. */
static bool try_lock(int fd)
{
    int rc;

    do
        rc = flock(fd, LOCK_EX | LOCK_NB);
    while (rc != 0 && errno == EINTR);
    return rc == 0 || errno != EWOULDBLOCK;
}

/* Puts another file, held by this lease, in the place of the claim at `path`. */
static int replace(const struct claim_lease *l, const char *path, struct claim_hold *h, struct sl_error *e)
{
    char new[OUTPUT_PATH_BYTES];
    struct stat st;
    int rc;

    claim_path(h->o, CLAIM_NEW, new);
    unlink(new);
    h->fd = open(new, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (h->fd < 0 || fstat(h->fd, &st) != 0)
        return sl_fail(e, sl_write_code(errno), "%s: %s", new, strerror(errno));
    (void)try_lock(h->fd);
    rc = write_fd(h->fd, new, l, h->mark, e);
    if (rc == 0 && rename(new, path) != 0)
        rc = sl_fail(e, SL_EFAIL, "%s: %s", path, strerror(errno));
    if (rc < 0)
        unlink(new);
    h->dev = st.st_dev;
    h->ino = st.st_ino;
    return rc < 0 ? rc : CLAIM_HELD;
}

/* Opens the claim at `path`, makes it unless it is to be taken, and tries to hold it. Returns an
 * enum claim_found, or BUSY when somebody else holds it or has just replaced it. */
static int try_hold(const struct claim_lease *l, enum want want, const char *path, struct claim_hold *h,
                    struct sl_error *e)
{
    struct claim c;
    struct stat st;
    int rc;

    h->fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | (want == TAKE ? 0 : O_CREAT), 0666);
    if (h->fd < 0 && errno == ENOENT && want == TAKE)
        return CLAIM_NONE;
    if (h->fd < 0 || fstat(h->fd, &st) != 0)
        return sl_fail(e, sl_write_code(errno), "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return sl_fail(e, SL_EFAIL, "%s: not a regular file", path);
    /* A later lease is told from its text, without waiting for its lock. */
    SL_TRY(read_fd(h->fd, path, &c, e));
    rc = judge(&c, l, want, path, e);
    if (rc != CLAIM_HELD)
        return rc;
    if (!try_lock(h->fd) || !is_at(path, &st))
        return BUSY;
    SL_TRY(read_fd(h->fd, path, &c, e));
    rc = judge(&c, l, want, path, e);
    if (rc != CLAIM_HELD)
        return rc;
    h->dev = st.st_dev;
    h->ino = st.st_ino;
    rc = write_fd(h->fd, path, l, h->mark, e);
    if (rc < 0 && !c.fingerprint[0])
        unlink(path);
    return rc < 0 ? rc : CLAIM_HELD;
}

/* Returns an enum claim_found; h->fd is open with CLAIM_HELD alone. */
static int hold(const struct output *o, bool ending, const struct claim_lease *l, enum want want,
                struct claim_hold *h, struct sl_error *e)
{
    uint64_t give_up = sl_boot_ms() + l->wait_ms;
    char path[OUTPUT_PATH_BYTES];
    int rc;

    *h = (struct claim_hold){.o = o, .ending = ending, .fd = -1};
    SL_TRY(sl_random_hex(h->mark, e));
    claim_path(o, end_of(ending), path);
    for (;;) {
        rc = try_hold(l, want, path, h, e);
        if (rc != BUSY)
            break;
        claim_release(h);
        if (sl_boot_ms() >= give_up) {
            rc = replace(l, path, h, e);
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
    }
    if (rc == CLAIM_HELD) {
        int synced = output_sync_dir(o, e);

        rc = synced < 0 ? synced : rc;
    }
    if (rc != CLAIM_HELD)
        claim_release(h);
    return rc;
}

int claim_make(const struct output *o, const struct claim_lease *l, bool any_plan,
               struct claim_hold *h, struct sl_error *e)
{
    char path[OUTPUT_PATH_BYTES];
    struct claim ending;
    int rc = hold(o, false, l, any_plan ? MAKE_OVER : MAKE, h, e);

    SL_TRY(rc);
    if (rc != CLAIM_HELD)
        return others(o, e);
    claim_path(o, CLAIM_ENDING, path);
    rc = read_claim(o, true, &ending, e);
    if (rc == 0 && ending.epoch > l->epoch)
        rc = late(&ending, path, e);
    else if (rc == 0 && !any_plan && keeps_files(o, &ending, l))
        rc = others(o, e);
    if (rc == 0) {
        unlink(path);
    } else {
        (void)!claim_drop(h, NULL);
        claim_release(h);
    }
    return rc;
}

int claim_take(const struct output *o, const struct claim_lease *l, struct claim_hold *h,
               struct sl_error *e)
{
    int rc = hold(o, false, l, TAKE, h, e);

    return rc == CLAIM_NONE ? hold(o, true, l, TAKE, h, e) : rc;
}

int claim_check(const struct claim_hold *h, struct sl_error *e)
{
    char path[OUTPUT_PATH_BYTES];
    struct claim c = {0};
    struct stat st;
    bool mine = false;
    int fd, rc = 0;

    claim_path(h->o, end_of(h->ending), path);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0) {
        rc = fstat(fd, &st) == 0 ? read_fd(fd, path, &c, e) : cannot_read(path, e);
        mine = rc == 0 && st.st_dev == h->dev && st.st_ino == h->ino && strstr(c.text, h->mark) != NULL;
        close(fd);
    } else if (errno != ENOENT) {
        rc = cannot_read(path, e);
    }
    SL_TRY(rc);
    return mine ? 0 : sl_fail(e, SL_EINTERRUPTED, "%s: another lease has this output now", path);
}

int claim_end(struct claim_hold *h, bool ending, struct sl_error *e)
{
    char from[OUTPUT_PATH_BYTES], to[OUTPUT_PATH_BYTES];

    SL_TRY(claim_check(h, e));
    if (h->ending == ending)
        return 0;
    claim_path(h->o, end_of(!ending), from);
    claim_path(h->o, end_of(ending), to);
    if (rename(from, to) != 0)
        return sl_fail(e, SL_EFAIL, "%s: cannot be renamed: %s", from, strerror(errno));
    h->ending = ending;
    return 0;
}

int claim_drop(const struct claim_hold *h, struct sl_error *e)
{
    char path[OUTPUT_PATH_BYTES];
    int rc = claim_check(h, e);

    if (rc < 0)
        return rc == SL_EINTERRUPTED ? 0 : rc;
    claim_path(h->o, end_of(h->ending), path);
    return unlink(path) == 0 || errno == ENOENT
               ? 0 : sl_fail(e, sl_write_code(errno), "%s: cannot be removed: %s", path, strerror(errno));
}

void claim_release(struct claim_hold *h)
{
    if (h->fd >= 0)
        close(h->fd);
    h->fd = -1;
}

/* ---- for others */

bool claim_there(const struct output *o)
{
    char path[OUTPUT_PATH_BYTES];

    claim_path(o, CLAIM, path);
    if (output_has(path))
        return true;
    claim_path(o, CLAIM_ENDING, path);
    return output_has(path);
}

int claim_absent(const struct output *o, struct sl_error *e)
{
    char path[OUTPUT_PATH_BYTES], id[32] = "";
    const char *job = " JOB"; /* an older release named none */
    struct claim c;

    claim_path(o, CLAIM, path);
    SL_TRY(read_claim(o, false, &c, e));
    if (!c.there) {
        claim_path(o, CLAIM_ENDING, path);
        SL_TRY(read_claim(o, true, &c, e));
        if (!c.there)
            return 0;
    }
    if (c.job) {
        snprintf(id, sizeof id, " %llu", (unsigned long long)c.job);
        job = id;
    }
    return sl_fail(e, SL_EEXISTS, "%s: job%s of the service has this output and is at work on it, or ended without it; wait for "
                   "it ('sluice wait%s'), let it go on ('sluice retry%s'), 'sluice cancel --discard%s', or choose another name "
                   "(when that service is gone for good: remove this file and the .partial files)", path, id, job, job, job);
}
