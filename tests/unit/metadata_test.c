/* Names, model cards and the general.* keys. */
#include "tests/unit/model_fixture.h"

#include "proto/metadata_card.h"
#include "proto/metadata_general.h"
#include "proto/metadata_name.h"

#include "proto/job_spec.h"

#include <cjson/cJSON.h>
#include <math.h>

struct name_case {
    const char *id;
    uint64_t total;
    const char *org, *base, *finetune, *version, *size, *title;
};

static const struct name_case names[] = {
    {"DeepSeek-R1", 671026419200, NULL, NULL, NULL, NULL, NULL, "DeepSeek R1"},
    {"deepseek-ai/DeepSeek-V3-0324", 671026419200, "deepseek-ai", "DeepSeek", NULL, "V3-0324", NULL,
     "DeepSeek V3 0324"},
    {"DeepSeek-R1-Distill-Qwen-32B", 32763876352, NULL, "DeepSeek-R1-Distill-Qwen", NULL, NULL, "32B",
     "DeepSeek R1 Distill Qwen 32B"},
    {"deepseek-R1-distill-llama-8b", 8030261312, NULL, "deepseek-R1-distill-llama", NULL, NULL, "8B",
     "Deepseek R1 Distill Llama 8b"},
    {"Mistral-7B-Instruct-v0.2", 7000000000, NULL, "Mistral", "Instruct", "v0.2", "7B",
     "Mistral 7B Instruct v0.2"},
    {"Qwen-14B-chat-128K", 14000000000, NULL, "Qwen", "chat-128k", NULL, "14B", "Qwen 14B Chat 128K"},
    {"bloom-7b1", 0, NULL, "bloom", NULL, NULL, "7.1B", "Bloom 7b1"},
    {"Mixtral-8x7B-v0.1", 46700000000, NULL, "Mixtral", NULL, "v0.1", "8x7B", "Mixtral 8x7B v0.1"},
    {"phi-mini-4B", 4000000000, NULL, "phi-mini", NULL, NULL, "4B", "Phi Mini 4B"},
    {"tiny-v3", 20400664, NULL, "tiny", NULL, "v3", NULL, "Tiny v3"},
    {"../models-x", 0, NULL, NULL, NULL, NULL, NULL, "Models X"},
    {"a human sentence-7B", 0, NULL, NULL, NULL, NULL, NULL, "A Human Sentence 7B"},
    {"-", 0, NULL, NULL, NULL, NULL, NULL, ""},
};

static void same_text(const char *have, const char *want)
{
    assert_int_equal(have == NULL, want == NULL);
    if (want)
        assert_string_equal(have, want);
}

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sl_name_parts p;
        char *title;

        assert_int_equal(sl_name_split(names[i].id, names[i].total, &p), 0);
        title = sl_name_title(p.full);
        same_text(p.org, names[i].org);
        same_text(p.base, names[i].base);
        same_text(p.finetune, names[i].finetune);
        same_text(p.version, names[i].version);
        same_text(p.size, names[i].size);
        same_text(title, names[i].title);
        free(title);
        sl_name_parts_free(&p);
    }
}

static void test_size_labels(void **state)
{
    static const struct { uint64_t total, shared, expert, n; const char *label; } cases[] = {
        {671026419200, 17099225088, 2554560512, 256, "256x20B"},
        {8030261312, 8030261312, 0, 0, "8.0B"}, {32763876352, 0, 0, 0, "33B"},
        {999999999, 0, 0, 0, "1000M"}, {1000000001, 0, 0, 0, "1.0B"}, {500, 0, 0, 0, "0.50K"},
        {1026408232448, 0, 0, 0, "1.0T"},
    };
    char buf[64];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sl_size_label(buf, sizeof buf, cases[i].total, cases[i].shared, cases[i].expert, cases[i].n);
        assert_string_equal(buf, cases[i].label);
    }
}

static void file_name_is(const char *name, const char *base, const char *size, const char *finetune,
                         const char *version, const char *want)
{
    char *s = sl_file_base_name(name, base, size, finetune, version);

    assert_string_equal(s, want);
    free(s);
}

