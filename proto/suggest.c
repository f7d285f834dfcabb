#include "proto/suggest.h"

#include <limits.h>
#include <string.h>

#define WORD_MAX 40

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Optimal string alignment distance; three rows are enough. */
unsigned suggest_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned row[3][WORD_MAX + 1];

    if (n > WORD_MAX || m > WORD_MAX)
        return UINT_MAX;
    for (size_t j = 0; j <= m; j++)
        row[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            now[j] = least(least(last[j], now[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

void suggest_try(struct suggestion *s, const char *candidate)
{
    size_t n = strlen(s->word), m = strlen(candidate);
    unsigned d;

    if (n < 2)
        return;
    d = n >= 3 && m > n && strncmp(s->word, candidate, n) == 0 ? 1 : suggest_distance(s->word, candidate);
    if (d > (n < 6 ? 1 : n / 3) || (s->best && d >= s->distance))
        return;
    s->best = candidate;
    s->distance = d;
}
