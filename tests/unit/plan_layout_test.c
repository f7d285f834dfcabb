/* The plan of a small model: every byte has one place, every weight is in one
 * task, headers are what a reader accepts, fingerprints say what changed. */
#include "proto/imatrix_use.h"
#include "proto/plan.h"
#include "tests/unit/r1_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

enum { EXPERTS = 8, COLS = 512, ROWS = 256, HEADS = 4, NOPE = 64, VDIM = 64, LORA = 256 };

/* Two shards; the second expert tensor's experts lie in both. */
struct world {
    struct sl_src_file files[2];
    struct sl_src_tensor src[64];
    struct sl_checkpoint ck;
    struct sl_out_tensor out[16];
    struct sl_model_src msrc[64];
    struct sl_model m;
    char names[64][16];
};

static uint32_t add_src(struct world *w, uint32_t file, enum sl_dtype dtype, uint64_t rows,
                        uint64_t cols)
{
    struct sl_src_tensor *t = &w->src[w->ck.n_tensors];
    uint32_t i = w->ck.n_tensors++;

    snprintf(w->names[i], sizeof w->names[i], "t%u", i);
    *t = (struct sl_src_tensor){.name = w->names[i], .dtype = dtype, .n_dims = 2,
                                .shape = {rows, cols}, .elems = rows * cols, .file = file,
                                .offset = w->files[file].size,
                                .bytes = rows * cols * sl_dtype_info(dtype)->bytes};
    w->files[file].size += t->bytes;
    return i;
}

static void add_msrc(struct world *w, uint32_t tensor, uint32_t scale)
{
    const struct sl_src_tensor *t = &w->src[tensor];

    w->msrc[w->m.n_src++] = (struct sl_model_src){
        .tensor = tensor, .scale = {.tensor = scale}, .dtype = t->dtype, .rows = t->shape[0],
        .cols = t->shape[1]};
}

static struct sl_out_tensor *add_out(struct world *w, const char *name, const char *dims,
                                     enum sl_transform transform, uint32_t n_src)
{
    struct sl_out_tensor *t = &w->out[w->m.n_tensors++];

    r1_tensor(t, name, dims);
    t->transform = transform;
    t->first_src = w->m.n_src;
    t->n_src = n_src;
    return t;
}

static struct world *make_world(void)
{
    struct world *w = calloc(1, sizeof *w);
    uint32_t kv, scale;

    w->files[0] = (struct sl_src_file){.name = (char *)(uintptr_t)"a", .size = 1000};
    w->files[1] = (struct sl_src_file){.name = (char *)(uintptr_t)"b", .size = 1000};
    w->ck = (struct sl_checkpoint){.dir = (char *)(uintptr_t)"/data/Tiny-Model/", .files = w->files,
                                   .n_files = 2, .tensors = w->src};
    w->m = (struct sl_model){.arch = "deepseek2", .tensors = w->out, .src = w->msrc,
                             .model_name = (char *)(uintptr_t)"Tiny"};
    w->m.hp = (struct sl_hparams){.n_layer = 1, .n_head = HEADS, .n_head_kv = 1,
                                  .n_expert = EXPERTS};
    add_out(w, "output.weight", "512x4096", SL_COPY, 1);
    add_msrc(w, add_src(w, 1, SL_DTYPE_BF16, 4096, COLS), SL_NO_TENSOR);
    add_out(w, "token_embd.weight", "512x4096", SL_COPY, 1);
    add_msrc(w, add_src(w, 0, SL_DTYPE_BF16, 4096, COLS), SL_NO_TENSOR);
    kv = add_src(w, 0, SL_DTYPE_F8_E4M3, HEADS * (NOPE + VDIM), LORA);
    scale = add_src(w, 0, SL_DTYPE_F32, 4, 2);
    *add_out(w, "blk.0.attn_k_b.weight", "64x256x4", SL_K_B, 1) = (struct sl_out_tensor){
        .name = "blk.0.attn_k_b.weight", .n_dims = 3, .ne = {NOPE, LORA, HEADS, 1},
        .elems = NOPE * LORA * HEADS, .transform = SL_K_B, .src_type = -1,
        .first_src = w->m.n_src, .n_src = 1, .heads = HEADS, .nope = NOPE, .v_dim = VDIM,
        .lora = LORA};
    add_msrc(w, kv, scale);
    add_out(w, "blk.0.attn_v_b.weight", "256x64x4", SL_V_B, 1)->heads = HEADS;
    add_msrc(w, kv, scale);
    add_out(w, "blk.0.ffn_down_exps.weight", "512x256x8", SL_COPY, EXPERTS);
    for (uint32_t i = 0; i < EXPERTS; i++) {
        uint32_t t = add_src(w, i < 4 ? 0 : 1, SL_DTYPE_F8_E4M3, ROWS, COLS);

        add_msrc(w, t, add_src(w, i < 4 ? 0 : 1, SL_DTYPE_F32, 2, 4));
    }
    add_out(w, "blk.0.ffn_norm.weight", "512", SL_COPY, 1);
    add_msrc(w, add_src(w, 1, SL_DTYPE_BF16, 1, COLS), SL_NO_TENSOR);
    for (uint32_t i = 0; i < w->m.n_tensors; i++)
        w->m.n_params += w->out[i].elems;
    assert_int_equal(sl_kvs_set_str(&w->m.kvs, "general.architecture", "deepseek2"), 0);
    assert_int_equal(sl_kvs_set_u32(&w->m.kvs, "deepseek2.block_count", 1), 0);
    return w;
}

