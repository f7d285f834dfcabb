#include "proto/random_hex.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/types.h>

int sl_random_hex(char *text, unsigned digits, struct sl_error *e)
{
    uint8_t bytes[64];

    if (digits > 2 * sizeof bytes || getrandom(bytes, digits / 2, 0) != (ssize_t)(digits / 2))
        return sl_fail(e, SL_EFAIL, "no random numbers: %s", strerror(errno));
    for (unsigned i = 0; i < digits / 2; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}
