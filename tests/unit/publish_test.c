/* Final names: a complete part is never lost to what has its temporary name, or taken for
 * a file that was there before. */
#include "worker/publish.h"
#include "worker/stitch.h"
#include "tests/unit/unread_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

/* What a rename says, whatever came of it; 0: the truth. */
static int said;
static bool done; /* it is done all the same */

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    int rc = said && !done ? 0 : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);

    errno = said ? said : errno;
    return said ? -1 : rc;
}

int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int unsynced; /* what the next fsync says */

int fsync(int fd)
{
    if (unsynced) {
        errno = unsynced;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

#define PARTS 2u
#define ID "00112233445566778899aabbccddeeff"
#define OTHER_ID "ffeeddccbbaa99887766554433221100"

struct world {
    char dir[64];
    struct sl_plan plan;
    struct sl_plan_segment seg[PARTS];
    struct output o;
    uint8_t *bytes[PARTS];
    struct sl_error e;
};

/* A GGUF without tensors that says which output and which part it is. */
static uint8_t *part(const char *id, uint16_t no, uint64_t *n)
{
    struct sl_kvs k = {NULL, 0, 0};
    uint8_t *header;

    assert_int_equal(sl_kvs_set_str(&k, "general.architecture", "llama"), 0);
    assert_int_equal(sl_kvs_set_str(&k, SL_KEY_FINGERPRINT, id), 0);
    assert_int_equal(sl_kvs_set_u16(&k, "split.no", no), 0);
    assert_int_equal(sl_gguf_header(&k, NULL, 0, &header, n), 0);
    sl_kvs_free(&k);
    return header;
}

static int setup(void **state)
{
    static char name[PARTS][32] = {"x-00001-of-00002.gguf", "x-00002-of-00002.gguf"};
    struct world *w = calloc(1, sizeof *w);

    snprintf(w->dir, sizeof w->dir, "/tmp/sluice_publish_XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->plan.segments = w->seg;
    w->plan.n_segments = PARTS;
    strcpy(w->plan.output_id, ID);
    for (uint32_t i = 0; i < PARTS; i++) {
        w->seg[i].name = name[i];
        w->bytes[i] = part(ID, (uint16_t)i, &w->seg[i].file_bytes);
    }
    w->o.dir = strdup(w->dir);
    w->o.prefix = strdup("x");
    assert_int_equal(output_attach(&w->o, &w->plan, &w->e), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
    for (uint32_t i = 0; i < PARTS; i++)
        free(w->bytes[i]);
    output_free(&w->o);
    free(w);
    return 0;
}

static void put(const char *path, const void *bytes, uint64_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
}

static void put_part(const struct world *w, uint32_t i, const char *path)
{
    put(path, w->bytes[i], w->seg[i].file_bytes);
}

static void is_part(const struct world *w, uint32_t i, const char *path)
{
    uint8_t got[4096];
    struct stat st;
    int fd = open(path, O_RDONLY | O_NOFOLLOW);

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, w->seg[i].file_bytes);
    assert_int_equal(read(fd, got, sizeof got), st.st_size);
    assert_memory_equal(got, w->bytes[i], w->seg[i].file_bytes);
    close(fd);
}

static bool there(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static int publish(struct world *w, bool force)
{
    int rc = publish_check(&w->o, force, "go on", &w->e);

    return rc < 0 ? rc : publish_files(&w->o, force, "go on", NULL, &w->e);
}

static void all_is_given(void **state)
{
    struct world *w = *state;

    for (uint32_t i = 0; i < PARTS; i++)
        put_part(w, i, w->o.partial[i]);
    assert_int_equal(publish(w, false), 0);
    for (uint32_t i = 0; i < PARTS; i++) {
        is_part(w, i, w->o.final[i]);
        assert_false(there(w->o.partial[i]));
    }
    assert_int_equal(publish(w, false), 0);
}

/* Interrupted between two parts; then a link, or a file of another size, has the first one's
 * temporary name. */
static void a_published_part_stays(void **state)
{
    struct world *w = *state;

    for (int file = 0; file < 2; file++) {
        put_part(w, 0, w->o.final[0]);
        put_part(w, 1, w->o.partial[1]);
        if (file)
            put(w->o.partial[0], "torn", 4);
        else
            assert_int_equal(symlink("/etc/hostname", w->o.partial[0]), 0);
        assert_int_equal(publish(w, false), 0);
        for (uint32_t i = 0; i < PARTS; i++)
            is_part(w, i, w->o.final[i]);
        assert_true(there(w->o.partial[0]));
        unlink(w->o.partial[0]);
        unlink(w->o.final[0]);
        unlink(w->o.final[1]);
    }
}

/* Where a part is nowhere, none gets its name. */
static void a_part_is_missing(void **state)
{
    struct world *w = *state;

    put_part(w, 0, w->o.partial[0]);
    assert_int_equal(publish(w, false), SL_EVERIFY);
    assert_non_null(strstr(w->e.text, "x-00002-of-00002.gguf.partial: the finished file is not there any more"));
    is_part(w, 0, w->o.partial[0]);
    assert_false(there(w->o.final[0]));
}

static int loses(void *user, uint64_t n)
{
    const struct world *w = user;

    (void)n;
    unlink(w->o.partial[1]);
    return 0;
}

/* A part that goes between the look and its turn, with --force: the file that was to be
 * replaced does not count as it. */
static void a_former_file_is_not_ours(void **state)
{
    struct world *w = *state;
    const struct output_watch watch = {loses, w};
    uint64_t n;
    uint8_t *former = part(OTHER_ID, 1, &n);

    for (uint32_t i = 0; i < PARTS; i++)
        put_part(w, i, w->o.partial[i]);
    put(w->o.final[1], former, n);
    free(former);
    assert_int_equal(publish_check(&w->o, true, "go on", &w->e), 0);
    assert_int_equal(publish_files(&w->o, true, "go on", &watch, &w->e), SL_EVERIFY);
    assert_non_null(strstr(w->e.text, "x-00002-of-00002.gguf.partial: the finished file is not there any more"));
    is_part(w, 0, w->o.final[0]);
}

static void what_is_in_the_way(void **state)
{
    struct world *w = *state;
    char manifest[OUTPUT_PATH_BYTES];

    for (uint32_t i = 0; i < PARTS; i++)
        put_part(w, i, w->o.partial[i]);
    put(w->o.final[1], "mine", 4);
    assert_int_equal(publish(w, false), SL_EEXISTS);
    assert_false(there(w->o.final[0]));
    snprintf(manifest, sizeof manifest, "%s.xxh64", w->o.final[1]);
    assert_int_equal(mkdir(manifest, 0700), 0);
    assert_int_equal(publish(w, true), SL_EEXISTS);
    assert_non_null(strstr(w->e.text, "xxh64: a folder has the name of the finished file"));
    assert_false(there(w->o.final[0]));
    assert_int_equal(rmdir(manifest), 0);
    assert_int_equal(publish(w, true), 0);
    is_part(w, 1, w->o.final[1]);
    /* Another output's, of the very same length. */
    unlink(w->o.final[1]);
    free(w->bytes[1]);
    w->bytes[1] = part(OTHER_ID, 1, &w->seg[1].file_bytes);
    put_part(w, 1, w->o.final[1]);
    assert_int_equal(publish(w, false), SL_EVERIFY);
}

static int comes(void *user, uint64_t n)
{
    const struct world *w = user;

    (void)n;
    put(w->o.final[1], "mine", 4);
    return 0;
}

/* A file that comes between the look and its turn. */
static void a_strangers_file_stays(void **state)
{
    struct world *w = *state;
    const struct output_watch watch = {comes, w};
    char manifest[128];
    struct stat st;

    for (uint32_t i = 0; i < PARTS; i++)
        put_part(w, i, w->o.partial[i]);
    snprintf(manifest, sizeof manifest, "%s.xxh64.partial", w->o.final[1]);
    put(manifest, "sums", 4);
    assert_int_equal(publish_check(&w->o, false, "go on", &w->e), 0);
    assert_int_equal(publish_files(&w->o, false, "go on", &watch, &w->e), SL_EEXISTS);
    assert_non_null(strstr(w->e.text, "x-00002-of-00002.gguf: a file that is not this job's has the name"));
    assert_non_null(strstr(w->e.text, "move it away, and go on"));
    assert_int_equal(stat(w->o.final[1], &st), 0);
    assert_int_equal(st.st_size, 4);
    is_part(w, 1, w->o.partial[1]);
    assert_true(there(manifest));
    unlink(w->o.final[1]);
    assert_int_equal(publish(w, false), 0);
    for (uint32_t i = 0; i < PARTS; i++)
        is_part(w, i, w->o.final[i]);
    assert_false(there(manifest));
}

static int a_folder_comes(void *user, uint64_t n)
{
    const struct world *w = user;

    (void)n;
    if (!there(w->o.final[0]))
        return 0;
    unlink(w->o.final[1]);
    return mkdir(w->o.final[1], 0700);
}

/* A part that cannot get its name: no manifest stays beside what has it. */
static void a_manifest_goes_back(void **state)
{
    struct world *w = *state;
    const struct output_watch watch = {a_folder_comes, w};
    char manifest[OUTPUT_PATH_BYTES], unfinished[OUTPUT_PATH_BYTES];

    snprintf(manifest, sizeof manifest, "%s.xxh64", w->o.final[1]);
    snprintf(unfinished, sizeof unfinished, "%s.xxh64.partial", w->o.final[1]);
    for (uint32_t i = 0; i < PARTS; i++)
        put_part(w, i, w->o.partial[i]);
    put(unfinished, "sums", 4);
    put(w->o.final[1], "mine", 4);
    assert_int_equal(publish_files(&w->o, true, "go on", &watch, &w->e), SL_EFAIL);
    assert_non_null(strstr(w->e.text, "cannot be renamed to x-00002-of-00002.gguf: Is a directory"));
    assert_true(there(unfinished));
    assert_false(there(manifest));
    is_part(w, 1, w->o.partial[1]);
    assert_int_equal(rmdir(w->o.final[1]), 0);
    assert_int_equal(publish(w, false), 0);
    is_part(w, 1, w->o.final[1]);
    assert_true(there(manifest));
}

/* NFS may say of a rename that it did that there is no such file: then the name is what counts. */
static void an_answer_may_be_lost(void **state)
{
    struct world *w = *state;
    uint64_t n;
    uint8_t *former = part(OTHER_ID, 1, &n);

    for (int force = 0; force < 2; force++) {
        for (uint32_t i = 0; i < PARTS; i++)
            put_part(w, i, w->o.partial[i]);
        said = ENOENT;
        done = true;
        assert_int_equal(publish_files(&w->o, force, "go on", NULL, &w->e), 0);
        said = 0;
        for (uint32_t i = 0; i < PARTS; i++)
            is_part(w, i, w->o.final[i]);
    }
    /* One that was refused is told, whatever has the name. */
    put_part(w, 0, w->o.partial[0]);
    said = EIO;
    done = false;
    assert_int_equal(publish_files(&w->o, true, "go on", NULL, &w->e), SL_EFAIL);
    is_part(w, 0, w->o.partial[0]);
    said = 0;
    unlink(w->o.partial[0]);
    /* So is one whose file is gone and not under its name. */
    put(w->o.partial[1], former, n);
    put(w->o.final[1], former, n);
    said = ENOENT;
    done = true;
    assert_int_equal(publish_files(&w->o, true, "go on", NULL, &w->e), SL_EFAIL);
    said = 0;
    free(former);
}

/* What cannot be removed is named, and the rest goes. */
static void what_stays_is_told(void **state)
{
    struct world *w = *state;
    char *dir = w->o.dir;

    put_part(w, 1, w->o.partial[1]);
    assert_int_equal(mkdir(w->o.partial[0], 0700), 0);
    assert_int_equal(output_remove(&w->o, NULL, &w->e), SL_EFAIL);
    assert_non_null(strstr(w->e.text, "x-00001-of-00002.gguf.partial: cannot be removed"));
    assert_false(there(w->o.partial[1]));
    assert_int_equal(rmdir(w->o.partial[0]), 0);
    assert_int_equal(output_remove(&w->o, NULL, &w->e), 0);
    put_part(w, 1, w->o.partial[1]);
    unread = EIO;
    assert_true(output_unfinished(&w->o));
    assert_int_equal(output_remove(&w->o, NULL, &w->e), SL_EFAIL);
    unread = 0;
    assert_non_null(strstr(w->e.text, "Input/output error"));
    assert_true(there(w->o.partial[1]));
    assert_int_equal(output_remove(&w->o, NULL, &w->e), 0);
    assert_false(output_unfinished(&w->o));
    w->o.dir = (char[]){"/nonexistent/x"};
    assert_int_equal(output_remove(&w->o, NULL, &w->e), 0);
    w->o.dir = (char[]){"/proc/self/exe"};
    assert_int_equal(output_remove(&w->o, NULL, &w->e), SL_EFAIL);
    w->o.dir = dir;
}

/* Puts another file in the place of the first part, before the second is made. */
static int replace_first(void *user, uint64_t n)
{
    struct world *w = user;
    char other[96];

    if (n || !there(w->o.partial[0]))
        return 0;
    snprintf(other, sizeof other, "%s/other", w->dir);
    put(other, "mine", 4);
    assert_int_equal(rename(other, w->o.partial[0]), 0);
    return SL_EINTERRUPTED;
}

/* Temporary files that cannot all be made: none stays, but for those of somebody else. */
static void what_was_made_goes_again(void **state)
{
    struct world *w = *state;
    const struct output_watch watch = {replace_first, w};
    bool kept[PARTS];

    put(w->o.partial[1], "mine", 4);
    assert_int_equal(output_reserve(&w->o, true, kept, NULL, &w->e), SL_EEXISTS);
    assert_non_null(strstr(w->e.text, w->o.partial[1]));
    assert_false(there(w->o.partial[0]));
    assert_true(there(w->o.partial[1]));
    assert_int_equal(unlink(w->o.partial[1]), 0);
    assert_int_equal(output_reserve(&w->o, true, kept, &watch, &w->e), SL_EINTERRUPTED);
    assert_true(there(w->o.partial[0]));
    assert_int_equal(unlink(w->o.partial[0]), 0);
    assert_int_equal(output_reserve(&w->o, false, kept, NULL, &w->e), 0);
    assert_false(kept[0] || kept[1]);
    put(w->o.partial[1], "short", 5);
    assert_int_equal(output_reserve(&w->o, false, kept, NULL, &w->e), 0);
    assert_true(kept[0] && !kept[1]);
}

/* By their names alone: what an output of this name leaves while it is unfinished, and nobody else's. */
static void whose_temporary_files(void **state)
{
    static const struct { const char *name; bool ours, part; } cases[] = {
        {"x.gguf.partial", true, true}, {"x-00001-of-00009.gguf.partial", true, true},
        {"x.gguf.xxh64.partial", true, false}, {"x-00003-of-00004.gguf.xxh64.partial", true, false},
        {"x.sluice-job.partial", true, false}, {"y.gguf.partial", false, false}, {"xy.gguf.partial", false, false},
        {"x-1-of-2.gguf.partial", false, false}, {"x-00001-of-2.gguf.partial", false, false},
        {"x-0000a-of-00002.gguf.partial", false, false}, {"x-00001-of-0000b.gguf.partial", false, false}, {"x-000001-of-00002.gguf.partial", false, false},
        {"x-00001-of-000002.gguf.partial", false, false}, {"x-00001-of-00002.gguf", false, false}, {"x.gguf", false, false},
        {"x.gguf.partial.old", false, false}, {"x.bin.partial", false, false},
    };
    struct world *w = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[128];

        snprintf(path, sizeof path, "%s/%s", w->dir, cases[i].name);
        put(path, "", 0);
        if (output_unfinished(&w->o) != cases[i].part)
            fail_msg("%s: a part or not", cases[i].name);
        assert_int_equal(output_remove(&w->o, NULL, &w->e), 0);
        if (there(path) == cases[i].ours)
            fail_msg("%s: it %s", cases[i].name, cases[i].ours ? "stays" : "is gone");
        unlink(path);
    }
}

/* A folder that somebody else makes at the same time is not taken back. */
static void a_folder_is_its_makers(void **state)
{
    struct world *w = *state;
    char *dir = w->o.dir, new[96];

    snprintf(new, sizeof new, "%s/new", w->dir);
    w->o.dir = new;
    unsynced = EIO;
    assert_int_equal(output_make_dir(&w->o, &w->e), SL_EFAIL);
    assert_false(there(new));
    assert_int_equal(mkdir(new, 0700), 0);
    assert_int_equal(output_make_dir(&w->o, &w->e), SL_EFAIL);
    assert_true(there(new));
    unsynced = 0;
    assert_int_equal(output_make_dir(&w->o, &w->e), 0);
    assert_int_equal(rmdir(new), 0);
    assert_int_equal(output_make_dir(&w->o, &w->e), 1);
    w->o.dir = dir;
}

/* Another user's file in a folder with the sticky bit; its owner may replace it. */
static void what_cannot_be_replaced_is_told(void **state)
{
    struct world *w = *state;
    char manifest[OUTPUT_PATH_BYTES];

    if (geteuid() != 0)
        skip();
    snprintf(manifest, sizeof manifest, "%s.xxh64", w->o.final[1]);
    assert_int_equal(chmod(w->dir, 01777), 0);
    for (unsigned k = 0; k < 2; k++) {
        const char *name = k ? manifest : w->o.final[1];

        put(name, "mine", 4);
        assert_int_equal(output_absent(&w->o, true, &w->e), 0);
        assert_int_equal(seteuid(65534), 0);
        assert_int_equal(output_absent(&w->o, true, &w->e), SL_EEXISTS);
        assert_int_equal(seteuid(0), 0);
        assert_non_null(strstr(w->e.text, "cannot be replaced"));
        assert_int_equal(chown(name, 65534, 65534), 0);
        assert_int_equal(seteuid(65534), 0);
        assert_int_equal(output_absent(&w->o, true, &w->e), 0);
        assert_int_equal(seteuid(0), 0);
        assert_int_equal(unlink(name), 0);
    }
}

/* The right output's, under another part's name. */
static void a_part_has_one_place(void **state)
{
    struct world *w = *state;

    put_part(w, 0, w->o.partial[0]);
    put_part(w, 0, w->o.final[1]);
    assert_int_equal(w->seg[0].file_bytes, w->seg[1].file_bytes);
    assert_int_equal(publish(w, false), SL_EVERIFY);
    is_part(w, 0, w->o.final[1]);
}

static void names_are_taken_back(void **state)
{
    struct world *w = *state;
    char manifest[OUTPUT_PATH_BYTES], back[OUTPUT_PATH_BYTES];

    snprintf(manifest, sizeof manifest, "%s.xxh64", w->o.final[0]);
    snprintf(back, sizeof back, "%s.xxh64.partial", w->o.final[0]);
    put(manifest, "sums", 4);
    put_part(w, 0, w->o.final[0]);
    put_part(w, 1, w->o.partial[1]);
    put(w->o.final[1], "mine", 4);
    assert_int_equal(publish_undo(&w->o, NULL, &w->e), 0);
    for (uint32_t i = 0; i < PARTS; i++)
        is_part(w, i, w->o.partial[i]);
    assert_false(there(w->o.final[0]));
    assert_true(there(w->o.final[1]));
    assert_false(there(manifest));
    assert_true(there(back));
}

/* A FIFO that somebody puts where a finished part was is opened without waiting for its other end. */
static void nobody_waits_for_a_fifo(void **state)
{
    struct world *w = *state;
    struct stitch s = {.plan = &w->plan, .out = &w->o};

    assert_int_equal(mkfifo(w->o.partial[0], 0600), 0);
    alarm(20);
    assert_int_equal(stitch_seal(&s, &w->e), SL_EFAIL);
    alarm(0);
    assert_non_null(strstr(w->e.text, w->o.partial[0]));
    free(s.bad);
}

/* A pass that does not end well is no seal: the file has more bytes than the plan. */
static void what_is_not_read_is_not_sealed(void **state)
{
    struct world *w = *state;
    struct stitch s = {.plan = &w->plan, .out = &w->o};

    put_part(w, 0, w->o.partial[0]);
    assert_int_equal(stitch_seal(&s, &w->e), SL_EVERIFY);
    assert_int_equal(s.n_bad, 0);
    assert_null(s.bad);
    is_part(w, 0, w->o.partial[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_is_given, setup, teardown),
        cmocka_unit_test_setup_teardown(a_published_part_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_part_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_former_file_is_not_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_in_the_way, setup, teardown),
        cmocka_unit_test_setup_teardown(a_strangers_file_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_manifest_goes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_part_has_one_place, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_may_be_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(what_stays_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_made_goes_again, setup, teardown),
        cmocka_unit_test_setup_teardown(whose_temporary_files, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_is_its_makers, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_replaced_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(names_are_taken_back, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_waits_for_a_fifo, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_read_is_not_sealed, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
