#include "proto/name_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static uint64_t rotl(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[0] = rotl(v[0], 32);
    v[2] += v[3];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[2] = rotl(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein): one round a word, three at the end. */
static uint64_t sip_hash(const uint64_t key[2], const char *s, size_t len)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                     key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
    uint64_t word;
    size_t at = 0;

    for (; at + 8 <= len; at += 8) {
        memcpy(&word, s + at, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = 0;
    memcpy(&word, s + at, len - at);
    word |= (uint64_t)len << 56;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The slot that holds the name, or the free one where it belongs. */
static struct sl_name_slot *slot_of(const struct sl_name_table *t, const char *name, uint64_t hash)
{
    uint32_t tag = (uint32_t)(hash >> 32);

    for (uint64_t i = hash & (t->cap - 1);; i = (i + 1) & (t->cap - 1)) {
        struct sl_name_slot *s = &t->slots[i];

        if (!s->name || (s->tag == tag && strcmp(s->name, name) == 0))
            return s;
    }
}

static int resize(struct sl_name_table *t, uint64_t cap, struct sl_error *e)
{
    struct sl_name_table bigger = {.key = {t->key[0], t->key[1]}, .cap = cap, .n = t->n};

    bigger.slots = calloc(cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return sl_fail(e, SL_EFAIL, "out of memory for a table of %llu names",
                       (unsigned long long)cap);
    for (uint64_t i = 0; i < t->cap; i++) {
        const struct sl_name_slot *s = &t->slots[i];

        if (s->name)
            *slot_of(&bigger, s->name, sip_hash(t->key, s->name, strlen(s->name))) = *s;
    }
    free(t->slots);
    *t = bigger;
    return 0;
}

int sl_name_table_init(struct sl_name_table *t, uint64_t expected, struct sl_error *e)
{
    uint64_t cap = 16;

    memset(t, 0, sizeof *t);
    if (getrandom(t->key, sizeof t->key, GRND_NONBLOCK) != (ssize_t)sizeof t->key) {
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        t->key[0] = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15 ^ (uint64_t)now.tv_sec;
        t->key[1] = (uint64_t)(uintptr_t)t * 0xbf58476d1ce4e5b9;
    }
    while (cap / 2 < expected && cap < UINT64_C(1) << 40)
        cap *= 2;
    return resize(t, cap, e);
}

void sl_name_table_free(struct sl_name_table *t)
{
    free(t->slots);
    memset(t, 0, sizeof *t);
}

int sl_name_table_add(struct sl_name_table *t, const char *name, uint32_t value, uint32_t *held,
                      struct sl_error *e)
{
    uint64_t hash = sip_hash(t->key, name, strlen(name));
    struct sl_name_slot *s;

    if (t->n >= t->cap / 2)
        SL_TRY(resize(t, t->cap ? t->cap * 2 : 16, e));
    s = slot_of(t, name, hash);
    if (!s->name) {
        *s = (struct sl_name_slot){.name = name, .tag = (uint32_t)(hash >> 32), .value = value};
        t->n++;
    }
    if (held)
        *held = s->value;
    return 0;
}

uint32_t sl_name_table_find(const struct sl_name_table *t, const char *name)
{
    const struct sl_name_slot *s;

    if (t->n == 0)
        return SL_NO_NAME;
    s = slot_of(t, name, sip_hash(t->key, name, strlen(name)));
    return s->name ? s->value : SL_NO_NAME;
}
