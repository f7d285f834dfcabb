/* One configured value: text to number, by the key's type. */
#ifndef SLUICE_PROTO_CONFIG_VALUE_H
#define SLUICE_PROTO_CONFIG_VALUE_H

#include "proto/config_file.h"

/* Effect: checks text by its key's type and limits; *number as in
 * struct sl_config_value (0 for texts and paths). Errors: SL_EUSAGE,
 * "section.name: expected ..., not '...'". */
int sl_config_check(const struct sl_config_info *k, const char *text, uint64_t *number,
                    struct sl_error *e) SL_MUST_USE;

/* Effect: *ms from "500ms", "30s", "2min", "1h" or "1d". Returns false for anything else. */
bool sl_parse_duration(const char *text, uint64_t *ms);

#endif
