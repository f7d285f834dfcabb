/* sluice config: what is configured, and by what. */
#include "client/cli.h"
#include "client/model_arg.h"
#include "client/progress.h"
#include "proto/config_file.h"

#include <cjson/cJSON.h>
#include <string.h>

struct config_args {
    const char *file;
    int origin, json;
};

static void print_json(const struct sl_config_info *k, const struct sl_config_value *v)
{
    cJSON *o = cJSON_CreateObject(), *list;

    cJSON_AddStringToObject(o, "section", k->section);
    cJSON_AddStringToObject(o, "name", k->name);
    list = cJSON_AddArrayToObject(o, "values");
    for (unsigned i = 0; i < v->n; i++)
        cJSON_AddItemToArray(list, json_text(v->items[i], strlen(v->items[i])));
    cJSON_AddItemToObject(o, "origin", json_text(v->origin, strlen(v->origin)));
    cJSON_AddStringToObject(o, "environment", k->env);
    json_line(o, "setting");
}

static void print_all(const struct sl_config *c, const struct config_args *a)
{
    const char *section = "";

    for (int k = 0; k < SL_CONFIG_KEYS; k++) {
        const struct sl_config_info *info = sl_config_info((enum sl_config_key)k);
        const struct sl_config_value *v = sl_config_get(c, (enum sl_config_key)k);

        if (a->json) {
            print_json(info, v);
            continue;
        }
        if (strcmp(section, info->section) != 0)
            printf("%s[%s]\n", *section ? "\n" : "", info->section);
        section = info->section;
        if (a->origin)
            printf("; %s, from %s\n", info->help, v->origin);
        if (v->n == 0)
            printf("; %s =\n", info->name);
        for (unsigned i = 0; i < v->n; i++)
            printf("%s%s = %s\n", *v->items[i] ? "" : "; ", info->name, v->items[i]);
    }
}

static void print_files(const struct sl_config *c, bool json)
{
    char shown[CLI_SHOWN_BYTES];
    bool read;

    for (unsigned i = 0; sl_config_file(c, i, &read); i++) {
        const char *path = sl_config_file(c, i, &read);
        cJSON *o = json ? cJSON_CreateObject() : NULL;

        if (!json) {
            printf("%s  %s\n", read ? "read  " : "absent", cli_shown(shown, path));
            continue;
        }
        cJSON_AddItemToObject(o, "path", json_text(path, strlen(path)));
        cJSON_AddBoolToObject(o, "read", read);
        json_line(o, "file");
    }
}

static int config(const struct config_args *a, const char *what, struct sl_error *e)
{
    const struct sl_config_opts o = {.path = a->file, .system_socket = SL_CONFIG_SOCKET};
    struct sl_config *c;
    int rc;

    if (strcmp(what, "show") != 0 && strcmp(what, "files") != 0)
        return sl_fail(e, SL_EUSAGE, "'%s': expected show or files", what);
    SL_TRY(sl_config_open(&o, &c, e));
    if (strcmp(what, "show") == 0)
        print_all(c, a);
    else
        print_files(c, a->json);
    rc = sl_config_check_pairs(c, e);
    sl_config_close(c);
    return rc;
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct config_args a = {0};
    const struct poptOption table[] = {
        CLI_FLAG("origin", 0, &a.origin, "with each value: what it means, and the file and line, variable or default it is from"),
        CLI_TEXT("config", 0, &a.file, "this configuration file in place of the user's and the system's", "FILE"),
        CLI_FLAG("json", 0, &a.json, "JSON lines, one for each setting or file"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    int rc = cli_parse(&args, &cli_config, argc, argv, table, 1, 1, NULL, NULL, e);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = config(&a, args.pos[0], e);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_config = {
    "config", "show|files [OPTION...]",
    "Show the configuration, and which file or variable each value is from", run};
