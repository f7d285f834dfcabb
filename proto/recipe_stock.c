#include "proto/recipe.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define MAX_FILE (64 << 10)
#define MAX_PATH 4096

/* proto/recipes/ *.recipe, compiled in; sorted by name. */
static const struct {
    const char *name, *text;
} stock[] = {
#include "stock_recipes.inc"
};
#define N_STOCK (sizeof stock / sizeof stock[0])

/* The paper's recipes are listed first. */
static const char *const leading[] = {"dq3_k_m", "q4_k_m", "q3_k_m", "q2_k_l", "ud-q2_k_xl"};
#define N_LEADING (sizeof leading / sizeof leading[0])

static bool is_leading(const char *name)
{
    for (size_t i = 0; i < N_LEADING; i++)
        if (strcmp(leading[i], name) == 0)
            return true;
    return false;
}

const char *sl_recipe_stock_name(uint32_t i)
{
    if (i < N_LEADING)
        return leading[i];
    i -= N_LEADING;
    for (size_t k = 0; k < N_STOCK; k++)
        if (!is_leading(stock[k].name) && i-- == 0)
            return stock[k].name;
    return NULL;
}

/* Letter case does not count, nor '-' for '_'. */
static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++) {
        int x = *a == '-' ? '_' : tolower((unsigned char)*a);
        int y = *b == '-' ? '_' : tolower((unsigned char)*b);

        if (x != y)
            return false;
    }
    return *a == *b;
}

/* Edit distance of two short names, letter case ignored. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[65];
    size_t nb = strlen(b);

    if (nb > 64)
        return 100;
    for (unsigned j = 0; j <= nb; j++)
        row[j] = j;
    for (unsigned i = 1; *a; a++, i++) {
        unsigned diag = row[0];

        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned swap = diag + (tolower((unsigned char)*a) != tolower((unsigned char)b[j - 1]));

            diag = row[j];
            row[j] = row[j] + 1 < row[j - 1] + 1 ? row[j] + 1 : row[j - 1] + 1;
            row[j] = swap < row[j] ? swap : row[j];
        }
    }
    return row[nb];
}

static int unknown_name(const char *name, struct sl_error *e)
{
    char list[600] = "";
    size_t n = 0;

    for (int near = 1; near >= 0 && n == 0; near--)
        for (uint32_t i = 0; sl_recipe_stock_name(i) && n < sizeof list; i++)
            if (!near || distance(name, sl_recipe_stock_name(i)) <= 2)
                n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "",
                                      sl_recipe_stock_name(i));
    return sl_fail(e, SL_EUSAGE,
                   "unknown recipe '%s'; expected a path to a .recipe file or one of: %s", name,
                   list);
}

static int load_file(const char *path, const char *name, struct sl_recipe **out,
                     struct sl_error *e)
{
    static const char bom[] = "\xef\xbb\xbf"; /* some editors begin a file with it */
    FILE *f = fopen(path, "rb");
    char *text;
    size_t n;
    int rc;

    if (!f)
        return sl_fail(e, SL_EUSAGE, "%s: cannot open the recipe: %s", path, strerror(errno));
    text = malloc(MAX_FILE + 2);
    if (!text) {
        fclose(f);
        return sl_fail(e, SL_EFAIL, "out of memory");
    }
    n = fread(text, 1, MAX_FILE + 1, f);
    text[n] = '\0';
    if (ferror(f))
        rc = sl_fail(e, SL_EUSAGE, "%s: cannot read the recipe: %s", path, strerror(errno));
    else if (n > MAX_FILE || memchr(text, '\0', n))
        rc = sl_fail(e, SL_EUSAGE, "%s: no recipe; expected text of 64 KiB at most", path);
    else
        rc = sl_recipe_parse(name, path, text + (strncmp(text, bom, 3) == 0 ? 3 : 0), out, e);
    fclose(f);
    free(text);
    return rc;
}

static int load_path(const char *path, struct sl_recipe **out, struct sl_error *e)
{
    const char *base = strrchr(path, '/');
    char name[256];
    size_t n;

    snprintf(name, sizeof name, "%s", base ? base + 1 : path);
    n = strlen(name);
    if (n > 7 && strcmp(name + n - 7, ".recipe") == 0)
        name[n - 7] = '\0';
    return load_file(path, name, out, e);
}

/* Effect: looks for <dir>/<name in lower case>.recipe. Returns 1 when it was there and
 * was loaded, 0 when it was not there. */
static int load_from_dir(const char *dir, const char *sub, const char *name,
                         struct sl_recipe **out, struct sl_error *e)
{
    char path[MAX_PATH], lower[128];
    struct stat st;
    size_t i = 0;
    int n;

    for (; name[i] && i < sizeof lower - 1; i++)
        lower[i] = (char)tolower((unsigned char)name[i]);
    lower[i] = '\0';
    n = snprintf(path, sizeof path, "%s%s/%s.recipe", dir, sub, lower);
    if (n < 0 || (size_t)n >= sizeof path || stat(path, &st) != 0)
        return 0;
    SL_TRY(load_file(path, lower, out, e));
    return 1;
}

static int load_user(const char *name, struct sl_recipe **out, struct sl_error *e)
{
    const char *dir = getenv("SLUICE_RECIPES"), *xdg = getenv("XDG_CONFIG_HOME");
    const char *home = getenv("HOME");
    int rc = 0;

    if (dir && *dir)
        rc = load_from_dir(dir, "", name, out, e);
    if (rc == 0 && xdg && *xdg == '/')
        rc = load_from_dir(xdg, "/sluice/recipes", name, out, e);
    else if (rc == 0 && home && *home == '/')
        rc = load_from_dir(home, "/.config/sluice/recipes", name, out, e);
    return rc;
}

int sl_recipe_load(const char *name_or_path, struct sl_recipe **out, struct sl_error *e)
{
    size_t len = strlen(name_or_path);
    int rc;

    *out = NULL;
    if (strchr(name_or_path, '/')
        || (len > 7 && strcmp(name_or_path + len - 7, ".recipe") == 0))
        return load_path(name_or_path, out, e);
    rc = load_user(name_or_path, out, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    for (size_t i = 0; i < N_STOCK; i++) {
        char where[80];

        if (!same_name(stock[i].name, name_or_path))
            continue;
        snprintf(where, sizeof where, "recipe %s", stock[i].name);
        return sl_recipe_parse(stock[i].name, where, stock[i].text, out, e);
    }
    return unknown_name(name_or_path, e);
}
