#include "worker/engine_parts.h"
#include "worker/unit_packed.h"

#include <string.h>

/* Bounds of sl_unit_needs: source bytes of one weight with a scale of its own,
 * and a row that is left to fail by itself. */
#define SRC_BYTES_MAX 12
#define ROW_BYTES_MAX ((uint64_t)1 << 30)
/* Slabs of at least this size have room to place the output by its file's pages. */
#define ALIGN_FROM ((uint64_t)1 << 20)

static uint64_t up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* Upper bound of the slab bytes for a run's weights, whatever its place. */
static uint64_t weights_room(uint64_t bytes)
{
    return bytes >= SL_UNIT_BIG ? up(bytes, 4096) + 2 * 4096 : up(bytes, 64) + 64;
}

static uint64_t scales_room(uint64_t n, uint32_t stored)
{
    return n ? up(n * stored, 64) + up(n * sizeof(float), 64) + 128 : 0;
}

/* Everything about a run's source that sizes depend on. */
struct source {
    const struct sl_model_src *ms;
    const struct sl_dtype_info *dt;
    uint32_t scale_bytes; /* of one stored scale; 0: no scales */
    bool narrow;
};

static struct source source_of(const struct sl_unit_env *env, uint32_t src)
{
    struct source s = {.ms = &env->plan->model->src[src]};
    const struct sl_scale *sc = &s.ms->scale;

    s.dt = sl_dtype_info((int)s.ms->dtype);
    if (sc->tensor != SL_NO_TENSOR) {
        s.scale_bytes = sl_dtype_info((int)env->ck->tensors[sc->tensor].dtype)->bytes;
        s.narrow = !sc->zeros && !sc->order && sc->cols > env->slab_bytes / 8 / (s.scale_bytes + sizeof(float));
    }
    return s;
}

/* Sets first, elems and scales of a run. */
static void set_run(const struct source *s, uint32_t src, uint64_t first, uint64_t n,
                    struct sl_unit_run *r)
{
    const struct sl_scale *sc = &s->ms->scale;
    uint64_t row0 = first / s->ms->cols, row1 = (first + n - 1) / s->ms->cols;

    memset(r, 0, sizeof *r);
    r->src = src;
    r->first = first;
    r->elems = n;
    if (!s->scale_bytes)
        return;
    if (sc->packing != SL_PACKED_ALONG) {
        sl_packed_set(s->ms, s->scale_bytes, r);
        return;
    }
    r->scale_row0 = sl_scale_row(sc, row0);
    r->narrow = s->narrow;
    if (s->narrow) {
        uint64_t col = first % s->ms->cols, b = col / sc->block_cols;

        r->scale_first = r->scale_row0 * sc->cols + b;
        r->n_scales = (col + n - 1) / sc->block_cols - b + 1;
    } else {
        r->scale_first = r->scale_row0 * sc->cols;
        r->n_scales = (sl_scale_row(sc, row1) - r->scale_row0 + 1) * sc->cols;
    }
    sl_packed_set(s->ms, s->scale_bytes, r);
}

/* The slab as it is being filled from both ends. */
struct room {
    uint64_t bytes, used;
    const struct sl_type_info *type;
    uint64_t slack;  /* so that the output can lie as it will in its file */
    uint64_t elems;  /* of the output so far */
    bool raw;        /* no output area */
};

/* Upper bound of the slab bytes that a run takes. */
static uint64_t run_room(const struct source *s, const struct sl_unit_run *r)
{
    uint64_t parts = sl_packed_room(r);

    return r->rows ? parts : weights_room(sl_elem_bytes(s->dt, r->elems)) + scales_room(r->n_scales, s->scale_bytes) + parts;
}

static bool fits(const struct room *room, const struct source *s, const struct sl_unit_run *r)
{
    uint64_t out = room->raw ? 0 : up((room->elems + r->elems) / room->type->block * room->type->bytes
                                      + room->type->bytes, 64) + room->slack;

    return room->used + run_room(s, r) + out <= room->bytes;
}

