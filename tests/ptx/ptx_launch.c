/* A launch: its blocks on the host's threads, barriers, findings. */
#include "ptx_run.h"

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *ptx_kind_name(enum ptx_kind kind)
{
    static const char *const names[] = {"memcheck", "memcheck (misaligned)", "initcheck", "racecheck", "synccheck", "code"};

    return names[kind];
}

/* _ZN..<length><name>I{Li<n>E|Lb<0|1>E}..E */
void ptx_demangle(const char *name, char *out, size_t n)
{
    const char *p = name, *last = NULL;
    size_t n_last = 0, at;

    if (strncmp(p, "_Z", 2) == 0) {
        p += 2 + (p[2] == 'N');
        while (isdigit((unsigned char)*p)) {
            size_t len = strtoul(p, (char **)(uintptr_t)&p, 10);

            if (len > strlen(p))
                break;
            last = p;
            n_last = len;
            p += len;
        }
    }
    if (!last) {
        snprintf(out, n, "%s", name);
        return;
    }
    at = (size_t)snprintf(out, n, "%.*s", (int)n_last, last);
    if (*p == 'I') {
        const char *between = "<";

        for (p++; p[0] == 'L' && (p[1] == 'i' || p[1] == 'b') && at < n; p++) {
            long v = strtol(p + 2, (char **)(uintptr_t)&p, 10);

            at += (size_t)(p[-2] == 'b' ? snprintf(out + at, n - at, "%s%s", between, v ? "true" : "false")
                                        : snprintf(out + at, n - at, "%s%ld", between, v));
            between = ", ";
        }
        if (at < n)
            snprintf(out + at, n - at, ">");
    }
}

bool ptx_finding(struct ptx_block *b, enum ptx_kind kind, const struct ptx_warp *w, unsigned lane, const struct ptx_inst *i,
                 const char *format, ...)
{
    const char *line = b->module->line[i->line];
    char name[200], text[500];
    va_list ap;

    if (b->failed)
        return false;
    b->failed = true;
    b->kind = kind;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    ptx_demangle(b->launch->kernel->name, name, sizeof name);
    while (isspace((unsigned char)*line))
        line++;
    snprintf(b->finding, sizeof b->finding, "%s: %s, block %llu, thread %u, %s:%u \"%.*s\": %s", ptx_kind_name(kind), name,
             (unsigned long long)b->number, w->number * PTX_LANES + lane, b->module->name, i->line, (int)(strcspn(line, "\n") < 90 ? strcspn(line, "\n") : 90), line, text);
    return false;
}

/* What all launches of the module share in a warp's rows, and what this one has. */
static void fill_rows(struct ptx_block *b, struct ptx_warp *w)
{
    const struct ptx_module *m = b->module;
    const struct ptx_launch *l = b->launch;
    uint64_t pool = b->static_bytes;

    for (uint32_t k = 0; k < m->n_constants; k += 4) {
        uint32_t *row = w->file + m->at_constants + m->constants[k + 3];

        for (unsigned lane = 0; lane < PTX_LANES; lane++)
            memcpy(row + lane * m->constants[k], &m->constants[k + 1], 4 * m->constants[k]);
    }
    for (uint32_t lane = 0; lane < PTX_LANES; lane++) {
        uint32_t t = w->number * PTX_LANES + lane, *row = w->file + lane;

        row[PTX_TID_X * PTX_LANES] = t % l->block[0];
        row[PTX_TID_Y * PTX_LANES] = t / l->block[0] % l->block[1];
        row[PTX_TID_Z * PTX_LANES] = t / l->block[0] / l->block[1];
        for (unsigned k = 0; k < 3; k++) {
            row[(PTX_NTID_X + k) * PTX_LANES] = l->block[k];
            row[(PTX_NCTAID_X + k) * PTX_LANES] = l->grid[k];
        }
        row[PTX_LANEID * PTX_LANES] = lane;
        row[PTX_WARPID * PTX_LANES] = w->number;
        row[PTX_POOL32 * PTX_LANES] = (uint32_t)pool;
        memcpy(w->file + PTX_POOL * PTX_LANES + 2 * lane, &pool, 8);
    }
}

