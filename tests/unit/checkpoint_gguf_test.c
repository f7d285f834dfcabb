/* GGUF files as a checkpoint: what opens, what is refused and why. */
#include "proto/gguf.h"
#include "proto/roots.h"

#include "tests/unit/checkpoint_world.h"

#include <sys/stat.h>

struct part {
    const char *file;
    int no, count, total; /* split keys; count 0: none */
    const char *tensor;
    int type;
};

static void write_gguf(const char *dir, const struct part *p)
{
    struct sl_gguf_tensor t = {.n_dims = 2, .ne = {64, 3, 1, 1}, .type = p->type};
    struct sl_kvs kvs = {.n = 0};
    uint64_t len;
    uint8_t *header;
    FILE *f;

    snprintf(t.name, sizeof t.name, "%s", p->tensor);
    t.bytes = sl_type_bytes(p->type, 64) * 3;
    assert_int_equal(sl_kvs_set_str(&kvs, "general.architecture", "llama"), 0);
    if (p->count) {
        assert_int_equal(sl_kvs_set_u16(&kvs, "split.no", (uint16_t)p->no), 0);
        assert_int_equal(sl_kvs_set_u16(&kvs, "split.count", (uint16_t)p->count), 0);
        assert_int_equal(sl_kvs_set_i32(&kvs, "split.tensors.count", p->total), 0);
    }
    assert_int_equal(sl_gguf_header(&kvs, &t, 1, &header, &len), 0);
    f = fopen(in(dir, p->file), "w");
    assert_non_null(f);
    assert_int_equal(fwrite(header, 1, len, f), len);
    assert_int_equal(fflush(f), 0);
    assert_int_equal(ftruncate(fileno(f), (off_t)(len + (t.bytes + 31) / 32 * 32)), 0);
    fclose(f);
    free(header);
    sl_kvs_free(&kvs);
}

#define P1 "m-00001-of-00002.gguf"
#define P2 "m-00002-of-00002.gguf"

static void opens_gguf(void **state)
{
    static const int types[] = {SL_TYPE_F32, SL_TYPE_F16, SL_TYPE_BF16, SL_TYPE_Q8_0, SL_TYPE_I32,
                                SL_TYPE_Q4_0, SL_TYPE_Q5_1, SL_TYPE_IQ4_NL, SL_TYPE_Q2_0};
    static const int dtypes[] = {SL_DTYPE_F32, SL_DTYPE_F16, SL_DTYPE_BF16, SL_DTYPE_Q8_0,
                                 SL_DTYPE_I32, SL_DTYPE_Q4_0, SL_DTYPE_Q5_1, SL_DTYPE_IQ4_NL, SL_DTYPE_Q2_0};
    struct sl_checkpoint *ck;

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        write_gguf(*state, &(struct part){"m.gguf", 0, 0, 0, "a.weight", types[i]});
        ck = open_ok(in(*state, "m.gguf"));
        assert_true(ck->is_gguf);
        assert_null(ck->dir);
        assert_null(ck->config);
        assert_non_null(ck->gguf);
        assert_int_equal(ck->n_tensors, 1);
        assert_int_equal(ck->tensors[0].dtype, dtypes[i]);
        assert_int_equal(ck->tensors[0].shape[0], 3);
        assert_int_equal(ck->tensors[0].shape[1], 64);
        assert_int_equal(ck->tensors[0].elems, 192);
        assert_int_equal(ck->tensors[0].bytes, sl_type_bytes(types[i], 192));
        assert_int_equal(ck->tensors[0].offset, ck->gguf->header_bytes);
        assert_string_equal(ck->files[0].name, "m.gguf");
        sl_checkpoint_close(ck);
    }
    write_gguf(*state, &(struct part){P1, 0, 2, 2, "b", SL_TYPE_F32});
    write_gguf(*state, &(struct part){P2, 1, 2, 2, "a", SL_TYPE_F32});
    ck = open_ok(in(*state, P1));
    assert_int_equal(ck->n_files, 2);
    assert_int_equal(ck->n_tensors, 2);
    assert_int_equal(ck->tensors[sl_checkpoint_find(ck, "a")].file, 1);
    assert_string_equal(ck->files[1].name, P2);
    sl_checkpoint_close(ck);
}