/* The most elements, a multiple of grain and at most limit, that still fit; 0: none. */
static uint64_t most(const struct room *room, const struct source *s, uint32_t src, uint64_t first,
                     uint64_t limit, uint64_t grain)
{
    uint64_t lo = 0, hi = (limit < room->bytes ? limit : room->bytes) / grain;
    struct sl_unit_run r;

    while (lo < hi) {
        uint64_t mid = hi - (hi - lo) / 2;

        set_run(s, src, first, mid * grain, &r);
        if (fits(room, s, &r))
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo * grain;
}

/* Gives the run its places in the slab; fits() held. packed: rows are read one
 * by one, without their pages. */
static void place(struct room *room, const struct source *s, struct sl_unit_run *r, bool packed)
{
    uint64_t bytes = sl_elem_bytes(s->dt, r->elems);
    bool big = bytes >= SL_UNIT_BIG && !packed;

    room->elems += r->elems;
    if (r->rows) {
        room->used = sl_packed_place(r, room->used);
        return;
    }
    r->place = up(room->used, big ? 4096 : 64);
    r->at = r->place;
    room->used = r->place + (big ? up(bytes, 4096) + 4096 : bytes);
    if (r->n_scales) {
        r->scale_raw = up(room->used, 64);
        r->scale_f32 = up(r->scale_raw + r->n_scales * s->scale_bytes, 64);
        room->used = r->scale_f32 + r->n_scales * sizeof(float);
    }
    room->used = sl_packed_place(r, room->used);
}

/* Where output element i of a tensor begins in its sources, and how many
 * follow it there in order. */
static void locate(const struct sl_unit_env *env, const struct sl_cut *c,
                   const struct sl_out_tensor *t, uint64_t i, uint32_t *src, uint64_t *first,
                   uint64_t *len)
{
    const struct sl_model_src *ms = &env->plan->model->src[t->first_src];

    *src = t->first_src;
    if (t->transform == SL_V_B) {
        uint64_t head = t->v_dim * t->lora, h = i / head, o = i % head;

        *first = (h * ((uint64_t)t->nope + t->v_dim) + t->nope) * t->lora + o;
        *len = head - o;
    } else if (t->transform == SL_VIEW) {
        *first = sl_view_place(t->view, i, len);
    } else if (t->transform == SL_PERMUTE) {
        uint64_t cols = t->n_dims == 1 ? 1 : ms->cols, d = t->elems / cols / t->heads;
        uint64_t row = i / cols, j = row % d;

        *first = (row - j + j % 2 * (d / 2) + j / 2) * cols + i % cols;
        *len = cols - i % cols;
    } else {
        *src += (uint32_t)(i / c->per_src);
        *first = i % c->per_src;
        *len = c->per_src - *first;
    }
}

/* Whether output bytes of the tensor are source bytes. Blocks and integers that keep their type are not rounded. */
static bool same_bytes(const struct sl_plan_tensor *pt, const struct sl_model_src *ms, bool round)
{
    const struct sl_type_info *ti = sl_type_info(pt->type);

    if (pt->t->transform == SL_IDS || pt->t->change || ms->scale.tensor != SL_NO_TENSOR ||
        (round && pt->type != SL_TYPE_BF16 && ti->block == 1 && ti->quantizes))
        return false;
    return sl_type_of_dtype((int)ms->dtype) == pt->type;
}

/* Member i of the group, or env itself where there is none. */
static const struct sl_unit_env *member(const struct sl_unit_env *env, unsigned i)
{
    return env->group ? &env->group[i].env : env;
}

static unsigned members(const struct sl_unit_env *env)
{
    return env->group ? env->n_group : 1;
}

/* The type that needs the most room for a tensor. */
static const struct sl_type_info *widest(const struct sl_unit_env *env, uint32_t tensor)
{
    const struct sl_type_info *best = NULL;

    for (unsigned i = 0; i < members(env); i++) {
        const struct sl_type_info *t = sl_type_info(member(env, i)->plan->tensors[tensor].type);

        if (!best || (uint64_t)t->bytes * best->block > (uint64_t)best->bytes * t->block)
            best = t;
    }
    return best;
}

static bool rounds(const struct sl_unit_env *env, const struct sl_out_tensor *t)
{
    return env->round_bf16 && !t->keep_f32 && !t->outtype_f32 && t->transform != SL_INLINE;
}

static bool copies(const struct sl_unit_env *env, uint32_t tensor, const struct sl_model_src *ms)
{
    const struct sl_plan_tensor *pt = &env->plan->tensors[tensor];

    return same_bytes(pt, ms, rounds(env, pt->t));
}

static uint64_t slack(const struct sl_unit_env *env)
{
    return env->slab_bytes < ALIGN_FROM ? 0 : 4096;
}

static void place_output(const struct sl_unit_env *env, const struct sl_plan_tensor *pt, struct sl_unit *u)
{
    u->out_bytes = sl_type_bytes(pt->type, u->elems);
    u->file_at = pt->file_offset + sl_type_bytes(pt->type, u->elem0);
    u->out_at = env->slab_bytes - u->out_bytes;
    u->out_at -= slack(env) ? (u->out_at - u->file_at) % 4096 : u->out_at % 64;
}

void sl_unit_turn(const struct sl_unit_env *env, struct sl_unit *u)
{
    const struct sl_plan_tensor *pt = &env->plan->tensors[u->tensor];

    u->weighted = env->weights.has && sl_type_info(pt->type)->block > 1 &&
                  env->weights.has(env->weights.user, u->tensor);
    u->round = rounds(env, pt->t);
    u->raw = u->mode == SL_UNIT_IN_ORDER && u->n_runs == 1 &&
             copies(env, u->tensor, &env->plan->model->src[u->run[0].src]);
    place_output(env, pt, u);
    if (u->raw) /* not moved: the next member reads it too */
        u->out_at = u->run[0].at;
}

static int too_big(const struct sl_unit_env *env, const struct sl_out_tensor *t, struct sl_error *e)
{
    return sl_fail(e, SL_EUNSUPPORTED,
                   "tensor '%s': a row or head with its block scales does not fit a buffer of %llu KiB; "
                   "give more memory", t->name, (unsigned long long)(env->slab_bytes / 1024));
}

/* At most len elements from `first` on, to the end of the piece of `whole` that it is in. */
static uint64_t to_end(uint64_t first, uint64_t whole, uint64_t len)
{
    return whole - first % whole < len ? whole - first % whole : len;
}

static int cut_in_order(const struct sl_unit_env *env, const struct sl_cut *c,
                        const struct sl_out_tensor *t, uint64_t left, struct room *room,
                        struct sl_unit *u, struct sl_error *e)
{
    u->mode = t->transform == SL_IDS ? SL_UNIT_IDS : SL_UNIT_IN_ORDER;
    while (left && u->n_runs < SL_UNIT_RUNS) {
        uint64_t first, len, n;
        unsigned copied = 0;
        struct source s;
        uint32_t src;

        locate(env, c, t, u->elem0 + room->elems, &src, &first, &len);
        s = source_of(env, src);
        if (!s.dt->weight && t->transform != SL_IDS && !same_bytes(&env->plan->tensors[u->tensor], s.ms, false))
            return sl_fail(e, SL_EUNSUPPORTED, "tensor '%s' holds %s, which are no weights",
                           env->ck->tensors[s.ms->tensor].name, s.dt->name);
        for (unsigned i = 0; i < members(env); i++)
            copied += copies(member(env, i), u->tensor, s.ms);
        u->raw = copied == members(env);
        if (copied && u->n_runs)
            break;
        room->raw = u->raw;
        if (s.narrow)
            len = to_end(first, s.ms->cols, len);
        if (s.scale_bytes && s.ms->scale.part_rows)
            len = to_end(first, s.ms->scale.part_rows * s.ms->cols, len);
        n = most(room, &s, src, first, len < left ? len : left, c->grain);
        if (!n)
            break;
        set_run(&s, src, first, n, &u->run[u->n_runs]);
        place(room, &s, &u->run[u->n_runs], false);
        u->n_runs++;
        left -= n;
        if (copied)
            break;
    }
    if (!u->n_runs)
        return too_big(env, t, e);
    u->raw = room->raw;
    return 0;
}

/* One run, of whole grains. */
static bool cut_whole(const struct source *s, uint32_t src, uint64_t grain, uint64_t left, struct room *room, enum sl_unit_mode mode,
                      struct sl_unit *u)
{
    uint64_t n = most(room, s, src, u->elem0, left, grain);

    if (!n)
        return false;
    u->mode = mode;
    set_run(s, src, u->elem0, n, &u->run[0]);
    place(room, s, &u->run[0], false);
    u->n_runs = 1;
    return true;
}

static bool cut_permuted(const struct sl_unit_env *env, const struct sl_out_tensor *t,
                         uint64_t left, struct room *room, struct sl_unit *u)
{
    struct source s = source_of(env, t->first_src);
    uint64_t head = t->elems / t->heads;

    if (u->elem0 % head || s.narrow)
        return false;
    return cut_whole(&s, t->first_src, head, left, room, SL_UNIT_PERMUTED, u);
}

/* Runs that are large are read one by one. */
static bool cut_viewed(const struct sl_unit_env *env, const struct sl_out_tensor *t, uint64_t left, struct room *room,
                       struct sl_unit *u)
{
    struct source s = source_of(env, t->first_src);
    const struct sl_view *v = t->view;

    if (!v->period || u->elem0 % v->period || s.narrow || sl_elem_bytes(s.dt, v->part[0].run) >= SL_UNIT_BIG)
        return false;
    return cut_whole(&s, t->first_src, v->period, left, room, SL_UNIT_VIEWED, u);
}

static int cut_k(const struct sl_unit_env *env, const struct sl_out_tensor *t, uint64_t left,
                 struct room *room, struct sl_unit *u, struct sl_error *e)
{
    struct source s = source_of(env, t->first_src);
    uint64_t head = t->nope * t->lora, h = u->elem0 / head, in = u->elem0 % head;
    uint64_t rows = (uint64_t)t->nope + t->v_dim, lo = 0, hi, step = s.dt->block, cols = s.ms->cols;
    struct sl_unit_run r;

    if (s.narrow)
        return too_big(env, t, e);
    u->mode = SL_UNIT_HEADS_K;
    while (!in && left && cols == t->lora && u->n_runs < SL_UNIT_RUNS) {
        set_run(&s, t->first_src, h * rows * cols, head, &r);
        if (!fits(room, &s, &r))
            break;
        place(room, &s, &r, false);
        u->run[u->n_runs++] = r;
        left -= head;
        h++;
    }
    if (u->n_runs)
        return 0;
    if (s.ms->scale.packing != SL_PACKED_ALONG)
        return too_big(env, t, e);
    u->mode = SL_UNIT_COLUMNS_K;
    u->col0 = in / t->nope;
    hi = (t->lora - u->col0) / step;
    /* Scales of whole rows; elems only count the bytes of the columns. */
    set_run(&s, t->first_src, h * rows * cols, t->nope * cols, &r);
    while (lo < hi) {
        uint64_t mid = hi - (hi - lo) / 2;

        r.elems = mid * step * t->nope;
        if (fits(room, &s, &r))
            lo = mid;
        else
            hi = mid - 1;
    }
    if (!lo)
        return too_big(env, t, e);
    u->n_cols = lo * step;
    r.elems = u->n_cols * t->nope;
    r.first += t->col0 + u->col0;
    place(room, &s, &r, true);
    u->run[0] = r;
    u->n_runs = 1;
    return 0;
}

/* As many elements as fit of both factors; at most half of the room for the first leaves room for the other. */
static int cut_product(const struct sl_unit_env *env, const struct sl_cut *c, const struct sl_out_tensor *t, uint64_t left,
                       struct room *room, struct sl_unit *u, struct sl_error *e)
{
    struct source s[2] = {source_of(env, t->first_src), source_of(env, t->first_src + 1)};
    uint64_t n = env->slab_bytes / (2 * SRC_BYTES_MAX + room->type->bytes) / c->grain * c->grain, first = u->elem0;

    n = n < left ? n : left;
    u->mode = SL_UNIT_PRODUCT;
    for (; n; n = n / 2 / c->grain * c->grain) {
        struct room tried = *room;

        for (uint32_t i = 0; i < 2; i++) {
            tried.elems = 0;
            set_run(&s[i], t->first_src + i, first, n, &u->run[i]);
            if (!fits(&tried, &s[i], &u->run[i]))
                break;
            place(&tried, &s[i], &u->run[i], false);
            u->n_runs = i + 1;
        }
        if (u->n_runs == 2) {
            *room = tried;
            return 0;
        }
        u->n_runs = 0;
    }
    return too_big(env, t, e);
}

void sl_cut_begin(struct sl_cut *c, const struct sl_plan_task *task)
{
    memset(c, 0, sizeof *c);
    c->task = task;
}

static int cut_unit(const struct sl_unit_env *env, const struct sl_cut *c,
                    const struct sl_plan_item *it, struct sl_unit *u, struct sl_error *e)
{
    const struct sl_plan_tensor *pt = &env->plan->tensors[it->tensor];
    const struct sl_out_tensor *t = pt->t;
    uint64_t left = it->elems - c->pos;
    struct room room = {.bytes = env->slab_bytes, .type = widest(env, it->tensor), .slack = slack(env)};

    u->tensor = it->tensor;
    u->elem0 = it->elem0 + c->pos;
    u->weighted = c->weighted;
    u->n_runs = 0;
    u->raw = false;
    u->round = rounds(env, t);
    u->col0 = u->n_cols = 0;
    if (t->transform == SL_INLINE) {
        uint64_t n = env->slab_bytes / (room.type->bytes + sizeof(float)) / c->grain * c->grain;

        u->mode = SL_UNIT_VALUES;
        room.elems = n < left ? n : left;
        if (!room.elems)
            return too_big(env, t, e);
    } else if (t->transform == SL_K_B) {
        SL_TRY(cut_k(env, t, left, &room, u, e));
    } else if (t->transform == SL_PRODUCT) {
        SL_TRY(cut_product(env, c, t, left, &room, u, e));
    } else if ((t->transform != SL_PERMUTE || !cut_permuted(env, t, left, &room, u)) &&
               (t->transform != SL_VIEW || !cut_viewed(env, t, left, &room, u))) {
        SL_TRY(cut_in_order(env, c, t, left, &room, u, e));
    }
    u->elems = room.elems;
    place_output(env, pt, u);
    sl_unit_count_reads(u, t->nope);
    return 1;
}

/* Each member's item; units are whole blocks, or rows, of all of them. */
static int check_all(const struct sl_unit_env *env, struct sl_cut *c, const struct sl_plan_item *it,
                     struct sl_error *e)
{
    uint64_t grain = 1;

    for (unsigned i = 0; i < members(env); i++) {
        uint64_t a, b;

        SL_TRY(sl_cut_check(member(env, i), c, it, e));
        for (a = grain, b = c->grain; b;) {
            uint64_t rest = a % b;

            a = b;
            b = rest;
        }
        grain = grain / a * c->grain;
    }
    c->grain = grain;
    if (it->elem0 % grain || it->elems % grain || c->per_src % grain)
        return sl_fail(e, SL_EUSAGE, "tensor '%s': its types cannot be cut alike", env->plan->tensors[it->tensor].t->name);
    return 0;
}

int sl_cut_next(const struct sl_unit_env *env, struct sl_cut *c, struct sl_unit *u,
                struct sl_error *e)
{
    for (; c->item < c->task->n_items; c->item++, c->pos = 0, c->checked = false) {
        const struct sl_plan_item *it;
        uint32_t at = c->task->first_item + c->item;

        if (at >= env->plan->n_items || env->plan->items[at].tensor >= env->plan->n_tensors)
            return sl_fail(e, SL_EFAIL, "the plan's task names an item that is not there");
        it = &env->plan->items[at];
        if (c->pos == it->elems)
            continue;
        if (!c->checked)
            SL_TRY(check_all(env, c, it, e));
        c->checked = true;
        SL_TRY(cut_unit(env, c, it, u, e));
        c->pos += u->elems;
        u->ends_item = c->pos == it->elems;
        return 1;
    }
    return 0;
}

/* What packed integers need at the least, of which whole rows are read: for a row, or a head that is transposed. */
static uint64_t packed_needs(const struct sl_unit_env *env, const struct sl_out_tensor *t, const struct sl_type_info *ti)
{
    uint64_t need = 0;

    for (uint32_t i = t->first_src; i < t->first_src + t->n_src; i++) {
        const struct sl_model_src *ms = &env->plan->model->src[i];
        uint64_t n = t->transform == SL_K_B && ms->scale.packing != SL_PACKED_ALONG ? t->nope * t->lora : ms->cols, bytes;
        struct sl_unit_run r;
        struct source s;

        if (!n || (!ms->scale.zeros && !ms->scale.order))
            continue;
        s = source_of(env, i);
        set_run(&s, i, 0, n, &r);
        bytes = run_room(&s, &r) + n / ti->block * ti->bytes + ti->bytes + 2 * 4096;
        if (t->transform == SL_PRODUCT)
            need += bytes;
        else if (bytes > need)
            need = bytes;
    }
    return need;
}

void sl_unit_needs(const struct sl_unit_env *env, struct sl_needs *n)
{
    const struct sl_plan *p = env->plan;

    *n = (struct sl_needs){0};
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const struct sl_out_tensor *t = p->tensors[i].t;
        const struct sl_type_info *ti = sl_type_info(p->tensors[i].type);
        uint64_t need;

        if (!ti || !t->n_src || t->first_src >= p->model->n_src || t->n_src > p->model->n_src - t->first_src)
            continue;
        need = packed_needs(env, t, ti);
        n->slab = need > n->slab && need <= ROW_BYTES_MAX ? need : n->slab;
        /* Of all that may lie in such a slab: what is needed is rounded up. */
        for (uint32_t k = t->first_src; k < t->first_src + t->n_src && need <= ROW_BYTES_MAX + 2 * 4096; k++) {
            uint64_t band = sl_packed_band(&p->model->src[k]);

            n->band = band > n->band ? band : n->band;
        }
        if (ti->block == 1 || t->ne[0] > UINT32_MAX || !env->weights.has || !env->weights.has(env->weights.user, i))
            continue;
        need = t->ne[0] / ti->block * ti->bytes + t->ne[0] * SRC_BYTES_MAX + 8 * 4096;
        if (need > ROW_BYTES_MAX)
            continue;
        n->slab = need > n->slab ? need : n->slab;
        n->row = t->ne[0] > n->row ? t->ne[0] : n->row;
    }
}
