#include "proto/safetensors.h"

#include "proto/cursor.h"
#include "proto/json_file.h"
#include "proto/source_file.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char metadata_key[] = "__metadata__";

int sl_src_check_name(const char *name, struct sl_error *e)
{
    const unsigned char *s = (const unsigned char *)name;
    size_t n = strlen(name);

    if (n == 0)
        return sl_fail(e, SL_ESOURCE, "a tensor has an empty name");
    if (n > SL_SRC_MAX_NAME)
        return sl_fail(e, SL_ESOURCE, "tensor '%.60s...': name of %zu bytes, at most %d are allowed",
                       name, n, SL_SRC_MAX_NAME);
    for (size_t i = 0; i < n; i++)
        if (s[i] < 0x20 || s[i] == 0x7f || (s[i] == 0xc2 && s[i + 1] < 0xa0))
            return sl_fail(e, SL_ESOURCE, "tensor '%.120s': control character in its name", name);
    return 0;
}

/* ---- one tensor's entry ---- */

static int parse_shape(const cJSON *shape, struct sl_src_tensor *t, struct sl_error *e)
{
    uint64_t product = 1;
    bool empty = false;
    const cJSON *item;

    if (!cJSON_IsArray(shape))
        return sl_fail(e, SL_ESOURCE, "shape is not an array of integers");
    cJSON_ArrayForEach(item, shape) {
        uint64_t dim;

        if (t->n_dims == SL_SRC_MAX_DIMS)
            return sl_fail(e, SL_EUNSUPPORTED, "%d dimensions, at most %d are supported",
                           cJSON_GetArraySize(shape), SL_SRC_MAX_DIMS);
        if (!sl_json_uint(item, SL_JSON_EXACT, &dim))
            return sl_fail(e, SL_ESOURCE, "dimension %" PRIu32 " is not an integer from 0 to 2^53",
                           t->n_dims);
        /* A zero must not hide a product that overflows. */
        if (!sl_mul_u64(product, dim ? dim : 1, &product))
            return sl_fail(e, SL_ESOURCE, "the product of its dimensions overflows");
        empty |= dim == 0;
        t->shape[t->n_dims++] = dim;
    }
    t->elems = empty ? 0 : product;
    return 0;
}

static int parse_span(const cJSON *offsets, struct sl_src_tensor *t, struct sl_error *e)
{
    const cJSON *first = cJSON_IsArray(offsets) ? offsets->child : NULL;
    uint64_t begin, end;

    if (!first || !first->next || first->next->next)
        return sl_fail(e, SL_ESOURCE, "data_offsets is not an array of two integers");
    if (!sl_json_uint(first, SL_JSON_EXACT, &begin) ||
        !sl_json_uint(first->next, SL_JSON_EXACT, &end))
        return sl_fail(e, SL_ESOURCE, "data_offsets are not integers from 0 to 2^53");
    if (end < begin)
        return sl_fail(e, SL_ESOURCE, "data_offsets end at %" PRIu64 ", before they begin at %" PRIu64,
                       end, begin);
    t->offset = begin;
    t->bytes = end - begin;
    return 0;
}

