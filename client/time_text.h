/* Times as people and programs read them. */
#ifndef SLUICE_CLIENT_TIME_TEXT_H
#define SLUICE_CLIENT_TIME_TEXT_H

#include <stdint.h>

/* Effect: "2026-11-21T09:30:00.125Z" (RFC 3339, UTC) from milliseconds since 1970. Returns buf. */
const char *time_utc(char buf[32], uint64_t ms);

/* Effect: "09:30:00" of today, "Nov 21 09:30" of this year's other days, else
 * "2025-11-21", in local time. Returns buf. */
const char *time_short(char buf[32], uint64_t ms, uint64_t now_ms);

/* Effect: "2:05", "1:02:03", "3d 04:05:06" from milliseconds. Returns buf. */
const char *time_span(char buf[32], uint64_t ms);

/* Effect: what is left at a rate per second, as time_span, "--:--" without one. */
const char *time_left(char buf[32], uint64_t bytes, uint64_t rate);

#endif
