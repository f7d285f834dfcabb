/* sluice.conf: layers, origins, and what is refused with which words. */
#include "proto/config_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

struct world {
    char dir[64], sys[96], user[128];
    const char *env[8][2];
};

static const char *get_env(void *user, const char *name)
{
    struct world *w = user;

    for (int i = 0; i < 8 && w->env[i][0]; i++)
        if (strcmp(w->env[i][0], name) == 0)
            return w->env[i][1];
    return NULL;
}

static void spit(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_not_equal(fputs(text, f), EOF);
    assert_int_equal(fclose(f), 0);
}

static void make_world(struct world *w)
{
    char sub[96];

    memset(w, 0, sizeof *w);
    strcpy(w->dir, "/tmp/sluice-config-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->sys, sizeof w->sys, "%s/sys.conf", w->dir);
    snprintf(sub, sizeof sub, "%s/sluice", w->dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    snprintf(w->user, sizeof w->user, "%s/sluice.conf", sub);
    w->env[0][0] = "XDG_CONFIG_HOME";
    w->env[0][1] = w->dir;
}

static void end_world(struct world *w)
{
    char sub[96];

    unlink(w->sys);
    unlink(w->user);
    snprintf(sub, sizeof sub, "%s/sluice", w->dir);
    rmdir(sub);
    assert_int_equal(rmdir(w->dir), 0);
}

static int open_world(struct world *w, struct sl_config **c, struct sl_error *e)
{
    struct sl_config_opts o = {.system_path = w->sys, .env = get_env, .user = w, .not_root = true};

    return sl_config_open(&o, c, e);
}

/* A client without a daemon of its user's finds the system's, and one of its own first. */
static void test_system_socket(void **state)
{
    struct world w;
    struct sl_config_opts o = {.env = get_env, .user = &w, .not_root = true};
    struct sl_config *c;
    struct sl_error e;
    char run[128], own[192], want[200];

    (void)state;
    make_world(&w);
    spit(w.sys, "");
    o.system_path = o.system_socket = w.sys;
    snprintf(run, sizeof run, "%s", w.dir);
    snprintf(own, sizeof own, "%s/sluice/sluiced.sock", run);
    w.env[1][0] = "XDG_RUNTIME_DIR", w.env[1][1] = run;
    assert_int_equal(sl_config_open(&o, &c, &e), 0);
    snprintf(want, sizeof want, "ipc://%s", w.sys);
    assert_string_equal(sl_config_text(c, SL_CONFIG_ENDPOINT), want);
    sl_config_close(c);
    o.system_socket = "/nowhere/sluiced.sock";
    assert_int_equal(sl_config_open(&o, &c, &e), 0);
    snprintf(want, sizeof want, "ipc://%s", own);
    assert_string_equal(sl_config_text(c, SL_CONFIG_ENDPOINT), want);
    sl_config_close(c);
    spit(own, "");
    o.system_socket = w.sys;
    assert_int_equal(sl_config_open(&o, &c, &e), 0);
    assert_string_equal(sl_config_text(c, SL_CONFIG_ENDPOINT), want);
    sl_config_close(c);
    unlink(own);
    end_world(&w);
}

static void test_builtins(void **state)
{
    struct world w;
    struct sl_config *c;
    struct sl_error e;
    bool was;

    (void)state;
    make_world(&w);
    assert_int_equal(open_world(&w, &c, &e), 0);
    assert_string_equal(sl_config_text(c, SL_CONFIG_ENDPOINT), "ipc:///run/sluice/sluiced.sock");
    assert_string_equal(sl_config_text(c, SL_CONFIG_STATE_DIR), "/var/lib/sluice");
    assert_int_equal(sl_config_number(c, SL_CONFIG_LEASE), 60000);
    assert_int_equal(sl_config_number(c, SL_CONFIG_HEARTBEAT), 5000);
    assert_int_equal(sl_config_number(c, SL_CONFIG_MEM), 1 << 30);
    assert_int_equal(sl_config_get(c, SL_CONFIG_ROOT)->n, 0);
    assert_string_equal(sl_config_text(c, SL_CONFIG_ROOT), "");
    assert_string_equal(sl_config_text(c, SL_CONFIG_METRICS), "off");
    assert_string_equal(sl_config_get(c, SL_CONFIG_LEASE)->origin, "built-in");
    assert_string_equal(sl_config_file(c, 0, &was), w.sys);
    assert_false(was);
    assert_string_equal(sl_config_file(c, 1, &was), w.user);
    assert_null(sl_config_file(c, 2, &was));
    sl_config_close(c);

    w.env[1][0] = "XDG_RUNTIME_DIR", w.env[1][1] = "/run/user/7";
    w.env[2][0] = "HOME", w.env[2][1] = "/home/x";
    assert_int_equal(open_world(&w, &c, &e), 0);
    assert_string_equal(sl_config_text(c, SL_CONFIG_ENDPOINT),
                        "ipc:///run/user/7/sluice/sluiced.sock");
    assert_string_equal(sl_config_text(c, SL_CONFIG_STATE_DIR), "/home/x/.local/state/sluice");
    sl_config_close(c);
    /* Relative ones are as if not set. */
    w.env[0][1] = "config";
    w.env[3][0] = "XDG_STATE_HOME", w.env[3][1] = "state";
    assert_int_equal(open_world(&w, &c, &e), 0);
    assert_string_equal(sl_config_text(c, SL_CONFIG_STATE_DIR), "/home/x/.local/state/sluice");
    assert_string_equal(sl_config_file(c, 1, &was), "/home/x/.config/sluice/sluice.conf");
    sl_config_close(c);
    w.env[3][0] = "STATE_DIRECTORY", w.env[3][1] = "/var/lib/other";
    assert_int_equal(open_world(&w, &c, &e), 0);
    assert_string_equal(sl_config_text(c, SL_CONFIG_STATE_DIR), "/var/lib/other");
    sl_config_close(c);
    end_world(&w);
}

static void test_layers(void **state)
{
    struct world w;
    struct sl_config *c;
    struct sl_error e;
    char want[160];
    const struct sl_config_value *v;
    bool was;

    (void)state;
    make_world(&w);
    spit(w.sys, "# the machine's\n[sluice]\nroot = /a\nroot = /b ; two\n  /c;d\t ; three\n"
                "[daemon]\nlease = 2min\nheartbeat=1.5s\nattempts: 7\n[worker]\nmem = 4G\n");
    spit(w.user, "[daemon]\nlease = 90s\n[sluice]\nlog = json\n");
    assert_int_equal(open_world(&w, &c, &e), 0);
    v = sl_config_get(c, SL_CONFIG_ROOT);
    assert_int_equal(v->n, 3);
    assert_string_equal(v->items[1], "/b");
    assert_string_equal(v->items[2], "/c;d");
    snprintf(want, sizeof want, "%s:3", w.sys);
    assert_string_equal(v->origin, want);
    assert_int_equal(v->layer, SL_CONFIG_FROM_SYSTEM);
    v = sl_config_get(c, SL_CONFIG_LEASE);
    assert_int_equal(v->number, 90000);
    assert_int_equal(v->layer, SL_CONFIG_FROM_USER);
    snprintf(want, sizeof want, "%s:2", w.user);
    assert_string_equal(v->origin, want);
    assert_int_equal(sl_config_number(c, SL_CONFIG_HEARTBEAT), 1500);
    assert_int_equal(sl_config_number(c, SL_CONFIG_ATTEMPTS), 7);
    assert_int_equal(sl_config_number(c, SL_CONFIG_LOG), 2);
    assert_true(sl_config_number(c, SL_CONFIG_MEM) == 4000000000u);
    assert_non_null(sl_config_file(c, 1, &was));
    assert_true(was);
    sl_config_close(c);

    /* environment over files, options over all; lists are replaced, not joined */
    w.env[1][0] = "SLUICE_LEASE", w.env[1][1] = "3min";
    w.env[2][0] = "SLUICE_ROOT", w.env[2][1] = "/x,/y";
    assert_int_equal(open_world(&w, &c, &e), 0);
    v = sl_config_get(c, SL_CONFIG_LEASE);
    assert_int_equal(v->number, 180000);
    assert_string_equal(v->origin, "SLUICE_LEASE");
    v = sl_config_get(c, SL_CONFIG_ROOT);
    assert_int_equal(v->n, 2);
    assert_string_equal(v->items[1], "/y");
    assert_int_equal(sl_config_set(c, SL_CONFIG_LEASE, "4min", "--lease", &e), 0);
    assert_int_equal(sl_config_set(c, SL_CONFIG_LEASE, "5min", "--lease", &e), 0);
    assert_int_equal(sl_config_number(c, SL_CONFIG_LEASE), 300000);
    assert_string_equal(sl_config_get(c, SL_CONFIG_LEASE)->origin, "--lease");
    assert_int_equal(sl_config_set(c, SL_CONFIG_ROOT, "/p", "--root", &e), 0);
    assert_int_equal(sl_config_set(c, SL_CONFIG_ROOT, "/q", "--root", &e), 0);
    assert_int_equal(sl_config_get(c, SL_CONFIG_ROOT)->n, 2);
    assert_string_equal(sl_config_text(c, SL_CONFIG_ROOT), "/p");
    assert_int_equal(sl_config_set(c, SL_CONFIG_LEASE, "5", "--lease", &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "--lease: daemon.lease: expected a time with its unit"));
    assert_int_equal(sl_config_number(c, SL_CONFIG_LEASE), 300000);
    sl_config_close(c);
    end_world(&w);
}

static void refuse(const char *text, const char *why)
{
    struct world w;
    struct sl_config *c;
    struct sl_error e = {0};
    int rc;

    make_world(&w);
    spit(w.sys, text);
    rc = open_world(&w, &c, &e);
    if (rc != SL_EUSAGE || !strstr(e.text, why) || !strstr(e.text, w.sys))
        fail_msg("'%s' gave %d '%s', not '%s'", text, rc, e.text, why);
    end_world(&w);
}

static void test_devices(void **state)
{
    const char *const good[] = {"auto", "cpu", "cuda:0", "cuda:0,cuda:12", "cuda:0,cpu", "GPU-3f,MIG-0a1b,cpu"};
    const char *const bad[] = {"", "cuda:", "cuda:0,", "cpux", "cuda:0,auto", "MIG-", "GPU-,cpu"};
    struct world w;
    struct sl_config *c;
    struct sl_error e;

    (void)state;
    make_world(&w);
    assert_int_equal(open_world(&w, &c, &e), 0);
    for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_int_equal(sl_config_set(c, SL_CONFIG_DEVICE, good[i], "--device", &e), 0);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(sl_config_set(c, SL_CONFIG_DEVICE, bad[i], "--device", &e), SL_EUSAGE);
    sl_config_close(c);
    end_world(&w);
}

/* A file's path must be absolute; an option's begins in the current folder. */
static void test_relative_option(void **state)
{
    struct world w;
    struct sl_config *c;
    struct sl_error e;
    char here[4096], want[4200];

    (void)state;
    make_world(&w);
    assert_int_equal(open_world(&w, &c, &e), 0);
    assert_non_null(getcwd(here, sizeof here));
    assert_int_equal(sl_config_set(c, SL_CONFIG_ROOT, ".", "--root", &e), 0);
    assert_int_equal(sl_config_set(c, SL_CONFIG_ROOT, "./a/b", "--root", &e), 0);
    assert_int_equal(sl_config_set(c, SL_CONFIG_ROOT, "/c", "--root", &e), 0);
    assert_string_equal(sl_config_get(c, SL_CONFIG_ROOT)->items[0], here);
    snprintf(want, sizeof want, "%s/a/b", here);
    assert_string_equal(sl_config_get(c, SL_CONFIG_ROOT)->items[1], want);
    assert_string_equal(sl_config_get(c, SL_CONFIG_ROOT)->items[2], "/c");
    sl_config_close(c);
    end_world(&w);
}

static void test_refusals(void **state)
{
    char line[400];

    (void)state;
    refuse("lease = 5s\n", ":1: a value before the first [section]");
    refuse("[daemon]\nleese = 5s\n", ":2: no such key: daemon.leese");
    refuse("[demon]\nlease = 5s\n", ":1: no such section: demon; sluice.conf(5) lists them");
    refuse("[daemon]\n\nlease = 5\n", ":3: daemon.lease: expected a time with its unit");
    refuse("[daemon]\nlease = 5s\nlease = 6s\n", ":3: daemon.lease: given twice");
    refuse("[daemon]\nlease = 5s\n  heartbeat = 6s\n", ":3: daemon.lease: expected a time");
    refuse("[daemon]\nlease = 0.5s\n", "expected 1s to 24h, not '0.5s'");
    refuse("[daemon]\nlease = 99999999999999999999h\n", "expected a time");
    refuse("[daemon]\nattempts = -1\n", "expected a number");
    refuse("[daemon]\nattempts = 0\n", "expected 1 to 1000");
    refuse("[daemon]\nattempts = 1.5\n", "expected a number");
    refuse("[daemon]\nstate_dir = here\n", "expected an absolute path");
    refuse("[daemon]\nstate_dir =\n", "expected an absolute path");
    refuse("[worker]\nmem = 4X\n", "expected a size");
    refuse("[worker]\nmem = 63M\n", "expected 64M to 256Ti");
    refuse("[worker]\nio = fast\n", "expected auto|uring|pread, not 'fast'");
    refuse("[sluice]\nendpoint = http://x:1\n", ":2: sluice.endpoint: expected ipc:///PATH or tcp://HOST:PORT");
    refuse("[sluice]\nendpoint = tcp://x:65536\n", "tcp://HOST:PORT (up to 65535), not");
    refuse("[sluice]\nendpoint = ipc://here\n", "sluice.endpoint: expected ipc:///PATH");
    refuse("[daemon]\nlisten = tcp://x:y\n", ":2: daemon.listen: expected ipc:///PATH");
    refuse("[daemon]\nmetrics = 127.0.0.1:70000\n", ":2: daemon.metrics: expected ADDRESS:PORT");
    refuse("[worker]\ndevice = tpu\n", ":2: worker.device: expected auto, cpu, cuda:N or GPU-UUID");
    refuse("[worker]\ndevice = cuda:0,cuda:\n", "worker.device: expected auto");
    refuse("[sluice]\nplain_tcp = maybe\n", "expected yes or no");
    refuse("[daemon]\nlease = 5s\n[demon]\n[sluice]\n", ":3: no such section: demon");
    refuse("\xEF\xBB\xBF[demon]\n", ":1: no such section: demon");
    refuse("\n \t[demon]\n", ":2: no such section: demon");
    refuse("[daemon]\nlease = 5s\n[daemon]\n  [demon]\n", ":4: no such section: demon");
    refuse("[daemon]\nlease = 5s\n  [demon]\n", ":3: daemon.lease: expected a time");
    refuse("[]\n", ":1: no such section: ");
    refuse("[sluice\n", ":1: expected [section] or name = value");
    refuse("[daemon]\nlease\n", ":2: expected [section] or name = value");
    snprintf(line, sizeof line, "[sluice]\nroot = /%0191d\n", 1); /* 199 bytes */
    refuse(line, ":2: the line is too long (198 bytes are allowed)");
    snprintf(line, sizeof line, "[sluice]\nroot = /%0190d\nx = 1\n", 1);
    refuse(line, ":3: no such key");
}

static void test_files(void **state)
{
    struct world w;
    struct sl_config *c;
    struct sl_error e = {0};
    struct sl_config_opts o = {.env = get_env, .user = &w, .not_root = true};
    FILE *f;

    (void)state;
    make_world(&w);
    spit(w.sys, "[daemon]\nlease = 7s\n");
    spit(w.user, "[daemon]\nlease = 9s\n");
    o.path = w.sys;
    assert_int_equal(sl_config_open(&o, &c, &e), 0);
    assert_int_equal(sl_config_number(c, SL_CONFIG_LEASE), 7000);
    sl_config_close(c);
    w.env[1][0] = "SLUICE_CONFIG", w.env[1][1] = w.user;
    o.path = NULL;
    assert_int_equal(sl_config_open(&o, &c, &e), 0);
    assert_int_equal(sl_config_number(c, SL_CONFIG_LEASE), 9000);
    sl_config_close(c);
    w.env[1][1] = "/nowhere/sluice.conf";
    assert_int_equal(sl_config_open(&o, &c, &e), SL_EUSAGE);
    assert_string_equal(e.text, "SLUICE_CONFIG: /nowhere/sluice.conf: no such file");
    w.env[1][1] = w.dir;
    assert_int_equal(sl_config_open(&o, &c, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "is not a file"));
    w.env[1][1] = "/dev/zero";
    assert_int_equal(sl_config_open(&o, &c, &e), SL_EUSAGE);
    w.env[1][1] = "/dev/null";
    assert_int_equal(sl_config_open(&o, &c, &e), 0);
    assert_int_equal(sl_config_number(c, SL_CONFIG_LEASE), 60000);
    sl_config_close(c);
    w.env[1][1] = w.user;
    assert_int_equal(chmod(w.user, 0666), 0);
    assert_int_equal(sl_config_open(&o, &c, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "everybody may write"));
    assert_int_equal(chmod(w.user, 0600), 0);
    f = fopen(w.user, "w");
    assert_non_null(f);
    fwrite("[daemon]\nlea\0se = 5s\n", 1, 21, f);
    fclose(f);
    assert_int_equal(sl_config_open(&o, &c, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "NUL"));
    w.env[1][0] = "SLUICE_HEARTBEAT", w.env[1][1] = "soon";
    unlink(w.user);
    assert_int_equal(sl_config_open(&o, &c, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "SLUICE_HEARTBEAT: daemon.heartbeat: expected a time"));
    end_world(&w);
}

static void test_table(void **state)
{
    (void)state;
    for (int k = 0; k < SL_CONFIG_KEYS; k++) {
        const struct sl_config_info *i = sl_config_info((enum sl_config_key)k);
        char full[64], upper[64] = "SLUICE_";

        assert_non_null(i->name);
        assert_non_null(i->help);
        snprintf(full, sizeof full, "%s.%s", i->section, i->name);
        assert_int_equal(sl_config_by_name(full), k);
        for (unsigned j = 0; i->name[j]; j++)
            upper[7 + j] = (char)(i->name[j] == '_' ? '_' : i->name[j] - 32);
        assert_string_equal(i->env, upper);
    }
    assert_int_equal(sl_config_by_name("daemon.leas"), -1);
    assert_int_equal(sl_config_by_name("daemo.lease"), -1);
    assert_int_equal(sl_config_by_name("lease"), -1);
}

/* The example is accepted; every key stands in it, and what is commented out is
 * what is built in. */
static void test_example(void **state)
{
    struct world w;
    struct sl_config_opts o = {.path = "systemd/sluice.conf", .env = get_env, .user = &w,
                               .not_root = true};
    static char text[65536];
    struct sl_config *c;
    struct sl_error e = {0};
    FILE *f = fopen(o.path, "r");

    (void)state;
    memset(&w, 0, sizeof w);
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    if (sl_config_open(&o, &c, &e) < 0)
        fail_msg("%s", e.text);
    for (int k = 0; k < SL_CONFIG_KEYS; k++) {
        const struct sl_config_info *i = sl_config_info((enum sl_config_key)k);
        const struct sl_config_value *v = sl_config_get(c, (enum sl_config_key)k);
        char want[256], *at = strstr(text, i->section), *end;

        assert_non_null(at);
        if (v->layer != SL_CONFIG_BUILTIN || v->n == 0) {
            snprintf(want, sizeof want, "\n%s%s = ", v->n ? "" : ";", i->name);
            assert_non_null(strstr(text, want));
            continue;
        }
        snprintf(want, sizeof want, "\n;%s =%s%s\n", i->name, *v->items[0] ? " " : "", v->items[0]);
        snprintf(want + 200, 56, "[%s]", i->section);
        at = strstr(text, want + 200);
        assert_non_null(at);
        end = strstr(at, "\n[");
        at = strstr(at, want);
        if (!at || (end && at > end))
            fail_msg("systemd/sluice.conf lacks '%s' in [%s]", want + 1, i->section);
    }
    sl_config_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtins), cmocka_unit_test(test_layers), cmocka_unit_test(test_system_socket), cmocka_unit_test(test_relative_option),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_files),
        cmocka_unit_test(test_table), cmocka_unit_test(test_example),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
