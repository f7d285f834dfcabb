/* Clocks as milliseconds. */
#ifndef SLUICE_PROTO_CLOCK_H
#define SLUICE_PROTO_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds of this clock. */
static inline uint64_t sl_clock_ms(clockid_t clock)
{
    struct timespec t = {0, 0};

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* For durations and deadlines: counts on while the machine sleeps, nobody sets it. */
static inline uint64_t sl_boot_ms(void)
{
    return sl_clock_ms(CLOCK_BOOTTIME);
}

/* The same, but it stands still while the machine sleeps. */
static inline uint64_t sl_run_ms(void)
{
    return sl_clock_ms(CLOCK_MONOTONIC);
}

/* Since 1970, for people. */
static inline uint64_t sl_wall_ms(void)
{
    return sl_clock_ms(CLOCK_REALTIME);
}

#endif
