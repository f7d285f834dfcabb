/* The claim on an output: who may touch the unfinished files of that name. */
#include "worker/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PLAN "00112233445566778899aabbccddeeff"
#define OTHER "ffeeddccbbaa99887766554433221100"

/* What was synced, in order: f a file, d a folder. */
static char synced[16];

int fsync(int fd)
{
    struct stat st;
    size_t n = strlen(synced);

    if (n < sizeof synced - 1 && fstat(fd, &st) == 0)
        synced[n] = S_ISDIR(st.st_mode) ? 'd' : 'f';
    return (int)syscall(SYS_fsync, fd);
}

static int unlink_err; /* of the next one, or 0 */

int unlink(const char *path)
{
    int err = unlink_err;

    unlink_err = 0;
    if (!err)
        return (int)syscall(SYS_unlink, path);
    errno = err;
    return -1;
}

static int rename_err; /* of the next one, or 0 */

int rename(const char *from, const char *to)
{
    int err = rename_err;

    rename_err = 0;
    if (!err)
        return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    errno = err;
    return -1;
}

struct world {
    char dir[64], path[96], ending[96];
    struct output o;
    struct claim_hold h[2];
    struct sl_error e;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    snprintf(w->dir, sizeof w->dir, "/tmp/sluice_claim_XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->path, sizeof w->path, "%s/x.sluice-job", w->dir);
    snprintf(w->ending, sizeof w->ending, "%s/x.sluice-job-ending", w->dir);
    w->o.dir = w->dir;
    w->o.prefix = strdup("x");
    w->h[0].fd = w->h[1].fd = -1;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];

    claim_release(&w->h[0]);
    claim_release(&w->h[1]);
    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
    free(w->o.prefix);
    free(w);
    return 0;
}

static int make(struct world *w, unsigned h, const char *plan, uint64_t job, uint64_t epoch, uint32_t wait)
{
    const struct claim_lease l = {plan, job, epoch, wait};

    return claim_make(&w->o, &l, false, &w->h[h], &w->e);
}

static int take(struct world *w, unsigned h, const char *plan, uint64_t job, uint64_t epoch, uint32_t wait)
{
    const struct claim_lease l = {plan, job, epoch, wait};

    return claim_take(&w->o, &l, &w->h[h], &w->e);
}

static void text_of(const char *path, char text[200])
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, 199) : -1;

    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static ino_t inode(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 ? st.st_ino : 0;
}

static uint64_t ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void its_lines(void **state)
{
    struct world *w = *state;
    char text[200], again[200];

    assert_int_equal(make(w, 0, PLAN, 7, 41, 0), 0);
    text_of(w->path, text);
    assert_int_equal(strlen(text), 32 + 1 + 4 + 15 + 1 + 32 + 1 + 6 + 15 + 1);
    assert_memory_equal(text, PLAN "\njob 000000000000007\n", 53);
    assert_non_null(strstr(text, "\nepoch 000000000000041\n"));
    assert_int_equal(claim_check(&w->h[0], &w->e), 0);
    claim_release(&w->h[0]);
    /* Taken over where it is: the same file. */
    assert_int_equal(make(w, 1, PLAN, 999999999999999, 999999999999999, 0), 0);
    text_of(w->path, again);
    assert_int_equal(strlen(again), strlen(text));
    assert_int_equal(claim_check(&w->h[0], &w->e), SL_EINTERRUPTED);
    assert_int_equal(claim_drop(&w->h[0], &w->e), 0); /* not its own any more */
    assert_true(inode(w->path) != 0);
    assert_int_equal(claim_check(&w->h[1], &w->e), 0);
    unlink_err = EIO;
    assert_int_equal(claim_drop(&w->h[1], &w->e), SL_EFAIL);
    assert_non_null(strstr(w->e.text, "x.sluice-job: cannot be removed: "));
    assert_int_equal(claim_drop(&w->h[1], &w->e), 0);
    assert_true(inode(w->path) == 0);
}

