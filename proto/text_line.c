#include "proto/text_line.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void sl_line_add(struct sl_line *l, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(l->text + l->n, sizeof l->text - l->n, fmt, ap);
    va_end(ap);
    if (n > 0)
        l->n = l->n + (size_t)n < sizeof l->text ? l->n + (size_t)n : sizeof l->text - 1;
}

void sl_names_add(struct sl_names *l, const char *name, uint32_t most, size_t room)
{
    if (l->n == 0) {
        sl_line_add(&l->line, "%.200s", name);
        l->shown = 1;
    } else if (l->shown == l->n && l->shown < most && l->line.n + strlen(name) + 2 <= room) {
        sl_line_add(&l->line, ", %s", name);
        l->shown++;
    }
    l->n++;
}

const char *sl_names_text(struct sl_names *l)
{
    if (l->n > l->shown)
        sl_line_add(&l->line, " and %u more", l->n - l->shown);
    return l->line.text;
}

int sl_text_close(FILE *f, char **text)
{
    int bad = ferror(f);

    if (fclose(f) == 0 && !bad && *text)
        return 0;
    free(*text);
    *text = NULL;
    return SL_EFAIL;
}
