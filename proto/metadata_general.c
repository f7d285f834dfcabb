#include "proto/metadata_general.h"

#include "proto/json_file.h"
#include "proto/metadata_card.h"
#include "proto/metadata_name.h"
#include "proto/source_file.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CARD (4u << 20)
#define MAX_GENERATION_CONFIG (1u << 20)
#define MAX_ORIGINS 500 /* models, or data sets; each has some keys */

/* The text fields, in the order of their keys. */
enum field {
    NAME, AUTHOR, VERSION, ORGANIZATION, FINETUNE, BASENAME, DESCRIPTION, SIZE_LABEL, LICENSE,
    LICENSE_NAME, LICENSE_LINK, SOURCE_URL, SOURCE_DOI, SOURCE_UUID, SOURCE_REPO, N_FIELDS,
};

static const char *const field_keys[N_FIELDS] = {
    [NAME] = "general.name", [AUTHOR] = "general.author", [VERSION] = "general.version",
    [ORGANIZATION] = "general.organization", [FINETUNE] = "general.finetune",
    [BASENAME] = "general.basename", [DESCRIPTION] = "general.description",
    [SIZE_LABEL] = "general.size_label", [LICENSE] = "general.license",
    [LICENSE_NAME] = "general.license.name", [LICENSE_LINK] = "general.license.link",
    [SOURCE_URL] = "general.source.url", [SOURCE_DOI] = "general.source.doi",
    [SOURCE_UUID] = "general.source.uuid", [SOURCE_REPO] = "general.source.repo_url",
};

/* What a model card may call them; the first one that is there counts. */
static const struct { enum field field; const char *name; } card_names[] = {
    {NAME, "name"}, {AUTHOR, "author"}, {VERSION, "version"}, {ORGANIZATION, "organization"},
    {DESCRIPTION, "description"}, {FINETUNE, "finetune"}, {BASENAME, "basename"},
    {SIZE_LABEL, "size_label"}, {SOURCE_URL, "url"}, {SOURCE_DOI, "doi"}, {SOURCE_UUID, "uuid"},
    {SOURCE_REPO, "repo_url"},
    {NAME, "model_name"}, {AUTHOR, "model_author"}, {VERSION, "model_version"},
    {ORGANIZATION, "model_organization"}, {DESCRIPTION, "model_description"},
    {FINETUNE, "model_finetune"}, {BASENAME, "model_basename"}, {SIZE_LABEL, "model_size_label"},
    {SOURCE_URL, "model_url"}, {SOURCE_DOI, "model_doi"}, {SOURCE_UUID, "model_uuid"},
    {SOURCE_REPO, "model_repo_url"},
    {AUTHOR, "model_creator"}, {BASENAME, "model_type"},
    {LICENSE, "license"}, {LICENSE_NAME, "license_name"}, {LICENSE_LINK, "license_link"},
};

static const struct { const char *name, *key; enum sl_gguf_type type; } sampling[] = {
    {"sequence", "general.sampling.sequence", SL_KV_STR},
    {"top_k", "general.sampling.top_k", SL_KV_I32},
    {"top_p", "general.sampling.top_p", SL_KV_F32},
    {"min_p", "general.sampling.min_p", SL_KV_F32},
    {"xtc_probability", "general.sampling.xtc_probability", SL_KV_F32},
    {"xtc_threshold", "general.sampling.xtc_threshold", SL_KV_F32},
    {"temperature", "general.sampling.temp", SL_KV_F32},
    {"penalty_last_n", "general.sampling.penalty_last_n", SL_KV_I32},
    {"penalty_repeat", "general.sampling.penalty_repeat", SL_KV_F32},
    {"mirostat", "general.sampling.mirostat", SL_KV_I32},
    {"mirostat_tau", "general.sampling.mirostat_tau", SL_KV_F32},
    {"mirostat_eta", "general.sampling.mirostat_eta", SL_KV_F32},
};

static int no_memory(struct sl_error *e)
{
    return sl_fail(e, SL_EFAIL, "out of memory for metadata");
}

/* gguf-py writes no empty strings. */
static int set_text(struct sl_kvs *kvs, const char *key, const char *v)
{
    return v && *v ? sl_kvs_set_str(kvs, key, v) : 0;
}

/* ---- files ---- */

