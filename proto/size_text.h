/* Sizes as people read them. */
#ifndef SLUICE_PROTO_SIZE_TEXT_H
#define SLUICE_PROTO_SIZE_TEXT_H

#include <stdint.h>

/* Effect: writes "281.3 GB" style text (decimal, 4 significant digits) to buf. Returns buf. */
const char *sl_size_text(char buf[32], uint64_t bytes);

#endif
