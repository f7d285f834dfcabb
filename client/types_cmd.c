#include "client/cli.h"
#include "client/term.h"

#include <cjson/cJSON.h>
#include <unistd.h>

static double bits(const struct sl_type_info *t)
{
    return 8.0 * t->bytes / t->block;
}

/* Integer and double types are copied, never chosen. */
static bool listed(int type)
{
    return sl_type_info(type) && (type < SL_TYPE_I8 || type > SL_TYPE_F64);
}

static int print_json(struct sl_error *e)
{
    cJSON *root = cJSON_CreateObject(), *list;

    cJSON_AddNumberToObject(root, "schema", 1);
    cJSON_AddStringToObject(root, "message_type", "types");
    list = cJSON_AddArrayToObject(root, "types");
    for (int i = 0; i < SL_TYPE_LIMIT; i++) {
        const struct sl_type_info *t = sl_type_info(i);
        cJSON *o;

        if (!listed(i))
            continue;
        o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", t->name);
        cJSON_AddNumberToObject(o, "id", i);
        cJSON_AddNumberToObject(o, "bits_per_weight", bits(t));
        cJSON_AddNumberToObject(o, "block", t->block);
        cJSON_AddNumberToObject(o, "block_bytes", t->bytes);
        cJSON_AddBoolToObject(o, "writable", t->quantizes);
        cJSON_AddStringToObject(o, "advice", t->advice);
        cJSON_AddItemToArray(list, o);
    }
    return cli_print_json(root, e);
}

static void print_list(void)
{
    int width = term_width(STDOUT_FILENO);

    printf("%-8s  %7s  %5s  %5s  %s\n", "Type", "Bits", "Block", "Write", "");
    for (int i = 0; i < SL_TYPE_LIMIT; i++) {
        const struct sl_type_info *t = sl_type_info(i);

        if (listed(i)) {
            int at = printf("%-8s  %7.4f  %5u  %5s  ", t->name, bits(t), t->block,
                            t->quantizes ? "yes" : "no");

            term_fold(stdout, t->advice, at, width);
        }
    }
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    int json = 0, rc;
    const struct poptOption table[] = {
        CLI_FLAG("json", 0, &json, "one JSON object on stdout"),
        POPT_TABLEEND,
    };
    struct cli_args a;

    rc = cli_parse(&a, &cli_types, argc, argv, table, 0, 0, NULL, NULL, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    if (json)
        rc = print_json(e);
    else
        print_list();
    cli_args_free(&a);
    return rc;
}

const struct cli_verb cli_types = {
    "types", "", "List the tensor types, their size, and what each is good for", run,
};
