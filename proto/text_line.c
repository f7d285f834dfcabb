#include "proto/text_line.h"

#include <stdarg.h>
#include <stdlib.h>

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

int sl_text_close(FILE *f, char **text)
{
    int bad = ferror(f);

    if (fclose(f) == 0 && !bad && *text)
        return 0;
    free(*text);
    *text = NULL;
    return SL_EFAIL;
}
