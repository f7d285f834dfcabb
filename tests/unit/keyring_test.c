/* Key files and allow-lists: what is written is read again, and what could let a
 * stranger in is refused. */
#include "proto/keyring.h"
#include "worker/dealer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define KEY_A "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
#define KEY_B "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"

static int setup(void **state)
{
    char *dir = strdup("/tmp/sluice_keys_XXXXXX");

    assert_non_null(mkdtemp(dir));
    *state = dir;
    return 0;
}

static int teardown(void **state)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s", (char *)*state);
    free(*state);
    return system(command);
}

static const char *file(void **state, const char *text, mode_t mode, char path[128])
{
    FILE *f;

    snprintf(path, 128, "%s/f", (char *)*state);
    unlink(path);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

/* What stands behind a NUL byte is not passed over. */
static void a_nul_byte_is_refused(void **state)
{
    static const char text[] = "worker uid 1 x\nadmin uid 2 y\0 z\n";
    struct sl_allow_list l;
    struct sl_error e;
    char path[128];
    FILE *f = fopen(file(state, "", 0600, path), "w");

    fwrite(text, 1, sizeof text - 1, f);
    fclose(f);
    assert_int_equal(sl_allow_load(path, &l, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "/f:2: a NUL byte"));
}

static void a_pair_is_saved_and_loaded(void **state)
{
    char path[128], pub[136];
    struct sl_key k, back;
    struct sl_error e;
    struct stat st;

    snprintf(path, sizeof path, "%s/node", (char *)*state);
    snprintf(pub, sizeof pub, "%s.pub", path);
    assert_int_equal(sl_key_make(&k, &e), 0);
    assert_int_equal(sl_key_save(path, &k, &e), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(sl_key_load(path, true, &back, &e), 0);
    assert_memory_equal(&k, &back, sizeof k);
    assert_int_equal(sl_key_load(pub, false, &back, &e), 0);
    assert_string_equal(back.public_key, k.public_key);
    assert_string_equal(back.secret_key, "");
    assert_int_equal(sl_key_load(pub, true, &back, &e), SL_EUSAGE);
    assert_int_equal(sl_key_save(path, &k, &e), SL_EEXISTS);
}

static void bad_key_files_are_refused(void **state)
{
    static const char *const bad[] = {
        "", "secret " KEY_A "\n", "public " KEY_A "x\n", "public short\n", "private " KEY_A "\n",
        "public " KEY_A "\npublic " KEY_B "\nsecret " KEY_B "\n", "public " KEY_A " " KEY_B "\n",
    };
    struct sl_error e;
    struct sl_key k;
    char path[128];

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sl_key_load(file(state, bad[i], 0600, path), true, &k, &e), SL_EUSAGE);
    assert_int_equal(sl_key_load(file(state, "# mine\npublic " KEY_A " # a\nsecret " KEY_B "\n", 0600, path),
                                 true, &k, &e), 0);
    assert_string_equal(k.secret_key, KEY_B);
    /* The last line's end may be missing. */
    assert_int_equal(sl_key_load(file(state, "public " KEY_A "\nsecret " KEY_B, 0600, path), true, &k, &e), 0);
    assert_int_equal(sl_key_load(*state, true, &k, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "not a regular file"));
    assert_int_equal(sl_key_load(file(state, "public " KEY_A "\nsecret " KEY_B "\n", 0644, path), true,
                                 &k, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "0644"));
    assert_string_equal(k.secret_key, "");
}

static void an_allow_list_tells_roles(void **state)
{
    struct sl_allow_list l;
    struct sl_error e;
    char path[128];

    assert_int_equal(sl_allow_load(file(state, "# who\nworker key " KEY_A " gpu-a\n\nadmin uid 0 root\n"
                                        "submitter uid 1000 j\303\274rgen\n", 0644, path), &l, &e), 0);
    assert_int_equal(l.n, 3);
    assert_int_equal(sl_allow_find(&l, false, KEY_A)->role, SL_ROLE_WORKER);
    assert_string_equal(sl_allow_find(&l, true, "1000")->name, "j\303\274rgen");
    assert_null(sl_allow_find(&l, false, KEY_B));
    assert_null(sl_allow_find(&l, false, "1000"));
    sl_allow_free(&l);
}

static void bad_allow_lists_are_refused(void **state)
{
    static const char *const bad[] = {
        "root uid 0 x\n", "worker key short x\n", "worker uid -1 x\n", "worker uid 01 x\n",
        "worker uid 4294967295 x\n",
        "worker name 1 x\n", "worker uid 1\n", "worker uid 1 x y\n", "none uid 1 x\n",
        "worker uid 1 x\nadmin uid 1 y\n", "worker key " KEY_A " M\374ller\n", "worker uid 1 \033[2J\n",
    };
    struct sl_allow_list l;
    struct sl_error e;
    char path[128];

    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(sl_allow_load(file(state, bad[i], 0600, path), &l, &e), SL_EUSAGE);
        assert_non_null(strstr(e.text, "/f:"));
        assert_null(l.entries);
    }
    assert_int_equal(sl_allow_load(file(state, "worker uid 1 x\n", 0666, path), &l, &e), SL_EUSAGE);
    assert_int_equal(sl_allow_load("/nonexistent/list", &l, &e), SL_EUSAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_pair_is_saved_and_loaded, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_key_files_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_nul_byte_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(an_allow_list_tells_roles, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_allow_lists_are_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
