#include "proto/wire.h"

#include "proto/utf8.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

const char *sl_task_name(uint64_t task)
{
    static const char *const name[] = {"prepare", "stitch", "publish", "verify", "discard"};

    return task >= SL_TASKS_MAX && task <= SL_TASK_LAST ? name[task - SL_TASKS_MAX] : NULL;
}

#define FAILED 1 /* an object's or array's valueint, which cJSON has no use for */
#define STRINGS_BYTES 4095u

static const struct sl_field envelope[] = {
    {"v", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"m", SL_F_STR, true, 32, NULL},
    {"id", SL_F_STR, false, 64, NULL},
    {"re", SL_F_STR, false, 64, NULL},
};
#define N_ENVELOPE (sizeof envelope / sizeof envelope[0])

/* ---- building */

int sl_msg_new(enum sl_message_id id, const char *re, struct sl_msg *m, struct sl_error *e)
{
    const struct sl_message *kind = sl_message(id);

    m->id = id;
    m->tree = kind ? cJSON_CreateObject() : NULL;
    if (!m->tree)
        return sl_no_memory(e);
    sl_put_uint(m->tree, "v", SL_WIRE_VERSION);
    sl_put_str(m->tree, "m", kind->name);
    if (re && *re)
        sl_put_str(m->tree, "re", re);
    return 0;
}

void sl_msg_free(struct sl_msg *m)
{
    cJSON_Delete(m->tree);
    m->tree = NULL;
}

int sl_msg_fail(const struct sl_msg *m, struct sl_error *e)
{
    int code = -(int)sl_get_uint(m->tree, "code", 0);

    return sl_fail(e, code ? code : SL_EFAIL, "%s", sl_get_str(m->tree, "text"));
}

static bool plain_char(unsigned char c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\n' || c == '\r' || c == '\t';
}

/* A set or an item that failed is remembered without memory. */
static void put_failed(cJSON *object)
{
    if (object)
        object->valueint = FAILED;
}

static bool has_failed(const cJSON *object)
{
    const cJSON *c;

    if ((cJSON_IsObject(object) || cJSON_IsArray(object)) && object->valueint == FAILED)
        return true;
    cJSON_ArrayForEach(c, object)
        if (has_failed(c))
            return true;
    return false;
}

void sl_put_uint(cJSON *object, const char *field, uint64_t v)
{
    if (!cJSON_AddNumberToObject(object, field, (double)v)) /* one too large is the table's to refuse */
        put_failed(object);
}

void sl_put_str(cJSON *object, const char *field, const char *v)
{
    if (v && !cJSON_AddStringToObject(object, field, v))
        put_failed(object);
}

/* Whether n bytes are a character's first ones, whose last are missing. */
static bool is_cut(const char *s, size_t n)
{
    size_t i = 1;

    while (i < n && (s[i] & 0xc0) == 0x80)
        i++;
    return n < 4 && i == n && (s[0] & 0xc0) == 0xc0;
}

static char *readable(const char *v)
{
    size_t n = strlen(v);
    char *copy = strndup(v, n);

    for (size_t i = 0, k; copy && i < n; i += k ? k : 1) {
        k = sl_utf8_at(copy + i, n - i);
        if (k == 0 && is_cut(copy + i, n - i))
            copy[n = i] = '\0';
        else if (k == 0 || (k == 1 && !plain_char((unsigned char)copy[i])))
            copy[i] = '?';
    }
    return copy;
}

void sl_put_text(cJSON *object, const char *field, const char *v)
{
    char *copy = v ? readable(v) : NULL;

    if (copy)
        sl_put_str(object, field, copy);
    else if (v)
        put_failed(object);
    free(copy);
}

/* Takes item; what is no item is object's failure. */
static void add_item(cJSON *object, cJSON *array, cJSON *item)
{
    if (!item || !cJSON_AddItemToArray(array, item)) {
        cJSON_Delete(item);
        put_failed(object);
    }
}

void sl_put_texts(cJSON *object, const char *field, const cJSON *list)
{
    cJSON *array = sl_put_array(object, field);
    const cJSON *x;

    cJSON_ArrayForEach(x, list) {
        char *copy = readable(x->valuestring);

        add_item(object, array, copy ? cJSON_CreateString(copy) : NULL);
        free(copy);
    }
}

void sl_put_bool(cJSON *object, const char *field, bool v)
{
    if (v && !cJSON_AddTrueToObject(object, field))
        put_failed(object);
}

void sl_put_hex64(cJSON *object, const char *field, uint64_t v)
{
    char text[17];

    snprintf(text, sizeof text, "%016llx", (unsigned long long)v);
    sl_put_str(object, field, text);
}

