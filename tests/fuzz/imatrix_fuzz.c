/* Fuzz target: bytes as an importance matrix. Whatever they are, the reader says
 * no with a reason, or describes values inside the file, all of which can be
 * read; what passes the check is finite and not negative.
 * clang -g -O1 -fsanitize=fuzzer,address,undefined -I. -D_GNU_SOURCE \
 *     tests/fuzz/imatrix_fuzz.c build/asan/libsluice.a -lxxhash */
#include "proto/imatrix.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int sl_fuzz_imatrix(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        __builtin_trap();
}

static void check_entry(const struct sl_imatrix *im, uint32_t i, int usable)
{
    const struct sl_imatrix_entry *x = &im->entries[i];
    struct sl_error e;
    float *v;

    require(x->name[0] && sl_imatrix_find(im, x->name) == (int64_t)i);
    require(x->n && x->n_counts && x->n % x->n_counts == 0);
    require(x->offset <= im->file_size && x->n <= (im->file_size - x->offset) / sizeof *v);
    v = malloc(x->n * sizeof *v);
    require(v && sl_imatrix_values(im, i, 0, x->n, v, &e) == 0);
    for (uint64_t k = 0; usable && k < x->n; k++)
        require(v[k] >= 0 && v[k] * 0 == 0);
    require(sl_imatrix_values(im, i, x->n, 1, v, &e) < 0);
    free(v);
}

/* Returns the reader's code, or that of the check. */
int sl_fuzz_imatrix(const uint8_t *data, size_t size)
{
    struct sl_error e = {.code = 0};
    struct sl_imatrix *im = NULL;
    int fd = memfd_create("imatrix", MFD_CLOEXEC), rc;
    char path[40];

    require(fd >= 0 && (size == 0 || write(fd, data, size) == (ssize_t)size));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    rc = sl_imatrix_open(path, &im, &e);
    if (rc < 0) {
        require((rc == SL_ESOURCE || rc == SL_EUNSUPPORTED) && e.code == rc && e.text[0] && !im);
    } else {
        require(im->n_entries > 0 && im->hash[31] && !im->hash[32]);
        rc = sl_imatrix_check(im, &e);
        for (uint32_t i = 0; i < im->n_entries; i++)
            check_entry(im, i, rc == 0);
    }
    sl_imatrix_close(im);
    close(fd);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= 1 << 18)
        (void)sl_fuzz_imatrix(data, size);
    return 0;
}
