/* What a tcp endpoint says, held against what libzmq would make of it. */
#include "proto/endpoint.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void loopback_is_an_address(void **state)
{
    static const char *const yes[] = {"tcp://127.0.0.1:5", "tcp://127.8.9.10:5", "tcp://localhost:5", "tcp://[::1]:5"};
    static const char *const no[] = {
        "tcp://127.evil.example.com:5", "tcp://127.0.0.1.example.com:5", "tcp://127.0.0.1:0;10.0.0.1:5",
        "tcp://localhost:0;10.0.0.1:5", "tcp://localhost.example.com:5", "tcp://10.0.0.1:5", "tcp://0.0.0.0:5",
        "tcp://*:5", "tcp://[::]:5", "tcp://[::2]:5", "tcp://::1:5", "tcp://127.0.0.1", "ipc:///127.0.0.1:5", "tcp://"};

    (void)state;
    for (unsigned i = 0; i < sizeof yes / sizeof yes[0]; i++)
        assert_true(sl_endpoint_loopback(yes[i]));
    for (unsigned i = 0; i < sizeof no / sizeof no[0]; i++)
        assert_false(sl_endpoint_loopback(no[i]));
}

static void one_host_and_one_port(void **state)
{
    static const char *const both[] = {"tcp://h:1", "tcp://10.0.0.1:65535", "tcp://[fe80::1%eth0]:7"};
    static const char *const bound[] = {"tcp://*:*", "tcp://eth0:0"};
    static const char *const neither[] = {
        "tcp://h", "tcp://:5", "tcp://h:", "tcp://h:65536", "tcp://h:70000", "tcp://h:-1", "tcp://h: 5", "tcp://h:5x",
        "tcp://a:0;h:5", "tcp://[]:5", "tcp://[::1:5", "ipc:///x"};
    struct sl_error e;

    (void)state;
    for (unsigned i = 0; i < sizeof both / sizeof both[0]; i++) {
        assert_int_equal(sl_endpoint_check_tcp(both[i], true, &e), 0);
        assert_int_equal(sl_endpoint_check_tcp(both[i], false, &e), 0);
    }
    for (unsigned i = 0; i < sizeof bound / sizeof bound[0]; i++) {
        assert_int_equal(sl_endpoint_check_tcp(bound[i], true, &e), 0);
        assert_int_equal(sl_endpoint_check_tcp(bound[i], false, &e), SL_EUSAGE);
    }
    for (unsigned i = 0; i < sizeof neither / sizeof neither[0]; i++)
        assert_int_equal(sl_endpoint_check_tcp(neither[i], true, &e), SL_EUSAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loopback_is_an_address),
        cmocka_unit_test(one_host_and_one_port),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