void sl_put(cJSON *object, const char *field, cJSON *item)
{
    if (!item || !object || !cJSON_AddItemToObject(object, field, item)) {
        cJSON_Delete(item);
        put_failed(object);
    }
}

cJSON *sl_put_array(cJSON *object, const char *field)
{
    cJSON *a = cJSON_AddArrayToObject(object, field);

    if (!a)
        put_failed(object);
    return a;
}

cJSON *sl_add_object(cJSON *array)
{
    cJSON *o = cJSON_CreateObject();

    if (!o)
        put_failed(array);
    else if (!cJSON_AddItemToArray(array, o)) {
        cJSON_Delete(o);
        o = NULL;
    }
    return o;
}

void sl_put_uints(cJSON *object, const char *field, const uint64_t *v, size_t n)
{
    cJSON *a = sl_put_array(object, field);

    for (size_t i = 0; a && i < n; i++)
        add_item(object, a, cJSON_CreateNumber((double)v[i]));
}

void sl_put_strs(cJSON *object, const char *field, const char *const *v, size_t n)
{
    cJSON *a = sl_put_array(object, field);

    for (size_t i = 0; a && i < n; i++)
        add_item(object, a, cJSON_CreateString(v[i]));
}

/* ---- reading */

uint64_t sl_get_uint(const cJSON *object, const char *field, uint64_t absent)
{
    uint64_t v;

    return sl_json_uint(sl_get(object, field), SL_WIRE_UINT_MAX, &v) ? v : absent;
}

const char *sl_get_str(const cJSON *object, const char *field)
{
    return cJSON_GetStringValue(sl_get(object, field));
}

bool sl_get_bool(const cJSON *object, const char *field)
{
    return cJSON_IsTrue(sl_get(object, field));
}

uint64_t sl_get_hex64(const cJSON *object, const char *field)
{
    const char *s = sl_get_str(object, field);

    return s ? strtoull(s, NULL, 16) : 0;
}

/* ---- holding a tree against the table */

static const char *const type_text[] = {
    [SL_F_STR] = "a string", [SL_F_PATH] = "an absolute path", [SL_F_UINT] = "an integer",
    [SL_F_BOOL] = "true or false", [SL_F_HEX] = "hexadecimal digits",
    [SL_F_HEXES] = "groups of 16 hexadecimal digits", [SL_F_REC] = "an object",
    [SL_F_RECS] = "an array of objects", [SL_F_UINTS] = "an array of integers",
    [SL_F_STRS] = "an array of strings",
};

static bool plain_text(const char *s)
{
    while (*s && plain_char((unsigned char)*s))
        s++;
    return !*s;
}

static int wrong(const struct sl_field *f, const char *in, struct sl_error *e)
{
    return sl_fail(e, SL_EUSAGE, "%s: field '%s' must be %s (limit %llu)", in, f->name,
                   type_text[f->type], (unsigned long long)f->limit);
}

static bool text_fits(const struct sl_field *f, const char *s)
{
    size_t n = strlen(s);

    switch (f->type) {
    case SL_F_HEX:
        return n == f->limit && strspn(s, "0123456789abcdef") == n;
    case SL_F_HEXES:
        return n <= f->limit && n % 16 == 0 && strspn(s, "0123456789abcdef") == n;
    case SL_F_PATH:
        return n <= f->limit && s[0] == '/';
    default:
        return n <= f->limit;
    }
}

static int check_fields(const char *in, const struct sl_field *fields, unsigned n,
                        const cJSON *object, bool is_message, struct sl_error *e);

static int check_array(const char *in, const struct sl_field *f, const cJSON *item,
                       struct sl_error *e)
{
    const cJSON *c;
    uint64_t n = 0, v;

    if (!cJSON_IsArray(item))
        return wrong(f, in, e);
    cJSON_ArrayForEach(c, item) {
        if (++n > f->limit)
            return wrong(f, in, e);
        if (f->type == SL_F_UINTS && !sl_json_uint(c, SL_WIRE_UINT_MAX, &v))
            return wrong(f, in, e);
        if (f->type == SL_F_STRS && (!cJSON_IsString(c) || strlen(c->valuestring) > STRINGS_BYTES ||
                                     !plain_text(c->valuestring) || !sl_utf8_valid(c->valuestring)))
            return wrong(f, in, e);
        if (f->type == SL_F_RECS && !cJSON_IsObject(c))
            return wrong(f, in, e);
        if (f->type == SL_F_RECS)
            SL_TRY(check_fields(f->record->name, f->record->fields, f->record->n_fields, c, false, e));
    }
    return 0;
}

static int check_field(const char *in, const struct sl_field *f, const cJSON *item,
                       struct sl_error *e)
{
    uint64_t v;

