/* As much of cmocka's interface as the kernels' tests use, in one header and TAP on stdout:
 * for a processor for which there is a C library and no cmocka (tests/tap/arm64.t). */
#ifndef SLUICE_TESTS_BARE_CMOCKA_H
#define SLUICE_TESTS_BARE_CMOCKA_H

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
    void *state;
};

enum bare_end { BARE_FAILED = 1, BARE_SKIPPED };

static jmp_buf bare_out; /* of the test that runs; longjmp's value says how it ended */

#define cmocka_unit_test(f) {#f, f, NULL}
#define cmocka_unit_test_prestate(f, s) {#f, f, s}
#define print_message(...) ((void)fprintf(stderr, __VA_ARGS__))
#define print_error(...) ((void)fprintf(stderr, __VA_ARGS__))
#define skip() longjmp(bare_out, BARE_SKIPPED)
#define fail_msg(...) \
    (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), \
     longjmp(bare_out, BARE_FAILED))

#define bare_must(c) ((c) ? (void)0 : fail_msg("not so: %s", #c))
#define assert_true(c) bare_must(c)
#define assert_false(c) bare_must(!(c))
#define assert_non_null(p) bare_must((p) != NULL)
#define assert_ptr_equal(a, b) bare_must((const void *)(a) == (const void *)(b))
#define assert_int_equal(a, b) bare_must((unsigned long long)(a) == (unsigned long long)(b))
#define assert_int_not_equal(a, b) bare_must((unsigned long long)(a) != (unsigned long long)(b))
#define assert_memory_equal(a, b, n) bare_must(memcmp(a, b, n) == 0)
#define assert_memory_not_equal(a, b, n) bare_must(memcmp(a, b, n) != 0)

#define cmocka_run_group_tests(tests, before, after) bare_run(tests, sizeof(tests) / sizeof((tests)[0]))
#define cmocka_run_group_tests_name(name, tests, before, after) cmocka_run_group_tests(tests, before, after)

/* Returns how many failed. */
static inline int bare_run(const struct CMUnitTest *tests, size_t n)
{
    volatile int failed = 0;

    for (volatile size_t i = 0; i < n; i++) {
        void *state = tests[i].state;
        int end = setjmp(bare_out);

        if (end == 0)
            tests[i].run(&state);
        failed += end == BARE_FAILED;
        printf("%s %d - %s%s\n", end == BARE_FAILED ? "not ok" : "ok", (int)i + 1, tests[i].name,
               end == BARE_SKIPPED ? " # SKIP" : "");
    }
    printf("1..%d\n", (int)n);
    return failed;
}

#endif
