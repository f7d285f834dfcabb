/* The words of --include-weights and --exclude-weights. */
#ifndef SLUICE_PROTO_WEIGHT_WORDS_H
#define SLUICE_PROTO_WEIGHT_WORDS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct sl_weight_words {
    const char *const *words;
    uint32_t n;  /* 0: every name is used */
    bool keep;   /* names with one of the words are used; otherwise those without */
};

/* Returns whether importance weights are used for the tensor of this name. */
static inline bool sl_weight_words_use(const struct sl_weight_words *w, const char *name)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (strstr(name, w->words[i]))
            return w->keep;
    return w->n == 0 || !w->keep;
}

#endif
