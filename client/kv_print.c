#include "client/kv_print.h"

#include "client/model_arg.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Element i of a numeric kv as text. Returns whether it is valid JSON. */
static bool number_text(const struct sl_kv *kv, uint64_t i, char buf[48])
{
    const uint8_t *p = (const uint8_t *)kv->data + i * sl_gguf_type_size(kv->elem);
    union {
        uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32;
        uint64_t u64; int64_t i64; float f32; double f64;
    } v = {0};

    memcpy(&v, p, sl_gguf_type_size(kv->elem));
    switch (kv->elem) {
    case SL_KV_U8: snprintf(buf, 48, "%u", v.u8); break;
    case SL_KV_I8: snprintf(buf, 48, "%d", v.i8); break;
    case SL_KV_U16: snprintf(buf, 48, "%u", v.u16); break;
    case SL_KV_I16: snprintf(buf, 48, "%d", v.i16); break;
    case SL_KV_U32: snprintf(buf, 48, "%" PRIu32, v.u32); break;
    case SL_KV_I32: snprintf(buf, 48, "%" PRId32, v.i32); break;
    case SL_KV_U64: snprintf(buf, 48, "%" PRIu64, v.u64); break;
    case SL_KV_I64: snprintf(buf, 48, "%" PRId64, v.i64); break;
    case SL_KV_BOOL: snprintf(buf, 48, "%s", v.u8 ? "true" : "false"); break;
    case SL_KV_F32: snprintf(buf, 48, "%.9g", (double)v.f32); return isfinite(v.f32);
    case SL_KV_F64: snprintf(buf, 48, "%.17g", v.f64); return isfinite(v.f64);
    default: snprintf(buf, 48, "?"); return false;
    }
    return true;
}

void kv_print(const struct sl_kv *kv, uint64_t elems, uint64_t chars)
{
    bool array = kv->type == SL_KV_ARR;
    char buf[48];

    if (array)
        putchar('[');
    for (uint64_t i = 0; i < kv->n && i < elems; i++) {
        if (i)
            fputs(", ", stdout);
        if (kv->elem == SL_KV_STR) {
            if (array)
                putchar('"');
            print_safe(kv->strs[i], kv->str_len[i], chars);
            if (array)
                putchar('"');
        } else {
            number_text(kv, i, buf);
            fputs(buf, stdout);
        }
    }
    if (kv->n > elems)
        printf(", ... of %" PRIu64, kv->n);
    if (array)
        putchar(']');
}

static cJSON *element_json(const struct sl_kv *kv, uint64_t i)
{
    char buf[48];

    if (kv->elem == SL_KV_STR)
        return json_text(kv->strs[i], kv->str_len[i]);
    return number_text(kv, i, buf) ? cJSON_CreateRaw(buf) : cJSON_CreateNull();
}

struct cJSON *kv_json(const struct sl_kv *kv, uint64_t elems)
{
    cJSON *o = cJSON_CreateObject(), *list;

    cJSON_AddStringToObject(o, "type", sl_gguf_type_name(kv->type));
    if (kv->type != SL_KV_ARR) {
        cJSON_AddItemToObject(o, "value", element_json(kv, 0));
        return o;
    }
    cJSON_AddStringToObject(o, "elem", sl_gguf_type_name(kv->elem));
    cJSON_AddNumberToObject(o, "n", (double)kv->n);
    list = cJSON_AddArrayToObject(o, "value");
    for (uint64_t i = 0; i < kv->n && i < elems; i++)
        cJSON_AddItemToArray(list, element_json(kv, i));
    return o;
}

bool kv_equal(const struct sl_kv *a, const struct sl_kv *b)
{
    if (a->type != b->type || a->elem != b->elem || a->n != b->n)
        return false;
    if (a->elem != SL_KV_STR)
        return a->n == 0 || memcmp(a->data, b->data, a->n * sl_gguf_type_size(a->elem)) == 0;
    for (uint64_t i = 0; i < a->n; i++)
        if (a->str_len[i] != b->str_len[i] || memcmp(a->strs[i], b->strs[i], a->str_len[i]) != 0)
            return false;
    return true;
}
