#include "proto/model.h"

uint64_t sl_view_place(const struct sl_view *v, uint64_t i, uint64_t *len)
{
    const struct sl_view_part *p = v->part;
    uint64_t q, in;

    for (; i >= p->elems && p + 1 < v->part + v->n_parts; p++)
        i -= p->elems;
    q = i / p->run;
    in = i % p->run;
    *len = p->run - in;
    return p->first + q % p->n[0] * p->step[0] + q / p->n[0] % p->n[1] * p->step[1] + q / (p->n[0] * p->n[1]) * p->step[2] + in;
}
