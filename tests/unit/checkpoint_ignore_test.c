/* Which layers are not quantized, as config.json tells of them by each method. */
#include "tests/unit/checkpoint_world.h"

#include <time.h>

/* Lists have other names by other methods, and their entries other meanings. */
static void plans_by_lists(void **state)
{
    static const struct { const char *config, *name; bool ignored; } lists[] = {
        {"\"quant_method\":\"fp8\",\"modules_to_not_convert\":[\"layers.1.mlp\"]", "model.layers.1.mlp.up_proj.weight", true},
        {"\"quant_method\":\"fp8\",\"modules_to_not_convert\":[\"layers.1.mlp\"]", "model.layers.11.mlp.up_proj.weight", false},
        {"\"quant_method\":\"fp8\",\"modules_to_not_convert\":[\"model.layers.1.mlp.up\",\"\",7]", "model.layers.1.mlp.up_proj.weight", false},
        {"\"quant_method\":\"fp8\",\"modules_to_not_convert\":[\"up_proj\"]", "model.layers.1.mlp.up_proj.weight", true},
        {"\"quant_method\":\"fp8\",\"modules_to_not_convert\":null", "model.layers.1.mlp.up_proj.weight", false},
        {"\"quant_method\":\"fp8\",\"modules_to_not_convert\":{\"a\":\"up_proj\"}", "model.layers.1.mlp.up_proj.weight", false},
        {"\"quant_method\":\"fp8\",\"ignored_layers\":[\"model.layers.1.mlp.up_proj\"]", "model.layers.1.mlp.up_proj.weight", true},
        {"\"quant_method\":\"fbgemm_fp8\",\"modules_to_not_convert\":[\"model.layers.1\"]", "model.layers.1.mlp.up_proj.weight", true},
        {"\"quant_method\":\"modelopt\",\"modules_to_not_convert\":[\"up_proj\"]", "model.layers.1.mlp.up_proj.weight", false},
        {"\"quant_method\":\"modelopt\",\"exclude_modules\":[\"*.1.*up*\"]", "model.layers.1.mlp.up_proj.weight", true},
        {"\"quant_method\":\"modelopt\",\"exclude_modules\":[\"*.1.*up\"]", "model.layers.1.mlp.up_proj.weight", false},
        {"\"quant_method\":\"modelopt\",\"ignore\":[\"*up_proj\"]", "model.layers.1.mlp.up_proj.weight", true},
        {"\"quant_method\":\"modelopt\",\"ignore\":[\"up_proj\"]", "model.layers.1.mlp.up_proj.weight", false},
        {"\"quant_method\":\"modelopt\",\"ignore\":[\"*a*a*a*a*a*a*a*a*a*a*a*a*a*b\"]", "a.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
        {"\"quant_method\":\"quark\",\"exclude\":[\"re:.*\\\\.up_proj\"]", "model.layers.1.mlp.up_proj.weight", true},
        {"\"quant_method\":\"quark\",\"exclude\":[\"*.mlp.*\"]", "model.layers.1.mlp.up_proj.weight", true},
    };
    char text[400];

    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct sl_error e = {.code = 0};
        struct sl_checkpoint *ck;

        snprintf(text, sizeof text, "{\"quantization_config\":{%s}}", lists[i].config);
        maker_write(*state, "config.json", text);
        assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
        if (sl_checkpoint_ignores(ck, lists[i].name, &e) != lists[i].ignored)
            fail_msg("%s: %s", lists[i].config, lists[i].name);
        sl_checkpoint_close(ck);
    }
}

#define TOO_LONG "config.json: which layers quantization_config leaves out takes too many steps to tell: shorten its lists"

/* Taken as not there, what is left of a list would change the plan's sizes without a word. */
static void refuse_long(const struct sl_checkpoint *ck, const char *name)
{
    struct sl_error e = {.code = 0};

    assert_int_equal(sl_checkpoint_ignores(ck, name, &e), SL_EUNSUPPORTED);
    assert_int_equal(strncmp(e.text, TOO_LONG, strlen(TOO_LONG)), 0);
}

