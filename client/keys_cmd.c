/* sluice keys: CURVE key pairs for tcp endpoints. */
#include "client/cli.h"
#include "client/model_arg.h"
#include "client/progress.h"
#include "proto/keyring.h"
#include "proto/utf8.h"
#include "worker/dealer.h"

#include <cjson/cJSON.h>
#include <string.h>
#include <unistd.h>

struct keys_args {
    const char *role, *name;
    int show, json;
};

/* The allow-list's fourth word: no spaces, no control characters. */
static int check_name(const char *name, struct sl_error *e)
{
    size_t n = strlen(name);

    if (n == 0 || n > 64)
        return sl_fail(e, SL_EUSAGE, "--name: expected 1 to 64 characters");
    for (const char *p = name; *p; p += n) {
        n = sl_utf8_shown(p, strlen(p));
        if (n == 0 || *p == ' ' || *p == '#')
            return sl_fail(e, SL_EUSAGE, "--name '%s': expected a name in UTF-8 without spaces and '#'", name);
    }
    return 0;
}

static void print_key(const struct keys_args *a, const char *path, const struct sl_key *k)
{
    const char *role = sl_role_name(k->role);

    if (a->json) {
        cJSON *o = cJSON_CreateObject();

        cJSON_AddItemToObject(o, "path", json_text(path, strlen(path)));
        cJSON_AddStringToObject(o, "public", k->public_key);
        cJSON_AddStringToObject(o, "role", role);
        cJSON_AddStringToObject(o, "name", k->name);
        json_line(o, "key");
        return;
    }
    printf("%s key %s %s\n", role, k->public_key, k->name);
}

/* The allow-list's line: as the options say, else as the key was made, else a submitter of this host's name. */
static void settle_line(const struct keys_args *a, struct sl_key *k)
{
    if (a->role || k->role == SL_ROLE_NONE)
        k->role = a->role ? sl_role_by_name(a->role) : SL_ROLE_SUBMITTER;
    if (a->name)
        snprintf(k->name, sizeof k->name, "%s", a->name);
    else if (!k->name[0] && (gethostname(k->name, sizeof k->name - 1) != 0 || !k->name[0]))
        strcpy(k->name, "localhost");
}

static int keys(const struct keys_args *a, const char *path, struct sl_error *e)
{
    struct sl_key k;
    char shown[CLI_SHOWN_BYTES];
    int rc;

    if (a->role && sl_role_by_name(a->role) == SL_ROLE_NONE)
        return sl_fail(e, SL_EUSAGE, "--role '%s': expected worker, submitter or admin", a->role);
    if (a->name)
        SL_TRY(check_name(a->name, e));
    if (a->show)
        SL_TRY(sl_key_load(path, false, &k, e));
    else
        SL_TRY(sl_key_make(&k, e));
    settle_line(a, &k);
    rc = check_name(k.name, e);
    if (rc == 0 && !a->show)
        rc = sl_key_save(path, &k, e);
    explicit_bzero(k.secret_key, sizeof k.secret_key);
    SL_TRY(rc);
    print_key(a, path, &k);
    if (a->show)
        return 0;
    cli_shown(shown, path);
    fflush(stdout); /* before what is said of it, where both go to one place */
    fprintf(stderr, "sluice keys: %s holds both keys (0600: keep it), %s.pub the public one%s\n", shown, shown,
            a->json ? "" : "; the line above is for the daemon's allow-list");
    return 0;
}

static int run(int argc, const char **argv, struct sl_error *e)
{
    struct keys_args a = {0};
    const struct poptOption table[] = {
        CLI_TEXT("role", 0, &a.role, "what the allow-list's line permits (default submitter)", "worker|submitter|admin"),
        CLI_TEXT("name", 0, &a.name, "the name in that line (default: the host's)", "NAME"),
        CLI_FLAG("show", 0, &a.show, "make nothing: print the line of an existing key file"),
        CLI_FLAG("json", 0, &a.json, "one JSON line"),
        POPT_TABLEEND,
    };
    struct cli_args args;
    int rc = cli_parse(&args, &cli_keys, argc, argv, table, 1, 1, NULL, NULL, e);

    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = keys(&a, args.pos[0], e);
    cli_args_free(&args);
    return rc;
}

const struct cli_verb cli_keys = {
    "keys", "FILE [OPTION...]",
    "Make a key pair for tcp endpoints, and its line for the allow-list", run};
