/* Verification against the source: element values give llama-quantize's bytes
 * (golden hashes), and a wrong byte in a sound file is found and placed. */
#include "worker/source_element.h"
#include "worker/verify.h"
#include "kernels/kernels.h"
#include "proto/header_seal.h"
#include "proto/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define TINY "tests/tiny-v3"
#define PIECE 8192

static char path[64];

struct source {
    struct sl_checkpoint *ck;
    struct sl_model *m;
    struct source_reader *r;
    struct sl_error e;
};

static void open_source(struct source *s, enum sl_layout layout)
{
    struct sl_model_opts o = {.layout = layout};

    assert_int_equal(sl_checkpoint_open(TINY, &s->ck, &s->e), 0);
    assert_int_equal(sl_model_open(s->ck, &o, &s->m, &s->e), 0);
    assert_int_equal(source_reader_open(s->ck, s->m, &s->r, &s->e), 0);
}

static void close_source(struct source *s)
{
    source_reader_close(s->r);
    sl_model_close(s->m);
    sl_checkpoint_close(s->ck);
}

/* The whole tensor in `type` (new memory). */
static uint8_t *make(struct source *s, const struct sl_out_tensor *t, int type)
{
    uint8_t *out = malloc(sl_type_bytes(type, t->elems));
    float x[PIECE];
    uint64_t bad;

    for (uint64_t at = 0; at < t->elems; at += PIECE) {
        uint64_t n = t->elems - at < PIECE ? t->elems - at : PIECE;

        assert_int_equal(source_values(s->r, t, at, n, x, &s->e), 0);
        assert_int_equal(sl_quantize_on(SL_BACKEND_AUTO, type, x, NULL, n, t->ne[0], out + sl_type_bytes(type, at), &bad), 0);
    }
    return out;
}

/* The golden hash of a tensor of llama-quantize's output. */
static uint64_t golden(const char *manifest, const char *tensor)
{
    FILE *f = fopen(manifest, "r");
    char line[256], want[128];
    unsigned long long sum = 0;

    assert_non_null(f);
    snprintf(want, sizeof want, "  MODEL:%s\n", tensor);
    while (fgets(line, sizeof line, f))
        if (strstr(line, want))
            assert_int_equal(sscanf(line, "xxh64 %llx", &sum), 1);
    fclose(f);
    return sum;
}

static void values_give_golden_bytes(void **state)
{
    static const char *const manifests[] = {[SL_LAYOUT_MLA] = TINY "/golden/mla/F16.xxh64",
                                            [SL_LAYOUT_LEGACY] = TINY "/golden/legacy/F16.xxh64"};

    (void)state;
    for (int layout = 0; layout < 2; layout++) {
        struct source s;

        open_source(&s, (enum sl_layout)layout);
        for (uint32_t i = 0; i < s.m->n_tensors; i++) {
            const struct sl_out_tensor *t = &s.m->tensors[i];
            int type = t->keep_f32 ? SL_TYPE_F32 : SL_TYPE_F16;
            uint8_t *bytes;

            /* The legacy layout's other tensors are the same as today's. */
            if (layout == SL_LAYOUT_LEGACY && !strstr(t->name, "kv_b"))
                continue;
            bytes = make(&s, t, type);
            if (sl_xxh64(bytes, sl_type_bytes(type, t->elems)) != golden(manifests[layout], t->name))
                fail_msg("%s differs from llama-quantize's", t->name);
            free(bytes);
        }
        close_source(&s);
    }
}

/* A Q8_0 output of tiny-v3, sealed with checksums; bytes: what is written for
 * tensor `wrong` at its byte `at` is changed before it is sealed. That of the legacy
 * layout does not say so, lacks a tensor and has one whose rows and columns are exchanged. */
