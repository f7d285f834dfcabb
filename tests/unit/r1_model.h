/* DeepSeek-R1's tensor list from tests/data/deepseek-v3-types.tsv.xz, as a
 * model built by hand: no checkpoint, no metadata. */
#ifndef SLUICE_TESTS_R1_MODEL_H
#define SLUICE_TESTS_R1_MODEL_H

#include "proto/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define R1_TSV "tests/data/deepseek-v3-types.tsv.xz"

/* One group of rows: a model's types under one mixture. */
struct r1_group {
    char version[24], layout[16], ftype[16], imatrix[4];
    struct sl_model model;
    struct sl_out_tensor *tensors;
    int *types;
    uint64_t bytes;
};

static inline void r1_hparams(struct sl_model *m, bool mla)
{
    m->arch = "deepseek2";
    m->layout = mla ? SL_LAYOUT_MLA : SL_LAYOUT_LEGACY;
    m->hp = (struct sl_hparams){.n_layer = 61, .n_head = 128, .n_head_kv = mla ? 1 : 128,
                                .n_expert = 256, .n_layer_dense = 3,
                                .n_embd = 7168, .n_vocab = 129280,
                                .kv_lora = 512, .rope_dim = 64, .head_k = 192, .head_v = 128};
}

static inline void r1_tensor(struct sl_out_tensor *t, const char *name, const char *dims)
{
    memset(t, 0, sizeof *t);
    snprintf(t->name, sizeof t->name, "%s", name);
    t->src_type = -1;
    t->elems = 1;
    for (int i = 0; i < 4; i++)
        t->ne[i] = 1;
    for (const char *s = dims; *s && t->n_dims < 4; t->n_dims++) {
        t->ne[t->n_dims] = strtoull(s, (char **)&s, 10);
        t->elems *= t->ne[t->n_dims];
        s += *s == 'x';
    }
}

/* Reads the groups one after another. Returns 0, or 1 at the end. */
static inline int r1_next(FILE *f, struct r1_group *g, char *line, size_t cap)
{
    uint32_t n = 0, max = 1200;
    char key[64] = "";

    memset(g, 0, sizeof *g);
    g->tensors = calloc(max, sizeof *g->tensors);
    g->types = calloc(max, sizeof *g->types);
    while (*line || fgets(line, (int)cap, f)) {
        char w[4][24], name[64], dims[64], type[16], k[64];
        uint64_t bytes;

        if (*line == '#') {
            *line = '\0';
            continue;
        }
        if (sscanf(line, "%23s %23s %23s %23s %63s %63s %15s %" SCNu64, w[0], w[1], w[2], w[3],
                   name, dims, type, &bytes) != 8)
            abort();
        snprintf(k, sizeof k, "%.20s|%.10s|%.15s|%.2s", w[0], w[1], w[2], w[3]);
        if (*key && strcmp(k, key) != 0)
            break;
        if (n == max)
            abort();
        strcpy(key, k);
        snprintf(g->version, sizeof g->version, "%.23s", w[0]);
        snprintf(g->layout, sizeof g->layout, "%.15s", w[1]);
        snprintf(g->ftype, sizeof g->ftype, "%.15s", w[2]);
        snprintf(g->imatrix, sizeof g->imatrix, "%.3s", w[3]);
        r1_tensor(&g->tensors[n], name, dims);
        g->types[n] = sl_type_by_name(type);
        g->model.n_params += g->tensors[n].elems;
        g->bytes += bytes;
        n++;
        *line = '\0';
    }
    r1_hparams(&g->model, strcmp(g->layout, "kv_b") != 0);
    g->model.tensors = g->tensors;
    g->model.n_tensors = n;
    return n == 0;
}

static inline void r1_free(struct r1_group *g)
{
    free(g->tensors);
    free(g->types);
}

/* Opens the table for reading; the caller closes it with pclose. */
static inline FILE *r1_open(void)
{
    return popen("xz -dc " R1_TSV, "r");
}

#endif