static bool make_block(struct ptx_block *b, struct ptx_launch *l)
{
    const struct ptx_module *m = l->module;

    *b = (struct ptx_block){.launch = l, .module = m, .n_threads = l->block[0] * l->block[1] * l->block[2]};
    b->n_warps = (b->n_threads + PTX_LANES - 1) / PTX_LANES;
    b->static_bytes = (m->func_shared + 15) / 16 * 16 + (l->kernel->shared + 15) / 16 * 16;
    b->shared_bytes = b->static_bytes + l->dynamic;
    b->local_kernel = l->kernel->local;
    b->local_bytes = l->kernel->local + m->func_local;
    b->shared = aligned_alloc(64, (b->shared_bytes + 127) / 64 * 64);
    b->shadow = calloc(b->shared_bytes + 1, sizeof *b->shadow);
    b->warp = calloc(b->n_warps, sizeof *b->warp);
    b->tally = calloc(m->n_inst, sizeof *b->tally);
    for (unsigned i = 0; b->warp && i < b->n_warps; i++) {
        struct ptx_warp *w = &b->warp[i];

        w->number = i;
        w->file = aligned_alloc(64, (size_t)m->words * 4 + 64);
        w->set = calloc(m->n_slots + 1, sizeof *w->set);
        w->local = calloc(b->local_bytes + 1, PTX_LANES);
        w->local_set = calloc(b->local_bytes + 1, PTX_LANES);
        if (!w->file || !w->set || !w->local || !w->local_set)
            return false;
        fill_rows(b, w);
    }
    return b->shared && b->shadow && b->warp && b->tally;
}

static void free_block(struct ptx_block *b)
{
    for (unsigned i = 0; b->warp && i < b->n_warps; i++) {
        free(b->warp[i].file);
        free(b->warp[i].set);
        free(b->warp[i].local);
        free(b->warp[i].local_set);
    }
    free(b->warp);
    free(b->shared);
    free(b->shadow);
    free(b->tally);
}

static void begin(struct ptx_block *b, uint64_t number)
{
    const struct ptx_launch *l = b->launch;

    b->number = number;
    b->thread0 = number * b->n_threads;
    memset(b->shared, 0xa5, b->shared_bytes);
    b->epoch = 0;
    ptx_shared_epoch(b, true);
    for (unsigned i = 0; i < b->n_warps; i++) {
        struct ptx_warp *w = &b->warp[i];
        unsigned lanes = b->n_threads - i * PTX_LANES;
        uint32_t at[3] = {(uint32_t)(number % l->grid[0]), (uint32_t)(number / l->grid[0] % l->grid[1]),
                          (uint32_t)(number / l->grid[0] / l->grid[1])};

        w->alive = lanes >= PTX_LANES ? UINT32_MAX : (1u << lanes) - 1;
        w->parked = 0;
        memset(w->depth, 0, sizeof w->depth);
        memset(w->set, 0, b->module->n_slots * sizeof *w->set);
        memset(w->local_set, 0, (size_t)b->local_bytes * PTX_LANES);
        for (unsigned lane = 0; lane < PTX_LANES; lane++) {
            w->pc[lane] = l->kernel->first;
            for (unsigned k = 0; k < 3; k++)
                w->file[(PTX_CTAID_X + k) * PTX_LANES + lane] = at[k];
        }
    }
}

/* All lanes wait or have ended. Lets them on where all that live wait at one barrier; those
 * that have ended count as arrived, as on devices since Volta. */
