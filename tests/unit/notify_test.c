/* What systemd hears: a socket of our own stands in for it. */
#include "proto/notify.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* Binds a listener and sets NOTIFY_SOCKET to it. */
static int listen_at(const char *name)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(name);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0 && n < sizeof a.sun_path);
    memcpy(a.sun_path, name, n);
    if (name[0] == '@')
        a.sun_path[0] = '\0';
    else
        n++;
    assert_int_equal(bind(fd, (struct sockaddr *)&a,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static void hears(int fd, const char *want)
{
    char buf[2048];
    ssize_t n = recv(fd, buf, sizeof buf - 1, 0);

    if (!want) {
        assert_true(n < 0 && errno == EAGAIN);
        return;
    }
    assert_true(n >= 0);
    buf[n] = '\0';
    assert_string_equal(buf, want);
}

static int quiet(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return 0;
}

static void all_messages(const char *name)
{
    char want[128];
    struct sl_notify n;
    struct sl_error e;
    int fd = listen_at(name);

    assert_int_equal(sl_notify_open(&n, &e), 0);
    assert_int_equal(sl_notify_ready(&n, "at work", &e), 0);
    snprintf(want, sizeof want, "READY=1\nMAINPID=%ld\nSTATUS=at work", (long)getpid());
    hears(fd, want);
    sl_notify_stopping(&n, "3 jobs\nREADY=0\t");
    hears(fd, "STOPPING=1\nSTATUS=3 jobs?READY=0?");
    sl_notify_extend(&n, 100, 90000);
    sl_notify_extend(&n, 900, 90000);
    hears(fd, "EXTEND_TIMEOUT_USEC=90000000");
    hears(fd, NULL);
    sl_notify_extend(&n, 1100, 500);
    hears(fd, "EXTEND_TIMEOUT_USEC=500000");
    sl_notify_stopping(&n, "bye");
    hears(fd, "STOPPING=1\nSTATUS=bye");
    sl_notify_progress(&n, 5000);
    hears(fd, NULL);             /* no watchdog was asked for */
    sl_notify_close(&n);
    close(fd);
}

static void test_path(void **state)
{
    char dir[] = "/tmp/sluice-notify-XXXXXX", path[64];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    all_messages(path);
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
}

static void test_abstract(void **state)
{
    char name[64];

    (void)state;
    snprintf(name, sizeof name, "@sluice-notify-test-%ld", (long)getpid());
    all_messages(name);
}

static void test_watchdog(void **state)
{
    char name[64], pid[32];
    struct sl_notify n;
    struct sl_error e;
    int fd;

    (void)state;
    snprintf(name, sizeof name, "@sluice-notify-test-%ld", (long)getpid());
    fd = listen_at(name);
    setenv("WATCHDOG_USEC", "30000000", 1);
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    assert_int_equal(sl_notify_open(&n, &e), 0);
    hears(fd, NULL);             /* opening alone is no sign of life */
    sl_notify_progress(&n, 1000);
    hears(fd, "WATCHDOG=1");
    sl_notify_progress(&n, 1001);
    sl_notify_progress(&n, 10999);
    hears(fd, NULL);
    sl_notify_progress(&n, 11000);
    hears(fd, "WATCHDOG=1");
    sl_notify_stopping(&n, "x");
    hears(fd, "STOPPING=1\nSTATUS=x");
    sl_notify_close(&n);

    setenv("WATCHDOG_PID", "1", 1); /* another process is watched */
    assert_int_equal(sl_notify_open(&n, &e), 0);
    sl_notify_progress(&n, 1000);
    hears(fd, NULL);
    sl_notify_close(&n);
    unsetenv("WATCHDOG_PID");
    assert_int_equal(sl_notify_open(&n, &e), 0);
    sl_notify_progress(&n, 1000);
    hears(fd, "WATCHDOG=1");

    /* A listener that does not read never blocks the loop. */
    for (int i = 0; i < 100000; i++) {
        n.fed_ms = 0;
        sl_notify_progress(&n, 1000);
        if (n.fed_ms == 0)
            break;
    }
    assert_int_equal(n.fed_ms, 0);
    sl_notify_close(&n);
    close(fd);
}

static void test_bad(void **state)
{
    char longest[200];
    struct sl_notify n;
    struct sl_error e;

    (void)state;
    assert_int_equal(sl_notify_open(&n, &e), 0);
    assert_int_equal(sl_notify_ready(&n, "x", &e), 0);
    sl_notify_progress(&n, 1);
    sl_notify_close(&n);
    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_int_equal(sl_notify_open(&n, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "NOTIFY_SOCKET: expected a path or @name"));
    memset(longest, 'x', sizeof longest);
    longest[0] = '/';
    longest[199] = '\0';
    setenv("NOTIFY_SOCKET", longest, 1);
    assert_int_equal(sl_notify_open(&n, &e), SL_EUSAGE);
    setenv("NOTIFY_SOCKET", "/proc/self/nowhere", 1);
    setenv("WATCHDOG_USEC", "soon", 1);
    assert_int_equal(sl_notify_open(&n, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "WATCHDOG_USEC: expected a number, not 'soon'"));
    unsetenv("WATCHDOG_USEC");
    assert_int_equal(sl_notify_open(&n, &e), 0);
    assert_int_equal(sl_notify_ready(&n, "x", &e), SL_EFAIL);
    assert_non_null(strstr(e.text, "No such file"));
    sl_notify_close(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_path, quiet), cmocka_unit_test_setup(test_abstract, quiet),
        cmocka_unit_test_setup(test_watchdog, quiet), cmocka_unit_test_setup(test_bad, quiet),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