static void free_world(struct world *w)
{
    sl_kvs_free(&w->m.kvs);
    free(w);
}

static struct sl_plan *plan_as(struct world *w, const char *recipe, const struct sl_recipe_opts *ro,
                               const struct sl_plan_opts *po)
{
    struct sl_recipe *r;
    struct sl_plan *p;
    struct sl_error e = {0};

    assert_int_equal(sl_recipe_load(recipe, &r, &e), 0);
    if (sl_plan_build(&w->ck, &w->m, r, ro, po, &p, &e) < 0)
        fail_msg("%s", e.text);
    sl_recipe_close(r);
    return p;
}

static struct sl_plan *plan_of(struct world *w, const char *recipe, const struct sl_plan_opts *po)
{
    return plan_as(w, recipe, &(struct sl_recipe_opts){.output_type = -1, .embedding_type = -1}, po);
}

/* Every weight of every tensor lies in exactly one item, every item in one task. */
static void check_cover(const struct sl_plan *p)
{
    uint64_t src = 0;
    uint32_t items = 0;

    for (uint32_t i = 0; i < p->n_tensors; i++) {
        uint64_t sum = 0, squares = 0, block = sl_type_info(p->tensors[i].type)->block;

        for (uint32_t k = 0; k < p->n_items; k++) {
            const struct sl_plan_item *x = &p->items[k];

            if (x->tensor != i)
                continue;
            assert_true(x->elems > 0 && x->elem0 + x->elems <= p->tensors[i].t->elems);
            assert_int_equal(x->elem0 % block + x->elems % block, 0);
            assert_int_equal(x->elems % p->tensors[i].t->ne[0], 0);
            sum += x->elems;
            squares += x->elems * (2 * x->elem0 + x->elems); /* telescopes when there is no overlap */
        }
        assert_int_equal(sum, p->tensors[i].t->elems);
        assert_int_equal(squares, sum * sum);
    }
    for (uint32_t t = 0; t < p->n_tasks; t++) {
        assert_int_equal(p->tasks[t].first_item, items);
        items += p->tasks[t].n_items;
        src += p->tasks[t].src_bytes;
    }
    assert_int_equal(items, p->n_items);
    assert_int_equal(src, p->src_bytes);
}