    switch (f->type) {
    case SL_F_UINT:
        return sl_json_uint(item, f->limit, &v) ? 0 : wrong(f, in, e);
    case SL_F_BOOL:
        return cJSON_IsBool(item) ? 0 : wrong(f, in, e);
    case SL_F_STR:
    case SL_F_PATH:
    case SL_F_HEX:
    case SL_F_HEXES:
        if (cJSON_IsString(item) && !sl_utf8_valid(item->valuestring))
            return sl_fail(e, SL_EUSAGE, "%s: field '%s' is not valid UTF-8", in, f->name);
        if (cJSON_IsString(item) && !plain_text(item->valuestring))
            return sl_fail(e, SL_EUSAGE, "%s: field '%s' holds control characters", in, f->name);
        return cJSON_IsString(item) && text_fits(f, item->valuestring) ? 0 : wrong(f, in, e);
    case SL_F_REC:
        if (!cJSON_IsObject(item))
            return wrong(f, in, e);
        return check_fields(f->record->name, f->record->fields, f->record->n_fields, item, false, e);
    default:
        return check_array(in, f, item, e);
    }
}

static const struct sl_field *find_field(const struct sl_field *fields, unsigned n,
                                         const char *name, unsigned *i)
{
    for (*i = 0; *i < n; (*i)++)
        if (strcmp(fields[*i].name, name) == 0)
            return &fields[*i];
    return NULL;
}

static int check_fields(const char *in, const struct sl_field *fields, unsigned n,
                        const cJSON *object, bool is_message, struct sl_error *e)
{
    uint64_t seen = 0;
    const cJSON *c;
    unsigned i;

    cJSON_ArrayForEach(c, object) {
        const struct sl_field *f = find_field(fields, n, c->string, &i);

        if (f) {
            if (seen & (1ull << i))
                return sl_fail(e, SL_EUSAGE, "%s: field '%s' stands there twice", in, c->string);
            seen |= 1ull << i;
        } else if (is_message) {
            f = find_field(envelope, N_ENVELOPE, c->string, &i);
        }
        if (!f)
            return sl_fail(e, SL_EUSAGE, "%s: unknown field '%.64s' (protocol version %d is spoken here)",
                           in, c->string, SL_WIRE_VERSION);
        SL_TRY(check_field(in, f, c, e));
    }
    for (i = 0; i < n; i++)
        if (fields[i].required && !(seen & (1ull << i)))
            return sl_fail(e, SL_EUSAGE, "%s: field '%s' is missing", in, fields[i].name);
    return 0;
}

int sl_record_check(const char *record, const cJSON *object, struct sl_error *e)
{
    const struct sl_record *r;

    for (unsigned i = 0; (r = sl_record(i)) != NULL; i++)
        if (strcmp(r->name, record) == 0)
            break;
    if (!object || has_failed(object))
        return sl_no_memory(e);
    if (!r || !cJSON_IsObject(object))
        return sl_fail(e, SL_EUSAGE, "%s: an object is expected", record);
    return check_fields(r->name, r->fields, r->n_fields, object, false, e);
}

/* ---- bytes */

static int compress_text(char *text, size_t len, uint8_t **bytes, size_t *n, struct sl_error *e)
{
    size_t cap = ZSTD_compressBound(len), got = 0;
    uint8_t *out = malloc(cap);

    if (out)
        got = ZSTD_compress(out, cap, text, len, 1);
    cJSON_free(text);
    if (!out || ZSTD_isError(got)) {
        free(out);
        return sl_no_memory(e);
    }
    *bytes = out;
    *n = got;
    return 0;
}

int sl_wire_encode(const struct sl_msg *m, uint8_t **bytes, size_t *n, struct sl_error *e)
{
    const struct sl_message *kind = sl_message(m->id);
    size_t len;
    char *text;

    *bytes = NULL;
    if (!kind)
        return sl_fail(e, SL_EUSAGE, "a message that does not exist was to be sent");
    if (!m->tree || has_failed(m->tree))
        return sl_no_memory(e);
    if (check_fields(kind->name, kind->fields, kind->n_fields, m->tree, true, e) < 0)
        return sl_fail_context(e, "cannot be sent");
    text = cJSON_PrintUnformatted(m->tree);
    if (!text)
        return sl_no_memory(e);
    len = strlen(text);
    if (len > SL_WIRE_MAX) {
        cJSON_free(text);
        return sl_fail(e, SL_EUSAGE, "%s: %zu bytes; a message has at most %u", kind->name, len,
                       SL_WIRE_MAX);
    }
    if (len > SL_WIRE_COMPRESS)
        return compress_text(text, len, bytes, n, e);
    *bytes = (uint8_t *)text; /* cJSON's memory is malloc's */
    *n = len;
    return 0;
}

