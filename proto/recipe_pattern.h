/* Patterns on tensor names: globs and regular expressions. */
#ifndef SLUICE_PROTO_RECIPE_PATTERN_H
#define SLUICE_PROTO_RECIPE_PATTERN_H

#include "proto/error.h"

#include <stdbool.h>
#include <stdint.h>

struct sl_pattern;

/* Effect: compiles a glob ('*': any run of characters, '?': one; the whole
 * name must match) or, with regex, a PCRE2 expression that is searched in the
 * name; with option as llama-quantize searches --tensor-type's: letter case does not
 * count, and [] is a class of nothing. Matching is bounded. Errors: SL_EUSAGE with what is wrong and where. */
int sl_pattern_compile(const char *text, bool regex, bool option, struct sl_pattern **out,
                       struct sl_error *e) SL_MUST_USE;
void sl_pattern_free(struct sl_pattern *p);
const char *sl_pattern_text(const struct sl_pattern *p);

#define SL_PATTERN_STEPS 20000u

/* Returns 1 (matches) or 0. Errors: SL_EUSAGE when the expression needs more
 * than SL_PATTERN_STEPS steps for this name; with the second more than so many, if those are fewer. */
int sl_pattern_match(const struct sl_pattern *p, const char *name, struct sl_error *e)
    SL_MUST_USE;
int sl_pattern_match_within(const struct sl_pattern *p, const char *name, uint32_t steps, struct sl_error *e) SL_MUST_USE;

#endif
