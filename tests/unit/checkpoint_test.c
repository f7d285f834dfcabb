/* Folders, indexes, shards, links and FP8 scales: what opens, what is refused and why. */
#include "proto/checkpoint_priv.h"
#include "tests/unit/checkpoint_world.h"
#include "tests/unit/unread_folder.h"

#include <time.h>

#define MAX_FILE "model-%05d-of-%05d.safetensors"

static const char fp8_config[] = "{\"quantization_config\":{\"quant_method\":\"fp8\","
                                 "\"weight_block_size\":[128,128]}}";

#define INDEX "model.safetensors.index.json"

/* Two shards with tensors a and b, and the given weight_map. */
static void two_shards(const char *dir, const char *map)
{
    char text[20000];

    one_tensor(dir, "m-1.safetensors", "a");
    one_tensor(dir, "m-2.safetensors", "b");
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":1},\"weight_map\":%s}", map);
    maker_write(dir, INDEX, text);
}

static const char good_map[] = "{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\"}";

/* ---- what opens ---- */

/* A real checkpoint in DeepSeek-V3's form: 288 rows are 2.25 blocks. */
static void opens_tiny_v3(void **state)
{
    struct sl_checkpoint *ck;
    struct sl_error e;
    struct sl_scale s;
    uint32_t scaled = 0, w;

    (void)state;
    ck = open_ok("tests/tiny-v3");
    assert_int_equal(ck->n_files, 3);
    assert_int_equal(ck->n_tensors, 233);
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        assert_int_equal(sl_checkpoint_scale(ck, i, &s, &e), 0);
        scaled += s.tensor != SL_NO_TENSOR;
    }
    assert_int_equal(scaled, 104);
    w = sl_checkpoint_find(ck, "model.layers.3.self_attn.kv_a_proj_with_mqa.weight");
    assert_int_not_equal(w, SL_NO_TENSOR);
    assert_int_equal(sl_checkpoint_scale(ck, w, &s, &e), 0);
    assert_int_equal(s.rows, 3);
    assert_int_equal(s.cols, 4);
    sl_checkpoint_close(ck);
}