/* Headers written before zeros are read back as GGUF files. */
static void check_files(const struct sl_plan *p)
{
    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct sl_plan_segment *s = &p->segments[i];
        char path[] = "/tmp/plan_layout_XXXXXX";
        int fd = mkstemp(path);
        struct sl_gguf *g;
        struct sl_error e = {0};
        const struct sl_kv *sums;
        uint8_t *header;

        assert_true(fd >= 0);
        assert_int_equal(sl_plan_header(p, i, &header), 0);
        assert_int_equal(write(fd, header, s->header_bytes), s->header_bytes);
        free(header);
        assert_int_equal(ftruncate(fd, (off_t)s->file_bytes), 0);
        close(fd);
        if (sl_gguf_open(path, &g, &e) < 0)
            fail_msg("%s", e.text);
        unlink(path);
        assert_int_equal(g->n_tensors, s->n_tensors);
        assert_int_equal(g->header_bytes, s->header_bytes);
        assert_int_equal(g->data_bytes, s->data_bytes);
        for (uint32_t k = 0; k < s->n_tensors; k++) {
            const struct sl_plan_tensor *t = &p->tensors[s->first_tensor + k];

            assert_string_equal(g->tensors[k].name, t->t->name);
            assert_int_equal(g->tensors[k].offset, t->offset);
            assert_int_equal(t->file_offset, s->header_bytes + t->offset);
            assert_int_equal(g->tensors[k].bytes, t->bytes);
            assert_int_equal(t->offset % 32, 0);
        }
        sums = sl_kvs_find(&g->kvs, SL_KEY_SUM_TENSORS);
        assert_non_null(sums);
        assert_int_equal(sums->n, s->n_tensors);
        assert_non_null(sl_kvs_find(&g->kvs, SL_KEY_SUM_HEADER));
        sums = sl_kvs_find(&g->kvs, SL_KEY_SUM_RECORDS);
        assert_non_null(sums);
        assert_int_equal(sums->n, g->kvs.n + g->n_tensors);
        sl_gguf_close(g);
    }
}

static void test_one_file(void **state)
{
    struct world *w = make_world();
    struct sl_plan_opts po = {.prefix = "tiny"};
    struct sl_plan *p = plan_of(w, "dq3_k_m", &po);
    const struct sl_kvs *k = &p->segments[0].kvs;
    const char *source;
    uint32_t v;

    (void)state;
    assert_int_equal(p->n_segments, 1);
    assert_string_equal(p->segments[0].name, "tiny.gguf");
    check_cover(p);
    check_files(p);
    assert_true(sl_kvs_get_u32(k, "general.file_type", &v) && v == 12);
    assert_string_equal(k->kv[0].key, "general.architecture");
    assert_string_equal(k->kv[2].key, "general.quantization_version");
    assert_string_equal(k->kv[3].key, "general.file_type");
    assert_true(sl_kvs_get_str(k, SL_KEY_SOURCE, &source));
    assert_string_equal(source, "Tiny-Model");
    assert_null(sl_kvs_find(k, "split.no"));
    assert_null(sl_kvs_find(k, SL_KEY_ROUND_THROUGH));
    /* weights and scales once each; kv_b's are shared by its two halves */
    assert_int_equal(p->src_bytes, w->files[0].size + w->files[1].size - 2000);
    sl_plan_close(p);
    free_world(w);
}

