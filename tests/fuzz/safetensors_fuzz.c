/* Fuzz target: bytes as a safetensors file. Whatever they are, the reader says
 * no with a reason, or describes tensors that tile the file exactly.
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE \
 *     tests/fuzz/safetensors_fuzz.c build/asan/libsluice.a -lcjson */
#include "proto/safetensors.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int sl_fuzz_safetensors(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        __builtin_trap();
}

/* Returns the reader's code. */
int sl_fuzz_safetensors(const uint8_t *data, size_t size)
{
    struct sl_error e = {.code = 0};
    struct sl_safetensors s;
    uint64_t end;
    int fd = memfd_create("safetensors", MFD_CLOEXEC), rc;

    require(fd >= 0 && (size == 0 || write(fd, data, size) == (ssize_t)size));
    rc = sl_safetensors_read(fd, "input", size, &s, &e);
    close(fd);
    if (rc < 0) {
        require(rc == SL_ESOURCE || rc == SL_EUNSUPPORTED);
        require(e.code == rc && e.text[0] && !s.tensors && !s.names && s.n_tensors == 0);
        return rc;
    }
    end = s.data_start;
    for (uint32_t i = 0; i < s.n_tensors; i++) {
        const struct sl_src_tensor *t = &s.tensors[i];
        uint64_t elems = 1;

        for (uint32_t d = 0; d < t->n_dims; d++)
            elems *= t->shape[d];
        require(t->n_dims <= SL_SRC_MAX_DIMS && t->elems == elems && t->name[0]);
        require(t->offset == end && t->bytes == elems * sl_dtype_info(t->dtype)->bytes);
        end += t->bytes;
    }
    require(end == size);
    sl_safetensors_free(&s);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= 1 << 20)
        (void)sl_fuzz_safetensors(data, size);
    return 0;
}
