/* A coordinator that counts workers which go away, with few of them and short leases. */
#ifndef SLUICE_TESTS_LOST_WORLD_H
#define SLUICE_TESTS_LOST_WORLD_H

#include "coord_world.h"

#define LOSSES 3

static inline void start(struct world *w)
{
    static const char *const roots[] = {"/"};
    const struct sl_coord_opts o = {.heartbeat_ms = 1000, .lease_ms = 10000, .version = "t", .bytes_version = "1",
                                    .state_dir = "/x", .roots = roots, .n_roots = 1, .losses = LOSSES,
                                    .daemon_id = "000102030405060708090a0b0c0d0e0f", .no_process = w->no_process};

    if (sl_queue_open(w->path, &w->q, &w->e) < 0 || sl_coord_open(w->q, &o, w->now, &w->c, &w->e) < 0)
        fail_msg("%s", w->e.text);
}

static inline void again(struct world *w)
{
    world_stop(w);
    start(w);
    client(w, C);
}

static inline const char *error_of(struct world *w, uint64_t id)
{
    static char text[1024];
    const char *s;

    say(w, C, "{\"v\":3,\"m\":\"show\",\"job\":%llu}", (unsigned long long)id);
    s = sl_get_str(sl_get(expect(w, C, SL_M_JOB), "job"), "error");
    snprintf(text, sizeof text, "%s", s ? s : "");
    return text;
}

/* Nothing is heard of anybody else until leases are over. */
static inline void pass_lease(struct world *w)
{
    later(w, 11000, (const unsigned[]){C}, 1);
    heard(w, C, SL_M_STATUS); /* pings are not kept */
}

#endif