static void test_split(void **state)
{
    struct world *w = make_world();
    struct sl_plan_opts po = {.prefix = "tiny", .split_max_tensors = 2,
                              .no_tensor_first_split = true};
    struct sl_plan *p = plan_of(w, "q4_k_m", &po);
    uint16_t v16;

    (void)state;
    assert_int_equal(p->n_segments, 4);
    assert_string_equal(p->segments[1].name, "tiny-00002-of-00004.gguf");
    assert_int_equal(p->segments[0].n_tensors, 0);
    assert_int_equal(p->segments[3].n_tensors, 2);
    assert_true(sl_kvs_get_u16(&p->segments[3].kvs, "split.no", &v16) && v16 == 3);
    assert_null(sl_kvs_find(&p->segments[1].kvs, "general.architecture"));
    check_cover(p);
    check_files(p);
    sl_plan_close(p);
    po = (struct sl_plan_opts){.prefix = "tiny", .split_max_bytes = 1300000};
    p = plan_of(w, "q4_k_m", &po);
    /* 1720320 alone, 1179648 + 45056 + 36864, 860160 + 2048 */
    assert_int_equal(p->n_segments, 3);
    assert_int_equal(p->segments[0].n_tensors, 1);
    assert_int_equal(p->segments[1].n_tensors, 3);
    check_files(p);
    sl_plan_close(p);
    /* What no GGUF file holds has no files to be split as. */
    po = (struct sl_plan_opts){.prefix = "tiny", .keep_split = true};
    p = plan_of(w, "q4_k_m", &po);
    assert_int_equal(p->n_segments, 1);
    sl_plan_close(p);
    free_world(w);
}

static void test_tasks(void **state)
{
    static const uint64_t sizes[] = {0, 4096, 20000, 100000, 300000, 5000000};
    struct world *w = make_world();

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct sl_plan_opts po = {.task_bytes = sizes[i]};
        struct sl_plan *p = plan_of(w, "dq3_k_m", &po);

        check_cover(p);
        for (uint32_t k = 0; k < p->n_items; k++) {
            const struct sl_plan_item *x = &p->items[k];
            const struct sl_out_tensor *t = p->tensors[x->tensor].t;

            if (t->transform == SL_K_B || t->transform == SL_V_B)
                assert_int_equal(x->elem0 % (t->elems / HEADS) + x->elems % (t->elems / HEADS), 0);
        }
        for (uint32_t k = 0; sizes[i] >= 100000 && k < p->n_tasks; k++)
            assert_true(p->tasks[k].src_bytes <= 2 * sizes[i]);
        if (sizes[i] == 5000000)
            assert_true(p->n_tasks <= 3);
        if (sizes[i] == 4096)
            assert_true(p->n_tasks > 1000);
        /* the first shard comes first: token_embd leads, output's shard follows */
        assert_int_equal(p->items[0].tensor, 1);
        sl_plan_close(p);
    }
    free_world(w);
}

/* The first part in which two plans differ, NULL: none. */
static const char *difference(const struct sl_plan *a, const struct sl_plan *b)
{
    const struct sl_plan_parts *x = &a->parts, *y = &b->parts;

    return strcmp(x->version, y->version)   ? "version"
           : strcmp(x->recipe, y->recipe)   ? "recipe"
           : strcmp(x->options, y->options) ? "options"
           : strcmp(x->source, y->source)   ? "source"
           : strcmp(x->result, y->result)   ? "metadata"
                                            : NULL;
}

static void test_fingerprint(void **state)
{
    struct world *w = make_world();
    struct sl_plan_opts po = {.prefix = "tiny"};
    struct sl_plan *a = plan_of(w, "dq3_k_m", &po), *b = plan_of(w, "dq3_k_m", &po);
    uint8_t *header, *again;

    (void)state;
    assert_string_equal(a->fingerprint, b->fingerprint);
    assert_int_equal(a->segments[0].header_bytes, b->segments[0].header_bytes);
    assert_int_equal(sl_plan_header(a, 0, &header), 0);
    assert_int_equal(sl_plan_header(b, 0, &again), 0);
    assert_memory_equal(header, again, a->segments[0].header_bytes);
    free(header);
    free(again);
    /* A vocabulary is there once, however many plans a model has. */
    assert_ptr_equal(a->segments[0].kvs.kv[0].strs, w->m.kvs.kv[0].strs);
    assert_null(difference(a, b));
    sl_plan_close(b);
    w->files[1].mtime_ns++;
    b = plan_of(w, "dq3_k_m", &po);
    assert_string_not_equal(a->fingerprint, b->fingerprint);
    assert_string_equal(a->output_id, b->output_id);
    assert_string_equal(difference(a, b), "source");
    sl_plan_close(b);
    w->files[1].mtime_ns--;
    b = plan_of(w, "q4_k_m", &po);
    assert_string_equal(difference(a, b), "recipe");
    assert_string_not_equal(a->output_id, b->output_id);
    sl_plan_close(b);
    po.round_bf16 = true;
    b = plan_of(w, "dq3_k_m", &po);
    assert_string_equal(difference(a, b), "options");
    assert_string_not_equal(a->output_id, b->output_id);
    sl_plan_close(b);
    po.round_bf16 = false;
    po.task_bytes = 100000;
    b = plan_of(w, "dq3_k_m", &po);
    assert_string_equal(difference(a, b), "options");
    assert_string_equal(a->output_id, b->output_id);
    sl_plan_close(b);
    po.task_bytes = 0;
    po.split_max_bytes = 1ull << 40; /* another word for one file: the same work */
    b = plan_of(w, "dq3_k_m", &po);
    assert_string_equal(difference(a, b), "options");
    assert_string_equal(a->fingerprint, b->fingerprint);
    sl_plan_close(b);
    po.split_max_bytes = 0;
    sl_plan_close(a);
    free_world(w);
}