static int read_card(const struct sl_source_dir *dir, cJSON **card, struct sl_error *e)
{
    char *text = NULL;
    size_t n = 0;
    int rc = dir->path ? sl_source_head(dir, "README.md", MAX_CARD, &text, &n, e) : 0;

    if (rc < 0)
        return rc;
    rc = sl_card_parse(rc ? text : "", n, card);
    free(text);
    return rc < 0 ? no_memory(e) : 0;
}

/* What is no JSON is as none; lack of memory is no such thing. */
static int read_generation_config(const struct sl_source_dir *dir, cJSON **json, struct sl_error *e)
{
    static const char name[] = "generation_config.json";
    struct sl_error ignored;
    char *text;
    size_t n;
    int rc;

    *json = NULL;
    rc = dir->path ? sl_source_head(dir, name, MAX_GENERATION_CONFIG + 1, &text, &n, e) : 0;
    if (rc <= 0)
        return rc;
    rc = n <= MAX_GENERATION_CONFIG ? sl_json_parse_python(name, text, n, json, &ignored) : 0;
    free(text);
    return rc == SL_EFAIL ? no_memory(e) : 0;
}

static int set_sampling(const cJSON *json, struct sl_kvs *kvs)
{
    int rc = 0;

    for (size_t i = 0; i < sizeof sampling / sizeof *sampling && rc == 0; i++) {
        const cJSON *j = sl_get(json, sampling[i].name);
        double v = cJSON_IsNumber(j) ? j->valuedouble : NAN;

        if (sampling[i].type == SL_KV_STR)
            rc = cJSON_IsString(j) ? set_text(kvs, sampling[i].key, j->valuestring) : 0;
        else if (sampling[i].type == SL_KV_F32 && isfinite((float)v))
            rc = sl_kvs_set_f32(kvs, sampling[i].key, (float)v);
        else if (sampling[i].type == SL_KV_I32 && v >= INT32_MIN && v <= INT32_MAX && v == rint(v))
            rc = sl_kvs_set_i32(kvs, sampling[i].key, (int32_t)v);
    }
    return rc;
}

/* ---- text fields ---- */

/* A string, or the strings of a list joined by ','; malloc'ed. */
static char *text_of(const cJSON *j)
{
    size_t len = 1;
    char *s;

    if (cJSON_IsString(j))
        return strdup(j->valuestring);
    for (const cJSON *x = j->child; x; x = x->next)
        len += cJSON_IsString(x) ? strlen(x->valuestring) + 1 : 0;
    s = calloc(len, 1);
    if (!s)
        return NULL;
    len = 0;
    for (const cJSON *x = j->child; x; x = x->next)
        if (cJSON_IsString(x)) {
            if (len)
                s[len++] = ',';
            strcpy(s + len, x->valuestring);
            len += strlen(x->valuestring);
        }
    return s;
}

static int take_card(const cJSON *card, char *field[N_FIELDS])
{
    for (size_t i = 0; i < sizeof card_names / sizeof *card_names; i++) {
        const cJSON *j = sl_get(card, card_names[i].name);
        bool usable = cJSON_IsString(j) || (cJSON_IsArray(j) && card_names[i].field == LICENSE);

        if (!usable || field[card_names[i].field])
            continue;
        field[card_names[i].field] = text_of(j);
        if (!field[card_names[i].field])
            return SL_EFAIL;
    }
    return 0;
}

/* Moves *v into the field if that is empty; *v is NULL then. */
static void take(char *field[N_FIELDS], enum field f, char **v)
{
    if (field[f])
        return;
    field[f] = *v;
    *v = NULL;
}

static int take_name(const char *id, uint64_t total, char *field[N_FIELDS])
{
    struct sl_name_parts p;
    char *title, *org;

    SL_TRY(sl_name_split(id, total, &p));
    title = sl_name_title(p.full);
    org = p.org ? sl_name_title(p.org) : NULL;
    if (!title || (p.org && !org)) {
        free(title);
        free(org);
        sl_name_parts_free(&p);
        return SL_EFAIL;
    }
    take(field, NAME, &title);
    take(field, ORGANIZATION, &org);
    take(field, BASENAME, &p.base);
    take(field, FINETUNE, &p.finetune);
    take(field, VERSION, &p.version);
    take(field, SIZE_LABEL, &p.size);
    free(title);
    free(org);
    sl_name_parts_free(&p);
    return 0;
}

/* _name_or_path counts when it is a model's name and not a path. */
static int take_config_name(const struct sl_metadata_in *in, char *field[N_FIELDS])
{
    const cJSON *j = sl_get(in->config, "_name_or_path");
    const char *slash = cJSON_IsString(j) ? strchr(j->valuestring, '/') : NULL;

    if (!cJSON_IsString(j) || (slash && strchr(slash + 1, '/')))
        return 0;
    return take_name(j->valuestring, in->total, field);
}

