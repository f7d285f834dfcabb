/* Fuzz target: bytes as the header of a GGUF file that is quantized again, with a hole as its tensors. Whatever they are, it is said
 * what is wrong, or the plan's sizes, tasks and header agree. The mutator changes one number, text or tensor of a header that is read. */
#include "tests/fuzz/fuzz_plan.h"

#include "proto/gguf.h"

#define HOLE (UINT64_C(1) << 30)

static struct sl_gguf *open_bytes(const uint8_t *data, size_t size)
{
    struct sl_gguf *g = NULL;
    char path[40];
    int fd = memfd_create("gguf", MFD_CLOEXEC);

    require(fd >= 0 && (size == 0 || write(fd, data, size) == (ssize_t)size) && ftruncate(fd, (off_t)(size + HOLE)) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (sl_gguf_open(path, &g, NULL) < 0)
        g = NULL;
    close(fd);
    return g;
}

static void change_key(struct sl_kvs *kvs, uint64_t *s)
{
    uint64_t i = kvs->n ? json_random(s) % kvs->n : 0;
    struct sl_kv *kv = &kvs->kv[i];
    size_t bytes;
    uint64_t at, v;

    if (kvs->n == 0)
        return;
    bytes = sl_gguf_type_size(kv->elem);
    at = kv->n ? json_random(s) % kv->n : 0;
    if (bytes && kv->n) {
        double odd;

        memcpy(&v, (uint8_t *)kv->data + at * bytes, bytes < 8 ? bytes : 8);
        odd = json_number((double)(v & (bytes < 8 ? (UINT64_C(1) << 8 * bytes) - 1 : UINT64_MAX)), s);
        v = odd >= 0 && odd < 1.8e19 ? (uint64_t)odd : json_random(s);
        if (kv->elem == SL_KV_F32)
            memcpy((uint8_t *)kv->data + at * bytes, &(float){(float)odd}, 4);
        else
            memcpy((uint8_t *)kv->data + at * bytes, &v, bytes);
        if (kv->elem == SL_KV_BOOL)
            ((uint8_t *)kv->data)[at] &= 1;
        if (kv->type == SL_KV_ARR && json_random(s) % 8 == 0)
            kv->n = at;
    } else if (kv->strs && kv->n && kv->str_len[at]) {
        kv->strs[at][json_random(s) % kv->str_len[at]] = (char)('a' + json_random(s) % 26);
    }
    if (json_random(s) % 16 == 0) {
        const struct sl_kv *other = &kvs->kv[json_random(s) % kvs->n];
        char *key = strdup(other->key);

        require(key != NULL);
        if (other == kv || sl_kvs_set_u32(kvs, key, (uint32_t)json_random(s)) < 0)
            sl_kvs_move(kvs, key, 0);
        free(key);
    }
}

static void change_tensor(struct sl_gguf *g, uint64_t *s)
{
    static const int types[] = {0, 1, 2, 8, 12, 14, 23, 30, 39};
    struct sl_gguf_tensor *t = g->n_tensors ? &g->tensors[json_random(s) % g->n_tensors] : NULL;
    size_t n = t ? strlen(t->name) : 0;

    if (!t)
        return;
    switch (json_random(s) % 4) {
    case 0: t->ne[json_random(s) % 4] = 1 + json_random(s) % 3 * 255; break;
    case 1: t->type = types[json_random(s) % (sizeof types / sizeof *types)]; break;
    case 2: t->name[json_random(s) % n] = "0123456789.x"[json_random(s) % 12]; break;
    default: *t = g->tensors[--g->n_tensors];
    }
    t->n_dims = sl_gguf_dims(t->ne);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    struct sl_gguf *g = seed % 8 ? open_bytes(data, size) : NULL;
    uint64_t s = seed, at = 0, len = 0;
    uint8_t *header = NULL;

    if (!g)
        return LLVMFuzzerMutate(data, size, max);
    for (uint64_t k = json_random(&s) % 3 + 1; k > 0; k--)
        if (json_random(&s) % 3)
            change_key(&g->kvs, &s);
        else
            change_tensor(g, &s);
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct sl_gguf_tensor *t = &g->tensors[i];

        t->bytes = sl_type_bytes(t->type, t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
        t->offset = at;
        at += sl_gguf_padded(t->bytes);
    }
    if (sl_gguf_header(&g->kvs, g->tensors, g->n_tensors, &header, &len) == 0 && len <= max)
        memcpy(data, header, size = len);
    free(header);
    sl_gguf_close(g);
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const recipes[] = {"q4_k_m", "copy", "iq2_xxs", "f16"};
    const uint32_t prune[] = {0};
    struct sl_job_options o = {.any_type = true, .allow_requantize = true, .prune = prune};
    uint64_t s = size;
    char path[40];
    int fd = memfd_create("gguf", MFD_CLOEXEC);

    for (size_t i = 0; i < size; i++)
        s = s * 31 + data[i];
    o.n_prune = s % 8 == 0;
    o.keep_split = s >> 3 & 1;
    require(fd >= 0 && (size == 0 || write(fd, data, size) == (ssize_t)size) && ftruncate(fd, (off_t)(size + HOLE)) == 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    plan_check(path, recipes[s >> 4 & 3], &o);
    close(fd);
    return 0;
}