static void test_file_names(void **state)
{
    char *s, longest[3000];

    (void)state;
    file_name_is("DeepSeek R1", NULL, "256x20B", NULL, NULL, "DeepSeek-R1-256x20B");
    file_name_is("x", "Mistral", "7B", "Instruct", "v0.2", "Mistral-7B-Instruct-v0.2");
    file_name_is("../../etc/passwd", NULL, NULL, NULL, NULL, "_.-..-etc-passwd");
    file_name_is("a\nb", NULL, "/", "x/y", NULL, "a_b-x-y");
    file_name_is("a\xc2\x9b" "2Jb\xe2\x80\xae" "c\xe2\x80\xa8\x7f", NULL, NULL, NULL, NULL, "a_2Jb_c__");
    file_name_is("a\xc2", "\xe2\x80", "\xf0\x9f\x98\x80", NULL, NULL, "\xe2\x80-\xf0\x9f\x98\x80");
    file_name_is(NULL, NULL, NULL, NULL, NULL, "model");
    file_name_is("/", "", "7B", NULL, NULL, "model-7B");
    for (size_t i = 0; i + 3 < sizeof longest; i += 3)
        memcpy(longest + i, "模", 4);
    s = sl_file_base_name(longest, NULL, longest, NULL, NULL);
    assert_true(strlen(s) <= 160 && strlen(s) > 150);
    for (size_t i = 0; s[i]; i += s[i] == '-' ? 1 : 3)
        assert_true(s[i] == '-' || strncmp(s + i, "模", 3) == 0);
    free(s);
}

struct card_case {
    const char *card, *json;
};

static const struct card_case cards[] = {
    {"# no front matter\n", "{}"},
    {"", "{}"},
    {"---", "{}"},
    {"---\nlicense: mit # by DeepSeek\n---\nbase_model: x\n", "{\"license\":\"mit\"}"},
    {"---\r\nlicense: mit\r\ntags:\r\n- a\r\n---\r\n", "{\"license\":\"mit\",\"tags\":[\"a\"]}"},
    {"---\ntags:\n- a\n-   b c\n- \"d: e\"\n- 'it''s'\nlanguage: [en, \"zh\", no]\n---\n",
     "{\"tags\":[\"a\",\"b c\",\"d: e\",\"it's\"],\"language\":[\"en\",\"zh\",\"no\"]}"},
    {"---\na: |\n  one\n   two\n\n  three\nb: >-\n  x\n  y\n\n  z\nc: ~\nd:\n---\n",
     "{\"a\":\"one\\n two\\n\\nthree\\n\",\"b\":\"x y\\nz\",\"c\":null,\"d\":null}"},
    {"---\nm:\n  k: v\n  l:\n  - 1\nb:\n- name: n\n  url: https://x.y/z#f\n- name: o\n---\n",
     "{\"m\":{\"k\":\"v\",\"l\":[\"1\"]},\"b\":[{\"name\":\"n\",\"url\":\"https://x.y/z#f\"},"
     "{\"name\":\"o\"}]}"},
    {"---\na: first\na: second\n\"q k\": x\nplain: one\n  two\n---\n",
     "{\"a\":\"second\",\"q k\":\"x\",\"plain\":\"one two\"}"},
    {"---\nb:\n-\n- a\n-\n  - c\n- # d\n---\n", "{\"b\":[null,\"a\",[\"c\"],null]}"},
    {"---\na: \"\\u00e9\\x41\\U0001f600\\n\\u6a21\"\nb: \"\\ud800 \\u00g1 \\x\"\nc: '\\u00e9'\n---\n",
     "{\"a\":\"éA😀\\n模\",\"b\":\"ud800 u00g1 x\",\"c\":\"\\\\u00e9\"}"},
    /* values over several lines */
    {"---\na:\n  one # c\nb:\n  \"two\n  lines\n\n  of\\\n  s\\\"\"\nc: 'it''s\n  x: y'\nd:\n  # e\n  [f, g]\n"
     "h: >\n  i\n  j\n    deeper\n\n  k\nl: |+\n  m\n\nn: o\n---\n",
     "{\"a\":\"one\",\"b\":\"two lines\\nofs\\\"\",\"c\":\"it's x: y\",\"d\":[\"f\",\"g\"],"
     "\"h\":\"i j\\n  deeper\\n\\nk\\n\",\"l\":\"m\\n\\n\",\"n\":\"o\"}"},
    {"---\nlicense : mit\n'q'  : x\na: |\n\n  b\nc: >\n\n\n  d\n  e\n---\n",
     "{\"license\":\"mit\",\"q\":\"x\",\"a\":\"\\nb\\n\",\"c\":\"\\n\\nd e\\n\"}"},
    {"---\nlanguage: no # c\na: \"no\"\nb: [no]\nc:\n- no\nd: On\ne: none\n---\n",
     "{\"language\":false,\"a\":\"no\",\"b\":[\"no\"],\"c\":[\"no\"],\"d\":false,\"e\":\"none\"}"},
    /* odd things are skipped, what follows is read */
    {"---\n{a: b}\n- x\n&anchor\nx: {a: b}\ny: &z 1\nw: [a, [b]]\nu: \"open\n: no key\n%q\nlicense: "
     "mit\n---\n",
     "{\"x\":null,\"y\":null,\"w\":null,\"u\":null,\"license\":\"mit\"}"},
    {"---\nbad: \xff\xfe\n\xff: key\nlicense: mit\n---\n", "{\"bad\":null,\"license\":\"mit\"}"},
    {"---\nlist: [a,\n  b,\n  c]\nopen: [a, b\n", "{\"list\":[\"a\",\"b\",\"c\"],\"open\":null}"},
};

