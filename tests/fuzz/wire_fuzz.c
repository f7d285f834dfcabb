/* Fuzz target: bytes as a message. Whatever they are, the decoder says no with a
 * reason, or gives a message that the table allows and that survives the way
 * out and back in. */
#include "proto/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int sl_fuzz_wire(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        __builtin_trap();
}

/* Returns the decoder's code. */
int sl_fuzz_wire(const uint8_t *data, size_t size)
{
    const unsigned all = SL_FROM_WORKER | SL_FROM_CLIENT | SL_FROM_DAEMON;
    struct sl_error e = {.code = 0};
    struct sl_msg m, again;
    char re[65], name[33];
    uint8_t *out = NULL;
    size_t n = 0;
    int rc = sl_wire_decode(data, size, all, &m, re, name, &e);

    require(strlen(re) <= 64 && strlen(name) <= 32);
    if (rc < 0) {
        require(rc == SL_EUSAGE && e.code == rc && e.text[0] && !m.tree);
        return rc;
    }
    require(strcmp(name, sl_message(m.id)->name) == 0);
    if (sl_wire_encode(&m, &out, &n, &e) == 0) {
        require(sl_wire_decode(out, n, all, &again, NULL, NULL, &e) == 0 && again.id == m.id);
        sl_msg_free(&again);
    }
    free(out);
    sl_msg_free(&m);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)sl_fuzz_wire(data, size);
    return 0;
}
