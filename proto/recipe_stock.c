#include "proto/recipe_rules.h"

#include "proto/suffix.h"
#include "proto/suggest.h"
#include "proto/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

#define LOWER_MAX 128

static const char *lower_case(char to[LOWER_MAX], const char *name)
{
    size_t i = 0;

    for (; name[i] && i < LOWER_MAX - 1; i++)
        to[i] = (char)tolower((unsigned char)name[i]);
    to[i] = '\0';
    return to;
}

/* llama-quantize's short names mean mixtures. */
static const char *whole_name(const char *name)
{
    static const char *const short_names[][2] = {
        {"q3_k", "q3_k_m"}, {"q4_k", "q4_k_m"}, {"q5_k", "q5_k_m"}};

    for (size_t i = 0; i < sizeof short_names / sizeof *short_names; i++)
        if (same_name(name, short_names[i][0]))
            return short_names[i][1];
    return name;
}

/* The mixture of a number (llama.cpp's ftype), or NULL. */
static const char *name_of_number(const char *text)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    if (!isdigit((unsigned char)*text) || *end)
        return NULL;
    for (uint32_t i = 0; sl_mixture_at(i); i++)
        if (sl_mixture_file_type(sl_mixture_at(i)) == v)
            return sl_mixture_name(sl_mixture_at(i));
    return NULL;
}

static const char *stock_text(const char *name, const char **stock_name)
{
    const char *by_number = name_of_number(name), *wanted = by_number ? by_number : whole_name(name);

    for (size_t i = 0; i < N_STOCK; i++)
        if (same_name(stock[i].name, wanted)) {
            *stock_name = stock[i].name;
            return stock[i].text;
        }
    return NULL;
}

/* Whether a recipe's name is nearly what was typed, or begins with it. */
static bool is_near(const char *stock_name, const char *typed)
{
    size_t n = strlen(typed);

    return suggest_distance(typed, stock_name) <= (*typed == *stock_name ? 2 : 1)
           || (n > 1 && strncmp(typed, stock_name, n) == 0);
}

static int unknown_name(const char *name, struct sl_error *e)
{
    char list[600] = "", lower[LOWER_MAX];
    size_t n = 0;

    if (same_name(name, "nvfp4"))
        return sl_fail(e, SL_EUSAGE, "%s is a type of llama.cpp's that Sluice does not write; "
                       "'sluice recipes' lists what it writes", name);
    if (isdigit((unsigned char)*name) && strspn(name, "0123456789") == strlen(name))
        return sl_fail(e, SL_EUSAGE, "%s is no number of a file type (llama.cpp's ftype) that Sluice writes; "
                       "'sluice recipes --json' shows them as file_type", name);
    for (uint32_t i = 0; sl_recipe_stock_name(i) && n < sizeof list; i++)
        if (is_near(sl_recipe_stock_name(i), lower_case(lower, name)))
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : ", such as: ",
                                  sl_recipe_stock_name(i));
    return sl_fail(e, SL_EUSAGE, "unknown recipe '%s'; expected a path to a .recipe file, or a name that 'sluice "
                   "recipes' lists%s", name, list);
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
    text = malloc(SL_RECIPE_MAX + 2);
    if (!text) {
        fclose(f);
        return sl_no_memory(e);
    }
    n = fread(text, 1, SL_RECIPE_MAX + 1, f);
    text[n] = '\0';
    if (ferror(f))
        rc = sl_fail(e, SL_EUSAGE, "%s: cannot read the recipe: %s", path, strerror(errno));
    else if (n > SL_RECIPE_MAX || memchr(text, '\0', n))
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
    n = sl_stem(name, ".recipe");
    if (n)
        name[n] = '\0';
    sl_utf8_disarm(name); /* it becomes metadata; a file's name may be no text */
    return load_file(path, name, out, e);
}

/* Effect: looks for <dir>/<name in lower case>.recipe. Returns 1 when it was there and
 * was loaded, 0 when it was not there. */
static int load_from_dir(const char *dir, const char *sub, const char *name,
                         struct sl_recipe **out, struct sl_error *e)
{
    char path[MAX_PATH], lower[LOWER_MAX];
    struct stat st;
    int n = snprintf(path, sizeof path, "%s%s/%s.recipe", dir, sub, lower_case(lower, name));

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

    *out = NULL;
    if (dir && *dir)
        rc = load_from_dir(dir, "", name, out, e);
    if (rc == 0 && xdg && *xdg == '/')
        rc = load_from_dir(xdg, "/sluice/recipes", name, out, e);
    else if (rc == 0 && home && *home == '/')
        rc = load_from_dir(home, "/.config/sluice/recipes", name, out, e);
    return rc;
}

static bool is_path(const char *s)
{
    return strchr(s, '/') || sl_stem(s, ".recipe");
}

int sl_recipe_load(const char *name_or_path, struct sl_recipe **out, struct sl_error *e)
{
    char where[80];
    const char *name, *text;
    int rc;

    *out = NULL;
    if (is_path(name_or_path))
        return load_path(name_or_path, out, e);
    rc = load_user(name_or_path, out, e);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    text = stock_text(name_or_path, &name);
    if (!text)
        return unknown_name(name_or_path, e);
    snprintf(where, sizeof where, "recipe %s", name);
    SL_TRY(sl_recipe_parse(name, where, text, out, e));
    (*out)->stock = true;
    return 0;
}

bool sl_recipe_is_stock(const char *name, const char *text)
{
    for (size_t i = 0; i < N_STOCK; i++)
        if (strcmp(stock[i].name, name) == 0)
            return strcmp(stock[i].text, text) == 0;
    return false;
}

int sl_recipe_earlier(const struct sl_recipe *now, const char *name, const char *text, struct sl_recipe **out,
                      struct sl_error *e)
{
    *out = NULL;
    if (!now->stock || strcmp(now->name, name) != 0 || strcmp(now->text, text) == 0)
        return 0;
    SL_TRY(sl_recipe_parse(name, now->where, text, out, e));
    (*out)->stock = true;
    return 1;
}

bool sl_recipe_known(const char *name_or_path)
{
    struct sl_recipe *r;
    struct sl_error e;
    const char *name;

    if (is_path(name_or_path))
        return sl_stem(name_or_path, ".recipe") > 0;
    if (stock_text(name_or_path, &name))
        return true;
    if (load_user(name_or_path, &r, &e) == 0)
        return false;
    sl_recipe_close(r);
    return true;
}