static void opens_index(void **state)
{
    struct sl_checkpoint *ck;
    struct stat st;

    two_shards(*state, good_map);
    one_tensor(*state, "another.safetensors", "not-in-the-index");
    for (int by_index = 0; by_index < 2; by_index++) {
        ck = open_ok(by_index ? in(*state, INDEX) : *state);
        assert_string_equal(ck->dir, *state);
        assert_false(ck->is_gguf);
        assert_non_null(ck->config);
        assert_int_equal(ck->n_files, 2);
        assert_int_equal(ck->n_tensors, 2);
        assert_string_equal(ck->files[0].name, "m-1.safetensors");
        assert_string_equal(ck->files[1].name, "m-2.safetensors");
        assert_int_equal(stat(ck->files[1].path, &st), 0);
        assert_int_equal(ck->files[1].size, st.st_size);
        assert_int_equal(ck->files[1].mtime_ns,
                         (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
        assert_int_equal(sl_checkpoint_find(ck, "a"), 0);
        assert_int_equal(sl_checkpoint_find(ck, "b"), 1);
        assert_int_equal(sl_checkpoint_find(ck, "c"), SL_NO_TENSOR);
        assert_int_equal(ck->tensors[1].file, 1);
        assert_int_equal(ck->tensors[1].offset + 4, st.st_size);
        sl_checkpoint_close(ck);
    }
    sl_checkpoint_close(NULL);
}

static void opens_single_files(void **state)
{
    struct sl_checkpoint *ck;

    one_tensor(*state, "odd-name.safetensors", "a");
    ck = open_ok(*state);
    assert_string_equal(ck->files[0].name, "odd-name.safetensors");
    sl_checkpoint_close(ck);

    one_tensor(*state, "model.safetensors", "b");
    ck = open_ok(*state);
    assert_string_equal(ck->tensors[0].name, "b");
    sl_checkpoint_close(ck);

    assert_int_equal(unlink(in(*state, "config.json")), 0);
    ck = open_ok(in(*state, "odd-name.safetensors"));
    assert_string_equal(ck->tensors[0].name, "a");
    assert_string_equal(ck->dir, *state);
    assert_string_equal(ck->files[0].name, "odd-name.safetensors");
    assert_null(ck->config);
    sl_checkpoint_close(ck);
}

static void opens_config_alone(void **state)
{
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;

    maker_write(*state, "config.json", fp8_config);
    assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
    assert_int_equal(ck->fp8_block_rows, 128);
    assert_int_equal(ck->fp8_block_cols, 128);
    assert_int_equal(ck->n_tensors, 0);
    assert_int_equal(sl_checkpoint_find(ck, "a"), SL_NO_TENSOR);
    sl_checkpoint_close(ck);
    assert_int_equal(sl_checkpoint_open_config(in(*state, "absent.json"), &ck, &e), SL_ESOURCE);
}

/* ---- indexes and shards ---- */

static void refuses_indexes(void **state)
{
    static const struct { const char *map, *why; } bad[] = {
        {"{}", "weight_map is missing, empty"},
        {"[]", "weight_map is missing, empty"},
        {"{\"a\":1}", "the value of 'a' is not a file name"},
        {"{\"a\":\"../m-1.safetensors\"}", "'../m-1.safetensors' is not a plain file name"},
        {"{\"a\":\"/etc/m.safetensors\"}", "is not a plain file name"},
        {"{\"a\":\"sub/m.safetensors\"}", "is not a plain file name"},
        {"{\"a\":\"..\"}", "is not a plain file name"},
        {"{\"a\":\"\"}", "is not a plain file name"},
        {"{\"a\":\"m\\n.safetensors\"}", "is not a plain file name"},
        {"{\"a\":\"pytorch_model.bin\"}", "does not end in .safetensors"},
        {"{\"a\\u0001\":\"m-1.safetensors\"}", "control character in its name"},
        {"{\"a\":\"m-1.safetensors\",\"a\":\"m-2.safetensors\"}", "1 tensors are not in the index: b"},
        {"{\"a\":\"m-1.safetensors\"}}", "bytes after the end"},
        {"{\"a\":\"m-1.safetensors\",\"b\":\"m-1.safetensors\"}", "1 tensors are in no shard: b"},
        {"{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\"}",
         "1 tensors are in no shard: c"},
        {"{\"a\":\"m-1.safetensors\",\"c\":\"m-2.safetensors\"}",
         "1 tensors are in no shard: c; 1 tensors are not in the index: b"},
        {"{\"b\":\"m-1.safetensors\",\"a\":\"m-2.safetensors\"}",
         "says that tensor 'b' is in m-1.safetensors, but it is in m-2.safetensors"},
        {"{\"a\":\"m-1.safetensors\",\"b\":\"m-3.safetensors\",\"c\":\"m-4.safetensors\"}",
         "m-3.safetensors is missing (2 of 3 shards"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        two_shards(*state, bad[i].map);
        refuse(*state, SL_ESOURCE, bad[i].why);
        refuse(in(*state, INDEX), SL_ESOURCE, bad[i].why);
    }
    maker_write(*state, INDEX, "{\"metadata\":{}}");
    refuse(*state, SL_ESOURCE, "weight_map is missing");
    maker_write(*state, INDEX, "version https://git-lfs.github.com/spec/v1\n");
    refuse(*state, SL_ESOURCE, "Git LFS pointer");
}

static void lists_differences(void **state)
{
    struct maker_text map = {.len = 0};

    maker_add(&map, "{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"");
    for (int i = 0; i < 100; i++)
        maker_add(&map, ",\"t%d\":\"m-1.safetensors\"", i);
    maker_add(&map, "}");
    two_shards(*state, map.s);
    refuse(*state, SL_ESOURCE, "100 tensors are in no shard: t0, t1, t2, t3, t4, t5, t6, t7, t8, t9 "
           "and 90 more");
    free(map.s);

    /* Long names: fewer of them, never a cut-off line. */
    map = (struct maker_text){.len = 0};
    maker_add(&map, "{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"");
    for (int i = 0; i < 5; i++)
        maker_add(&map, ",\"t%0300d\":\"m-1.safetensors\"", i);
    maker_add(&map, "}");
    two_shards(*state, map.s);
    refuse(*state, SL_ESOURCE, " and 4 more");
    free(map.s);
}

static void refuses_shards(void **state)
{
    struct maker_file f = {.end = 0};

    two_shards(*state, good_map);
    one_tensor(*state, "m-2.safetensors", "a");
    refuse(*state, SL_ESOURCE, "tensor 'a' is in two files, m-1.safetensors and m-2.safetensors");

    maker_write(*state, "m-2.safetensors", "version https://git-lfs.github.com/spec/v1\noid x\n");
    refuse(*state, SL_ESOURCE, "m-2.safetensors: is a Git LFS pointer");

    maker_tensor(&f, "b", "F32", "[1000]", 4000);
    maker_finish(&f, *state, "m-2.safetensors", 100);
    refuse(*state, SL_ESOURCE, "m-2.safetensors: file is cut short: its header describes 4068 bytes,"
           " it has 3968");

    assert_int_equal(unlink(in(*state, "m-2.safetensors")), 0);
    refuse(*state, SL_ESOURCE, "m-2.safetensors is missing (1 of 2 shards");
    assert_int_equal(mkdir(in(*state, "m-2.safetensors"), 0700), 0);
    refuse(*state, SL_ESOURCE, "m-2.safetensors: not a regular file");
    assert_int_equal(rmdir(in(*state, "m-2.safetensors")), 0);
    assert_int_equal(mkfifo(in(*state, "m-2.safetensors"), 0600), 0);
    refuse(*state, SL_ESOURCE, "m-2.safetensors: not a regular file");
}

static void refuses_folders(void **state)
{
    char *dir = *state;

    refuse(in(dir, "absent"), SL_ESOURCE, "No such file");
    refuse(dir, SL_ESOURCE, "no other .safetensors file; 'sluice plan' needs no weights when config.json itself is named");
    refuse(in(dir, "config.json"), SL_ESOURCE, "not a checkpoint; expected a folder");
    /* What cannot be looked into is not said to be something else. */
    maker_write(dir, "sha256-0a", "GGUF");
    maker_write(dir, "sha256-0a.aria2", "");
    refuse(in(dir, "sha256-0a"), SL_ESOURCE, "its download has not ended, for sha256-0a.aria2 is there");
    maker_write(dir, "x.bin", "");
    refuse(dir, SL_EUNSUPPORTED, "PyTorch pickles");
    maker_write(dir, "x.gguf", "");
    refuse(dir, SL_ESOURCE, "give its own path");
    one_tensor(dir, "1.safetensors", "a");
    one_tensor(dir, "2.safetensors", "b");
    refuse(dir, SL_ESOURCE, INDEX " is missing, and 2 .safetensors files are there");
    unread = EIO;
    refuse(dir, SL_ESOURCE, "Input/output error");
    unread = 0;

    maker_write(dir, "model.safetensors", "\2");
    refuse(dir, SL_ESOURCE, "model.safetensors: 1 bytes are too few");
    assert_int_equal(unlink(in(dir, "config.json")), 0);
    refuse(dir, SL_ESOURCE, "config.json is missing");
    maker_write(dir, "config.json", "[]");
    refuse(dir, SL_ESOURCE, "config.json: expected a JSON object");
}

static void refuses_block_sizes(void **state)
{
    static const char *const bad[] = {"[128]", "[128,128,128]", "[0,128]", "[128,1.5]", "[-1,1]", "[128,0]",
                                      "128", "[128,\"128\"]", "[128,2000000]", "{\"a\":1,\"b\":2}"};
    struct sl_checkpoint *ck;
    char text[200];

    one_tensor(*state, "model.safetensors", "a");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "{\"quantization_config\":{\"weight_block_size\":%s}}", bad[i]);
        maker_write(*state, "config.json", text);
        refuse(*state, SL_ESOURCE, "config.json: quantization_config's weight_block_size is not");
    }
    maker_write(*state, "config.json", "{\"quantization_config\":{\"config_groups\":{\"a\":{\"weights\":{\"block_structure\":[1]}}}}}");
    refuse(*state, SL_ESOURCE, "config.json: quantization_config's block_structure is not");
    maker_write(*state, "config.json", "{\"quantization_config\":{\"weight_block_size\":null}}");
    ck = open_ok(*state);
    assert_int_equal(ck->fp8_block_rows, 0);
    sl_checkpoint_close(ck);
}

/* ---- links ---- */

static void link_to(const char *target, const char *dir, const char *name)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);
}

static void follows_only_inner_links(void **state)
{
    char other[] = "/tmp/sluice-elsewhere-XXXXXX", target[200];

    assert_non_null(mkdtemp(other));
    one_tensor(other, "b.safetensors", "b");
    two_shards(*state, good_map);

    assert_int_equal(mkdir(in(*state, "sub"), 0700), 0);
    one_tensor(in(*state, "sub"), "x", "b");
    link_to("sub/x", *state, "m-2.safetensors");
    sl_checkpoint_close(open_ok(*state));

    snprintf(target, sizeof target, "%s/b.safetensors", other);
    link_to(target, *state, "m-2.safetensors");
    refuse(*state, SL_ESOURCE, "outside the checkpoint's folder");
    link_to("gone", *state, "m-2.safetensors");
    refuse(*state, SL_ESOURCE, "a symbolic link that leads nowhere");
    link_to("/dev/zero", *state, "m-2.safetensors");
    refuse(*state, SL_ESOURCE, "outside the checkpoint's folder");

    /* The folder's name as a prefix of another folder's is not "inside". */
    snprintf(target, sizeof target, "%s2", (char *)*state);
    assert_int_equal(mkdir(target, 0700), 0);
    one_tensor(target, "x", "b");
    strcat(target, "/x");
    link_to(target, *state, "m-2.safetensors");
    refuse(*state, SL_ESOURCE, "outside the checkpoint's folder");
    target[strlen(target) - 2] = '\0';
    assert_int_equal(maker_remove(target), 0);
    assert_int_equal(maker_remove(other), 0);
}

/* R/snapshots/rev/file -> ../../blobs/sha, as huggingface_hub lays it out. */
static void follows_cache_links(void **state)
{
    char blobs[200], snapshots[200], rev[200];

    snprintf(blobs, sizeof blobs, "%s/blobs", (char *)*state);
    snprintf(snapshots, sizeof snapshots, "%s/snapshots", (char *)*state);
    snprintf(rev, sizeof rev, "%s/snapshots/0123", (char *)*state);
    assert_int_equal(mkdir(blobs, 0700) | mkdir(snapshots, 0700) | mkdir(rev, 0700), 0);
    maker_write(blobs, "c0", fp8_config);
    one_tensor(blobs, "a1", "a");
    link_to("../../blobs/c0", rev, "config.json");
    link_to("../../blobs/a1", rev, "model.safetensors");
    sl_checkpoint_close(open_ok(rev));
    sl_checkpoint_close(open_ok(in(rev, "model.safetensors")));

    /* Beside the blobs, or below a folder in them, is elsewhere. */
    one_tensor(*state, "b2", "a");
    link_to("../../b2", rev, "model.safetensors");
    refuse(rev, SL_ESOURCE, "outside the checkpoint's folder");
    assert_int_equal(mkdir(in(blobs, "deep"), 0700), 0);
    one_tensor(in(blobs, "deep"), "b3", "a");
    link_to("../../blobs/deep/b3", rev, "model.safetensors");
    refuse(rev, SL_ESOURCE, "outside the checkpoint's folder");
}

/* A folder elsewhere that links to a cache: a blob is known by its whole path. */
static void follows_links_to_blobs(void **state)
{
    static const struct { const char *repo, *folder, *name; bool taken; } cases[] = {
        {"models--a--b", "blobs", "0123456789abcdef0123456789abcdef01234567", true},
        {"models--a--b", "blobs", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", true},
        {"models--a--b", "blobs", "0123456789abcdef0123456789abcdef0123456", false},
        {"models--a--b", "blobs", "0123456789abcdef0123456789abcdef0123456x", false},
        {"models--a--b", "globs", "0123456789abcdef0123456789abcdef01234567", false},
        {"datasets--a--b", "blobs", "0123456789abcdef0123456789abcdef01234567", false},
    };
    char link[200], repo[200], folder[300], blob[400];

    snprintf(link, sizeof link, "%s/link", (char *)*state);
    assert_int_equal(mkdir(link, 0700), 0);
    maker_write(link, "config.json", fp8_config);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(repo, sizeof repo, "%s/%s", (char *)*state, cases[i].repo);
        snprintf(folder, sizeof folder, "%s/%s", repo, cases[i].folder);
        snprintf(blob, sizeof blob, "%s/%s", folder, cases[i].name);
        (void)mkdir(repo, 0700);
        (void)mkdir(folder, 0700);
        one_tensor(folder, cases[i].name, "a");
        link_to(blob, link, "model.safetensors");
        if (cases[i].taken)
            sl_checkpoint_close(open_ok(link));
        else
            refuse(link, SL_ESOURCE, "outside the checkpoint's folder");
    }
}

/* ---- FP8 scales ---- */

/* An FP8 weight of 288 x 512 and its scale. */
static void fp8_pair(const char *dir, const char *scale, const char *dtype, const char *shape,
                     uint64_t bytes)
{
    struct maker_file f = {.end = 0};

    maker_tensor(&f, "x.weight", "F8_E4M3", "[288,512]", 288 * 512);
    maker_tensor(&f, scale, dtype, shape, bytes);
    maker_finish(&f, dir, "model.safetensors", 0);
}

static void expect_scale(const char *dir, uint64_t rows, uint64_t cols, uint64_t br, uint64_t bc)
{
    struct sl_checkpoint *ck = open_ok(dir);
    struct sl_error e = {.code = 0};
    struct sl_scale s;

    assert_int_equal(sl_checkpoint_scale(ck, 0, &s, &e), 0);
    assert_int_equal(s.tensor, 1);
    assert_int_equal(s.rows, rows);
    assert_int_equal(s.cols, cols);
    assert_int_equal(s.block_rows, br);
    assert_int_equal(s.block_cols, bc);
    assert_true(sl_checkpoint_is_scale(ck, 1));
    assert_false(sl_checkpoint_is_scale(ck, 0));
    assert_int_equal(sl_checkpoint_scale(ck, 1, &s, &e), 0);
    assert_int_equal(s.tensor, SL_NO_TENSOR);
    assert_int_equal(sl_checkpoint_scale(ck, 2, &s, &e), SL_EFAIL);
    sl_checkpoint_close(ck);
}

static void finds_scales(void **state)
{
    maker_write(*state, "config.json", fp8_config);
    fp8_pair(*state, "x.weight_scale_inv", "F32", "[3,4]", 48);
    expect_scale(*state, 3, 4, 128, 128);
    fp8_pair(*state, "x.weight_scale", "BF16", "[3,4]", 24);
    expect_scale(*state, 3, 4, 128, 128);
    fp8_pair(*state, "x.scale", "F8_E8M0", "[3,4]", 12);
    expect_scale(*state, 3, 4, 128, 128);
    fp8_pair(*state, "x.scale", "U8", "[3,4]", 12);
    expect_scale(*state, 3, 4, 128, 128);
    maker_write(*state, "config.json", "{\"quantization_config\":{\"weight_block_size\":[288,512]}}"); /* one block */
    fp8_pair(*state, "x.weight_scale_inv", "F32", "[1]", 4);
    expect_scale(*state, 1, 1, 288, 512);
    maker_write(*state, "config.json", "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
                "\"float-quantized\",\"config_groups\":{\"group_0\":{\"weights\":{\"block_structure\":[128,128]}}}}}");
    fp8_pair(*state, "x.weight_scale", "BF16", "[3,4]", 24);
    expect_scale(*state, 3, 4, 128, 128);

    maker_write(*state, "config.json", plain_config);
    fp8_pair(*state, "x.weight_scale", "F32", "[1,1]", 4);
    expect_scale(*state, 1, 1, 288, 512);
    fp8_pair(*state, "x.weight_scale", "F16", "[]", 2);
    expect_scale(*state, 1, 1, 288, 512);
    fp8_pair(*state, "x.weight_scale", "F32", "[288]", 288 * 4);
    expect_scale(*state, 288, 1, 1, 512);
    fp8_pair(*state, "x.weight_scale", "F32", "[288,1]", 288 * 4);
    expect_scale(*state, 288, 1, 1, 512);
}

static void refuses_scales(void **state)
{
    static const struct { const char *scale, *dtype, *shape; uint64_t bytes; int code;
                          const char *why; } bad[] = {
        {"x.weight_scale_inv", "F32", "[2,4]", 32, SL_ESOURCE,
         "scale 'x.weight_scale_inv' of shape [2, 4] does not fit 'x.weight' of shape [288, 512]: "
         "expected [3, 4]"},
        {"x.weight_scale_inv", "F32", "[4,3]", 48, SL_ESOURCE, "expected [3, 4]"},
        {"x.weight_scale_inv", "F32", "[12]", 48, SL_ESOURCE, "expected [3, 4]"},
        {"x.weight_scale_inv", "F32", "[0,4]", 0, SL_ESOURCE, "expected [3, 4]"},
        {"x.weight_scale_inv", "F32", "[1,288]", 1152, SL_ESOURCE, "expected [3, 4]"},
        {"x.weight_scale_inv", "F32", "[3,4,1]", 48, SL_ESOURCE, "expected [3, 4]"},
        {"x.weight_scale_inv", "F32", "[1,1]", 4, SL_ESOURCE, "of shape [1, 1] does not fit 'x.weight' of shape [288, 512]: expected [3, 4]"},
        {"x.weight_scale", "BF16", "[]", 2, SL_ESOURCE, "of shape [] does not fit"},
        {"x.weight_scale_inv", "F64", "[3,4]", 96, SL_ESOURCE,
         "scale 'x.weight_scale_inv' of 'x.weight' is F64: expected F32"},
        {"y.weight_scale_inv", "F32", "[3,4]", 48, SL_ESOURCE,
         "scale 'y.weight_scale_inv' belongs to no tensor: expected 'y.weight'"},
        {"y.weight_scale", "F32", "[3,4]", 48, SL_ESOURCE, "belongs to no tensor"},
        {"y.scale", "F32", "[3,4]", 48, SL_ESOURCE,
         "FP8 tensor 'x.weight' has no scale: expected 'x.weight_scale_inv'"},
        {"x.weight.scale", "F32", "[3,4]", 48, SL_ESOURCE, "'x.weight' has no scale"},
    };
    struct maker_file f = {.end = 0};

    maker_write(*state, "config.json", fp8_config);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fp8_pair(*state, bad[i].scale, bad[i].dtype, bad[i].shape, bad[i].bytes);
        refuse(*state, bad[i].code, bad[i].why);
    }
    maker_write(*state, "config.json", plain_config);
    fp8_pair(*state, "x.weight_scale_inv", "F32", "[3,4]", 48);
    refuse(*state, SL_ESOURCE, "expected [1] or [288, 1] (config.json gives no weight_block_size; is it of this model?)");

    maker_tensor(&f, "x.weight", "BF16", "[2,2]", 8);
    maker_tensor(&f, "x.weight_scale_inv", "F32", "[1,1]", 4);
    maker_finish(&f, *state, "model.safetensors", 0);
    refuse(*state, SL_EUNSUPPORTED, "belongs to 'x.weight', which is BF16 of shape [2, 2]: only matrices in FP8, INT8, MXFP4, NVFP4 and packed integers");

    maker_tensor(&f, "x.weight", "F8_E4M3", "[2,2]", 4);
    maker_tensor(&f, "x.weight_scale_inv", "F32", "[1]", 4);
    maker_tensor(&f, "x.scale", "F32", "[1]", 4);
    maker_finish(&f, *state, "model.safetensors", 0);
    refuse(*state, SL_ESOURCE, "'x.weight' has two scales, 'x.weight_scale_inv' and 'x.scale'");

    maker_tensor(&f, "x.weight", "F8_E4M3", "[2,2,2,2]", 16);
    maker_tensor(&f, "x.weight_scale_inv", "F32", "[1]", 4);
    maker_finish(&f, *state, "model.safetensors", 0);
    refuse(*state, SL_EUNSUPPORTED, "'x.weight' has 4 dimensions");
}

