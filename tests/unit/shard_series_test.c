/* Shards whose index is lost: which are read, and which one is missing. */
#include "tests/unit/checkpoint_world.h"

#include "proto/shard_series.h"

#include <sys/resource.h>

/* As llama.cpp's converter, all of model*.safetensors. */
static void opens_a_set(void **state)
{
    char *dir = *state;
    struct sl_checkpoint *ck;

    one_tensor(dir, "model-00003-of-00003.safetensors", "c");
    one_tensor(dir, "adapter.safetensors", "x");
    refuse(dir, SL_ESOURCE, ": model-00001-of-00003.safetensors is missing (2 of 3 shards are); is the download");
    one_tensor(dir, "model-00001-of-00003.safetensors", "a");
    one_tensor(dir, "model-00002-of-00003.safetensors", "b");
    one_tensor(dir, "model-mtp-of-1.safetensors", "d");
    one_tensor(dir, "model-00002-of-00001.safetensors", "e");
    one_tensor(dir, "model-1-of-4000000000.safetensors", "f");
    one_tensor(dir, "model-1-of-0.safetensors", "g");
    ck = open_ok(dir);
    assert_int_equal(ck->n_files, 7);
    assert_string_equal(ck->files[0].name, "model-00001-of-00003.safetensors");
    assert_int_equal(sl_checkpoint_find(ck, "x"), SL_NO_TENSOR);
    sl_checkpoint_close(ck);
    one_tensor(dir, "model-00002-of-00001.safetensors", "a");
    refuse(dir, SL_ESOURCE, "tensor 'a' is in two files");
    one_tensor(dir, "model-00001-of-00004.safetensors", "h");
    refuse(dir, SL_ESOURCE, ": model-00001-of-00003.safetensors and model-00001-of-00004.safetensors are of two sets");
}

static void names_a_missing_shard(void **state)
{
    one_tensor(*state, "model-10-of-11.safetensors", "a");
    one_tensor(*state, "model-9-of-11.safetensors", "b");
    refuse(*state, SL_ESOURCE, ": model-1-of-11.safetensors is missing (9 of 11 shards are)");
    one_tensor(*state, "model-999999-of-999999.safetensors", "c");
    assert_int_equal(unlink(in(*state, "model-10-of-11.safetensors")), 0);
    assert_int_equal(unlink(in(*state, "model-9-of-11.safetensors")), 0);
    refuse(*state, SL_ESOURCE, ": model-000001-of-999999.safetensors is missing (999998 of 999999 shards are)");
}

/* MiniMax-M2's: from 0, and 125 of 130. What is missing at the end is known by its tensors. */
static void counts_from_zero(void **state)
{
    one_tensor(*state, "model-00000-of-00005.safetensors", "a");
    sl_checkpoint_close(open_ok(*state));
    one_tensor(*state, "model-00002-of-00005.safetensors", "c");
    refuse(*state, SL_ESOURCE, ": model-00001-of-00005.safetensors is missing (1 of 3 shards are)");
    one_tensor(*state, "model-00001-of-00005.safetensors", "b");
    sl_checkpoint_close(open_ok(*state));
    one_tensor(*state, "model-00005-of-00005.safetensors", "d");
    refuse(*state, SL_ESOURCE, ": model-00003-of-00005.safetensors is missing (2 of 6 shards are)");
    assert_int_equal(unlink(in(*state, "model-00005-of-00005.safetensors")), 0);
    one_tensor(*state, "model-00003-of-00003.safetensors", "d");
    refuse(*state, SL_ESOURCE, ": model-00000-of-00005.safetensors and model-00003-of-00003.safetensors are of two sets");
}

/* What this process lacks is no fault of the folder. */
static void no_more_files(void **state)
{
    struct rlimit old, none;
    struct sl_shard_series s;
    struct sl_error e;

    one_tensor(*state, "model-00001-of-00001.safetensors", "a");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){0, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(sl_shard_series_read(*state, &s, &e), SL_EFAIL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_non_null(strstr(e.text, "Too many open files"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(opens_a_set), TEST(names_a_missing_shard), TEST(counts_from_zero), TEST(no_more_files)};

    return cmocka_run_group_tests_name("shard_series", tests, NULL, NULL);
}
