/* The recipe language: what it accepts, what it refuses and how it says so. */
#include "proto/recipe_rules.h"
#include "tests/unit/r1_model.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

/* Ten layers of ffn_down_exps and norms, one output. */
static struct sl_model *ten_layers(void)
{
    struct sl_model *m = calloc(1, sizeof *m);
    struct sl_out_tensor *t = calloc(32, sizeof *t);

    m->arch = "deepseek2";
    m->hp = (struct sl_hparams){.n_layer = 10, .n_head = 8, .n_head_kv = 8, .n_expert = 16,
                                .n_layer_dense = 2};
    m->tensors = t;
    r1_tensor(&t[m->n_tensors++], "output.weight", "512x1024");
    r1_tensor(&t[m->n_tensors++], "token_embd.weight", "512x1024");
    for (int l = 0; l < 10; l++) {
        char name[64];

        snprintf(name, sizeof name, "blk.%d.ffn_down_exps.weight", l);
        r1_tensor(&t[m->n_tensors++], name, "512x512x16");
        snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", l);
        r1_tensor(&t[m->n_tensors++], name, "512");
    }
    return m;
}

static const struct sl_recipe_opts plain = {.output_type = -1, .embedding_type = -1};

/* The digits of the ffn_down types under a recipe, then output, token_embd. */
static int word_of(const char *text, const struct sl_recipe_opts *o, char word[16],
                   struct sl_error *e)
{
    struct sl_model *m = ten_layers();
    struct sl_recipe *r = NULL;
    int types[32], rc = sl_recipe_parse("test", "t.recipe", text, &r, e);
    uint32_t nf;

    if (rc == 0)
        rc = sl_recipe_assign(r, m, o, types, &nf, e);
    for (uint32_t i = 2, n = 0; rc == 0 && i < m->n_tensors; i += 2) {
        word[n++] = sl_type_info(types[i])->name[1];
        assert_int_equal(types[i + 1], SL_TYPE_F32);
        word[n] = '\0';
    }
    if (rc == 0)
        snprintf(word + 10, 6, " %c%c", sl_type_info(types[0])->name[1],
                 sl_type_info(types[1])->name[1]);
    sl_recipe_close(r);
    free(m->tensors);
    free(m);
    return rc;
}

static void expect(const char *text, const char *want)
{
    struct sl_error e = {0};
    char word[16];

    if (word_of(text, &plain, word, &e) < 0)
        fail_msg("%s", e.text);
    assert_string_equal(word, want);
}

static void test_layers(void **state)
{
    (void)state;
    expect("default q4_k", "4444444444 44");
    expect("* = q8_0\ndefault q4_k", "8888888888 88");
    expect("*ffn_down* layers 3-4 = q6_k\ndefault q2_k", "2226622222 22");
    expect("*ffn_down* layers 1,8- = q6_k # the edges\ndefault q2_k", "2622222266 22");
    expect("/ffn_down/ layers 0-/5,7 = q6_k\n\n default\tq2_k\r\n", "6222262622 22");
    expect("* layers 2-8/3 = q6_k\ndefault q2_k", "2262262262 22");
    expect("* layers dense = q6_k\ndefault q2_k", "6622222222 22");
    expect("* layers moe = q6_k\ndefault q2_k", "2266666666 22");
    expect("* layers first/5,last/10 = q6_k\ndefault q2_k", "6622222226 22");
    expect("* layers more_bits = q6_k\ndefault q2_k", "6226226266 22");
    expect("mixture q4_k_m", "6446446466 64");
    expect("*.ffn_down_exps.* layers 1-2 = q3_k\nmixture q4_k_m", "6336446466 64");
    /* first match wins; a rule may lead back to the mixture, or leave the tensor alone */
    expect("blk.?.ffn_down_exps.weight layers 0-3 = mixture\n* = q8_0\nmixture q4_k_m",
           "6446888888 88");
    expect("output.weight = keep\ndefault q4_k", "4444444444 34");
    expect("/^OUTPUT/ = q8_0\n/^output/ = q6_k\ndefault q4_k", "4444444444 64");
}