static void tells_roles(void **state)
{
    struct maker_file f = {.end = 0};
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;
    struct sl_scale s;

    maker_tensor(&f, "v", "F8_E5M2", "[300]", 300);
    maker_tensor(&f, "v_scale_inv", "F32", "[1]", 4);
    maker_tensor(&f, "q.weight", "F8_E4M3", "[0,4]", 0);
    maker_tensor(&f, "q.weight_scale", "F32", "[]", 4);
    maker_tensor(&f, "q.activation_scale", "F32", "[]", 4);
    maker_tensor(&f, "q.input_scale", "F32", "[]", 4);
    maker_tensor(&f, "ls.scale", "F32", "[4]", 16); /* a layer's own scale: a weight */
    maker_tensor(&f, "logit_scale", "F32", "[]", 4);
    maker_finish(&f, *state, "model.safetensors", 0);
    ck = open_ok(*state);
    for (uint32_t i = 0; i < ck->n_tensors; i++)
        assert_int_equal(sl_checkpoint_is_scale(ck, i), i == 1 || (i >= 3 && i <= 5));
    assert_false(sl_checkpoint_is_scale(ck, ck->n_tensors));
    assert_int_equal(sl_checkpoint_scale(ck, 0, &s, &e), 0);
    assert_int_equal(s.tensor, 1);
    assert_int_equal(s.block_cols, 300);
    sl_checkpoint_close(ck);
}

