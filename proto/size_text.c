#include "proto/size_text.h"

#include <stdio.h>

const char *sl_size_text(char buf[32], uint64_t bytes)
{
    static const char *const names[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)bytes;
    int i = 0;

    while (v >= 999.95 && i < 6) {
        v /= 1000;
        i++;
    }
    snprintf(buf, 32, i ? "%.1f %s" : "%.0f %s", v, names[i]);
    return buf;
}