/* Blocks of two sizes may be as many; another fingerprint than before would end a conversion that was begun. */
static void test_fingerprint_knows_block_sizes(void **state)
{
    static const struct { uint64_t config[2], block[2]; bool told; struct sl_block more; } forms[] = {
        {{150, 150}, {150, 150}, true, {0, 0}}, {{1, 48}, {1, 48}, true, {0, 0}}, {{128, 128}, {128, 128}, false, {0, 0}},
        {{1, 32}, {1, 32}, false, {0, 0}},
        {{0, 0}, {64, COLS}, false, {0, 0}}, /* one scale for each matrix of several */
        {{150, 150}, {1, COLS}, false, {0, 0}}, /* one for each row */
        {{150, 150}, {96, 64}, true, {96, 64}}, {{150, 150}, {150, 150}, true, {96, 64}},
    };
    struct world *w = make_world();
    struct sl_plan_opts po = {.split_max_bytes = 0};
    struct sl_plan *a = plan_of(w, "dq3_k_m", &po);

    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct sl_plan *b;

        w->ck.fp8_block_rows = forms[i].config[0];
        w->ck.fp8_block_cols = forms[i].config[1];
        w->ck.fp8_more[0] = forms[i].more;
        w->ck.n_fp8_more = forms[i].more.rows != 0;
        w->msrc[2].scale.rows = 4;
        w->msrc[2].scale.cols = 2;
        w->msrc[2].scale.block_rows = forms[i].block[0];
        w->msrc[2].scale.block_cols = forms[i].block[1];
        b = plan_of(w, "dq3_k_m", &po);
        assert_int_equal(strcmp(a->output_id, b->output_id) != 0, forms[i].told);
        if (forms[i].told)
            assert_string_equal(difference(a, b), "metadata");
        sl_plan_close(b);
    }
    sl_plan_close(a);
    free_world(w);
}

