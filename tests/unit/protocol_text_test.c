/* proto/PROTOCOL.md against the table of messages: every message, field, type,
 * limit, direction and answer stands in both, and the codes are the program's. */
#include "proto/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LINES 2000

struct text {
    char *line[LINES];
    unsigned n;
};

static int load(void **state)
{
    static struct text t;
    FILE *f = fopen("proto/PROTOCOL.md", "r");
    char *line = NULL;
    size_t cap = 0;

    if (!f)
        return -1;
    for (t.n = 0; t.n < LINES && getline(&line, &cap, f) > 0; t.n++) {
        line[strcspn(line, "\n")] = 0;
        t.line[t.n] = strdup(line);
    }
    free(line);
    fclose(f);
    *state = &t;
    return 0;
}

static int unload(void **state)
{
    struct text *t = *state;

    for (unsigned i = 0; i < t->n; i++)
        free(t->line[i]);
    return 0;
}

/* Cell number c of "| a | b |", without its spaces and backticks. */
static void cell(const char *line, unsigned c, char *out, size_t cap)
{
    size_t n = 0;

    for (; c + 1 > 0 && line; c--) {
        line = strchr(line, '|');
        line = line ? line + 1 : NULL;
    }
    while (line && *line && *line != '|' && n + 1 < cap) {
        if (*line != '`' && !(*line == ' ' && (n == 0 || line[1] == '|' || line[1] == ' ')))
            out[n++] = *line;
        line++;
    }
    out[n] = 0;
}

static unsigned find(const struct text *t, const char *heading)
{
    for (unsigned i = 0; i < t->n; i++)
        if (strcmp(t->line[i], heading) == 0)
            return i + 1;
    fail_msg("PROTOCOL.md has no '%s'", heading);
    return 0;
}

static uint64_t number(const char *s)
{
    return strncmp(s, "2^", 2) == 0 ? UINT64_C(1) << atoi(s + 2) : strtoull(s, NULL, 10);
}

static const char *const types[] = {"string", "path", "uint", "bool", "hex", "hexes",
                                    "record", "records", "uints", "strings"};

static void same_fields(const struct text *t, unsigned at, const char *in,
                        const struct sl_field *fields, unsigned n)
{
    unsigned i = 0;
    char got[200], want[200];

    while (at < t->n && t->line[at][0] != '|' && t->line[at][0] != '#' &&
           strcmp(t->line[at], "No fields.") != 0)
        at++;
    if (n == 0) {
        assert_string_equal(t->line[at], "No fields.");
        return;
    }
    for (at += 2; at < t->n && t->line[at][0] == '|'; at++, i++) {
        cell(t->line[at], 0, got, sizeof got);
        if (i >= n)
            fail_msg("%s: field '%s' is in PROTOCOL.md only", in, got);
        if (strcmp(got, fields[i].name) != 0)
            fail_msg("%s: '%s' in PROTOCOL.md, '%s' in the table", in, got, fields[i].name);
        cell(t->line[at], 1, got, sizeof got);
        snprintf(want, sizeof want, "%s%s%s", types[fields[i].type], fields[i].record ? " " : "",
                 fields[i].record ? fields[i].record->name : "");
        if (strcmp(got, want) != 0)
            fail_msg("%s.%s: type '%s' in PROTOCOL.md, '%s' in the table", in, fields[i].name, got, want);
        cell(t->line[at], 2, got, sizeof got);
        assert_string_equal(got, fields[i].required ? "yes" : "no");
        cell(t->line[at], 3, got, sizeof got);
        if (number(got) != fields[i].limit)
            fail_msg("%s.%s: limit %s in PROTOCOL.md, %llu in the table", in, fields[i].name, got,
                     (unsigned long long)fields[i].limit);
    }
    if (i != n)
        fail_msg("%s: PROTOCOL.md has %u fields, the table %u", in, i, n);
}

static void messages_are_the_table_s(void **state)
{
    const struct text *t = *state;
    unsigned headings = 0;
    char want[300];

    for (unsigned i = 0; i < t->n; i++)
        headings += strncmp(t->line[i], "### `", 5) == 0;
    assert_int_equal(headings, SL_M_COUNT);
    for (unsigned id = 0; id < SL_M_COUNT; id++) {
        const struct sl_message *m = sl_message(id);
        unsigned at;
        char answers[200], *save, *word;

        snprintf(want, sizeof want, "### `%s`", m->name);
        at = find(t, want) + 1;
        snprintf(want, sizeof want, "From: %s%s%s%s%s.", m->from & SL_FROM_WORKER ? "worker" : "",
                 (m->from & 3) == 3 ? ", " : "", m->from & SL_FROM_CLIENT ? "client" : "",
                 (m->from & 3) && (m->from & 4) ? ", " : "", m->from & SL_FROM_DAEMON ? "daemon" : "");
        if (strncmp(t->line[at], want, strlen(want)) != 0)
            fail_msg("%s: '%s', the table says '%s'", m->name, t->line[at], want);
        snprintf(answers, sizeof answers, "%s", m->answers);
        want[0] = 0;
        for (word = strtok_r(answers, " ", &save); word; word = strtok_r(NULL, " ", &save))
            snprintf(want + strlen(want), sizeof want - strlen(want), "%s`%s`",
                     want[0] ? ", " : " Answer: ", word);
        if (m->answers[0])
            assert_non_null(strstr(t->line[at], want));
        else
            assert_null(strstr(t->line[at], "Answer:"));
        same_fields(t, at + 1, m->name, m->fields, m->n_fields);
    }
}

