/* Ends of names. */
#ifndef SLUICE_PROTO_SUFFIX_H
#define SLUICE_PROTO_SUFFIX_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Returns the length of name without the suffix; 0 when it does not end in it, or is nothing else. */
static inline size_t sl_stem(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);

    return n > s && strcmp(name + n - s, suffix) == 0 ? n - s : 0;
}

static inline bool sl_ends_with(const char *name, const char *suffix)
{
    return strcmp(name, suffix) == 0 || sl_stem(name, suffix);
}

#endif