/* Which layers are dense (d) and which have experts (m), by the models' words for it. */
static void test_dense_layers(void **state)
{
    static const struct {
        struct sl_hparams hp;
        const char *want;
    } cases[] = {
        {{.n_layer = 6, .n_expert = 8, .n_layer_dense = 1}, "dmmmmm"},
        {{.n_layer = 6, .n_expert = 8, .n_layer_dense = 1, .n_dense_last = 2}, "dmmmdd"},
        {{.n_layer = 6, .n_expert = 8, .moe_step = 2}, "dmdmdm"},
        {{.n_layer = 6, .n_expert = 8, .moe_step = 1}, "mmmmmm"},
        {{.n_layer = 6, .n_expert = 2}, "mmmmmm"},
        {{.n_layer = 6, .n_expert = 1, .n_layer_dense = 1}, "------"}, /* no such words */
        {{.n_layer = 6}, "------"},
    };
    struct sl_recipe *dense, *moe;
    struct sl_error e;

    (void)state;
    assert_int_equal(sl_recipe_parse("d", "d", "* layers dense = q8_0\ndefault q4_k", &dense, &e), 0);
    assert_int_equal(sl_recipe_parse("m", "m", "* layers moe = q8_0\ndefault q4_k", &moe, &e), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int l = 0; l < 6; l++) {
            char name[32];

            snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", l);
            assert_int_equal(sl_rule_in_layers(&dense->rules[0], name, &cases[i].hp), cases[i].want[l] == 'd');
            assert_int_equal(sl_rule_in_layers(&moe->rules[0], name, &cases[i].hp), cases[i].want[l] == 'm');
        }
    sl_recipe_close(dense);
    sl_recipe_close(moe);
}

static void refuse(const char *text, const char *why)
{
    struct sl_error e = {0};
    char word[16];

    assert_int_equal(word_of(text, &plain, word, &e), SL_EUSAGE);
    if (!strstr(e.text, why))
        fail_msg("'%s' does not say '%s'", e.text, why);
}

static void test_refused(void **state)
{
    (void)state;
    refuse("", "t.recipe: no default type");
    refuse("default = q4_k", "'mixture NAME', without '='");
    refuse("default q4_k\nmixture q4_k_m", "both a default and a mixture");
    refuse("default q4_k\n\ndefault q5_k", "t.recipe:3: a second 'default'; expected one at most");
    refuse("default q4_k\nfile_type 9999999", "bad file_type '9999999'");
    refuse("\ndefault q4k", "t.recipe:2: unknown type 'q4k'; expected one of f32 f16 q4_0");
    refuse("default i32", "unknown type");
    refuse("# a\rb\ndefault q4_k", "t.recipe:1: a control character in '# a");
    refuse("default\rq4_k", "a control character");
    refuse("# \xc2\x9b" "2J\ndefault q4_k", "a control character"); /* C1's CSI */
    refuse("default q4_k_m", "t.recipe:1: unknown type 'q4_k_m'; expected a type; that mixture is asked for by a line 'mixture NAME'");
    refuse("mixture q9", "unknown mixture 'q9'");
    refuse("* q4_k", "PATTERN = TYPE");
    refuse("*=q4_k", "with spaces around '='");
    refuse("* layers = q4_k", "PATTERN = TYPE");
    refuse("* layers 4-3 = q4_k", "bad layers '4-3'");
    refuse("* layers 1,,2 = q4_k", "bad layers");
    refuse("* layers 1-9/0 = q4_k", "bad layers");
    refuse("* layers first/0 = q4_k", "bad layers");
    refuse("* layers 99999 = q4_k", "bad layers");
    refuse("/a(/ = q4_k", "t.recipe:1: 'a(' is no regular expression");
    refuse("/a = q4_k", "bad pattern");
    refuse("* = mixture\ndefault q4_k", "t.recipe:1: '= mixture' without a mixture");
    refuse("file_type wrong\ndefault q4_k", "unknown mixture");
    refuse("encoding a/b\ndefault q4_k", "bad encoding");
    refuse("encoding\ndefault q4_k", "exactly one");
    refuse("/^(.|..)+[0-9]$/ = q4_k\ndefault q4_k", "too many steps");
}

