#include "proto/random_hex.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int sl_random_hex(char text[33], struct sl_error *e)
{
    uint8_t bytes[16];

    if (getentropy(bytes, sizeof bytes) != 0)
        return sl_fail(e, SL_EFAIL, "no random numbers: %s", strerror(errno));
    for (unsigned i = 0; i < sizeof bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}