static void test_cards(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cards / sizeof *cards; i++) {
        cJSON *card;
        char *json;

        assert_int_equal(sl_card_parse(cards[i].card, strlen(cards[i].card), &card), 0);
        json = cJSON_PrintUnformatted(card);
        assert_string_equal(json, cards[i].json);
        cJSON_free(json);
        cJSON_Delete(card);
    }
}

/* Every beginning of a card, and a card nested without end, must come through. */
static void test_card_fuzz(void **state)
{
    static const char card[] = "---\na: [x, 'y']\nb:\n- c: |\n    d\n  e: >\n   f\n- - g\nh: \"i\\n\"\n---\n";
    char deep[8192] = "---\n";
    size_t at = 4;
    cJSON *j;

    (void)state;
    for (size_t n = 0; n <= strlen(card); n++) {
        assert_int_equal(sl_card_parse(card, n, &j), 0);
        cJSON_Delete(j);
    }
    for (int i = 0; i < 100; i++) {
        memset(deep + at, ' ', (size_t)i);
        at += (size_t)i;
        at += (size_t)sprintf(deep + at, "k:\n");
    }
    assert_int_equal(sl_card_parse(deep, at, &j), 0);
    assert_non_null(cJSON_GetObjectItem(j, "k"));
    cJSON_Delete(j);
}

static const char front[] =
    "---\nlicense:\n- mit\n- other\nlicense_name: deepseek\nlicense_link: LICENSE-MODEL\n"
    "base_model:\n- deepseek-ai/DeepSeek-V3\n- https://huggingface.co/Qwen/Qwen2.5-7B\n"
    "- name: Own\n  url: https://x.y\ntags:\n- moe\npipeline_tag: text-generation\nlanguage: en\n"
    "datasets: a/B-v2\nmodel_creator: Somebody\n---\n";