static void test_limits(void **state)
{
    char *text = malloc(70000);
    struct sl_error e = {0};
    struct sl_recipe *r;
    size_t n = 0;

    (void)state;
    memset(text, '#', 66000);
    text[66000] = '\0';
    assert_int_equal(sl_recipe_parse("x", "x", text, &r, &e), SL_EUSAGE);
    text[2000] = '\0';
    assert_int_equal(sl_recipe_parse("x", "x", text, &r, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "line too long"));
    strcpy(text + 1024, "\r\ndefault q4_k\n"); /* the line's end does not count */
    assert_int_equal(sl_recipe_parse("x", "x", text, &r, &e), 0);
    sl_recipe_close(r);
    for (int i = 0; i < 1001; i++)
        n += (size_t)sprintf(text + n, "a%d = q4_k\n", i);
    assert_int_equal(sl_recipe_parse("x", "x", text, &r, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "x:1001: too many rules"));
    free(text);
}

static void test_options(void **state)
{
    static const struct sl_type_override over[] = {
        {"BLK\\.[0-4]\\.ffn_DOWN", SL_TYPE_Q8_0}, {"ffn_down", SL_TYPE_Q2_K}};
    static const struct sl_type_override bad[] = {{"a[", SL_TYPE_Q8_0}};
    struct sl_recipe_opts o = plain;
    struct sl_error e = {0};
    char word[16];

    (void)state;
    o.overrides = over;
    o.n_overrides = 2;
    assert_int_equal(word_of("mixture q4_k_m", &o, word, &e), 0);
    assert_string_equal(word, "8888822222 64");
    o.overrides = bad;
    o.n_overrides = 1;
    assert_int_equal(word_of("mixture q4_k_m", &o, word, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "--tensor-type"));
    o = plain;
    o.pure = true;
    assert_int_equal(word_of("output.weight = q6_k\nmixture q4_k_m", &o, word, &e), 0);
    assert_string_equal(word, "4444444444 44");
    o.output_type = SL_TYPE_Q8_0;
    o.embedding_type = SL_TYPE_Q5_K;
    assert_int_equal(word_of("* = q2_k\nmixture q4_k_m", &o, word, &e), 0);
    assert_string_equal(word, "4444444444 85");
    o = plain;
    o.leave_output = true;
    assert_int_equal(word_of("mixture q4_k_m", &o, word, &e), 0);
    assert_string_equal(word, "6446446466 34");
    o = plain;
    assert_int_equal(word_of("mixture q2_k_s", &o, word, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "importance matrix"));
    o.has_imatrix = true;
    assert_int_equal(word_of("mixture q2_k_s", &o, word, &e), 0);
    /* a type of the table that is no output type, until a later version */
    o = plain;
    for (int t = SL_TYPE_F32; t < SL_TYPE_LIMIT; t++)
        if (sl_type_info(t) && !sl_type_info(t)->quantizes && t != SL_TYPE_F64
            && (t < SL_TYPE_I8 || t > SL_TYPE_I64)) {
            char text[64];

            snprintf(text, sizeof text, "default %s", sl_type_info(t)->name);
            assert_int_equal(word_of(text, &o, word, &e), SL_EUNSUPPORTED);
            assert_non_null(strstr(e.text, sl_type_info(t)->name));
        }
    o.any_type = true;
    assert_int_equal(word_of("default iq1_s", &o, word, &e), 0);
}

/* They have the embeddings' type, but where an option names them. */
static void test_per_layer_embeddings(void **state)
{
    static const struct sl_type_override over[] = {{"per_layer_token", SL_TYPE_Q8_0}};
    struct sl_recipe_opts o = plain;
    struct sl_model *m = ten_layers();
    struct sl_recipe *r;
    struct sl_error e = {0};
    int types[32];
    uint32_t n;

    (void)state;
    strcpy(m->tensors[0].name, "per_layer_token_embd.weight");
    o.embedding_type = SL_TYPE_Q5_K;
    assert_int_equal(sl_recipe_parse("x", "x", "mixture q4_k_m", &r, &e), 0);
    assert_int_equal(sl_recipe_assign(r, m, &o, types, &n, &e), 0);
    assert_true(types[0] == SL_TYPE_Q5_K && types[1] == SL_TYPE_Q5_K && types[2] != SL_TYPE_Q5_K);
    o.overrides = over;
    o.n_overrides = 1;
    assert_int_equal(sl_recipe_assign(r, m, &o, types, &n, &e), 0);
    assert_true(types[0] == SL_TYPE_Q8_0 && types[1] == SL_TYPE_Q5_K);
    sl_recipe_close(r);
    free(m->tensors);
    free(m);
}