static bool meet(struct ptx_block *b, bool *alive)
{
    const struct ptx_warp *first = NULL;
    unsigned first_lane = 0;

    for (unsigned i = 0; i < b->n_warps; i++) {
        struct ptx_warp *w = &b->warp[i];

        for (uint32_t lanes = w->alive; lanes; lanes &= lanes - 1) {
            unsigned l = (unsigned)__builtin_ctz(lanes);
            const struct ptx_inst *at = &b->module->inst[w->pc[l]], *other;

            if (at->op != PTX_BAR)
                return ptx_finding(b, PTX_SYNCCHECK, w, l, at, "waits for lanes that do not come");
            if (!first) {
                first = w;
                first_lane = l;
            }
            other = &b->module->inst[first->pc[first_lane]];
            if (at != other)
                return ptx_finding(b, PTX_SYNCCHECK, w, l, at, "waits here, while thread %u waits at the bar.sync of line %u",
                                   first->number * PTX_LANES + first_lane, other->line);
        }
    }
    for (unsigned i = 0; i < b->n_warps; i++) {
        struct ptx_warp *w = &b->warp[i];

        w->parked = 0;
        for (uint32_t lanes = w->alive; lanes; lanes &= lanes - 1)
            w->pc[__builtin_ctz(lanes)]++;
    }
    *alive = first != NULL;
    ptx_shared_epoch(b, false);
    return true;
}

static bool run_block(struct ptx_block *b, uint64_t number)
{
    bool alive = true;

    begin(b, number);
    while (alive) {
        for (unsigned i = 0; i < b->n_warps; i++) {
            ptx_run_warp(b, &b->warp[i]);
            if (b->failed)
                return false;
        }
        if (!meet(b, &alive))
            return false;
    }
    return true;
}

struct crew {
    struct ptx_launch *launch;
    uint64_t next, n;
    bool stop;
    pthread_mutex_t lock;
};

static void *crew_main(void *arg)
{
    struct crew *c = arg;
    struct ptx_launch *l = c->launch;
    struct ptx_block b;
    bool made = make_block(&b, l);

    if (!made) {
        b.kind = PTX_BAD_CODE;
        snprintf(b.finding, sizeof b.finding, "no memory for a block");
    }
    while (made && !__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
        uint64_t number = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);

        if (number >= c->n || !run_block(&b, number))
            break;
    }
    pthread_mutex_lock(&c->lock);
    if ((!made || b.failed) && !l->finding[0]) {
        memcpy(l->finding, b.finding, sizeof l->finding);
        l->kind = b.kind;
    }
    if (!made || b.failed)
        __atomic_store_n(&c->stop, true, __ATOMIC_RELAXED);
    for (uint32_t i = 0; l->tally && b.tally && i < l->module->n_inst; i++) {
        l->tally[i].issues += b.tally[i].issues;
        l->tally[i].lanes += b.tally[i].lanes;
        l->tally[i].extra += b.tally[i].extra;
    }
    pthread_mutex_unlock(&c->lock);
    free_block(&b);
    return NULL;
}

/* What this launch wrote was written before the next one. */
static void settle(struct ptx_launch *l)
{
    for (unsigned i = 0; i < l->n_allocs; i++) {
        struct ptx_alloc *a = l->allocs[i];

        for (size_t k = a->lo; k < a->hi; k++)
            if (a->shadow[k] > 1)
                a->shadow[k] = 1;
        if (a->lo < a->hi) {
            a->lo = SIZE_MAX;
            a->hi = 0;
        }
    }
}

bool ptx_run(struct ptx_launch *l)
{
    struct crew c = {.launch = l, .n = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2]};
    unsigned n = l->threads > 64 ? 64 : l->threads, started = 0;
    pthread_t thread[64];

    pthread_mutex_init(&c.lock, NULL);
    l->finding[0] = 0;
    while (n > c.n)
        n--;
    while (started + 1 < n && pthread_create(&thread[started], NULL, crew_main, &c) == 0)
        started++;
    crew_main(&c);
    for (unsigned i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    settle(l);
    pthread_mutex_destroy(&c.lock);
    return !l->finding[0];
}
