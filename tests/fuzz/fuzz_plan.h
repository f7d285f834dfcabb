/* For fuzz targets: what must hold of a plan, or of why there is none. */
#ifndef SLUICE_TESTS_FUZZ_PLAN_H
#define SLUICE_TESTS_FUZZ_PLAN_H

#include "tests/fuzz/fuzz_json.h"

#include "proto/job_spec.h"
#include "proto/utf8.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* What is wrong with a source names it, or the tensor. */
static inline void plan_refused(int rc, const struct sl_error *e, const char *source)
{
    require(rc == SL_EUSAGE || ((rc == SL_ESOURCE || rc == SL_EUNSUPPORTED) && (strstr(e->text, source) || strstr(e->text, ".weight"))));
    require(e->code == rc && e->text[0] && sl_utf8_all_shown(e->text));
}

/* A GGUF file's own are copied as they are. */
static inline void plan_texts(const struct sl_kvs *kvs)
{
    for (uint64_t i = 0; i < kvs->n; i++) {
        const struct sl_kv *kv = &kvs->kv[i];

        for (uint64_t k = 0; k < kv->n && kv->elem == SL_KV_STR; k++)
            require(strlen(kv->strs[k]) == kv->str_len[k] && sl_utf8_valid(kv->strs[k]));
    }
}

/* Sluice's own reader takes the header and finds what was planned. */
static inline void plan_header(const struct sl_plan *p, uint32_t segment)
{
    const struct sl_plan_segment *s = &p->segments[segment];
    struct sl_gguf *g;
    struct sl_error e;
    uint8_t *header = NULL;
    char path[40];
    int fd = memfd_create("plan", MFD_CLOEXEC);

    require(fd >= 0 && sl_plan_header(p, segment, &header) == 0);
    require(write(fd, header, s->header_bytes) == (ssize_t)s->header_bytes);
    free(header);
    if (ftruncate(fd, (off_t)s->file_bytes) == 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        require(sl_gguf_open(path, &g, &e) == 0);
        require(g->n_tensors == s->n_tensors && g->kvs.n == s->kvs.n);
        require(g->header_bytes == s->header_bytes && g->data_bytes == s->data_bytes);
        for (uint64_t i = 0; i < g->n_tensors; i++) {
            const struct sl_plan_tensor *t = &p->tensors[s->first_tensor + i];

            require(strcmp(g->tensors[i].name, t->t->name) == 0 && g->tensors[i].offset == t->offset);
            require(g->tensors[i].bytes == t->bytes && g->tensors[i].type == t->type);
        }
        sl_gguf_close(g);
    }
    close(fd);
}

static inline void plan_sizes(const struct sl_plan *p)
{
    uint64_t tensors = 0, files = 0;
    uint32_t next = 0;

    for (uint32_t i = 0; i < p->n_segments; i++) {
        const struct sl_plan_segment *s = &p->segments[i];
        uint64_t at = 0;

        require(s->first_tensor == next || s->n_tensors == 0);
        for (uint32_t k = s->first_tensor; k < s->first_tensor + s->n_tensors; k++) {
            const struct sl_plan_tensor *t = &p->tensors[k];

            require(t->segment == i && t->offset == at && t->file_offset == s->header_bytes + at);
            require(t->t->elems == t->t->ne[0] * t->t->ne[1] * t->t->ne[2] * t->t->ne[3]);
            require(t->bytes == sl_type_bytes(t->type, t->t->elems) && t->bytes > 0);
            at += sl_gguf_padded(t->bytes);
            tensors += t->bytes;
        }
        next += s->n_tensors;
        require(at == s->data_bytes && s->file_bytes == s->header_bytes + at);
        files += s->file_bytes;
        plan_header(p, i);
    }
    require(next == p->n_tensors && tensors == p->tensor_bytes && files == p->file_bytes);
}

/* Every element of every tensor is in one task. */
static inline void plan_tasks(const struct sl_plan *p)
{
    uint64_t *elems = calloc(p->n_tensors + 1, sizeof *elems), src = 0, out = 0;
    uint32_t next = 0;

    require(elems != NULL);
    for (uint32_t i = 0; i < p->n_tasks; i++) {
        const struct sl_plan_task *t = &p->tasks[i];

        require(t->first_item == next && t->n_items > 0);
        for (uint32_t k = 0; k < t->n_items; k++)
            elems[p->items[next + k].tensor] += p->items[next + k].elems;
        next += t->n_items;
        src += t->src_bytes;
        out += t->out_bytes;
    }
    require(next == p->n_items && src == p->src_bytes && out == p->tensor_bytes);
    for (uint32_t i = 0; i < p->n_tensors; i++)
        require(elems[i] == p->tensors[i].t->elems);
    free(elems);
}

static inline void plan_memory(const struct sl_plan *p)
{
    const struct sl_machine m = {.gpu = {24000000000, 16000000000}, .gpus = 2, .host = 384000000000};
    struct sl_offload o;

    require(sl_plan_offload(p, &m, 32768, SL_UBATCH, &o) == 0);
    require(o.gpu_layers <= o.layers);
    require(sl_plan_alike(p, &m, true, 32768, SL_UBATCH, &o) == 0);
}

/* Returns the code of the plan that source and options give under a stock recipe. */
static inline int plan_check(const char *source, const char *recipe, const struct sl_job_options *o)
{
    struct sl_job_plan j = {.ck = NULL};
    struct sl_error e = {0};
    cJSON *record;
    int rc;

    require(sl_recipe_load(recipe, &j.recipe, &e) == 0);
    rc = sl_job_plan_make(&j, source, o, &e);
    if (rc < 0) {
        plan_refused(rc, &e, source);
    } else {
        plan_sizes(j.plan);
        plan_tasks(j.plan);
        plan_memory(j.plan);
        require(j.prefix[0] && !strchr(j.prefix, '/'));
        for (uint32_t i = 0; !j.ck->is_gguf && i < j.plan->n_segments; i++)
            plan_texts(&j.plan->segments[i].kvs);
        if (sl_job_plan_record(&j, &record, &e) == 0)
            cJSON_Delete(record);
    }
    if (getenv("FUZZ_SAYS"))
        fprintf(stderr, "%d %s\n", rc, rc < 0 ? e.text : "");
    sl_job_plan_close(&j);
    return rc;
}

#endif