static void test_load(void **state)
{
    char dir[] = "/tmp/recipe_test_XXXXXX", path[64];
    struct sl_error e = {0};
    struct sl_recipe *r;
    uint32_t n = 0;
    glob_t files;
    FILE *f;

    (void)state;
    for (uint32_t i = 0; sl_recipe_stock_name(i); i++, n++) {
        if (sl_recipe_load(sl_recipe_stock_name(i), &r, &e) < 0)
            fail_msg("%s", e.text);
        assert_string_equal(sl_recipe_name(r), sl_recipe_stock_name(i));
        assert_true(strlen(sl_recipe_advice(r)) > 10);
        assert_true(strlen(sl_recipe_text(r)) > 10);
        sl_recipe_close(r);
    }
    assert_int_equal(glob("proto/recipes/*.recipe", 0, NULL, &files), 0);
    assert_int_equal(n, files.gl_pathc);
    globfree(&files);
    assert_string_equal(sl_recipe_stock_name(0), "dq3_k_m");
    assert_int_equal(sl_recipe_load("UD_q2_k_XL", &r, &e), 0);
    assert_string_equal(sl_recipe_encoding(r), "UD-Q2_K_XL");
    assert_int_equal(sl_recipe_file_type(r), 10);
    sl_recipe_close(r);
    assert_int_equal(sl_recipe_load("q4_k_n", &r, &e), SL_EUSAGE);
    assert_non_null(strstr(e.text, "q4_k_m"));
    assert_null(strstr(e.text, "bf16"));
    assert_int_equal(sl_recipe_load("./nowhere", &r, &e), SL_EUSAGE);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/mine.recipe", dir);
    f = fopen(path, "w");
    fputs("# mine\nadvice of my own\ndefault q5_k\n", f);
    fclose(f);
    assert_int_equal(sl_recipe_load(path, &r, &e), 0);
    assert_string_equal(sl_recipe_name(r), "mine");
    assert_string_equal(sl_recipe_encoding(r), "MINE");
    assert_string_equal(sl_recipe_advice(r), "of my own");
    assert_int_equal(sl_recipe_file_type(r), 16);
    sl_recipe_close(r);
    setenv("SLUICE_RECIPES", dir, 1);
    assert_int_equal(sl_recipe_load("MINE", &r, &e), 0);
    sl_recipe_close(r);
    unsetenv("SLUICE_RECIPES");
    unlink(path);
    rmdir(dir);
}

/* The lines on rules and overrides that decide nothing; NULL when there are none. */
static char *idle_of(const char *text, const struct sl_type_override *over, uint32_t n, bool pure, bool tied)
{
    uint8_t used[64] = {0};
    struct sl_recipe_opts o = plain;
    struct sl_model *m = ten_layers();
    struct sl_recipe *r;
    struct sl_error e;
    int types[32];
    uint32_t nf;
    char *lines;

    o.overrides = over;
    o.n_overrides = n;
    o.pure = pure;
    o.used = used;
    m->tensors += tied;
    m->n_tensors -= tied;
    if (strchr(text, ' '))
        assert_int_equal(sl_recipe_parse("test", "t.recipe", text, &r, &e), 0);
    else
        assert_int_equal(sl_recipe_load(text, &r, &e), 0);
    assert_int_equal(sl_recipe_assign(r, m, &o, types, &nf, &e), 0);
    assert_int_equal(sl_recipe_idle(r, m, &o, types, &lines, &e), 0);
    sl_recipe_close(r);
    free(m->tensors - tied);
    free(m);
    return lines;
}