static const char *const general[][2] = {
    {"general.sampling.sequence", "str '\"NaN'"},
    {"general.sampling.top_k", "i32 20"},
    {"general.sampling.temp", "f32 0.5"},
    {"general.name", "str 'My Model'"},
    {"general.author", "str 'Somebody'"},
    {"general.size_label", "str '2.0K'"},
    {"general.license", "str 'mit,other'"},
    {"general.license.name", "str 'deepseek'"},
    {"general.license.link", "str 'LICENSE-MODEL'"},
    {"general.base_model.count", "u32 3"},
    {"general.base_model.0.name", "str 'DeepSeek V3'"},
    {"general.base_model.0.version", "str 'V3'"},
    {"general.base_model.0.organization", "str 'Deepseek Ai'"},
    {"general.base_model.0.repo_url", "str 'https://huggingface.co/deepseek-ai/DeepSeek-V3'"},
    {"general.base_model.1.name", "str 'Qwen2.5 7B'"},
    {"general.base_model.1.organization", "str 'Qwen'"},
    {"general.base_model.1.repo_url", "str 'https://huggingface.co/Qwen/Qwen2.5-7B'"},
    {"general.base_model.2.name", "str 'Own'"},
    {"general.base_model.2.url", "str 'https://x.y'"},
    {"general.dataset.count", "u32 1"},
    {"general.dataset.0.name", "str 'B v2'"},
    {"general.dataset.0.version", "str 'v2'"},
    {"general.dataset.0.organization", "str 'A'"},
    {"general.dataset.0.repo_url", "str 'https://huggingface.co/a/B-v2'"},
    {"general.tags", "arr[str] n=2 'moe' 'text-generation'"},
    {"general.languages", "arr[str] n=1 'en'"},
};

static void test_general(void **state)
{
    struct sl_metadata_in in = {.total = 2000, .shared = 2000};
    struct sl_kvs kvs = {NULL, 0, 0};
    struct sl_error e;
    char dir[256], *base, *name, buf[256];

    snprintf(dir, sizeof dir, "%s/my-model", (char *)*state);
    assert_int_equal(mkdir(dir, 0700), 0);
    fx_text(dir, "README.md", front);
    fx_text(dir, "generation_config.json", "{\"temperature\":1,\"top_k\":20,\"temperature\":0.5,\"top_p\":1,\"top_p\":null,"
            "\"min_p\":\"x\",\"penalty_last_n\":1e300,\"xtc_probability\":NaN,\"xtc_threshold\":[-Infinity,Infinity],"
            "\"sequence\":\"\\\"NaN\"}");
    in.dir.path = dir;
    assert_int_equal(sl_metadata_general(&in, &kvs, &base, &name, &e), 0);
    for (size_t i = 0; i < sizeof general / sizeof *general; i++) {
        assert_true(i < kvs.n);
        assert_string_equal(kvs.kv[i].key, general[i][0]);
        fx_kv_text(&kvs.kv[i], buf, sizeof buf);
        assert_string_equal(buf, general[i][1]);
    }
    assert_int_equal(kvs.n, sizeof general / sizeof *general);
    assert_string_equal(base, "My-Model-2.0K");
    assert_string_equal(name, "My Model");
    free(base);
    free(name);
    sl_kvs_free(&kvs);
}

/* Files that cannot be understood count as absent; a name that is given wins. */
static void test_general_without(void **state)
{
    struct sl_metadata_in in = {.dir.path = *state, .total = 0, .model_name = "Given"};
    struct sl_kvs kvs = {NULL, 0, 0};
    struct sl_error e;
    char *base, *name;

    fx_text(*state, "README.md", "---");
    fx_text(*state, "generation_config.json", "{\"temperature\": 0.5,}");
    assert_int_equal(sl_metadata_general(&in, &kvs, &base, &name, &e), 0);
    assert_string_equal(name, "Given");
    assert_string_equal(kvs.kv[0].key, "general.name");
    assert_null(sl_kvs_find(&kvs, "general.sampling.temp"));
    free(base);
    free(name);
    sl_kvs_free(&kvs);
}

