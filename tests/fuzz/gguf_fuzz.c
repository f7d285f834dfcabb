/* Fuzz target: bytes as a GGUF file, for both readers. Whatever they are, each
 * says no with a reason or describes tensors in turn inside the file; what the
 * strict second reader accepts, the first one accepts, and they agree.
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE \
 *     tests/fuzz/gguf_fuzz.c build/asan/libsluice.a -lxxhash -lcrypto */
#include "worker/verify.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int sl_fuzz_gguf(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        __builtin_trap();
}

static void check_tensors(const struct sl_gguf *g, uint64_t size)
{
    uint64_t end = 0;

    for (uint64_t i = 0; i < g->n_tensors; i++) {
        const struct sl_gguf_tensor *t = &g->tensors[i];

        require(t->name[0] && memchr(t->name, 0, sizeof t->name) && t->offset == end);
        require(t->bytes == sl_type_bytes(t->type, t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]));
        require(g->header_bytes + t->offset + t->bytes <= size);
        end = (t->offset + t->bytes + g->align - 1) / g->align * g->align;
    }
    require(g->data_bytes == end);
}

/* Reads every value that the reader handed out. */
static uint64_t touch(const struct sl_kvs *kvs)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < kvs->n; i++) {
        const struct sl_kv *kv = &kvs->kv[i];

        sum += strlen(kv->key);
        for (uint64_t k = 0; k < kv->n && kv->elem == SL_KV_STR; k++) {
            require(kv->strs[k][kv->str_len[k]] == '\0');
            sum += sl_xxh64(kv->strs[k], kv->str_len[k]);
        }
        if (kv->elem != SL_KV_STR)
            sum += sl_xxh64(kv->data, kv->n * sl_gguf_type_size(kv->elem));
    }
    return sum;
}

/* Returns the first reader's code. */
int sl_fuzz_gguf(const uint8_t *data, size_t size)
{
    struct sl_error e = {.code = 0};
    struct sl_gguf *g = NULL;
    struct verify_file f;
    char path[64];
    int fd = memfd_create("gguf", MFD_CLOEXEC), rc, rc2;

    require(fd >= 0 && (size == 0 || write(fd, data, size) == (ssize_t)size));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    rc2 = verify_structure(path, &f, &e);
    require(rc2 == 0 || (e.code == rc2 && e.text[0]));
    rc = sl_gguf_open(path, &g, &e);
    close(fd);
    if (rc < 0) {
        require(rc == SL_ESOURCE || rc == SL_EUNSUPPORTED);
        require(e.code == rc && e.text[0] && !g && rc2 < 0);
    } else {
        check_tensors(g, size);
        (void)touch(&g->kvs);
        if (rc2 == 0) {
            require(f.g.n_tensors == g->n_tensors && f.g.header_bytes == g->header_bytes);
            require(g->n_tensors == 0 ||
                    memcmp(f.g.tensors, g->tensors, g->n_tensors * sizeof *g->tensors) == 0);
        }
        sl_gguf_close(g);
    }
    verify_file_free(&f);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= 1 << 20)
        (void)sl_fuzz_gguf(data, size);
    return 0;
}