/* ---- size ---- */

/* FP8 pairs as in a large mixture of experts, spread over shards. */
static void make_large(const char *dir, int shards, int pairs)
{
    struct maker_text map = {.len = 0};
    struct maker_file f = {.end = 0};

    maker_write(dir, "config.json", fp8_config);
    for (int s = 0; s < shards; s++) {
        char file[80], name[120];

        snprintf(file, sizeof file, MAX_FILE, s + 1, shards);
        for (int i = 0; i < pairs; i++) {
            snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%d.gate_proj.weight", s, i);
            maker_add(&map, "%c\"%s\":\"%s\",\"%s_scale_inv\":\"%s\"", map.len ? ',' : '{', name,
                      file, name, file);
            maker_tensor(&f, name, "F8_E4M3", "[2048,7168]", 2048 * 7168);
            strcat(name, "_scale_inv");
            maker_tensor(&f, name, "F32", "[16,56]", 16 * 56 * 4);
        }
        maker_finish(&f, dir, file, 0);
    }
    maker_add(&map, "}");
    map.s = realloc(map.s, map.len + 100);
    assert_non_null(map.s);
    memmove(map.s + 14, map.s, map.len + 1);
    memcpy(map.s, "{\"weight_map\":", 14);
    strcat(map.s, "}");
    maker_write(dir, INDEX, map.s);
    free(map.s);
}