static int parse_fields(const cJSON *entry, struct sl_src_tensor *t, struct sl_error *e)
{
    const cJSON *dtype = NULL, *shape = NULL, *offsets = NULL, *item;
    uint64_t want;
    int type;

    if (!cJSON_IsObject(entry))
        return sl_fail(e, SL_ESOURCE, "its entry is not an object");
    cJSON_ArrayForEach(item, entry) {
        if (strcmp(item->string, "dtype") == 0)
            dtype = item;
        else if (strcmp(item->string, "shape") == 0)
            shape = item;
        else if (strcmp(item->string, "data_offsets") == 0)
            offsets = item;
    }
    if (!dtype || !shape || !offsets)
        return sl_fail(e, SL_ESOURCE, "%s is missing",
                       !dtype ? "dtype" : !shape ? "shape" : "data_offsets");
    if (!cJSON_IsString(dtype))
        return sl_fail(e, SL_ESOURCE, "dtype is not a string");
    type = sl_dtype_by_name(dtype->valuestring);
    if (type < 0)
        return sl_fail(e, SL_EUNSUPPORTED, "dtype '%.40s' is not supported", dtype->valuestring);
    t->dtype = (enum sl_dtype)type;
    SL_TRY(parse_shape(shape, t, e));
    SL_TRY(parse_span(offsets, t, e));
    if (t->elems % sl_dtype_info(type)->block)
        return sl_fail(e, SL_ESOURCE, "%" PRIu64 " elements of %s are no whole bytes", t->elems, sl_dtype_info(type)->name);
    if (!sl_mul_u64(t->elems / sl_dtype_info(type)->block, sl_dtype_info(type)->bytes, &want))
        return sl_fail(e, SL_ESOURCE, "the product of its dimensions overflows");
    if (want != t->bytes)
        return sl_fail(e, SL_ESOURCE, "shape and dtype need %" PRIu64 " bytes, data_offsets span %"
                       PRIu64, want, t->bytes);
    return 0;
}

/* ---- the header ---- */

static int check_metadata(const cJSON *meta, struct sl_error *e)
{
    const cJSON *item;

    if (!cJSON_IsObject(meta))
        return sl_fail(e, SL_ESOURCE, "%s is not an object", metadata_key);
    cJSON_ArrayForEach(item, meta)
        if (!cJSON_IsString(item))
            return sl_fail(e, SL_ESOURCE, "%s: the value of '%.80s' is not a string", metadata_key,
                           item->string);
    return 0;
}