/* An option that changes the output is in the plan's words, so that a resume can name it. */
static void test_options_are_told(void **state)
{
    static const char *const keys[] = {"my.key", "quantize.imatrix.file", SL_KEY_IMATRIX_INCLUDE, SL_KEY_IMATRIX_EXCLUDE};
    static const char *const told[] = {"override-kv", "imatrix", "include-weights", "exclude-weights",
        "split-max-size", "split-max-tensors", "no-tensor-first-split", "keep-split", "round-through", "task-size",
        "model-name", "output-tensor-type", "token-embedding-type", "leave-output-tensor", "pure", "rules", "tensor-type", "no-mtp"};
    const struct sl_type_override over = {"ffn_up", SL_TYPE_Q8_0};
    struct world *w = make_world();
    struct sl_plan *a = plan_of(w, "q4_k_m", &(struct sl_plan_opts){.prefix = "tiny"});

    (void)state;
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        struct sl_recipe_opts ro = {.output_type = i == 11 ? SL_TYPE_Q8_0 : -1, .embedding_type = i == 12 ? SL_TYPE_Q8_0 : -1,
                                    .leave_output = i == 13, .pure = i == 14, .rules_2025 = i == 15,
                                    .overrides = &over, .n_overrides = i == 16};
        struct sl_plan_opts po = {.prefix = "tiny", .split_max_bytes = i == 4 ? 1 << 21 : 0, .split_max_tensors = i == 5 ? 3 : 0,
                                  .no_tensor_first_split = i == 6, .keep_split = i == 7, .round_bf16 = i == 8,
                                  .task_bytes = i == 9 ? 1 << 20 : 0, .model_name = i == 10 ? "Other" : NULL, .no_mtp = i == 17};
        struct sl_kvs kvs = {0};
        struct sl_plan *b;
        char buf[200] = "", want[64];

        if (i < 4) {
            assert_int_equal(sl_kvs_set_str(&kvs, keys[i], "x"), 0);
            po.extra_kvs = &kvs;
        }
        b = plan_as(w, "q4_k_m", &ro, &po);
        snprintf(want, sizeof want, "--%s (then ", told[i]);
        if (!sl_plan_option_difference(a->options, b->options, buf, sizeof buf) || strncmp(buf, want, strlen(want)) != 0)
            fail_msg("'%s', expected '%s'", buf, want);
        sl_plan_close(b);
        sl_kvs_free(&kvs);
    }
    sl_plan_close(a);
    free_world(w);
}

static void test_option_difference(void **state)
{
    static const struct {
        const char *then, *now, *says;
    } c[] = {
        {"layout=mla split-max-size=0", "layout=legacy split-max-size=5", "--layout (then mla, now legacy)"},
        {"layout=mla split-max-size=0", "layout=mla split-max-size=5", "--split-max-size (then 0, now 5)"},
        {"split-max-size=0", "split-max-size=0 pure=yes", "--pure (then not given, now yes)"},
        {"split-max-size=0 pure=yes", "split-max-size=0", "--pure (then yes, now not given)"},
        {"a=1 imatrix=#12", "a=1 imatrix=#34", "--imatrix"},
        {"a=1", "a=1 imatrix=#34", "--imatrix (then not given)"},
        {"a=1 b=2", "a=1 b=2", NULL},
        {"mla (77aa)", "layout=mla", NULL},
        {"", "layout=mla", NULL},
    };
    char buf[80];

    (void)state;
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        const char *got = sl_plan_option_difference(c[i].then, c[i].now, buf, sizeof buf);

        if (c[i].says)
            assert_string_equal(got, c[i].says);
        else
            assert_null(got);
    }
}

/* A file that could not be verified afterwards is not begun. */
static void test_too_many_keys(void **state)
{
    const struct sl_recipe_opts ro = {.output_type = -1, .embedding_type = -1};
    struct world *w = make_world();
    struct sl_recipe *r;
    struct sl_plan *p;
    struct sl_error e;
    char key[16];

    (void)state;
    for (uint32_t i = 0; i < SL_GGUF_MAX_KEYS - 2; i++) {
        snprintf(key, sizeof key, "k%u", i);
        assert_int_equal(sl_kvs_set_u32(&w->m.kvs, key, i), 0);
    }
    assert_int_equal(sl_recipe_load("q4_k_m", &r, &e), 0);
    assert_int_equal(sl_plan_build(&w->ck, &w->m, r, &ro, NULL, &p, &e), SL_EUNSUPPORTED);
    assert_non_null(strstr(e.text, " metadata keys in a header of "));
    sl_recipe_close(r);
    free_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_file), cmocka_unit_test(test_split), cmocka_unit_test(test_tasks),
        cmocka_unit_test(test_fingerprint), cmocka_unit_test(test_fingerprint_knows_block_sizes), cmocka_unit_test(test_options_are_told),
        cmocka_unit_test(test_option_difference), cmocka_unit_test(test_too_many_keys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
