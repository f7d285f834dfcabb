#include "client/columns.h"

#include "client/term.h"
#include "proto/utf8.h"
#include "proto/wire.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <string.h>

#define LAST_MIN 24 /* what the last column keeps at least */

static const struct column *find(const struct column *all, const char *name, size_t n)
{
    for (; all->name; all++)
        if (strlen(all->name) == n && strncmp(all->name, name, n) == 0)
            return all;
    return NULL;
}

static int unknown(const struct column *all, const char *name, size_t n, struct sl_error *e)
{
    char list[700] = "";
    size_t used = 0;

    for (; all->name && used < sizeof list; all++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                                 all->name);
    return sl_fail(e, SL_EUSAGE, "-o: '%.*s' is no field; there are: %s, and all for every one",
                   (int)(n > 64 ? 64 : n), name, list);
}

int columns_choose(const struct column *all, const char *names, struct columns *out,
                   struct sl_error *e)
{
    memset(out, 0, sizeof *out);
    if (strcmp(names, "all") == 0) {
        for (; all->name && out->n < COLUMNS_MAX; all++)
            out->column[out->n++] = all;
        return 0;
    }
    for (const char *p = names;; p++) {
        size_t n = strcspn(p, ",");
        const struct column *c = find(all, p, n);

        if (!c)
            return unknown(all, p, n, e);
        if (out->n == COLUMNS_MAX)
            return sl_fail(e, SL_EUSAGE, "-o: more than %d fields", COLUMNS_MAX);
        out->column[out->n++] = c;
        p += n;
        if (!*p)
            return 0;
    }
}

/* A text or a number; "" of anything else. */
static const char *plain(const cJSON *v, char number[32])
{
    number[0] = 0;
    if (cJSON_IsNumber(v))
        snprintf(number, 32, "%.0f", v->valuedouble);
    return cJSON_IsString(v) ? v->valuestring : number;
}

void column_cell(const struct column *c, const cJSON *record, bool raw, char out[CELL_MAX])
{
    const cJSON *v, *item;
    char number[32];
    size_t n = 0;

    if (c->text) {
        c->text(record, raw, out);
        return;
    }
    v = sl_get(record, c->name);
    snprintf(out, CELL_MAX, "%s", plain(v, number));
    cJSON_ArrayForEach(item, v)
        if (n < CELL_MAX)
            n += (size_t)snprintf(out + n, CELL_MAX - n, "%s%s", n ? "," : "", plain(item, number));
}

static void print_part(FILE *to, const char *text, bool escaped)
{
    for (; *text; text++) {
        if (escaped && *text == '\n') {
            fputs("\\n", to);
            continue;
        }
        if (escaped && (*text == '|' || *text == '\\'))
            putc('\\', to);
        putc(*text, to);
    }
}

void column_print(FILE *to, const struct column *c, const cJSON *record, bool raw)
{
    const cJSON *v = c->text ? NULL : sl_get(record, c->name), *item;
    char cell[CELL_MAX] = "";

    if (c->text)
        c->text(record, raw, cell);
    print_part(to, v ? plain(v, cell) : cell, raw);
    cJSON_ArrayForEach(item, v) {
        if (item != v->child)
            putc(',', to);
        print_part(to, plain(item, cell), raw);
    }
}

static void print_parsable(FILE *to, const struct columns *c, const cJSON *array)
{
    const cJSON *record;

    cJSON_ArrayForEach(record, array) {
        for (unsigned i = 0; i < c->n; i++) {
            if (i)
                putc('|', to);
            column_print(to, c->column[i], record, true);
        }
        putc('\n', to);
    }
}

static const char *colour_of(const char *state)
{
    static const struct {
        const char *state, *colour;
    } table[] = {
        {"succeeded", "\033[32m"}, {"failed", "\033[31m"},    {"running", "\033[36m"},
        {"stitching", "\033[36m"}, {"verifying", "\033[36m"}, {"held", "\033[33m"},
        {"cancelled", "\033[33m"}, {"interrupted", "\033[33m"}, {"busy", "\033[36m"},
        {"silent", "\033[31m"},    {"draining", "\033[33m"},
    };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].state, state) == 0)
            return table[i].colour;
    return NULL;
}