/* However it is held: its text, then its name. */
static void it_outlives_a_power_loss(void **state)
{
    struct world *w = *state;

    for (unsigned i = 0; i < 3; i++) {
        memset(synced, 0, sizeof synced);
        assert_int_equal(i == 1 ? take(w, 1, PLAN, 7, 42, 0) : make(w, i ? 0 : 1, PLAN, 7, 41 + i, 0), i == 1 ? CLAIM_HELD : 0);
        assert_string_equal(synced, "fd");
        if (!i)
            claim_release(&w->h[1]);
    }
    assert_int_equal(claim_check(&w->h[1], &w->e), SL_EINTERRUPTED); /* the third was another file */
}

/* Claims of older releases: without epoch, mark or job. */
static void old_claims_are_read(void **state)
{
    static const char *const texts[] = {
        PLAN "\njob 000000000000007\n0123456789abcdef0123456789abcdef\n", PLAN "\njob 7\n", PLAN "\n"};
    struct world *w = *state;

    for (unsigned i = 0; i < 3; i++) {
        put(w->path, texts[i]);
        assert_true(claim_is_of(&w->o, PLAN, 7));
        assert_int_equal(take(w, 0, OTHER, 7, 1, 0), CLAIM_OTHERS);
        assert_int_equal(take(w, 0, PLAN, 7, 1, 0), CLAIM_HELD);
        claim_release(&w->h[0]);
        put(w->path, texts[i]);
        assert_int_equal(make(w, 0, PLAN, 8, 1, 0), 0);
        claim_release(&w->h[0]);
        put(w->path, texts[i]);
        assert_int_equal(make(w, 0, OTHER, 8, 1, 0), SL_EEXISTS);
        assert_non_null(strstr(w->e.text, "another job"));
    }
    put(w->path, PLAN "\njob 7\n");
    assert_int_equal(take(w, 0, PLAN, 8, 1, 0), CLAIM_OTHERS); /* another job of the same plan */
    put(w->path, "torn");
    assert_int_equal(take(w, 0, PLAN, 7, 1, 0), CLAIM_NONE);
    assert_int_equal(make(w, 0, PLAN, 7, 1, 0), 0);
}

/* A lower epoch changes nothing, whatever plan, job or --force say. */
static void a_lower_epoch_gives_way(void **state)
{
    struct world *w = *state;
    const struct claim_lease late = {OTHER, 3, 40, 2000};
    char before[200], after[200];
    uint64_t t0 = ms();

    for (unsigned held = 0; held < 2; held++) {
        assert_int_equal(make(w, 0, PLAN, 7, 41, 0), 0);
        if (!held)
            claim_release(&w->h[0]);
        text_of(w->path, before);
        assert_int_equal(claim_free(&w->o, &late, true, &w->e), SL_EEXISTS);
        assert_int_equal(claim_make(&w->o, &late, true, &w->h[1], &w->e), SL_EEXISTS);
        assert_non_null(strstr(w->e.text, "x.sluice-job: a later lease of job 7 has this output (epoch 41)"));
        assert_int_equal(make(w, 1, PLAN, 7, 40, 2000), SL_EEXISTS);
        assert_int_equal(take(w, 1, PLAN, 7, 40, 2000), SL_EEXISTS);
        text_of(w->path, after);
        assert_string_equal(before, after);
    }
    assert_true(ms() - t0 < 1500); /* without waiting for the lock */
    /* Under its ending name as well. */
    assert_int_equal(claim_end(&w->h[0], true, &w->e), 0);
    assert_true(inode(w->path) == 0);
    assert_int_equal(make(w, 1, PLAN, 7, 40, 0), SL_EEXISTS);
    assert_int_equal(take(w, 1, PLAN, 7, 40, 0), SL_EEXISTS);
    assert_true(inode(w->path) == 0);
    text_of(w->ending, after);
    assert_string_equal(before, after);
}