static int take_size(const struct sl_metadata_in *in, char *field[N_FIELDS])
{
    char label[64];

    if (field[SIZE_LABEL] || in->total == 0)
        return 0;
    sl_size_label(label, sizeof label, in->total, in->shared, in->expert, in->n_expert);
    field[SIZE_LABEL] = strdup(label);
    return field[SIZE_LABEL] ? 0 : SL_EFAIL;
}

/* ---- base models and data sets ---- */

static const char *const origin_keys[] = {"name", "author", "version", "organization",
                                          "description", "url", "doi", "uuid", "repo_url"};

static int set_origin(struct sl_kvs *kvs, const char *what, unsigned n, const char *name,
                      const char *v)
{
    char key[96];

    snprintf(key, sizeof key, "general.%s.%u.%s", what, n, name);
    return set_text(kvs, key, v);
}

/* "organization/name" of https://huggingface.co/organization/name, or NULL. */
static const char *id_in_url(const char *url)
{
    static const char *const hosts[] = {"https://huggingface.co/", "http://huggingface.co/"};

    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        const char *id = url + strlen(hosts[i]), *slash;

        if (strncmp(url, hosts[i], strlen(hosts[i])) != 0)
            continue;
        slash = strchr(id, '/');
        return slash && slash != id && slash[1] && !strchr(slash + 1, '/') ? id : NULL;
    }
    return NULL;
}

static int set_named_origin(struct sl_kvs *kvs, const char *what, unsigned n, const char *text,
                            uint64_t total)
{
    bool url = strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0 ||
               strncmp(text, "ssh://", 6) == 0;
    const char *id = url ? id_in_url(text) : text;
    struct sl_name_parts p = {NULL, NULL, NULL, NULL, NULL, NULL};
    char *title = NULL, *org = NULL, *repo = NULL;
    int rc = 0;

    if (id)
        rc = sl_name_split(id, total, &p);
    if (rc == 0 && p.full)
        title = sl_name_title(p.full);
    if (rc == 0 && p.org) {
        org = sl_name_title(p.org);
        if (!url && asprintf(&repo, "https://huggingface.co/%s/%s", p.org, p.full) < 0)
            repo = NULL;
    }
    if (rc == 0 && ((p.full && !title) || (p.org && (!org || (!url && !repo)))))
        rc = SL_EFAIL;
    rc = rc < 0 ? rc : set_origin(kvs, what, n, "name", title);
    rc = rc < 0 ? rc : set_origin(kvs, what, n, "version", p.version);
    rc = rc < 0 ? rc : set_origin(kvs, what, n, "organization", org);
    rc = rc < 0 ? rc : set_origin(kvs, what, n, "repo_url", url ? text : repo);
    free(title);
    free(org);
    free(repo);
    sl_name_parts_free(&p);
    return rc;
}

static int set_described_origin(struct sl_kvs *kvs, const char *what, unsigned n, const cJSON *j)
{
    for (size_t i = 0; i < sizeof origin_keys / sizeof *origin_keys; i++) {
        const cJSON *v = sl_get(j, origin_keys[i]);

        if (cJSON_IsString(v))
            SL_TRY(set_origin(kvs, what, n, origin_keys[i], v->valuestring));
    }
    return 0;
}

/* The first of the three names in the card; a string or a list. */
static int set_origins(const cJSON *card, const char *what, const char *const names[3],
                       uint64_t total, struct sl_kvs *kvs, struct sl_error *e)
{
    const cJSON *j = NULL;
    unsigned n = 0;
    char key[64];

    for (int i = 0; i < 3 && !j; i++)
        j = sl_get(card, names[i]);
    if (!j)
        return 0;
    snprintf(key, sizeof key, "general.%s.count", what);
    n = cJSON_IsString(j) ? 1 : cJSON_IsArray(j) ? (unsigned)cJSON_GetArraySize(j) : 0;
    if (n > MAX_ORIGINS)
        return sl_fail(e, SL_ESOURCE, "README.md: \"%s\" has %u entries; at most %d are taken over", j->string, n, MAX_ORIGINS);
    SL_TRY(sl_kvs_set_u32(kvs, key, n));
    if (cJSON_IsString(j))
        return set_named_origin(kvs, what, 0, j->valuestring, total);
    if (!cJSON_IsArray(j))
        return 0;
    n = 0;
    for (const cJSON *x = j->child; x; x = x->next, n++) {
        if (cJSON_IsString(x))
            SL_TRY(set_named_origin(kvs, what, n, x->valuestring, total));
        else if (cJSON_IsObject(x))
            SL_TRY(set_described_origin(kvs, what, n, x));
    }
    return 0;
}