/* *text: new memory. A frame must state its size, and be the only one. */
static int decompress(const uint8_t *bytes, size_t n, char **text, size_t *len, struct sl_error *e)
{
    unsigned long long size = ZSTD_getFrameContentSize(bytes, n);
    size_t got;

    if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR)
        return sl_fail(e, SL_EUSAGE, "message: a zstd frame that states its content size is expected");
    if (size > SL_WIRE_MAX)
        return sl_fail(e, SL_EUSAGE, "message: %llu bytes when decompressed; at most %u are taken",
                       size, SL_WIRE_MAX);
    if (ZSTD_findFrameCompressedSize(bytes, n) != n)
        return sl_fail(e, SL_EUSAGE, "message: exactly one zstd frame is expected");
    *text = malloc(size ? (size_t)size : 1);
    if (!*text)
        return sl_no_memory(e);
    got = ZSTD_decompress(*text, (size_t)size, bytes, n);
    if (got != size) {
        free(*text);
        *text = NULL;
        return sl_fail(e, SL_EUSAGE, "message: damaged zstd frame");
    }
    *len = got;
    return 0;
}

/* Bounds depth and number of values before a tree is built. */
static int measure(const char *text, size_t n, struct sl_error *e)
{
    unsigned depth = 0, values = 1;
    bool in_string = false;

    for (size_t i = 0; i < n; i++) {
        char c = text[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        in_string = c == '"';
        if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth > 0)
            depth--;
        values += c == ',' || c == '{' || c == '[';
        if (depth > SL_WIRE_DEPTH)
            return sl_fail(e, SL_EUSAGE, "message: nested deeper than %d", SL_WIRE_DEPTH);
        if (values > SL_WIRE_VALUES)
            return sl_fail(e, SL_EUSAGE, "message: more than %u values", SL_WIRE_VALUES);
    }
    return 0;
}

static int check_message(cJSON *tree, unsigned from, struct sl_msg *m, char re[65], char name[33],
                         struct sl_error *e)
{
    const char *id = sl_get_str(tree, "id"), *kind_name = sl_get_str(tree, "m");
    const struct sl_message *kind = NULL;
    uint64_t v;

    if (re && id && strlen(id) <= 64 && plain_text(id))
        strcpy(re, id);
    if (name && kind_name && strlen(kind_name) <= 32 && plain_text(kind_name))
        strcpy(name, kind_name);
    if (!sl_json_uint(sl_get(tree, "v"), SL_WIRE_UINT_MAX, &v) || !kind_name)
        return sl_fail(e, SL_EUSAGE, "message: an object with 'v' and 'm' is expected");
    if (v != SL_WIRE_VERSION)
        return sl_fail(e, SL_EUSAGE, "message: protocol version %llu; version %d is spoken here: use "
                                     "sluice, sluiced and sluice-worker of one release",
                       (unsigned long long)v, SL_WIRE_VERSION);
    for (m->id = 0; m->id < SL_M_COUNT; m->id++)
        if (strcmp((kind = sl_message(m->id))->name, kind_name) == 0)
            break;
    if (m->id == SL_M_COUNT)
        return sl_fail(e, SL_EUSAGE, "message: '%.32s' is no message of protocol version %d",
                       kind_name, SL_WIRE_VERSION);
    if (!(kind->from & from))
        return sl_fail(e, SL_EUSAGE, "%s: not a message for this side", kind->name);
    return check_fields(kind->name, kind->fields, kind->n_fields, tree, true, e);
}

int sl_wire_decode(const uint8_t *bytes, size_t n, unsigned from, struct sl_msg *m, char re[65],
                   char name[33], struct sl_error *e)
{
    static const uint8_t magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
    const char *text = (const char *)bytes;
    char *opened = NULL;
    cJSON *tree = NULL;
    size_t len = n;
    int rc = 0;

    m->tree = NULL;
    if (re)
        re[0] = 0;
    if (name)
        name[0] = 0;
    if (n > SL_WIRE_MAX)
        return sl_fail(e, SL_EUSAGE, "message: %zu bytes; at most %u are taken", n, SL_WIRE_MAX);
    if (n >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0) {
        SL_TRY(decompress(bytes, n, &opened, &len, e));
        text = opened;
    }
    rc = measure(text, len, e);
    if (rc == 0)
        rc = sl_json_parse("message", text, len, NULL, &tree, e);
    free(opened);
    if (rc == SL_ESOURCE && e)
        e->code = SL_EUSAGE;
    if (rc < 0)
        return rc == SL_ESOURCE ? SL_EUSAGE : rc;
    rc = cJSON_IsObject(tree)
             ? check_message(tree, from, m, re, name, e)
             : sl_fail(e, SL_EUSAGE, "message: an object is expected");
    if (rc < 0) {
        cJSON_Delete(tree);
        return rc;
    }
    m->tree = tree;
    return 0;
}
