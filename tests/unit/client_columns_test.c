/* Lists: choosing fields, alignment, cutting, separators; texts of fields. */
#include "client/record_fields.h"
#include "client/term.h"
#include "client/time_text.h"
#include "daemon/queue.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static cJSON *jobs(const char *text)
{
    cJSON *a = cJSON_Parse(text);

    assert_non_null(a);
    return a;
}

static char *printed(const char *fields, const cJSON *array, enum columns_form form, int width,
                     bool colour)
{
    struct sl_error e;
    struct columns c;
    char *text = NULL;
    size_t n;
    FILE *to = open_memstream(&text, &n);

    assert_int_equal(columns_choose(job_columns, fields, &c, &e), 0);
    columns_print(to, &c, array, form, width, colour);
    fclose(to);
    return text;
}

static void fields_are_chosen(void **state)
{
    static const char *const bad[] = {"", "id,", ",id", "ID", "id,,state", "nope", "id state"};
    struct columns c;
    struct sl_error e;

    (void)state;
    assert_int_equal(columns_choose(job_columns, "state,id", &c, &e), 0);
    assert_int_equal(c.n, 2);
    assert_string_equal(c.column[0]->name, "state");
    assert_int_equal(columns_choose(job_columns, "all", &c, &e), 0);
    assert_true(c.n > 25);
    assert_int_equal(columns_choose(job_columns, JOB_COLUMNS_USUAL, &c, &e), 0);
    assert_int_equal(columns_choose(job_columns, HISTORY_COLUMNS_USUAL, &c, &e), 0);
    assert_int_equal(columns_choose(worker_columns, WORKER_COLUMNS_USUAL, &c, &e), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(columns_choose(job_columns, bad[i], &c, &e), SL_EUSAGE);
        assert_non_null(strstr(e.text, "there are: id, state"));
    }
}

static void columns_are_aligned(void **state)
{
    cJSON *a = jobs("[{\"id\":7,\"state\":\"held\",\"recipe\":\"q4_k_m\",\"reason\":\"by a user\"},"
                    "{\"id\":123,\"state\":\"running\",\"recipe\":\"\xc3\xa9\"}]");
    char *t = printed("id,state,recipe,reason", a, COLUMNS_TABLE, 0, false);

    (void)state;
    assert_string_equal(t, " ID  STATE    RECIPE  REASON\n"
                           "  7  held     q4_k_m  by a user; 'sluice release 7' lets it go on\n"
                           "123  running  \xc3\xa9       \n");
    free(t);
    t = printed("id,state,recipe,reason", a, COLUMNS_TABLE, 28, false);
    assert_non_null(strstr(t, "q4_k_m  by ...\n"));
    free(t);
    t = printed("state", a, COLUMNS_TABLE, 0, true);
    assert_non_null(strstr(t, "\033[36mrunning\033[0m"));
    free(t);
    cJSON_Delete(a);
}

static void lines_for_programs_are_unambiguous(void **state)
{
    cJSON *a = jobs("[{\"id\":7,\"reason\":\"a|b\\\\c\\nd\",\"submitted\":1795237071841,"
                    "\"rate\":1234567,\"labels\":[\"x\",\"y\"],\"after\":[3,4]}]");
    char *t = printed("id,reason,submitted,rate,labels,after,code", a, COLUMNS_PARSABLE, 10, true);

    (void)state;
    assert_string_equal(t, "7|a\\|b\\\\c\\nd|2026-11-21T04:57:51.841Z|1234567|x,y|3,4|\n");
    free(t);
    cJSON_Delete(a);
}

static void lines_for_programs_are_whole(void **state)
{
    char path[2 * CELL_MAX] = "", *t, *want;
    cJSON *a = jobs("[{\"id\":7,\"files\":[]}]"), *files = cJSON_GetObjectItem(a->child, "files");

    (void)state;
    memset(path, 'x', sizeof path - 1);
    cJSON_AddStringToObject(a->child, "source", path);
    cJSON_AddItemToArray(files, cJSON_CreateString(path));
    cJSON_AddItemToArray(files, cJSON_CreateString("a|b"));
    t = printed("source,files,output,id", a, COLUMNS_PARSABLE, 0, false);
    assert_true(asprintf(&want, "%s|%s,a\\|b||7\n", path, path) > 0);
    assert_string_equal(t, want);
    free(want);
    free(t);
    cJSON_Delete(a);
}

static void progress_does_not_promise(void **state)
{
    cJSON *a = jobs("[{\"state\":\"running\",\"src_bytes\":1000000,\"done_bytes\":999999,\"tasks\":3,"
                    "\"done\":2,\"rate\":1},"
                    "{\"state\":\"queued\",\"src_bytes\":0,\"done_bytes\":0},"
                    "{\"state\":\"succeeded\",\"src_bytes\":10,\"done_bytes\":10}]");
    char *t = printed("progress,eta,name", a, COLUMNS_PARSABLE, 0, false);

    (void)state;
    assert_string_equal(t, "99.9|1|\n||\n100.0||\n");
    free(t);
    t = printed("progress", a, COLUMNS_TABLE, 0, false);
    assert_string_equal(t, "PROGRESS\n     99%\n       -\n    100%\n");
    free(t);
    cJSON_Delete(a);
}

static void times_are_told(void **state)
{
    char b[32];

    (void)state;
    assert_string_equal(time_utc(b, 0), "1970-01-01T00:00:00.000Z");
    assert_string_equal(time_span(b, 125000), "2:05");
    assert_string_equal(time_span(b, 3723000), "1:02:03");
    assert_string_equal(time_span(b, (3 * 86400 + 4 * 3600 + 5 * 60 + 6) * 1000ull), "3d 04:05:06");
    assert_string_equal(time_left(b, 100, 0), "--:--");
    assert_string_equal(time_left(b, UINT64_MAX, 1), "--:--");
    assert_string_equal(time_left(b, 101, 10), "0:11");
}

static void json_times_are_rfc_3339(void **state)
{
    cJSON *a = jobs("{\"jobs\":[{\"submitted\":1000,\"id\":5}],\"time\":2000,\"ended\":\"no\"}");
    cJSON *j = record_json(a);
    char *t = cJSON_PrintUnformatted(j);

    (void)state;
    assert_string_equal(t, "{\"jobs\":[{\"submitted\":\"1970-01-01T00:00:01.000Z\",\"id\":5}],"
                           "\"time\":\"1970-01-01T00:00:02.000Z\",\"ended\":\"no\"}");
    cJSON_free(t);
    cJSON_Delete(j);
    cJSON_Delete(a);
}

static void text_is_cut_at_characters(void **state)
{
    (void)state;
    assert_int_equal(term_fit("abc", 2), 2);
    assert_int_equal(term_fit("abc", 9), 3);
    assert_int_equal(term_fit("\xc3\xa9\xc3\xa9", 1), 2);
    assert_int_equal(term_fit("x", 0), 0);
}

static void states_are_the_queues(void **state)
{
    unsigned n = 0;

    (void)state;
    for (; job_states[n]; n++)
        assert_int_not_equal(sl_job_state_by_name(job_states[n]), -1);
    assert_int_equal(n, SL_JOB_STATES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_chosen),
        cmocka_unit_test(columns_are_aligned),
        cmocka_unit_test(lines_for_programs_are_unambiguous),
        cmocka_unit_test(lines_for_programs_are_whole),
        cmocka_unit_test(progress_does_not_promise),
        cmocka_unit_test(times_are_told),
        cmocka_unit_test(json_times_are_rfc_3339),
        cmocka_unit_test(text_is_cut_at_characters),
        cmocka_unit_test(states_are_the_queues),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
