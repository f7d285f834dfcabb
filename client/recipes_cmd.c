#include "client/cli.h"
#include "client/term.h"
#include "proto/text_line.h"

#include <cjson/cJSON.h>
#include <unistd.h>

static int add_json(cJSON *list, const char *name, struct sl_error *e)
{
    struct sl_recipe *r;
    cJSON *o;

    SL_TRY(sl_recipe_load(name, &r, e));
    o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "name", sl_recipe_name(r));
    cJSON_AddStringToObject(o, "encoding", sl_recipe_encoding(r));
    cJSON_AddNumberToObject(o, "file_type", sl_recipe_file_type(r));
    cJSON_AddStringToObject(o, "advice", sl_recipe_advice(r));
    cJSON_AddBoolToObject(o, "writable", sl_recipe_unwritable(r) < 0);
    cJSON_AddStringToObject(o, "text", sl_recipe_text(r));
    cJSON_AddItemToArray(list, o);
    sl_recipe_close(r);
    return 0;
}

static int print_json(const char *name, struct sl_error *e)
{
    cJSON *root = cJSON_CreateObject(), *list;
    int rc = 0;

    cJSON_AddNumberToObject(root, "schema", 1);
    cJSON_AddStringToObject(root, "message_type", "recipes");
    list = cJSON_AddArrayToObject(root, "recipes");
    if (name)
        rc = add_json(list, name, e);
    for (uint32_t i = 0; rc == 0 && !name && sl_recipe_stock_name(i); i++)
        rc = add_json(list, sl_recipe_stock_name(i), e);
    if (rc == 0)
        return cli_print_json(root, e);
    cJSON_Delete(root);
    return rc;
}

static int print_list(struct sl_error *e)
{
    int width = term_width(STDOUT_FILENO);

    for (uint32_t i = 0; sl_recipe_stock_name(i); i++) {
        struct sl_line advice = {.n = 0};
        struct sl_recipe *r;
        int type;

        SL_TRY(sl_recipe_load(sl_recipe_stock_name(i), &r, e));
        type = sl_recipe_unwritable(r);
        sl_line_add(&advice, "%s", sl_recipe_advice(r));
        if (type >= 0)
            sl_line_add(&advice, " (size only: this version cannot write %s)", sl_type_info(type)->name);
        printf("%-12s ", sl_recipe_name(r));
        term_fold(stdout, advice.text, 13, width);
        sl_recipe_close(r);
    }
    return 0;
}

static int print_text(const char *name, struct sl_error *e)
{
    struct sl_recipe *r;

    SL_TRY(sl_recipe_load(name, &r, e));
    term_print(sl_recipe_text(r));
    sl_recipe_close(r);
    return 0;
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    int json = 0, rc;
    const struct poptOption table[] = {
        CLI_FLAG("json", 0, &json, "one JSON object on stdout"),
        POPT_TABLEEND,
    };
    struct cli_args a;

    rc = cli_parse(&a, &cli_recipes, argc, argv, table, 0, 1, NULL, NULL, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (json)
        rc = print_json(a.n_pos ? a.pos[0] : NULL, e);
    else
        rc = a.n_pos ? print_text(a.pos[0], e) : print_list(e);
    cli_args_free(&a);
    return rc;
}

const struct cli_verb cli_recipes = {
    "recipes", "[NAME|FILE]", "List the stock recipes, or check one recipe and print its text", run,
};
