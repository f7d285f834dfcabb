/* The options that decide a plan, as one text of "name=value" pairs, and the
 * first difference between two such texts. Long values stand as hashes. */
#include "proto/imatrix_use.h"
#include "proto/plan_build.h"
#include "proto/tensor_hash.h"
#include "proto/text_line.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_MARK '#' /* before a hash in place of a value */

struct text {
    FILE *f;
    const char *space;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *fmt, ...)
{
    va_list ap;

    fputs(t->space, t->f);
    t->space = " ";
    va_start(ap, fmt);
    vfprintf(t->f, fmt, ap);
    va_end(ap);
}

static void add_hash(struct text *t, const char *name, const void *bytes, uint64_t n)
{
    add(t, "%s=%c%012llx", name, HASH_MARK,
        (unsigned long long)(sl_xxh64(bytes, n) & 0xffffffffffff));
}

static void add_kvs(struct text *t, const char *name, const struct sl_kvs *kvs, int *rc)
{
    uint8_t *bytes = NULL;
    uint64_t n = 0;

    if (*rc < 0 || kvs->n == 0)
        return;
    *rc = sl_gguf_header(kvs, NULL, 0, &bytes, &n);
    if (*rc == 0)
        add_hash(t, name, bytes, n);
    free(bytes);
}

/* What --override-kv and the options about the imatrix put into the metadata. */
static int add_metadata(struct text *t, const struct sl_kvs *from)
{
    enum { OVERRIDE, IMATRIX, INCLUDE, EXCLUDE, N };
    static const char *const name[N] = {"override-kv", "imatrix", "include-weights",
                                        "exclude-weights"};
    struct sl_kvs part[N] = {{0}};
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < from->n; i++) {
        const char *key = from->kv[i].key;
        int k = strcmp(key, SL_KEY_IMATRIX) == 0           ? IMATRIX
                : strcmp(key, SL_KEY_IMATRIX_INCLUDE) == 0 ? INCLUDE
                : strcmp(key, SL_KEY_IMATRIX_EXCLUDE) == 0 ? EXCLUDE
                : strncmp(key, "quantize.imatrix.entries", 24) == 0 ? N /* follows from the words */
                : strncmp(key, "quantize.imatrix.", 17) == 0 ? IMATRIX : OVERRIDE;

        if (k < N)
            rc = sl_kvs_copy(&part[k], &from->kv[i]);
    }
    for (int k = 0; k < N; k++) {
        add_kvs(t, name[k], &part[k], &rc);
        sl_kvs_free(&part[k]);
    }
    return rc;
}

static int add_types(struct text *t, const struct sl_recipe_opts *ro)
{
    char *rules = NULL;
    size_t n = 0;
    FILE *f;

    if (ro->output_type >= 0)
        add(t, "output-tensor-type=%s", sl_type_info(ro->output_type)->name);
    if (ro->embedding_type >= 0)
        add(t, "token-embedding-type=%s", sl_type_info(ro->embedding_type)->name);
    if (ro->leave_output)
        add(t, "leave-output-tensor=yes");
    if (ro->pure)
        add(t, "pure=yes");
    if (ro->rules_2025)
        add(t, "rules=2025");
    if (ro->n_overrides == 0)
        return 0;
    f = open_memstream(&rules, &n);
    for (uint32_t i = 0; f && i < ro->n_overrides; i++)
        fprintf(f, "%s=%s\n", ro->overrides[i].pattern,
                sl_type_info(ro->overrides[i].type)->name);
    if (!f || sl_text_close(f, &rules) < 0)
        return SL_EFAIL;
    add_hash(t, "tensor-type", rules, n);
    free(rules);
    return 0;
}

int sl_plan_options(const struct sl_plan_input *in, struct sl_plan *p)
{
    const struct sl_plan_opts *o = in->o;
    size_t n = 0;
    struct text t = {open_memstream(&p->options, &n), ""};
    int rc;

    if (!t.f)
        return SL_EFAIL;
    if (strcmp(in->m->arch, "deepseek2") == 0)
        add(&t, "layout=%s", in->m->layout == SL_LAYOUT_LEGACY ? "legacy" : "mla");
    if (o->no_mtp)
        add(&t, "no-mtp=yes");
    if (o->round_bf16)
        add(&t, "round-through=bf16");
    add(&t, "split-max-size=%llu", (unsigned long long)o->split_max_bytes);
    if (o->split_max_tensors)
        add(&t, "split-max-tensors=%llu", (unsigned long long)o->split_max_tensors);
    if (o->no_tensor_first_split)
        add(&t, "no-tensor-first-split=yes");
    if (o->keep_split)
        add(&t, "keep-split=yes");
    if (o->model_name)
        add_hash(&t, "model-name", o->model_name, strlen(o->model_name));
    rc = add_types(&t, in->ro);
    if (rc == 0 && o->extra_kvs)
        rc = add_metadata(&t, o->extra_kvs);
    if (o->task_bytes)
        add(&t, "task-size=%llu", (unsigned long long)o->task_bytes);
    return sl_text_close(t.f, &p->options) < 0 ? SL_EFAIL : rc;
}

void sl_plan_label(char buf[256], const char *name, const char *hash)
{
    snprintf(buf, 256, "%.200s (%.12s)", name, hash);
}

/* ---- differences */

/* The next "name=value" at *at, which moves behind it; false at the end or where
 * there is no such pair. */
static bool next_pair(const char **at, const char **name, int *name_len, const char **value,
                      int *value_len)
{
    const char *s = *at + strspn(*at, " "), *eq = s + strcspn(s, "= ");

    if (eq == s || *eq != '=')
        return false;
    *name = s;
    *name_len = (int)(eq - s);
    *value = eq + 1;
    *value_len = (int)strcspn(eq + 1, " ");
    *at = *value + *value_len;
    return true;
}

/* Finds a name's value; false when the text does not have it. */
static bool find_value(const char *text, const char *name, int n, const char **value, int *len)
{
    const char *key;
    int key_len;

    while (next_pair(&text, &key, &key_len, value, len))
        if (key_len == n && strncmp(key, name, (size_t)n) == 0)
            return true;
    return false;
}

static const char *describe(char *buf, size_t cap, const char *name, int n, const char *then,
                            int then_len, const char *now, int now_len)
{
    static const char absent[] = "not given";

    if ((then && *then == HASH_MARK) || (now && *now == HASH_MARK))
        snprintf(buf, cap, "--%.*s%s", n, name,
                 !then ? " (then not given)" : !now ? " (now not given)" : "");
    else
        snprintf(buf, cap, "--%.*s (then %.*s, now %.*s)", n, name,
                 then ? then_len : (int)sizeof absent, then ? then : absent,
                 now ? now_len : (int)sizeof absent, now ? now : absent);
    return buf;
}

const char *sl_plan_option_difference(const char *then, const char *now, char *buf, size_t cap)
{
    const char *at = then, *name, *value, *other;
    int n, len, other_len;

    if (!next_pair(&at, &name, &n, &value, &len))
        return NULL;
    at = then;
    while (next_pair(&at, &name, &n, &value, &len)) {
        if (!find_value(now, name, n, &other, &other_len))
            return describe(buf, cap, name, n, value, len, NULL, 0);
        if (len != other_len || strncmp(value, other, (size_t)len) != 0)
            return describe(buf, cap, name, n, value, len, other, other_len);
    }
    at = now;
    while (next_pair(&at, &name, &n, &value, &len))
        if (!find_value(then, name, n, &other, &other_len))
            return describe(buf, cap, name, n, NULL, 0, value, len);
    return NULL;
}
