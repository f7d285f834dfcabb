#include "proto/shard_index.h"

#include "proto/json_file.h"
#include "proto/safetensors.h"
#include "proto/source_file.h"
#include "proto/suffix.h"
#include "proto/text_line.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int check_shard_name(const char *shard, struct sl_error *e)
{
    if (!sl_source_plain_name(shard))
        return sl_fail(e, SL_ESOURCE, "shard name '%.120s' is not a plain file name", shard);
    if (!sl_stem(shard, ".safetensors"))
        return sl_fail(e, SL_ESOURCE, "shard name '%.120s' does not end in .safetensors", shard);
    return 0;
}

struct shard {
    const char *name;
    uint32_t was; /* its number before */
};

static int by_name(const void *a, const void *b)
{
    const struct shard *x = a, *y = b;

    return strcmp(x->name, y->name);
}

/* Numbers the shards in the order of their names. */
static int sort_shards(struct sl_shard_index *ix, struct sl_error *e)
{
    struct shard *sorted = calloc(ix->n_shards, sizeof *sorted);
    uint32_t *rank = calloc(ix->n_shards, sizeof *rank);
    int rc = sorted && rank ? 0 : sl_fail(e, SL_EFAIL, "out of memory for %" PRIu32 " shards", ix->n_shards);

    if (rc == 0) {
        for (uint32_t i = 0; i < ix->n_shards; i++)
            sorted[i] = (struct shard){ix->shards[i], i};
        qsort(sorted, ix->n_shards, sizeof *sorted, by_name);
        for (uint32_t i = 0; i < ix->n_shards; i++) {
            ix->shards[i] = sorted[i].name;
            rank[sorted[i].was] = i;
        }
        for (uint32_t i = 0; i < ix->n_tensors; i++)
            ix->shard_of[i] = rank[ix->shard_of[i]];
    }
    free(sorted);
    free(rank);
    return rc;
}

static int read_map(const cJSON *map, struct sl_shard_index *ix, struct sl_name_table *seen,
                    struct sl_error *e)
{
    const cJSON *item;

    cJSON_ArrayForEach(item, map) {
        uint32_t held;

        SL_TRY(sl_src_check_name(item->string, e));
        if (!cJSON_IsString(item))
            return sl_fail(e, SL_ESOURCE, "weight_map: the value of '%.120s' is not a file name",
                           item->string);
        SL_TRY(sl_name_table_add(seen, item->valuestring, ix->n_shards, &held, e));
        if (held == ix->n_shards) {
            SL_TRY(check_shard_name(item->valuestring, e));
            ix->shards[ix->n_shards++] = item->valuestring;
        }
        ix->tensors[ix->n_tensors] = item->string;
        ix->shard_of[ix->n_tensors++] = held;
    }
    return 0;
}

static int read_index(int fd, const char *label, struct sl_shard_index *ix, struct sl_error *e)
{
    struct sl_name_table seen = {0};
    const cJSON *map;
    size_t n;
    int rc;

    SL_TRY(sl_json_read_fd(fd, label, SL_INDEX_MAX_BYTES, &ix->json, e));
    map = cJSON_GetObjectItemCaseSensitive(ix->json, "weight_map");
    if (!cJSON_IsObject(map) || !map->child)
        return sl_fail(e, SL_ESOURCE, "%s: weight_map is missing, empty or not an object", label);
    n = (size_t)cJSON_GetArraySize(map);
    ix->tensors = calloc(n, sizeof *ix->tensors);
    ix->shards = calloc(n, sizeof *ix->shards);
    ix->shard_of = calloc(n, sizeof *ix->shard_of);
    if (!ix->tensors || !ix->shards || !ix->shard_of)
        return sl_fail(e, SL_EFAIL, "%s: out of memory for %zu tensors", label, n);
    rc = sl_name_table_init(&seen, 256, e);
    if (rc == 0)
        rc = read_map(map, ix, &seen, e);
    sl_name_table_free(&seen);
    if (rc == 0)
        rc = sort_shards(ix, e);
    if (rc < 0)
        sl_fail_context(e, "%s", label);
    return rc;
}

int sl_shard_index_read(int fd, const char *label, struct sl_shard_index *out, struct sl_error *e)
{
    int rc;

    memset(out, 0, sizeof *out);
    rc = read_index(fd, label, out, e);
    if (rc < 0)
        sl_shard_index_free(out);
    return rc;
}

void sl_shard_index_free(struct sl_shard_index *ix)
{
    free(ix->tensors);
    free(ix->shards);
    free(ix->shard_of);
    cJSON_Delete(ix->json);
    memset(ix, 0, sizeof *ix);
}

/* ---- comparison ---- */

#define NAMES 10 /* of each kind in an error line, */
#define ROOM 350 /* and the bytes for them */

int sl_shard_index_check(const struct sl_shard_index *ix, const char *label,
                         const struct sl_src_tensor *tensors, uint32_t n_tensors,
                         const struct sl_name_table *found, struct sl_error *e)
{
    struct sl_names missing = {.n = 0}, surplus = {.n = 0};
    uint8_t *named = calloc((size_t)n_tensors + 1, 1);
    int rc = 0;

    if (!named)
        return sl_fail(e, SL_EFAIL, "%s: out of memory for %" PRIu32 " tensors", label, n_tensors);
    for (uint32_t i = 0; i < ix->n_tensors && rc == 0; i++) {
        uint32_t t = sl_name_table_find(found, ix->tensors[i]);

        if (t == SL_NO_NAME)
            sl_names_add(&missing, ix->tensors[i], NAMES, ROOM);
        else if (tensors[t].file != ix->shard_of[i])
            rc = sl_fail(e, SL_ESOURCE, "%s: says that tensor '%.120s' is in %s, but it is in %s",
                         label, ix->tensors[i], ix->shards[ix->shard_of[i]],
                         ix->shards[tensors[t].file]);
        else
            named[t] = 1;
    }
    for (uint32_t t = 0; t < n_tensors && rc == 0; t++)
        if (!named[t])
            sl_names_add(&surplus, tensors[t].name, NAMES, ROOM);
    free(named);
    if (rc < 0 || missing.n + surplus.n == 0)
        return rc;
    if (missing.n && surplus.n)
        return sl_fail(e, SL_ESOURCE, "%s: index and shards disagree: %" PRIu32 " tensors are in no "
                       "shard: %s; %" PRIu32 " tensors are not in the index: %s", label,
                       missing.n, sl_names_text(&missing), surplus.n, sl_names_text(&surplus));
    return sl_fail(e, SL_ESOURCE, "%s: index and shards disagree: %" PRIu32 " tensors are %s: %s",
                   label, missing.n + surplus.n, missing.n ? "in no shard" : "not in the index",
                   sl_names_text(missing.n ? &missing : &surplus));
}