static void idle_is(const char *expected, char *lines)
{
    if (expected)
        assert_string_equal(lines ? lines : "(none)", expected);
    else
        assert_null(lines);
    free(lines);
}

static void test_idle(void **state)
{
    static const struct sl_type_override over[] = {{"ffn_down", SL_TYPE_Q6_K}, {"attn_k", SL_TYPE_Q8_0},
                                                   {"down_exps", SL_TYPE_Q5_K}, {"norm", SL_TYPE_Q4_0}};
    char many[1024] = "default q4_k\n", *lines;

    (void)state;
    idle_is(NULL, idle_of("*.ffn_down_exps.weight layers 3- = q6_k\noutput.weight = q6_k\ndefault q4_k\n", NULL, 0, false, false));
    idle_is("recipe t.recipe, line 2: '*.ffn_dwn.weight' matches no tensor of this model; 'sluice convert --dry-run' lists their names\n"
            "recipe t.recipe, line 3: '*_exps.weight' matches no tensor in these layers\n"
            "recipe t.recipe, line 4: 'norm' decides nothing: it matches only tensors that are never quantized\n"
            "recipe t.recipe, line 6: 'blk.7.*' decides nothing: an option or a rule before it decides every tensor that it "
            "matches\n",
            idle_of("default q4_k\n*.ffn_dwn.weight = q6_k\n*_exps.weight layers 10-20 = q6_k\n/norm/ = q6_k\n"
                    "*_exps.weight layers moe = q6_k\nblk.7.* = q8_0\n", NULL, 0, false, false));
    /* Another architecture's layers by their own words; recipes that are written for all. */
    idle_is(NULL, idle_of("default q4_k\n*.ffn_up.weight layers dense = q6_k\n", NULL, 0, false, false));
    idle_is(NULL, idle_of("dq3_k_m", NULL, 0, false, false));
    idle_is("--tensor-type: 'attn_k' matches no tensor of this model; 'sluice convert --dry-run' lists their names\n"
            "--tensor-type: 'down_exps' decides nothing: an option or a rule before it decides every tensor that it matches\n"
            "--tensor-type: 'norm' decides nothing: it matches only tensors that are never quantized\n",
            idle_of("dq3_k_m", over, 4, false, false));
    /* What gives the same type is no mistake: an option beside the recipe that was made with it. */
    idle_is(NULL, idle_of("*.ffn_down_exps.weight = q6_k\ndefault q4_k\n", over, 1, false, false));
    idle_is(NULL, idle_of("default q4_k\n/norm/ = f32\n", (const struct sl_type_override[]){{"norm", SL_TYPE_F32}}, 1, false,
                          false)); /* a list of another file's types names those too */
    idle_is("recipe t.recipe, line 1: '*_exps.weight' decides nothing: an option or a rule before it decides every tensor that "
            "it matches\n",
            idle_of("*_exps.weight layers 3- = q5_k\ndefault q4_k\n", (const struct sl_type_override[]){{"exps", SL_TYPE_Q6_K}}, 1,
                    false, false));
    idle_is(NULL, idle_of("nothing.weight = q6_k\ndefault q4_k\n", NULL, 0, true, false)); /* --pure asks no rule */
    idle_is("recipe t.recipe, line 1: 'token_embd.weight' decides nothing: in this model token_embd.weight is the output "
            "too, and rules see it as output.weight\n",
            idle_of("token_embd.weight = q6_k\ndefault q4_k\n", NULL, 0, false, true));
    for (int i = 0; i < 12; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "nothing.%d = q6_k\n", i);
    lines = idle_of(many, NULL, 0, false, false);
    assert_non_null(strstr(lines, "'nothing.9' matches no"));
    assert_null(strstr(lines, "'nothing.10'"));
    assert_string_equal(lines + strlen(lines) - strlen("2 more rules decide nothing\n"), "2 more rules decide nothing\n");
    free(lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers), cmocka_unit_test(test_dense_layers),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits), cmocka_unit_test(test_options),
        cmocka_unit_test(test_per_layer_embeddings), cmocka_unit_test(test_load),
        cmocka_unit_test(test_idle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