/* The strings of both entries as one array. */
static int set_list(const cJSON *card, const char *key, const char *first, const char *second,
                    struct sl_kvs *kvs)
{
    const cJSON *from[2] = {sl_get(card, first), sl_get(card, second)};
    const char **list;
    size_t n = 0, cap = 1;
    int rc;

    for (int i = 0; i < 2; i++)
        cap += cJSON_IsArray(from[i]) ? (size_t)cJSON_GetArraySize(from[i]) : 1;
    list = calloc(cap, sizeof *list);
    if (!list)
        return SL_EFAIL;
    for (int i = 0; i < 2; i++) {
        if (cJSON_IsString(from[i]))
            list[n++] = from[i]->valuestring;
        else if (cJSON_IsArray(from[i]))
            for (const cJSON *x = from[i]->child; x; x = x->next)
                if (cJSON_IsString(x))
                    list[n++] = x->valuestring;
    }
    rc = n ? sl_kvs_set_strs(kvs, key, list, n) : 0;
    free(list);
    return rc;
}

/* ---- all of it ---- */

/* What the files say; all of it is the caller's. */
struct said {
    cJSON *sampling, *card;
    char *folder; /* its name, or NULL */
};

static int read_files(const struct sl_source_dir *dir, struct said *s, struct sl_error *e)
{
    SL_TRY(read_generation_config(dir, &s->sampling, e));
    SL_TRY(read_card(dir, &s->card, e));
    return dir->path ? sl_source_full_name(dir->path, &s->folder, e) : 0;
}

static int gather(const struct sl_metadata_in *in, const struct said *s, char *field[N_FIELDS])
{
    SL_TRY(take_card(s->card, field));
    SL_TRY(take_config_name(in, field));
    if (s->folder && *s->folder)
        SL_TRY(take_name(s->folder, in->total, field));
    SL_TRY(take_size(in, field));
    if (in->model_name) {
        free(field[NAME]);
        field[NAME] = strdup(in->model_name);
        return field[NAME] ? 0 : SL_EFAIL;
    }
    return 0;
}

static int set_all(const struct sl_metadata_in *in, const struct said *s, char *field[N_FIELDS], struct sl_kvs *kvs,
                   struct sl_error *e)
{
    static const char *const base_models[3] = {"base_model", "base_models", "base_model_sources"};
    static const char *const datasets[3] = {"datasets", "dataset", "dataset_sources"};
    const cJSON *card = s->card;

    SL_TRY(set_sampling(s->sampling, kvs));
    SL_TRY(gather(in, s, field));
    for (int f = 0; f < N_FIELDS; f++)
        SL_TRY(set_text(kvs, field_keys[f], field[f]));
    SL_TRY(set_origins(card, "base_model", base_models, in->total, kvs, e));
    SL_TRY(set_origins(card, "dataset", datasets, in->total, kvs, e));
    SL_TRY(set_list(card, "general.tags", "tags", "pipeline_tag", kvs));
    return set_list(card, "general.languages", "languages", "language", kvs);
}

int sl_metadata_general(const struct sl_metadata_in *in, struct sl_kvs *kvs, char **base_name,
                        char **model_name, struct sl_error *e)
{
    char *field[N_FIELDS] = {NULL};
    struct said s = {NULL, NULL, NULL};
    int rc;

    *base_name = *model_name = NULL;
    rc = read_files(&in->dir, &s, e);
    if (rc == 0 && (rc = set_all(in, &s, field, kvs, e)) == SL_EFAIL)
        no_memory(e);
    if (rc == 0) {
        *base_name = sl_file_base_name(field[NAME], field[BASENAME], field[SIZE_LABEL],
                                       field[FINETUNE], field[VERSION]);
        *model_name = strdup(field[NAME] ? field[NAME] : "");
        rc = *base_name && *model_name ? 0 : no_memory(e);
    }
    cJSON_Delete(s.sampling);
    cJSON_Delete(s.card);
    free(s.folder);
    for (int f = 0; f < N_FIELDS; f++)
        free(field[f]);
    return rc;
}