/* One cell; room: columns left on the line, negative for any number. */
static void print_cell(FILE *to, const char *text, int width, bool right, bool last, int room,
                       bool colour)
{
    int have = term_columns(text, strlen(text));
    int pad = width > have ? width - have : 0;
    size_t n = strlen(text);
    const char *paint = colour ? colour_of(text) : NULL;

    if (room >= 0 && have > room) {
        n = term_fit(text, room > 3 ? room - 3 : room);
        fprintf(to, "%.*s%s", (int)n, text, room > 3 ? "..." : "");
        return;
    }
    if (right)
        fprintf(to, "%*s", pad, "");
    if (paint)
        fprintf(to, "%s%s\033[0m", paint, text);
    else
        fputs(text, to);
    if (!right && !last)
        fprintf(to, "%*s", pad, "");
}

static void title(const struct column *c, char out[CELL_MAX])
{
    size_t i = 0;

    for (; c->name[i] && i < CELL_MAX - 1; i++)
        out[i] = c->name[i] == '_' ? ' ' : (char)toupper((unsigned char)c->name[i]);
    out[i] = 0;
}

/* A line of cells: a record's, or the head when record is NULL. */
static void print_line(FILE *to, const struct columns *c, const int *widths, const cJSON *record,
                       int width, bool colour)
{
    char cell[CELL_MAX];
    int at = 0;

    for (unsigned i = 0; i < c->n; i++) {
        bool last = i + 1 == c->n;

        if (record)
            column_cell(c->column[i], record, false, cell);
        else
            title(c->column[i], cell);
        sl_utf8_disarm(cell);
        print_cell(to, cell, widths[i], c->column[i]->right, last,
                   last && width && width > at ? width - at : -1,
                   colour && record && strcmp(c->column[i]->name, "state") == 0);
        if (!last)
            fputs("  ", to);
        at += widths[i] + 2;
    }
    putc('\n', to);
}

/* Widths of the columns; returns the line's, of which the last column may be cut. */
static int measure(const struct columns *c, const cJSON *array, int *widths)
{
    const cJSON *record;
    char cell[CELL_MAX];
    int sum = 0;

    for (unsigned i = 0; i < c->n; i++) {
        widths[i] = (int)strlen(c->column[i]->name);
        cJSON_ArrayForEach(record, array) {
            int n;

            column_cell(c->column[i], record, false, cell);
            sl_utf8_disarm(cell);
            n = term_columns(cell, strlen(cell));
            widths[i] = n > widths[i] ? n : widths[i];
        }
        sum += i + 1 < c->n ? widths[i] + 2 : widths[i] > LAST_MIN ? LAST_MIN : widths[i];
    }
    return sum;
}

static void leave_out(struct columns *c, const char *name, size_t n)
{
    for (unsigned i = 0; i + 1 < c->n; i++)
        if (strlen(c->column[i]->name) == n && strncmp(c->column[i]->name, name, n) == 0) {
            memmove(c->column + i, c->column + i + 1, (c->n - i - 1) * sizeof c->column[0]);
            c->n--;
            return;
        }
}

void columns_print(FILE *to, const struct columns *chosen, const cJSON *array,
                   enum columns_form form, int width, bool colour)
{
    struct columns fit = *chosen;
    const struct columns *c = &fit;
    const char *drop = width && chosen->drop ? chosen->drop : "";
    int widths[COLUMNS_MAX];
    const cJSON *record;

    if (form == COLUMNS_PARSABLE) {
        print_parsable(to, c, array);
        return;
    }
    while (measure(c, array, widths) > width && *drop) {
        size_t n = strcspn(drop, ",");

        leave_out(&fit, drop, n);
        drop += n + (drop[n] == ',');
    }
    print_line(to, c, widths, NULL, width, false);
    cJSON_ArrayForEach(record, array)
        print_line(to, c, widths, record, width, colour);
}
