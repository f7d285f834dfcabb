/* Fuzz target: what the daemon makes of messages. The input is lines; the first byte of
 * each says from whom it comes (worker, client, another worker, another client), the
 * rest is a message as received, or a jump of the clock. Whatever comes, every answer
 * is one that the table allows, a refusal says why, and the queue stays whole: it is
 * read anew at the end. tests/fuzz/wire_seeds has whole lives of jobs. */
#include "daemon/coordinator.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        __builtin_trap();
}

static void read_answers(struct sl_coord *c)
{
    struct sl_outgoing out;

    while (sl_coord_next(c, &out)) {
        struct sl_error e;
        struct sl_msg m;

        require(out.peer >= 1 && out.peer <= 4);
        require(sl_wire_decode(out.bytes, out.n, SL_FROM_DAEMON, &m, NULL, NULL, &e) == 0);
        if (m.id == SL_M_ERROR)
            require(sl_get_uint(m.tree, "code", 0) > 0 && sl_get_str(m.tree, "text")[0]);
        sl_msg_free(&m);
        free(out.bytes);
    }
}

static void one_line(struct sl_coord *c, struct sl_now *now, const uint8_t *line, size_t n)
{
    struct sl_peer from = {.role = SL_ROLE_ADMIN, .user = "uid:1"};
    struct sl_error e = {0};

    if (n == 0)
        return;
    now->run_ms += 10;
    if (line[0] == 't') { /* time passes */
        now->run_ms += n * 500;
        require(sl_coord_tick(c, *now, &e) == 0);
    } else {
        from.id = 1 + (line[0] & 3);
        from.role = line[0] & 4 ? SL_ROLE_ADMIN : from.id & 1 ? SL_ROLE_WORKER : SL_ROLE_SUBMITTER;
        from.user[4] = (char)('1' + (from.id > 2));
        require(sl_coord_receive(c, &from, line + 1, n - 1, *now, &e) == 0);
    }
    require(sl_coord_flush(c, *now, &e) == 0);
    read_answers(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const roots[] = {"/"};
    const struct sl_coord_opts o = {.heartbeat_ms = 1000, .lease_ms = 10000, .version = "f", .bytes_version = "1",
                                    .daemon_id = "000102030405060708090a0b0c0d0e0f", .state_dir = "/x",
                                    .roots = roots, .n_roots = 1};
    struct sl_now now = {1000, 1700000000000};
    struct sl_queue *q;
    struct sl_coord *c;
    struct sl_error e;

    require(sl_queue_open(":memory:", &q, &e) == 0 && sl_coord_open(q, &o, now, &c, &e) == 0);
    while (size > 0) {
        const uint8_t *end = memchr(data, '\n', size);
        size_t n = end ? (size_t)(end - data) : size;

        one_line(c, &now, data, n);
        data += n + (end != NULL);
        size -= n + (end != NULL);
    }
    require(sl_coord_settle(c, now, &e) == 0);
    read_answers(c);
    sl_coord_close(c);
    /* What is on disk can be gone on with. */
    require(sl_coord_open(q, &o, now, &c, &e) == 0);
    sl_coord_close(c);
    sl_queue_close(q);
    return 0;
}