/* Else as many expressions, each with as many steps as one may take, for as many names would take hours. */
static void refuses_slow_ones(void **state)
{
    static const char slow[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.weight", quick[] = "model.layers.1.mlp.up_proj.weight";
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;

    maker_write(*state, "config.json", "{\"quantization_config\":{\"ignore\":[\"re:(?:(?:a+)+b|model)\",\"re:a*!\"]}}");
    assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
    assert_int_equal(sl_checkpoint_ignores(ck, quick, &e), 1);
    refuse_long(ck, slow);
    sl_checkpoint_close(ck);
}

/* n times the text as entries of a list. */
static char *list_of(const char *text, size_t n)
{
    char *list = malloc(n * (strlen(text) + 3) + 200), *at = list;

    assert_non_null(list);
    at += sprintf(at, "{\"quantization_config\":{\"ignore\":[\"model.layers.1.mlp.up_proj\"");
    for (size_t i = 0; i < n; i++)
        at += sprintf(at, ",\"%s\"", text);
    strcpy(at, "]}}");
    return list;
}

/* For each name anew it took a minute for 4096 layers. */
static void compiles_each_expression_once(void **state)
{
    char text[1000] = "re:z(?:", *list;
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;
    clock_t begun;

    for (size_t n = strlen(text); n < sizeof text - 20; n += 7)
        strcpy(text + n, "[ab]01|");
    strcat(text, ")");
    list = list_of(text, 99);
    maker_write(*state, "config.json", list);
    free(list);
    assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
    begun = clock();
    for (int i = 0; i < 10000; i++)
        assert_int_equal(sl_checkpoint_ignores(ck, "model.layers.2.mlp.up_proj.weight", &e), 0);
    assert_true((double)(clock() - begun) / CLOCKS_PER_SEC < 5); /* 0.1 where nothing else runs, and 17 with an expression compiled for each name */
    sl_checkpoint_close(ck);
}

static void ends_long_searches(void **state)
{
    static const char there[] = "model.layers.1.mlp.up_proj.weight", other[] = "model.layers.2.mlp.up_proj.weight";
    char *list = list_of("x", 4095);
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;

    maker_write(*state, "config.json", list);
    free(list);
    assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
    for (int i = 0; i < 30000; i++)
        assert_int_equal(sl_checkpoint_ignores(ck, other, &e), 0);
    assert_int_equal(sl_checkpoint_ignores(ck, there, &e), 1);
    for (int i = 0; i < 1000 && sl_checkpoint_ignores(ck, other, &e) == 0; i++) {
    }
    refuse_long(ck, other);
    sl_checkpoint_close(ck);
}

/* What is left of one must not be taken for all of it, the next time neither. */
static void refuses_large_lists(void **state)
{
    static const char layer[] = "model.layers.2.mlp.up_proj.weight", why[] = "config.json: quantization_config has a list of layers that it leaves out with more than";
    static char fits[1028] = "re:", longer[1029] = "re:";
    const struct { const char *text; size_t n; int ignored; } lists[] = {
        {"x", 4095, 0}, {"x", 4096, SL_EUNSUPPORTED}, {"re:x", 100, 0}, {"re:x", 101, SL_EUNSUPPORTED}, {fits, 1, 0}, {longer, 1, SL_EUNSUPPORTED}};
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;

    memset(fits + 3, 'x', 1024);
    memset(longer + 3, 'x', 1025);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char *list = list_of(lists[i].text, lists[i].n);

        maker_write(*state, "config.json", list);
        free(list);
        assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(sl_checkpoint_ignores(ck, layer, &e), lists[i].ignored);
            assert_true(lists[i].ignored == 0 || strncmp(e.text, why, strlen(why)) == 0);
        }
        sl_checkpoint_close(ck);
    }
}

/* GPTQ's members with other signs are not counted. */
static void refuses_large_objects(void **state)
{
    struct sl_error e = {.code = 0};
    struct sl_checkpoint *ck;
    char text[8000];

    for (unsigned n = 100; n <= 101; n++) {
        int at = sprintf(text, "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"dynamic\":{");

        for (unsigned i = 0; i < 200; i++)
            at += sprintf(text + at, "\"%c:layer%u\":{}%s", i < n ? '-' : '+', i, i < 199 ? "," : "}}}");
        maker_write(*state, "config.json", text);
        assert_int_equal(sl_checkpoint_open_config(in(*state, "config.json"), &ck, &e), 0);
        assert_int_equal(sl_checkpoint_ignores(ck, "layer99.weight", &e), n == 100 ? 1 : SL_EUNSUPPORTED);
        sl_checkpoint_close(ck);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(plans_by_lists), TEST(refuses_slow_ones), TEST(compiles_each_expression_once), TEST(ends_long_searches),
                                       TEST(refuses_large_lists), TEST(refuses_large_objects)};

    return cmocka_run_group_tests_name("ignore", tests, NULL, NULL);
}