static void refuses_gguf(void **state)
{
    static const struct { struct part first, second; const char *why; } bad[] = {
        {{P1, 0, 2, 2, "a", 0}, {P2, 1, 3, 2, "b", 0}, "split.count is 3, its name says 2"},
        {{P1, 0, 0, 2, "a", 0}, {P2, 1, 2, 2, "b", 0}, "split.count is 0, its name says 2"},
        {{P1, 1, 2, 2, "a", 0}, {P2, 1, 2, 2, "b", 0}, "split.no is 1, its name says 0"},
        {{P1, 0, 2, 2, "a", 0}, {P2, 0, 2, 2, "b", 0}, "split.no is 0, its name says 1"},
        {{P1, 0, 2, 2, "a", 0}, {P2, 1, 2, 3, "b", 0}, "count is 3, the first part has 2"},
        {{P1, 0, 2, 9, "a", 0}, {P2, 1, 2, 9, "b", 0}, "is 9, the 2 parts hold 2 tensors"},
        {{P1, 0, 2, 2, "a", 0}, {P2, 1, 2, 2, "a", 0}, "tensor 'a' is in two files, " P1},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_gguf(*state, &bad[i].first);
        write_gguf(*state, &bad[i].second);
        refuse(in(*state, P1), SL_ESOURCE, bad[i].why);
    }
    assert_int_equal(unlink(in(*state, P2)), 0);
    refuse(in(*state, P1), SL_ESOURCE, P2);
    write_gguf(*state, &(struct part){"m.gguf", 0, 2, 2, "a", SL_TYPE_F32});
    refuse(in(*state, "m.gguf"), SL_ESOURCE, "is part 1 of 2");
    write_gguf(*state, &(struct part){"m.gguf", 1, 2, 2, "a", SL_TYPE_F32});
    refuse(in(*state, "m.gguf"), SL_ESOURCE, "is part 2 of 2 (split.no, split.count), but its name does not end in -00002-of-00002.gguf");
}

/* A part may be a link: what is outside the roots is not read, not even to say what is wrong with it. */
static void stays_within(void **state)
{
    char root[256], elsewhere[256];
    const char *roots[1] = {root};
    struct sl_checkpoint *ck;
    struct sl_roots *r;
    struct sl_error e;

    snprintf(root, sizeof root, "%s/root", (char *)*state);
    snprintf(elsewhere, sizeof elsewhere, "%s/secret", (char *)*state);
    assert_int_equal(mkdir(root, 0700), 0);
    maker_write(*state, "secret", "root:x");
    assert_int_equal(sl_roots_open(roots, 1, &r, &e), 0);
    write_gguf(root, &(struct part){P1, 0, 2, 2, "a", 0});
    for (int i = 0; i < 2; i++) {
        assert_int_equal(symlink(elsewhere, in(root, i ? "m.gguf" : P2)), 0);
        assert_int_equal(sl_checkpoint_open_within(in(root, i ? "m.gguf" : P1), r, NULL, &ck, &e), SL_EUSAGE);
        assert_non_null(strstr(e.text, "lies outside the folders"));
    }
    sl_roots_close(r);
}

static int count_headers(void *user, struct sl_error *e)
{
    int *left = user;

    return (*left)-- ? 0 : sl_fail(e, SL_EINTERRUPTED, "enough");
}

static void tells_of_headers(void **state)
{
    int left = 5;
    const struct sl_header_watch watch = {count_headers, &left};
    struct sl_checkpoint *ck;
    struct sl_error e;

    write_gguf(*state, &(struct part){P1, 0, 2, 2, "a", SL_TYPE_F32});
    write_gguf(*state, &(struct part){P2, 1, 2, 2, "b", SL_TYPE_F32});
    assert_int_equal(sl_checkpoint_open_within(in(*state, P1), NULL, &watch, &ck, &e), 0);
    assert_int_equal(left, 3);
    sl_checkpoint_close(ck);
    left = 1;
    assert_int_equal(sl_checkpoint_open_within(in(*state, P1), NULL, &watch, &ck, &e), SL_EINTERRUPTED);
    assert_string_equal(e.text, "enough");
    assert_null(ck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(opens_gguf), TEST(refuses_gguf), TEST(stays_within), TEST(tells_of_headers)};

    return cmocka_run_group_tests_name("checkpoint_gguf", tests, NULL, NULL);
}