static void records_are_the_table_s(void **state)
{
    const struct text *t = *state;
    unsigned headings = 0, n = 0;
    const struct sl_record *r;
    char heading[100];

    for (unsigned i = 0; i < t->n; i++)
        headings += strncmp(t->line[i], "### record `", 12) == 0;
    for (; (r = sl_record(n)) != NULL; n++) {
        snprintf(heading, sizeof heading, "### record `%s`", r->name);
        same_fields(t, find(t, heading), r->name, r->fields, r->n_fields);
        assert_true(r->n_fields <= 64);
    }
    assert_int_equal(headings, n);
}

/* "A new field makes a new version": how many this one has. */
static void fields_are_the_version_s(void **state)
{
    unsigned n = 0;

    (void)state;
    for (unsigned id = 0; id < SL_M_COUNT; id++)
        n += sl_message(id)->n_fields;
    for (unsigned i = 0; sl_record(i); i++)
        n += sl_record(i)->n_fields;
    assert_int_equal(SL_WIRE_VERSION, 3);
    assert_int_equal(n, 249);
}

static void row_is(const struct text *t, const char *name, uint64_t value)
{
    char a[80], b[80];

    for (unsigned i = 0; i < t->n; i++) {
        if (t->line[i][0] != '|')
            continue;
        cell(t->line[i], 0, a, sizeof a);
        cell(t->line[i], 1, b, sizeof b);
        if (strcmp(a, name) == 0 && strtoull(b, NULL, 10) == value)
            return;
        if (strcmp(b, name) == 0 && strtoull(a, NULL, 10) == value)
            return;
    }
    fail_msg("PROTOCOL.md does not say %s = %llu", name, (unsigned long long)value);
}

static void numbers_are_the_program_s(void **state)
{
    const struct text *t = *state;

    row_is(t, "message, as received", SL_WIRE_MAX);
    row_is(t, "message, decompressed", SL_WIRE_MAX);
    row_is(t, "compressed from", SL_WIRE_COMPRESS);
    row_is(t, "depth of objects and arrays", SL_WIRE_DEPTH);
    row_is(t, "values in a message", SL_WIRE_VALUES);
    row_is(t, "tasks of a plan", SL_TASKS_MAX);
    row_is(t, "specification of a job", SL_SPEC_BYTES);
    row_is(t, "SL_EFAIL", (uint64_t)-SL_EFAIL);
    row_is(t, "SL_EUSAGE", (uint64_t)-SL_EUSAGE);
    row_is(t, "SL_EWARN", (uint64_t)-SL_EWARN);
    row_is(t, "SL_EUNREACHABLE", (uint64_t)-SL_EUNREACHABLE);
    row_is(t, "SL_ENOJOB", (uint64_t)-SL_ENOJOB);
    row_is(t, "SL_EUNSUPPORTED", (uint64_t)-SL_EUNSUPPORTED);
    row_is(t, "SL_ESOURCE", (uint64_t)-SL_ESOURCE);
    row_is(t, "SL_EVERIFY", (uint64_t)-SL_EVERIFY);
    row_is(t, "SL_ENOSPACE", (uint64_t)-SL_ENOSPACE);
    row_is(t, "SL_EDEVICE", (uint64_t)-SL_EDEVICE);
    row_is(t, "SL_ELACKS", (uint64_t)-SL_ELACKS);
    row_is(t, "SL_ENOSOURCE", (uint64_t)-SL_ENOSOURCE);
    row_is(t, "SL_EEXISTS", (uint64_t)-SL_EEXISTS);
    row_is(t, "SL_EINTERRUPTED", (uint64_t)-SL_EINTERRUPTED);
}

/* "NUMBER **name**" in the words about tasks. */
static void task_numbers_are_the_program_s(void **state)
{
    static const struct { const char *name; unsigned task; } special[] = {
        {"prepare", SL_TASK_PREPARE}, {"stitch", SL_TASK_STITCH}, {"publish", SL_TASK_PUBLISH},
        {"verify", SL_TASK_VERIFY}, {"discard", SL_TASK_DISCARD},
    };
    const struct text *t = *state;

    for (unsigned k = 0; k < 5; k++) {
        char want[64];
        bool found = false;

        snprintf(want, sizeof want, "%u **%s**", special[k].task, special[k].name);
        for (unsigned i = 0; i < t->n; i++) {
            char two[400];

            snprintf(two, sizeof two, "%.190s %.190s", t->line[i],
                     i + 1 < t->n ? t->line[i + 1] + strspn(t->line[i + 1], " ") : "");
            found |= strstr(two, want) != NULL;
        }
        if (!found)
            fail_msg("PROTOCOL.md does not say '%s'", want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_the_table_s),
        cmocka_unit_test(records_are_the_table_s),
        cmocka_unit_test(fields_are_the_version_s),
        cmocka_unit_test(numbers_are_the_program_s),
        cmocka_unit_test(task_numbers_are_the_program_s),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
