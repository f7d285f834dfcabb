/* Numbers of jobs, what watch shows, completion scripts. */
#include "client/completion_text.h"
#include "client/service_args.h"
#include "client/record_fields.h"
#include "client/watch_view.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void numbers_of_jobs_are_read(void **state)
{
    static const char *const good[] = {"7", "3,5", "9-11", "5"};
    static const char *const bad[] = {"", "0", "-1", "x", "3,", ",3", "5-3", "1-", "1-2000", "3 ",
                                      "99999999999999999999", "1,,2", "0-3"};
    struct sl_error e;
    struct ids ids;

    (void)state;
    assert_int_equal(ids_parse(good, 4, &ids, &e), 0);
    assert_int_equal(ids.n, 6);
    assert_int_equal(ids.id[2], 5);
    assert_int_equal(ids.id[5], 11);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(ids_parse(&bad[i], 1, &ids, &e), SL_EUSAGE);
}

static void watch_shows_workers_and_a_bar(void **state)
{
    cJSON *jobs = cJSON_Parse("[{\"id\":7,\"state\":\"running\",\"source\":\"/m/R1\",\"recipe\":\"dq3_k_m\","
                              "\"tasks\":4,\"done\":1,\"src_bytes\":4000000000,\"done_bytes\":1000000000,"
                              "\"rate\":100000000}]");
    cJSON *workers = cJSON_Parse("[{\"name\":\"a-cuda:0\",\"device\":\"cuda:0\",\"state\":\"busy\","
                                 "\"rate\":100000000,\"job\":7,\"tensor\":\"blk.3.ffn_up_exps.weight\"},"
                                 "{\"name\":\"other\",\"state\":\"busy\",\"job\":8}]");
    char *text, plain[200];

    (void)state;
    assert_int_equal(watch_screen(jobs, workers, 100, 20, &text), 3);
    assert_non_null(strstr(text, "job 7  running     R1 as dq3_k_m  1/4 tasks  25%  100.0 MB/s  ETA 0:30\n"));
    assert_non_null(strstr(text, "cuda:0"));
    assert_non_null(strstr(text, "blk.3.ffn_up_exps.weight"));
    assert_null(strstr(text, "other"));
    assert_non_null(strstr(text, "total [##########....."));
    assert_non_null(strstr(text, " 25 %  1.0 GB of 4.0 GB  100.0 MB/s  ETA 0:30"));
    free(text);
    assert_int_equal(watch_screen(jobs, workers, 30, 20, &text), 3);
    for (char *p = text; *p; p = strchr(p, '\n') + 1)
        assert_true(strchr(p, '\n') - p <= 30);
    assert_non_null(strstr(text, "\ntotal  25 %  ETA 0:30\n"));
    free(text);
    /* Where there is little room a busy worker still shows device, rate and tensor. */
    assert_int_equal(watch_screen(jobs, workers, 65, 20, &text), 3);
    assert_non_null(strstr(text, "\n  a-cuda:0 cuda:0  100.0 MB/s  job 7  blk.3.ffn_up_exps.weight\n"));
    free(text);
    assert_string_equal(watch_plain(plain, sizeof plain, jobs->child),
                        "job 7: running, 1 of 4 tasks, 25 %, 1.0 GB of 4.0 GB, 100.0 MB/s, ETA 0:30");
    cJSON_Delete(jobs);
    cJSON_Delete(workers);
}

static void a_held_job_says_what_lets_it_go_on(void **state)
{
    cJSON *job = cJSON_Parse("{\"id\":7,\"state\":\"held\",\"user\":\"uid:0\",\"reason\":\"held by uid:0 since noon\"}");
    char plain[200];

    (void)state;
    record_name_users(job);
    assert_string_equal(watch_plain(plain, sizeof plain, job),
                        "job 7: held (held by root since noon; 'sluice release 7' lets it go on)");
    assert_string_equal(sl_get_str(job, "user"), "root");
    cJSON_ReplaceItemInObject(job, "reason", cJSON_CreateString("held by uid:x"));
    record_name_users(job);
    assert_string_equal(sl_get_str(job, "reason"), "held by uid:x");
    cJSON_Delete(job);
}

static void lines_wrap_when_a_terminal_shrinks(void **state)
{
    (void)state;
    assert_int_equal(watch_rows("", 80), 0);
    assert_int_equal(watch_rows("12345\n\n1234567890\n", 80), 3);
    assert_int_equal(watch_rows("12345\n\n1234567890\n", 5), 4);
    assert_int_equal(watch_rows("12345\n\n1234567890\n", 4), 6);
}

static void a_small_terminal_keeps_the_total(void **state)
{
    cJSON *jobs = cJSON_CreateArray();
    char *text;

    (void)state;
    for (int i = 0; i < 50; i++) {
        cJSON *j = cJSON_CreateObject();

        cJSON_AddNumberToObject(j, "id", i + 1);
        cJSON_AddItemToArray(jobs, j);
    }
    assert_int_equal(watch_screen(jobs, NULL, 80, 10, &text), 10);
    assert_non_null(strstr(text, "\ntotal ["));
    free(text);
    cJSON_Delete(jobs);
}

static char *script(const char *shell)
{
    struct sl_error e;
    char *text = NULL;
    size_t n;
    FILE *to = open_memstream(&text, &n);

    assert_int_equal(completion_text(to, shell, &e), 0);
    fclose(to);
    return text;
}

static void completion_knows_every_verb(void **state)
{
    static const char *const shells[] = {"bash", "zsh", "fish"};
    struct sl_error e;

    (void)state;
    for (size_t s = 0; s < 3; s++) {
        char *text = script(shells[s]);

        for (unsigned g = 0; cli_group(g); g++)
            for (const struct cli_verb *const *v = cli_group(g)->verbs; *v; v++)
                assert_non_null(strstr(text, (*v)->name));
        assert_non_null(strstr(text, "parsable"));
        assert_non_null(strstr(text, "split-max-size"));
        free(text);
    }
    assert_int_equal(completion_text(stdout, "tcsh", &e), SL_EUSAGE);
}

static void count(void *user, const struct poptOption *t)
{
    int *n = user;

    assert_non_null(t->longName);
    assert_non_null(t->descrip);
    ++*n;
}

static void every_option_says_what_it_is(void **state)
{
    (void)state;
    for (unsigned g = 0; cli_group(g); g++)
        for (const struct cli_verb *const *v = cli_group(g)->verbs; *v; v++) {
            int n = 0;

            cli_each_option(*v, count, &n);
            assert_true(n >= 1);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_jobs_are_read),
        cmocka_unit_test(watch_shows_workers_and_a_bar),
        cmocka_unit_test(a_held_job_says_what_lets_it_go_on),
        cmocka_unit_test(lines_wrap_when_a_terminal_shrinks),
        cmocka_unit_test(a_small_terminal_keeps_the_total),
        cmocka_unit_test(completion_knows_every_verb),
        cmocka_unit_test(every_option_says_what_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
