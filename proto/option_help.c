#include "proto/option_help.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define HELP_COLUMN 32
#define HELP_WIDTH 96
#define HELP_LEAST 60 /* a terminal narrower than that wraps by itself */

static int width_of(FILE *to)
{
    struct winsize ws = {0};
    int width = HELP_WIDTH;

    if (isatty(fileno(to)))
        width = ioctl(fileno(to), TIOCGWINSZ, &ws) == 0 && ws.ws_col ? ws.ws_col : 80;
    return width > HELP_WIDTH ? HELP_WIDTH : width < HELP_LEAST ? HELP_LEAST : width;
}

void sl_print_wrapped(FILE *to, const char *text, int column)
{
    int room = width_of(to) - column;

    while (*text) {
        int n = (int)strlen(text);

        if (n > room) {
            for (n = room; n > 0 && text[n] != ' '; n--)
                ;
            n = n > 0 ? n : room;
        }
        fprintf(to, "%.*s\n", n, text);
        text += n;
        text += strspn(text, " ");
        if (*text)
            fprintf(to, "%*s", column, "");
    }
}

bool sl_option_is_last(const struct poptOption *t)
{
    return !t->longName && !t->shortName && !t->arg;
}

static void print_option(const struct poptOption *t)
{
    char left[96];
    int n = t->shortName ? snprintf(left, sizeof left, "  -%c, --%s", t->shortName, t->longName)
                         : snprintf(left, sizeof left, "      --%s", t->longName);

    if (t->argDescrip && n < (int)sizeof left)
        snprintf(left + n, sizeof left - (size_t)n, "=%s", t->argDescrip);
    printf("%-*s", HELP_COLUMN, left);
    if (strlen(left) >= HELP_COLUMN)
        printf("\n%*s", HELP_COLUMN, "");
    sl_print_wrapped(stdout, t->descrip, HELP_COLUMN);
}

static bool is_table(const struct poptOption *t)
{
    return (t->argInfo & POPT_ARG_MASK) == POPT_ARG_INCLUDE_TABLE;
}

/* Whether a table has options beside those of the tables in it. */
static bool has_own(const struct poptOption *t)
{
    while (!sl_option_is_last(t) && is_table(t))
        t++;
    return !sl_option_is_last(t);
}

void sl_print_options(const struct poptOption *table)
{
    for (const struct poptOption *t = table; !sl_option_is_last(t); t++)
        if (!is_table(t))
            print_option(t);
    for (const struct poptOption *t = table; !sl_option_is_last(t); t++)
        if (is_table(t)) {
            if (has_own(t->arg))
                printf("\n%s\n", t->descrip);
            sl_print_options(t->arg);
        }
}
