/* The scratch of one compute thread. */
#include "worker/unit.h"

#include <stdlib.h>

static uint64_t floats_of(uint64_t longest_row)
{
    return longest_row > SL_CHUNK ? longest_row : SL_CHUNK;
}

uint64_t sl_scratch_bytes(const struct sl_needs *n)
{
    return (3 * floats_of(n->row) * sizeof(float) + 63) / 64 * 64 + SL_BANDS * n->band;
}

int sl_scratch_open(struct sl_scratch *s, const struct sl_needs *n, struct sl_error *e)
{
    uint64_t bytes = sl_scratch_bytes(n);

    s->floats = floats_of(n->row);
    s->x = aligned_alloc(64, bytes);
    for (unsigned i = 0; i < SL_BANDS && s->x; i++)
        s->band[i].data = (uint8_t *)s->x + bytes - (i + 1) * n->band;
    if (!s->x)
        return sl_fail(e, SL_EFAIL, "out of memory for a compute thread");
    s->w = s->x + s->floats;
    s->t = s->w + s->floats;
    s->w_rows = 0;
    s->zero_type = 0;
    return 0;
}

void sl_scratch_close(struct sl_scratch *s)
{
    free(s->x);
    s->x = NULL;
}