/* Each entry has keys of its own, of which each is looked up among all. */
static void test_many_origins(void **state)
{
    static const char *const lists[] = {"base_model", "dataset_sources"};
    struct sl_metadata_in in = {.dir.path = *state};
    struct sl_error e;
    char text[8192], want[120], *base, *name;

    for (size_t i = 0; i < 4; i++) {
        int n = 500 + (int)(i & 1), at = sprintf(text, "---\n%s:\n", lists[i / 2]);
        struct sl_kvs kvs = {NULL, 0, 0};

        for (int k = 0; k < n; k++)
            at += sprintf(text + at, "- a/b%d\n", k);
        fx_text(*state, "README.md", text);
        assert_int_equal(sl_metadata_general(&in, &kvs, &base, &name, &e), n > 500 ? SL_ESOURCE : 0);
        snprintf(want, sizeof want, "README.md: \"%s\" has 501 entries; at most 500 are taken over", lists[i / 2]);
        if (n > 500)
            assert_string_equal(e.text, want);
        free(base);
        free(name);
        sl_kvs_free(&kvs);
    }
}

/* --override-kv: what is taken has the type and value of llama-quantize, at the ends of what there is too. */
static void test_override_kv(void **state)
{
    static const char *const refused[] = {"a", "=int:1", "a=int", "a=int:", "a=int:-1", "a=int:4294967296", "a=int:1x", "a=int:99999999999999999999",
                                          "a=float:", "a=float:1x", "a=float:1e39", "a=float:1e999", "a=bool:", "a=bool:True", "a=bool:truex", "a=u8:1",
                                          "general.alignment=int:64", "split.x=int:1", "sluice.x=str:y", "split.count=int:1", "a=str:\xe9"};
    static const char *const taken[] = {"general.alignments=int:1", "general.alignmen=int:1", "splits.x=int:1", "sluices.x=str:y"};
    struct sl_kvs kvs = {NULL, 0, 0};
    const char *text;
    struct sl_error e;
    char longest[160];
    uint32_t u;
    float f;

    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (sl_parse_override_kv(&kvs, refused[i], &e) != SL_EUSAGE || !strstr(e.text, "--override-kv"))
            fail_msg("%s is taken", refused[i]);
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (sl_parse_override_kv(&kvs, taken[i], &e) != 0)
            fail_msg("%s", e.text);
    assert_int_equal(sl_parse_override_kv(&kvs, "n=int:0", &e), 0);
    assert_true(sl_kvs_get_u32(&kvs, "n", &u) && u == 0);
    assert_int_equal(sl_parse_override_kv(&kvs, "n=int:4294967295", &e), 0);
    assert_true(sl_kvs_get_u32(&kvs, "n", &u) && u == UINT32_MAX);
    for (int v = 0; v < 2; v++) {
        assert_int_equal(sl_parse_override_kv(&kvs, v ? "b=bool:true" : "b=bool:false", &e), 0);
        assert_int_equal(sl_kvs_find(&kvs, "b")->elem, SL_KV_BOOL);
        assert_int_equal(*(const uint8_t *)sl_kvs_find(&kvs, "b")->data, v);
    }
    assert_int_equal(sl_parse_override_kv(&kvs, "f=float:-inf", &e), 0);
    memcpy(&f, sl_kvs_find(&kvs, "f")->data, sizeof f);
    assert_true(isinf(f) && f < 0);
    snprintf(longest, sizeof longest, "s=str:%0127d", 7);
    assert_int_equal(sl_parse_override_kv(&kvs, longest, &e), 0);
    assert_true(sl_kvs_get_str(&kvs, "s", &text) && strlen(text) == 127);
    snprintf(longest, sizeof longest, "s=str:%0128d", 7);
    assert_int_equal(sl_parse_override_kv(&kvs, longest, &e), SL_EUSAGE);
    sl_kvs_free(&kvs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_size_labels),
        cmocka_unit_test(test_file_names), cmocka_unit_test(test_cards),
        cmocka_unit_test(test_card_fuzz), cmocka_unit_test(test_override_kv),
        cmocka_unit_test_setup_teardown(test_general, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_general_without, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_many_origins, fx_setup, fx_teardown),
    };

    return cmocka_run_group_tests_name("metadata", tests, NULL, NULL);
}