static int collect(const cJSON *root, struct sl_safetensors *out, struct sl_error *e)
{
    size_t names = 0, count = 0;
    const cJSON *item;
    char *to;

    cJSON_ArrayForEach(item, root) {
        names += strlen(item->string) + 1;
        count++;
    }
    out->tensors = calloc(count + 1, sizeof *out->tensors);
    to = out->names = malloc(names + 1);
    if (!out->tensors || !out->names)
        return sl_fail(e, SL_EFAIL, "out of memory for %zu tensors", count);
    cJSON_ArrayForEach(item, root) {
        struct sl_src_tensor *t = &out->tensors[out->n_tensors];
        size_t len = strlen(item->string) + 1;
        int rc;

        if (strcmp(item->string, metadata_key) == 0) {
            SL_TRY(check_metadata(item, e));
            continue;
        }
        SL_TRY(sl_src_check_name(item->string, e));
        t->name = memcpy(to, item->string, len);
        to += len;
        rc = parse_fields(item, t, e);
        if (rc < 0) {
            sl_fail_context(e, "tensor '%.120s'", t->name);
            return rc;
        }
        out->n_tensors++;
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct sl_src_tensor *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Orders the tensors and checks that they tile the file's data exactly. */
static int place(struct sl_safetensors *out, uint64_t file_size, struct sl_error *e)
{
    uint64_t end = 0, data = file_size - out->data_start;
    bool sorted = true;

    for (uint32_t i = 1; i < out->n_tensors && sorted; i++)
        sorted = by_place(&out->tensors[i - 1], &out->tensors[i]) < 0;
    if (!sorted)
        qsort(out->tensors, out->n_tensors, sizeof *out->tensors, by_place);
    for (uint32_t i = 0; i < out->n_tensors; i++) {
        struct sl_src_tensor *t = &out->tensors[i];

        if (t->offset > end)
            return sl_fail(e, SL_ESOURCE, "tensor '%.120s': data begins at %" PRIu64 ", a hole of %"
                           PRIu64 " bytes after the tensor before it", t->name, t->offset,
                           t->offset - end);
        if (t->offset < end)
            return sl_fail(e, SL_ESOURCE, "tensor '%.120s': data begins at %" PRIu64 " and overlaps "
                           "'%.120s', which ends at %" PRIu64, t->name, t->offset,
                           out->tensors[i - 1].name, end);
        end = t->offset + t->bytes; /* both at most 2^53 */
        t->offset += out->data_start;
    }
    if (end > data)
        return sl_fail(e, SL_ESOURCE, "file is cut short: its header describes %" PRIu64
                       " bytes, it has %" PRIu64 "; is the download complete?",
                       out->data_start + end, file_size);
    if (end < data)
        return sl_fail(e, SL_ESOURCE, "%" PRIu64 " bytes after the last tensor (the header describes "
                       "%" PRIu64 " bytes, the file has %" PRIu64 ")", data - end,
                       out->data_start + end, file_size);
    return 0;
}

static int parse_header(const char *text, size_t len, uint64_t file_size,
                        struct sl_safetensors *out, struct sl_error *e)
{
    size_t odd = SL_JSON_PLAIN;
    cJSON *root = NULL;
    int rc;

    rc = sl_json_parse("header", text, len, &odd, &root, e);
    if (rc < 0)
        return rc;
    rc = collect(root, out, e);
    cJSON_Delete(root);
    if (rc == 0 && odd != SL_JSON_PLAIN)
        rc = sl_fail(e, SL_ESOURCE, "header: the number at byte %zu is not plain digits", odd);
    return rc == 0 ? place(out, file_size, e) : rc;
}

/* The header's length from the first bytes, held against the file. */
static int header_length(const uint8_t *head, size_t got, uint64_t file_size, uint64_t *len,
                         struct sl_error *e)
{
    struct sl_cursor c = sl_cursor(head, got);

    if (sl_source_is_lfs(head, got))
        return sl_fail(e, SL_ESOURCE, "%s", SL_SOURCE_LFS);
    if (!sl_cursor_u64(&c, len))
        return sl_fail(e, SL_ESOURCE, "%" PRIu64 " bytes are too few for a safetensors file; is the "
                       "download complete?", file_size);
    if (*len > SL_SAFETENSORS_MAX_HEADER && sl_source_is_text(head, got))
        return sl_fail(e, SL_ESOURCE, "not a safetensors file: it is a text that begins with '%.*s'; download it again",
                       (int)sl_source_shown(head, got), head);
    if (*len > SL_SAFETENSORS_MAX_HEADER)
        return sl_fail(e, SL_ESOURCE, "not a safetensors file: header length %" PRIu64
                       " is more than %u", *len, SL_SAFETENSORS_MAX_HEADER);
    if (*len < 2)
        return sl_fail(e, SL_ESOURCE, "not a safetensors file: header length %" PRIu64
                       " is less than 2; is the download complete?", *len);
    if (*len > file_size - 8)
        return sl_fail(e, SL_ESOURCE, "file is cut short: its header alone needs %" PRIu64
                       " bytes, it has %" PRIu64 "; is the download complete?", *len + 8, file_size);
    if (got > 8 && head[8] != '{')
        return sl_fail(e, SL_ESOURCE, "not a safetensors file: the header does not begin with '{'");
    return 0;
}

static int read_file(int fd, uint64_t file_size, struct sl_safetensors *out, struct sl_error *e)
{
    uint8_t head[32];
    size_t got = file_size < sizeof head ? (size_t)file_size : sizeof head;
    uint64_t len = 0;
    char *text;
    int rc;

    SL_TRY(sl_source_read(fd, "header", head, got, 0, e));
    SL_TRY(header_length(head, got, file_size, &len, e));
    text = malloc(len);
    if (!text)
        return sl_fail(e, SL_EFAIL, "out of memory for a header of %" PRIu64 " bytes", len);
    out->data_start = 8 + len;
    rc = sl_source_read(fd, "header", text, len, 8, e);
    if (rc == 0)
        rc = parse_header(text, len, file_size, out, e);
    free(text);
    return rc;
}

int sl_safetensors_read(int fd, const char *label, uint64_t file_size, struct sl_safetensors *out,
                        struct sl_error *e)
{
    int rc;

    memset(out, 0, sizeof *out);
    rc = read_file(fd, file_size, out, e);
    if (rc < 0) {
        sl_fail_context(e, "%s", label);
        sl_safetensors_free(out);
    }
    return rc;
}

void sl_safetensors_free(struct sl_safetensors *s)
{
    free(s->tensors);
    free(s->names);
    memset(s, 0, sizeof *s);
}