/* A holder that does not go on is waited for, then its claim is replaced; it finds that out. */
static void a_holder_that_stands_still(void **state)
{
    struct world *w = *state;
    char torn[112];
    ino_t first;
    uint64_t t0;

    assert_int_equal(make(w, 0, PLAN, 7, 41, 0), 0);
    first = inode(w->path);
    snprintf(torn, sizeof torn, "%s.partial", w->path); /* a killed one's, who was to replace it */
    put(torn, "torn");
    t0 = ms();
    assert_int_equal(make(w, 1, PLAN, 7, 42, 200), 0);
    assert_true(ms() - t0 >= 200);
    assert_true(inode(w->path) != first && inode(torn) == 0);
    assert_int_equal(claim_check(&w->h[0], &w->e), SL_EINTERRUPTED);
    assert_int_equal(claim_end(&w->h[0], true, &w->e), SL_EINTERRUPTED);
    assert_int_equal(claim_drop(&w->h[0], &w->e), 0);
    assert_int_equal(claim_check(&w->h[1], &w->e), 0);
    claim_release(&w->h[0]);
    /* The new one is locked in its turn, under whichever name it has. */
    assert_int_equal(claim_end(&w->h[1], true, &w->e), 0);
    first = inode(w->ending);
    assert_int_equal(take(w, 0, PLAN, 7, 43, 100), CLAIM_HELD);
    assert_true(w->h[0].ending && inode(w->ending) != first);
    assert_int_equal(claim_check(&w->h[1], &w->e), SL_EINTERRUPTED);
    assert_int_equal(claim_drop(&w->h[1], &w->e), 0);
    assert_int_equal(claim_check(&w->h[0], &w->e), 0);
    assert_int_equal(claim_drop(&w->h[0], &w->e), 0);
    assert_false(claim_there(&w->o));
}

static void *lets_go(void *user)
{
    nanosleep(&(struct timespec){.tv_nsec = 100 * 1000000}, NULL);
    claim_release(user);
    return NULL;
}

static void a_holder_that_goes_on(void **state)
{
    struct world *w = *state;
    pthread_t t;
    ino_t first;
    uint64_t t0 = ms();

    assert_int_equal(make(w, 0, PLAN, 7, 41, 0), 0);
    first = inode(w->path);
    assert_int_equal(pthread_create(&t, NULL, lets_go, &w->h[0]), 0);
    assert_int_equal(make(w, 1, PLAN, 7, 42, 30000), 0);
    pthread_join(t, NULL);
    assert_true(ms() - t0 < 15000);
    assert_true(inode(w->path) == first); /* was not replaced */
    assert_int_equal(flock(open(w->path, O_RDONLY | O_CLOEXEC), LOCK_EX | LOCK_NB), -1);
}

/* The ending name: taken when the other is not there; a prepare that may clears it away. */
static void names(void **state)
{
    struct world *w = *state;
    int fd;

    assert_int_equal(take(w, 0, PLAN, 7, 41, 0), CLAIM_NONE);
    assert_false(claim_there(&w->o));
    assert_int_equal(make(w, 0, PLAN, 7, 41, 0), 0);
    claim_release(&w->h[0]);
    assert_int_equal(take(w, 0, OTHER, 7, 42, 0), CLAIM_OTHERS);
    assert_int_equal(take(w, 0, PLAN, 8, 42, 0), CLAIM_OTHERS);
    assert_int_equal(take(w, 0, PLAN, 7, 42, 0), CLAIM_HELD);
    rename_err = EIO;
    assert_int_equal(claim_end(&w->h[0], true, &w->e), SL_EFAIL);
    assert_true(inode(w->path) != 0 && !w->h[0].ending);
    assert_int_equal(claim_end(&w->h[0], true, &w->e), 0);
    assert_int_equal(claim_end(&w->h[0], true, &w->e), 0);
    assert_true(inode(w->path) == 0 && inode(w->ending) != 0);
    claim_release(&w->h[0]);
    fd = open(w->dir, O_RDONLY | O_CLOEXEC);
    claim_release(&w->h[0]); /* nothing: the number is another file's now */
    assert_int_equal(close(fd), 0);
    assert_true(claim_there(&w->o) && !claim_is_of(&w->o, PLAN, 7));
    assert_int_equal(take(w, 0, OTHER, 7, 43, 0), CLAIM_OTHERS);
    assert_int_equal(take(w, 0, PLAN, 7, 43, 0), CLAIM_HELD);
    assert_true(w->h[0].ending);
    claim_release(&w->h[0]);
    assert_int_equal(make(w, 0, PLAN, 7, 44, 0), 0);
    assert_true(inode(w->path) != 0 && inode(w->ending) == 0);
}

