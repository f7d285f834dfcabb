/* A file of bytes, verified, and what is said of it. */
#ifndef SLUICE_TESTS_VERIFY_FILE_H
#define SLUICE_TESTS_VERIFY_FILE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/gguf_bytes.h"
#include "worker/verify.h"

static char path[64];
static char said[1100];
static unsigned told; /* failures */

static void count(void *user, const char *text)
{
    (void)user;
    (void)text;
    told++;
}

/* Returns 0 or the code; what was said first is in `said`. */
static int verify(const char *file)
{
    struct verify_report r = {.fail = count};
    struct verify_set s;
    struct sl_error e = {0};
    int rc = verify_set_open(file, &s, &e);

    said[0] = '\0';
    told = 0;
    if (rc == 0)
        rc = verify_data(&s, false, NULL, &r, NULL, NULL, &e);
    if (rc == 0 && r.failures) {
        snprintf(said, sizeof said, "%s", r.first.text);
        rc = r.first.code;
    } else if (rc < 0) {
        snprintf(said, sizeof said, "%s", e.text);
    }
    verify_set_free(&s);
    return rc;
}

static void refused(const struct bytes *b, const char *text)
{
    assert_int_equal(b_write(b, path), 0);
    assert_int_equal(verify(path), SL_EVERIFY);
    assert_non_null(strstr(said, text));
}

#endif