/* SLUICE_TEST_SHARDS=163 makes it the size of DeepSeek-R1, and prints the time. */
static void opens_many_shards(void **state)
{
    const char *asked = getenv("SLUICE_TEST_SHARDS");
    int shards = asked ? atoi(asked) : 12, pairs = 282;
    struct timespec a, b;
    struct sl_checkpoint *ck;
    struct sl_error e;
    struct sl_scale s;

    make_large(*state, shards, pairs);
    clock_gettime(CLOCK_MONOTONIC, &a);
    ck = open_ok(*state);
    clock_gettime(CLOCK_MONOTONIC, &b);
    if (asked)
        print_message("%u tensors in %u shards: %.3f s\n", ck->n_tensors, ck->n_files,
                      (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9);
    assert_int_equal(ck->n_files, shards);
    assert_int_equal(ck->n_tensors, shards * pairs * 2);
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        assert_int_equal(sl_checkpoint_find(ck, ck->tensors[i].name), i);
        assert_int_equal(ck->tensors[i].file, i / (uint32_t)(pairs * 2));
        assert_int_equal(sl_checkpoint_scale(ck, i, &s, &e), 0);
        assert_int_equal(s.tensor, i % 2 ? SL_NO_TENSOR : i + 1);
    }
    sl_checkpoint_close(ck);
}