/* A publication that could not end: its files are another job's to remove with --force alone,
 * as those of a claim under the other name are. */
static void finished_files_are_kept(void **state)
{
    struct world *w = *state;
    const struct claim_lease other = {OTHER, 8, 50, 0};
    char partial[96];

    snprintf(partial, sizeof partial, "%s/x.gguf.partial", w->dir);
    put(partial, "finished");
    assert_int_equal(make(w, 0, PLAN, 7, 41, 0), 0);
    assert_int_equal(claim_end(&w->h[0], true, &w->e), 0);
    claim_release(&w->h[0]);
    assert_int_equal(claim_free(&w->o, &other, false, &w->e), SL_EEXISTS);
    assert_non_null(strstr(w->e.text, "/x: unfinished work of another job is there; finish it"));
    assert_int_equal(make(w, 1, OTHER, 8, 50, 0), SL_EEXISTS);
    assert_true(inode(w->path) == 0 && inode(w->ending) != 0);
    assert_int_equal(claim_free(&w->o, &other, true, &w->e), 0);
    assert_int_equal(make(w, 1, PLAN, 8, 51, 0), 0);
    assert_int_equal(claim_drop(&w->h[1], &w->e), 0);
    claim_release(&w->h[1]);
    /* Of one that ended, nothing but its claim is left: no obstacle. */
    put(w->ending, PLAN "\njob 7\n");
    unlink(partial);
    assert_int_equal(claim_free(&w->o, &other, false, &w->e), 0);
    assert_int_equal(make(w, 0, OTHER, 8, 52, 0), 0);
    assert_true(inode(w->ending) == 0);
}

/* A claim that cannot be read is not taken for none. */
static void cannot_be_read(struct world *w)
{
    const struct claim_lease l = {PLAN, 7, 41, 0};

    assert_int_equal(claim_free(&w->o, &l, false, &w->e), SL_EFAIL);
    assert_non_null(strstr(w->e.text, "x.sluice-job: cannot be read: "));
    assert_int_equal(claim_absent(&w->o, &w->e), SL_EFAIL);
    assert_true(claim_there(&w->o) && !claim_is_of(&w->o, PLAN, 7));
}

/* What is no file of ours is neither followed nor waited for. */
static void strange_files(void **state)
{
    struct world *w = *state;
    char target[96];

    snprintf(target, sizeof target, "%s/elsewhere", w->dir);
    put(target, PLAN "\njob 7\n");
    assert_int_equal(symlink(target, w->path), 0);
    assert_int_equal(make(w, 0, PLAN, 7, 41, 0), SL_EFAIL);
    cannot_be_read(w);
    assert_int_equal(unlink(w->path), 0);
    assert_int_equal(mkdir(w->path, 0700), 0);
    cannot_be_read(w);
    assert_int_equal(rmdir(w->path), 0);
    assert_int_equal(mkfifo(w->path, 0600), 0);
    assert_int_equal(make(w, 0, PLAN, 7, 41, 0), SL_EFAIL);
    assert_non_null(strstr(w->e.text, "not a regular file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(its_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(it_outlives_a_power_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(old_claims_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lower_epoch_gives_way, setup, teardown),
        cmocka_unit_test_setup_teardown(a_holder_that_stands_still, setup, teardown),
        cmocka_unit_test_setup_teardown(a_holder_that_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(names, setup, teardown),
        cmocka_unit_test_setup_teardown(finished_files_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(strange_files, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