static void write_output(const char *wrong, uint64_t at, enum sl_layout layout)
{
    bool legacy = layout == SL_LAYOUT_LEGACY;
    struct sl_gguf_tensor *t;
    struct sl_kvs kvs = {0};
    struct source s;
    uint64_t offset = 0, len, *sums;
    uint8_t *header;
    uint32_t n = 0;
    FILE *f = fopen(path, "wb");

    open_source(&s, layout);
    t = calloc(s.m->n_tensors, sizeof *t);
    sums = calloc(s.m->n_tensors, sizeof *sums);
    for (uint32_t i = 0; i < s.m->n_tensors; i++) {
        const struct sl_out_tensor *o = &s.m->tensors[i];

        if (legacy && strcmp(o->name, "output.weight") == 0)
            continue;
        memcpy(t[n].name, o->name, sizeof o->name);
        t[n].n_dims = o->n_dims;
        memcpy(t[n].ne, o->ne, sizeof o->ne);
        if (legacy && strcmp(o->name, "blk.0.ffn_down.weight") == 0) {
            t[n].ne[0] = o->ne[1];
            t[n].ne[1] = o->ne[0];
        }
        t[n].type = o->keep_f32 ? SL_TYPE_F32 : SL_TYPE_Q8_0;
        t[n].bytes = sl_type_bytes(t[n].type, o->elems);
        t[n].offset = offset;
        offset = (offset + t[n++].bytes + 31) / 32 * 32;
    }
    if (!legacy)
        assert_int_equal(sl_kvs_set_str(&kvs, "sluice.layout", "mla"), 0);
    assert_int_equal(sl_kvs_set_arr(&kvs, SL_KEY_SUM_TENSORS, SL_KV_U64, sums, n), 0);
    assert_int_equal(sl_kvs_set_u64(&kvs, SL_KEY_SUM_HEADER, 0), 0);
    assert_int_equal(sl_gguf_header(&kvs, t, n, &header, &len), 0);
    assert_int_equal(fseek(f, (long)len, SEEK_SET), 0);
    for (uint32_t i = 0, k = 0; k < n; i++) {
        static const uint8_t zeros[32];
        uint8_t *bytes;

        if (strcmp(s.m->tensors[i].name, t[k].name) != 0)
            continue;
        bytes = make(&s, &s.m->tensors[i], t[k].type);
        if (wrong && strcmp(wrong, t[k].name) == 0)
            bytes[at] ^= 1;
        sums[k] = sl_xxh64(bytes, t[k].bytes);
        fwrite(bytes, 1, t[k].bytes, f);
        fwrite(zeros, 1, (32 - t[k].bytes % 32) % 32, f);
        free(bytes);
        k++;
    }
    assert_int_equal(sl_gguf_seal_header(header, len, &kvs, sums, n), 0);
    rewind(f);
    fwrite(header, 1, len, f);
    assert_int_equal(fclose(f), 0);
    free(header);
    free(sums);
    free(t);
    sl_kvs_free(&kvs);
    close_source(&s);
}

/* Returns the number of failures; the file itself must be sound. */
static uint64_t check(const struct verify_sample *sample, struct verify_report *r,
                      struct verify_tally *tally)
{
    struct verify_set s;
    struct sl_error e;

    *r = (struct verify_report){0};
    assert_int_equal(verify_set_open(path, &s, &e), 0);
    assert_int_equal(verify_data(&s, false, NULL, r, NULL, NULL, &e), 0);
    assert_int_equal(r->failures, 0);
    if (verify_source(&s, TINY, NULL, sample, r, tally, &e) != 0)
        fail_msg("%s", e.text);
    verify_set_free(&s);
    return r->failures;
}

static void wrong_blocks_are_found(void **state)
{
    static const char name[] = "blk.1.ffn_down_exps.weight"; /* 256 x 512 x 8: 32768 blocks */
    static const struct {
        uint64_t block;
        struct verify_sample sample;
    } cases[] = {{0, {.share = 0.001}}, {32767, {.blocks = 2, .seed = 9}}, {20000, {.all = true}}};
    struct verify_report r;
    struct verify_tally tally;

    (void)state;
    write_output(NULL, 0, SL_LAYOUT_MLA);
    assert_int_equal(check(&(struct verify_sample){.share = 0.02, .seed = 7}, &r, &tally), 0);
    assert_int_equal(tally.tensors, 70);
    assert_true(tally.blocks * 100 >= 2 * tally.blocks_total && tally.blocks * 100 <= 6 * tally.blocks_total);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[128];

        write_output(name, cases[i].block * 34 + 5, SL_LAYOUT_MLA);
        assert_int_equal(check(&cases[i].sample, &r, &tally), 1);
        assert_int_equal(r.first.code, SL_EVERIFY);
        snprintf(want, sizeof want, "tensor %s: block %llu (weights from %llu on)", name,
                 (unsigned long long)cases[i].block, (unsigned long long)cases[i].block * 32);
        assert_non_null(strstr(r.first.text, want));
        assert_non_null(strstr(r.first.text, "byte 5 of it"));
    }
    write_output(NULL, 0, SL_LAYOUT_LEGACY);
    assert_int_equal(check(&(struct verify_sample){.blocks = 1}, &r, &tally), 2);
    assert_non_null(strstr(r.first.text, "tensor blk.0.ffn_down.weight: its shape is not the source's"));
}

/* Put in the file's place when it was found sound. */
static void a_pipe_is_not_waited_for(void **state)
{
    const struct verify_sample sample = {.blocks = 1};
    struct verify_report r = {0};
    struct verify_tally tally;
    struct verify_set s;
    struct sl_error e;

    (void)state;
    write_output(NULL, 0, SL_LAYOUT_MLA);
    assert_int_equal(verify_set_open(path, &s, &e), 0);
    assert_int_equal(unlink(path) | mkfifo(path, 0600), 0);
    alarm(20);
    assert_int_equal(verify_source(&s, TINY, NULL, &sample, &r, &tally, &e), SL_EFAIL);
    alarm(0);
    assert_non_null(strstr(e.text, path));
    verify_set_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_give_golden_bytes),
        cmocka_unit_test(wrong_blocks_are_found),
        cmocka_unit_test(a_pipe_is_not_waited_for),
    };
    int rc;

    snprintf(path, sizeof path, "/tmp/sluice-gguf-source-%ld", (long)getpid());
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return rc;
}
