/* A folder of its own for each test, and what opening a checkpoint in it must give. */
#ifndef SLUICE_TESTS_CHECKPOINT_WORLD_H
#define SLUICE_TESTS_CHECKPOINT_WORLD_H

#include "proto/checkpoint.h"

#include "tests/unit/source_maker.h"

static const char plain_config[] = "{\"model_type\":\"x\"}";

static inline int setup(void **state)
{
    char *dir = strdup("/tmp/sluice-checkpoint-XXXXXX");

    *state = dir && mkdtemp(dir) ? dir : NULL;
    if (*state)
        maker_write(dir, "config.json", plain_config);
    return *state ? 0 : -1;
}

static inline int teardown(void **state)
{
    int rc = maker_remove(*state);

    free(*state);
    return rc;
}

static inline struct sl_checkpoint *open_ok(const char *path)
{
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck = NULL;

    if (sl_checkpoint_open(path, &ck, &e) < 0)
        fail_msg("%s: %s", path, e.text);
    return ck;
}

static inline void refuse(const char *path, int code, const char *why)
{
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck = NULL;
    int rc = sl_checkpoint_open(path, &ck, &e);

    if (rc != code || !strstr(e.text, why))
        fail_msg("got %d '%s', expected %d '...%s...'", rc, e.text, code, why);
    assert_null(ck);
}

static inline char *in(const char *dir, const char *name)
{
    static char path[4096];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

/* One file "name" with one U8 tensor of 4 bytes. */
static inline void one_tensor(const char *dir, const char *name, const char *tensor)
{
    struct maker_file f = {.end = 0};

    maker_tensor(&f, tensor, "U8", "[4]", 4);
    maker_finish(&f, dir, name, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