/* The bound is that of all files together; those beyond it are not looked at. */
static void refuses_too_many(void **state)
{
    const struct sl_src_tensor one = {.name = "a", .dtype = SL_DTYPE_F32, .elems = 1, .bytes = 4};
    struct sl_checkpoint *ck = calloc(1, sizeof *ck);
    struct sl_error e = {.code = 0};

    (void)state;
    assert_non_null(ck);
    ck->priv = calloc(1, sizeof(struct sl_ck_priv));
    assert_int_equal(sl_ck_reserve_files(ck, 2, &e), 0);
    assert_int_equal(sl_ck_add_file(ck, NULL, "first", 4, 0, &one, 1, NULL, &e), 0);
    assert_int_equal(sl_ck_add_file(ck, NULL, "second", 4, 0, &one, SL_SRC_MAX_TENSORS, NULL, &e), SL_EUNSUPPORTED);
    assert_string_equal(e.text, "second: 1000001 tensors up to this file; 1000000 at most are read");
    sl_checkpoint_close(ck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(opens_tiny_v3),   TEST(opens_many_shards),
        TEST(opens_index),     TEST(opens_single_files),  TEST(opens_config_alone),
        TEST(refuses_indexes), TEST(lists_differences),   TEST(refuses_shards),
        TEST(refuses_folders), TEST(refuses_block_sizes), TEST(follows_only_inner_links),
        TEST(follows_cache_links), TEST(follows_links_to_blobs), TEST(finds_scales),    TEST(refuses_scales),
        TEST(tells_roles),     TEST(refuses_too_many),
    };

    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
