/* A small GGUF file, for fuzz targets that need a source. */
#ifndef SLUICE_TESTS_FUZZ_SOURCE_H
#define SLUICE_TESTS_FUZZ_SOURCE_H

#include "tests/fuzz/fuzz_json.h"

#include "proto/gguf.h"

#include <unistd.h>

#define FUZZ_ROWS 64

/* Effect: the open, empty file is a Llama of one layer in F32, as much of it as a plan asks for; its weights are a hole. */
static inline void fuzz_source(int fd)
{
    static const char *const names[] = {"token_embd.weight", "output_norm.weight", "output.weight", "blk.0.attn_q.weight",
                                        "blk.0.attn_v.weight", "blk.0.ffn_down.weight"};
    struct sl_gguf_tensor t[6] = {{.n_dims = 0}};
    struct sl_kvs kvs = {NULL, 0, 0};
    uint64_t at = 0, len;
    uint8_t *header;

    for (int i = 0; i < 6; i++) {
        strcpy(t[i].name, names[i]);
        t[i].n_dims = i == 1 ? 1 : 2;
        t[i].type = SL_TYPE_F32;
        memcpy(t[i].ne, (uint64_t[]){256, i == 1 ? 1 : FUZZ_ROWS, 1, 1}, sizeof t[i].ne);
        t[i].bytes = sl_type_bytes(SL_TYPE_F32, t[i].ne[0] * t[i].ne[1]);
        t[i].offset = at;
        at += sl_gguf_padded(t[i].bytes);
    }
    require(sl_kvs_set_str(&kvs, "general.architecture", "llama") == 0 && sl_kvs_set_u32(&kvs, "general.file_type", 0) == 0 &&
            sl_kvs_set_u32(&kvs, "llama.block_count", 1) == 0 && sl_kvs_set_u32(&kvs, "llama.embedding_length", 256) == 0);
    require(sl_gguf_header(&kvs, t, 6, &header, &len) == 0);
    require(fd >= 0 && write(fd, header, len) == (ssize_t)len && ftruncate(fd, (off_t)(len + at)) == 0);
    free(header);
    sl_kvs_free(&kvs);
}

#endif
