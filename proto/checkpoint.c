#include "proto/checkpoint.h"

#include "proto/checkpoint_priv.h"
#include "proto/gguf.h"
#include "proto/json_file.h"
#include "proto/shard_index.h"
#include "proto/shard_series.h"
#include "proto/source_file.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_MAX_BYTES 16000000u

static const char index_name[] = "model.safetensors.index.json";
static const char single_name[] = "model.safetensors";
static const char shard_suffix[] = ".safetensors";
static const char gguf_folder[] = "no .safetensors file; to read a .gguf file, give its own path";

/* ---- building ---- */

int sl_ck_reserve_files(struct sl_checkpoint *ck, uint32_t n_files, struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);

    ck->files = calloc(n_files, sizeof *ck->files);
    p->arenas = calloc((size_t)n_files + 2, sizeof *p->arenas);
    if (!ck->files || !p->arenas)
        return sl_fail(e, SL_EFAIL, "out of memory for %" PRIu32 " files", n_files);
    return sl_name_table_init(&p->by_name, 1024, e);
}

static int reserve_tensors(struct sl_checkpoint *ck, uint32_t n, struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);
    uint64_t need = (uint64_t)ck->n_tensors + n, cap = p->cap_tensors ? p->cap_tensors : 256;
    struct sl_src_tensor *grown;

    if (need > SL_SRC_MAX_TENSORS)
        return sl_fail(e, SL_EUNSUPPORTED, "%s: %" PRIu64 " tensors up to this file; %u at most are read",
                       ck->files[ck->n_files - 1].path, need, SL_SRC_MAX_TENSORS);
    if (need <= p->cap_tensors)
        return 0;
    while (cap < need)
        cap *= 2;
    grown = realloc(ck->tensors, cap * sizeof *grown);
    if (!grown)
        return sl_fail(e, SL_EFAIL, "out of memory for %" PRIu64 " tensors", cap);
    ck->tensors = grown;
    p->cap_tensors = (uint32_t)cap;
    return 0;
}

int sl_ck_add_file(struct sl_checkpoint *ck, const char *dir, const char *name, uint64_t size,
                   int64_t mtime_ns, const struct sl_src_tensor *tensors, uint32_t n, char *names,
                   struct sl_error *e)
{
    struct sl_ck_priv *p = sl_ck_priv(ck);
    struct sl_src_file *f = &ck->files[ck->n_files];
    const char *slash = strrchr(name, '/');
    uint32_t file = ck->n_files++;

    p->arenas[p->n_arenas++] = names;
    f->path = dir ? sl_source_join(dir, name) : strdup(name);
    f->name = strdup(slash ? slash + 1 : name);
    f->size = size;
    f->mtime_ns = mtime_ns;
    if (!f->path || !f->name)
        return sl_fail(e, SL_EFAIL, "%s: out of memory", name);
    SL_TRY(reserve_tensors(ck, n, e));
    for (uint32_t i = 0; i < n; i++) {
        struct sl_src_tensor *t = &ck->tensors[ck->n_tensors];
        uint32_t held;

        *t = tensors[i];
        t->file = file;
        SL_TRY(sl_name_table_add(&p->by_name, t->name, ck->n_tensors, &held, e));
        if (held != ck->n_tensors)
            return sl_fail(e, SL_ESOURCE, "tensor '%.160s' is in two files, %s and %s; is one a copy of the other?",
                           t->name, ck->files[ck->tensors[held].file].name, f->name);
        ck->n_tensors++;
    }
    return p->watch ? p->watch->step(p->watch->user, e) : 0;
}

int sl_ck_name_anew(struct sl_checkpoint *ck, struct sl_error *e)
{
    struct sl_name_table *t = &sl_ck_priv(ck)->by_name;

    sl_name_table_free(t);
    SL_TRY(sl_name_table_init(t, ck->n_tensors, e));
    for (uint32_t i = 0; i < ck->n_tensors; i++) {
        uint32_t held;

        SL_TRY(sl_name_table_add(t, ck->tensors[i].name, i, &held, e));
        if (held != i)
            return sl_fail(e, SL_ESOURCE, "tensor '%.160s' is there under two names; expected one of them",
                           ck->tensors[i].name);
    }
    return 0;
}

/* Reads one safetensors file; dir NULL: name is a path that the user gave. */
static int add_safetensors(struct sl_checkpoint *ck, const char *dir, const char *name,
                           struct sl_error *e)
{
    const struct sl_source_dir from = {dir, ck->roots};
    struct sl_source_stat st;
    struct sl_source_hole hole = {0};
    struct sl_safetensors s;
    char *names;
    int fd, rc;

    if (dir)
        SL_TRY(sl_source_open(&from, name, &fd, &st, e));
    else
        SL_TRY(sl_source_open_path(name, ck->roots, &fd, &st, e));
    rc = sl_safetensors_read(fd, name, st.size, &s, e);
    if (rc == 0)
        hole = sl_source_first_hole(fd, st.size);
    close(fd);
    if (rc == 0) {
        names = s.names;
        s.names = NULL;
        rc = sl_ck_add_file(ck, dir, name, st.size, st.mtime_ns, s.tensors, s.n_tensors, names, e);
        ck->files[ck->n_files - 1].hole = hole;
    }
    sl_safetensors_free(&s);
    return rc;
}

/* ---- what a folder that lacks something holds ---- */

struct listing {
    uint32_t safetensors, gguf, bin;
    char first[256]; /* .safetensors file */
    char below[256]; /* a folder with a config.json */
    bool is_hub;     /* of a Hugging Face cache's models */
};

static void list_entry(const char *dir, const char *name, struct listing *l)
{
    char path[512];

    if (sl_stem(name, shard_suffix) && name[0] != '.') {
        if (l->safetensors++ == 0)
            snprintf(l->first, sizeof l->first, "%s", name);
    }
    l->gguf += sl_stem(name, ".gguf") > 0;
    l->bin += sl_stem(name, ".bin") || sl_stem(name, ".pth");
    l->is_hub |= strncmp(name, "models--", 8) == 0;
    if (name[0] != '.' && (size_t)snprintf(path, sizeof path, "%s/%s/config.json", dir, name) < sizeof path &&
        access(path, F_OK) == 0 && (!l->below[0] || strcmp(name, l->below) < 0))
        snprintf(l->below, sizeof l->below, "%s", name);
}

static int list_folder(const char *dir, struct listing *l, struct sl_error *e)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    int rc = 0;

    memset(l, 0, sizeof *l);
    if (!d)
        return sl_fail(e, sl_source_code(errno), "%s: %s", dir, strerror(errno));
    while ((errno = 0, entry = readdir(d)) != NULL)
        list_entry(dir, entry->d_name, l);
    if (errno)
        rc = sl_fail(e, SL_ESOURCE, "%s: %s", dir, strerror(errno));
    closedir(d);
    return rc;
}

static int no_config(const char *dir, struct sl_error *e)
{
    struct listing l;

    if (sl_source_exists(dir, "snapshots"))
        return sl_fail(e, SL_ESOURCE, "%s: a model's folder in a Hugging Face cache; give one of its "
                       "revisions, %s/snapshots/REVISION", dir, dir);
    SL_TRY(list_folder(dir, &l, e));
    if (l.is_hub)
        return sl_fail(e, SL_ESOURCE, "%s: a Hugging Face cache; give a revision of one of its models, "
                       "%s/models--NAME/snapshots/REVISION", dir, dir);
    if (l.below[0] && !l.safetensors)
        return sl_fail(e, SL_ESOURCE, "%s: config.json is missing, and there is one in %s/%s: give that folder",
                       dir, dir, l.below);
    if (l.gguf && !l.safetensors)
        return sl_fail(e, SL_ESOURCE, "%s: %s", dir, gguf_folder);
    return sl_fail(e, SL_ESOURCE, "%s: config.json is missing; a checkpoint's folder holds "
                   "config.json, the tokenizer and the .safetensors files", dir);
}

/* ---- config.json ---- */

static int take_config(struct sl_checkpoint *ck, int fd, const char *label, struct sl_error *e)
{
    int rc = sl_json_read_fd(fd, label, CONFIG_MAX_BYTES, &ck->config, e);

    if (rc < 0)
        return rc;
    if (!cJSON_IsObject(ck->config))
        return sl_fail(e, SL_ESOURCE, "%s: expected a JSON object", label);
    rc = sl_ck_take_params(ck, e);
    rc = rc < 0 ? rc : sl_ck_read_text(ck, e);
    if (rc == 0)
        rc = sl_ck_read_quantization(ck, e);
    return rc < 0 ? sl_fail_context(e, "%s", label) : 0;
}

static int read_config(struct sl_checkpoint *ck, const char *dir, bool required, struct sl_error *e)
{
    const struct sl_source_dir from = {dir, ck->roots};
    const char *name = sl_ck_has_params(dir) ? "params.json" : "config.json";
    struct sl_source_stat st;
    int fd, rc;

    if (!sl_source_exists(dir, name))
        return required ? no_config(dir, e) : 0;
    SL_TRY(sl_source_open(&from, name, &fd, &st, e));
    rc = take_config(ck, fd, name, e);
    close(fd);
    return rc;
}

/* ---- folders ---- */

static int open_shards(struct sl_checkpoint *ck, const char *dir, const char *index,
                       const struct sl_shard_index *ix, struct sl_error *e)
{
    const char *missing = NULL;
    uint32_t n_missing = 0;

    for (uint32_t i = 0; i < ix->n_shards; i++)
        if (!sl_source_exists(dir, ix->shards[i])) {
            missing = missing ? missing : ix->shards[i];
            n_missing++;
        }
    if (missing)
        return sl_fail(e, SL_ESOURCE, "%s: %s is missing (%" PRIu32 " of %" PRIu32 " shards that %s "
                       "names are missing); is the download complete?", dir, missing, n_missing,
                       ix->n_shards, index);
    SL_TRY(sl_ck_reserve_files(ck, ix->n_shards, e));
    for (uint32_t i = 0; i < ix->n_shards; i++)
        SL_TRY(add_safetensors(ck, dir, ix->shards[i], e));
    return sl_shard_index_check(ix, index, ck->tensors, ck->n_tensors, &sl_ck_priv(ck)->by_name, e);
}

static int open_index(struct sl_checkpoint *ck, const char *dir, const char *index,
                      struct sl_error *e)
{
    const struct sl_source_dir from = {dir, ck->roots};
    struct sl_source_stat st;
    struct sl_shard_index ix;
    int fd, rc;

    SL_TRY(sl_source_open(&from, index, &fd, &st, e));
    rc = sl_shard_index_read(fd, index, &ix, e);
    close(fd);
    if (rc < 0)
        return rc;
    rc = open_shards(ck, dir, index, &ix, e);
    sl_shard_index_free(&ix);
    return rc;
}

static int open_series(struct sl_checkpoint *ck, const char *dir, const struct sl_shard_series *s,
                       struct sl_error *e)
{
    SL_TRY(sl_ck_reserve_files(ck, s->n, e));
    for (uint32_t i = 0; i < s->n; i++)
        SL_TRY(add_safetensors(ck, dir, s->names[i], e));
    return 0;
}

static const char *index_of(const struct sl_checkpoint *ck)
{
    return sl_ck_priv(ck)->mistral ? "consolidated.safetensors.index.json" : index_name;
}

static const char *single_of(const struct sl_checkpoint *ck)
{
    return sl_ck_priv(ck)->mistral ? "consolidated.safetensors" : single_name;
}

static int open_unindexed(struct sl_checkpoint *ck, const char *dir, struct sl_error *e)
{
    struct sl_shard_series s;
    struct listing l;
    int rc;

    SL_TRY(list_folder(dir, &l, e));
    if (l.safetensors == 0 && l.gguf)
        return sl_fail(e, SL_ESOURCE, "%s: %s", dir, gguf_folder);
    if (l.safetensors == 0 && l.bin)
        return sl_fail(e, SL_EUNSUPPORTED, "%s: no .safetensors file; PyTorch pickles (.bin, .pth) "
                       "are not supported", dir);
    if (l.safetensors == 0)
        return sl_fail(e, SL_ESOURCE, "%s: no %s, no %s and no other .safetensors file%s", dir, index_of(ck),
                       single_of(ck), sl_source_exists(dir, "config.json") ? "; 'sluice plan' needs no weights when config.json itself is named" : "");
    SL_TRY(sl_shard_series_read(dir, &s, e));
    if (s.n) {
        rc = open_series(ck, dir, &s, e);
        sl_shard_series_free(&s);
        return rc;
    }
    sl_shard_series_free(&s);
    if (l.safetensors > 1)
        return sl_fail(e, SL_ESOURCE, "%s: %s is missing, and %" PRIu32 " .safetensors files are "
                       "there; download it beside them", dir, index_of(ck), l.safetensors);
    SL_TRY(sl_ck_reserve_files(ck, 1, e));
    return add_safetensors(ck, dir, l.first, e);
}

static int open_folder(struct sl_checkpoint *ck, const char *dir, struct sl_error *e)
{
    if (sl_source_exists(dir, index_of(ck)))
        return open_index(ck, dir, index_of(ck), e);
    if (sl_source_exists(dir, single_of(ck))) {
        SL_TRY(sl_ck_reserve_files(ck, 1, e));
        return add_safetensors(ck, dir, single_of(ck), e);
    }
    return open_unindexed(ck, dir, e);
}

/* ---- public ---- */

static int keep_dir(struct sl_checkpoint *ck, const char *dir, size_t n, struct sl_error *e)
{
    while (n > 1 && dir[n - 1] == '/')
        n--;
    ck->dir = n ? strndup(dir, n) : strdup(".");
    return ck->dir ? 0 : sl_fail(e, SL_EFAIL, "%s: out of memory", dir);
}

static int keep_name(struct sl_checkpoint *ck, const char *path, struct sl_error *e)
{
    sl_ck_priv(ck)->label = strdup(path);
    return sl_ck_priv(ck)->label ? 0 : sl_fail(e, SL_EFAIL, "%s: out of memory", path);
}

/* Returns 1 when a file is GGUF by its first bytes, or 0: Ollama's have no such name. */
static int begins_as_gguf(const struct sl_checkpoint *ck, const char *path, struct sl_error *e)
{
    struct sl_source_stat st;
    char head[4] = "";
    int fd, rc;

    SL_TRY(sl_source_open_path(path, ck->roots, &fd, &st, e));
    rc = sl_source_read(fd, path, head, st.size < sizeof head ? (size_t)st.size : sizeof head, 0, e);
    close(fd);
    return rc < 0 ? rc : memcmp(head, "GGUF", sizeof head) == 0;
}

static int open_file(struct sl_checkpoint *ck, const char *path, struct sl_error *e)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    bool shard = sl_stem(path, shard_suffix) > 0, index = sl_stem(path, ".safetensors.index.json") > 0;
    int gguf = sl_stem(path, ".gguf") > 0;

    if (!gguf && !shard && !index)
        SL_TRY(gguf = begins_as_gguf(ck, path, e));
    if (gguf)
        return sl_ck_open_gguf(ck, path, e);
    if (!shard && !index)
        return sl_fail(e, SL_ESOURCE, "%s: not a checkpoint; expected a folder with config.json and "
                       ".safetensors files, a .safetensors file, its .index.json, or a GGUF file", path);
    SL_TRY(keep_dir(ck, path, slash == path ? 1 : (size_t)(base - path), e));
    if (index) {
        SL_TRY(read_config(ck, ck->dir, true, e));
        return open_index(ck, ck->dir, base, e);
    }
    SL_TRY(keep_name(ck, path, e));
    SL_TRY(read_config(ck, ck->dir, false, e));
    SL_TRY(sl_ck_reserve_files(ck, 1, e));
    return add_safetensors(ck, NULL, path, e);
}

/* An address, or "deepseek-ai/DeepSeek-R1" where there is no such folder as the first. */
static bool looks_remote(const char *path)
{
    const char *slash = strchr(path, '/');
    char first[128];
    struct stat st;

    if (strstr(path, "://"))
        return true;
    if (!slash || strchr(slash + 1, '/') || strchr("/.~", *path) || (size_t)(slash - path) >= sizeof first)
        return false;
    snprintf(first, sizeof first, "%.*s", (int)(slash - path), path);
    return stat(first, &st) != 0;
}

static int open_any(struct sl_checkpoint *ck, const char *path, struct sl_error *e)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        int err = errno;

        return sl_fail(e, SL_ESOURCE, "%s: %s; expected a checkpoint's folder, a .safetensors or a .gguf file%s", path,
                       strerror(err), looks_remote(path) ? " ('hf download' fetches one from Hugging Face)" : "");
    }
    if (S_ISDIR(st.st_mode)) {
        SL_TRY(keep_dir(ck, path, strlen(path), e));
        SL_TRY(read_config(ck, ck->dir, true, e));
        SL_TRY(open_folder(ck, ck->dir, e));
    } else {
        SL_TRY(open_file(ck, path, e));
    }
    if (ck->n_tensors == 0)
        return sl_fail(e, SL_ESOURCE, "%s: holds no tensors", path);
    SL_TRY(sl_ck_take_mistral(ck, e));
    SL_TRY(sl_ck_take_text(ck, e));
    SL_TRY(sl_ck_take_packed(ck, e));
    SL_TRY(sl_ck_take_gptq(ck, e));
    sl_ck_take_fp4(ck);
    SL_TRY(sl_ck_take_int8(ck, e));
    return sl_ck_check_scales(ck, e) < 0 ? sl_ck_method_first(ck, e) : 0;
}

static int new_checkpoint(struct sl_checkpoint **out, struct sl_error *e)
{
    struct sl_checkpoint *ck = calloc(1, sizeof *ck);

    if (ck)
        ck->priv = calloc(1, sizeof(struct sl_ck_priv));
    if (!ck || !ck->priv) {
        free(ck);
        return sl_no_memory(e);
    }
    *out = ck;
    return 0;
}

int sl_checkpoint_open_within(const char *path, const struct sl_roots *roots, const struct sl_header_watch *watch,
                              struct sl_checkpoint **out, struct sl_error *e)
{
    struct sl_checkpoint *ck = NULL;
    int rc;

    *out = NULL;
    SL_TRY(new_checkpoint(&ck, e));
    ck->roots = roots;
    sl_ck_priv(ck)->watch = watch;
    rc = open_any(ck, path, e);
    sl_ck_priv(ck)->watch = NULL;
    if (rc < 0) {
        sl_checkpoint_fail(ck, e);
        sl_checkpoint_close(ck);
        return rc;
    }
    *out = ck;
    return 0;
}

int sl_checkpoint_open(const char *path, struct sl_checkpoint **out, struct sl_error *e)
{
    return sl_checkpoint_open_within(path, NULL, NULL, out, e);
}

int sl_checkpoint_open_config(const char *path, struct sl_checkpoint **out, struct sl_error *e)
{
    const char *slash = strrchr(path, '/');
    struct sl_checkpoint *ck = NULL;
    struct sl_source_stat st;
    int fd, rc;

    *out = NULL;
    SL_TRY(new_checkpoint(&ck, e));
    rc = sl_source_open_path(path, NULL, &fd, &st, e);
    if (rc == 0) {
        rc = take_config(ck, fd, path, e);
        close(fd);
    }
    if (rc == 0)
        rc = keep_dir(ck, path, slash == path ? 1 : slash ? (size_t)(slash - path) : 0, e);
    if (rc == 0 && strcmp(slash ? slash + 1 : path, "config.json") != 0)
        rc = keep_name(ck, path, e);
    if (rc < 0)
        sl_checkpoint_close(ck);
    else
        *out = ck;
    return rc;
}

bool sl_checkpoint_is_shard(const struct sl_checkpoint *ck)
{
    return !ck->is_gguf && ck->n_files == 1 && sl_shard_set_size(ck->files[0].name) > 1;
}

void sl_checkpoint_fail(const struct sl_checkpoint *ck, struct sl_error *e)
{
    const char *given = sl_ck_priv(ck)->label ? sl_ck_priv(ck)->label : ck->dir;

    if (e && given && (e->code == SL_ESOURCE || e->code == SL_EUNSUPPORTED))
        sl_fail_in(e, given);
}

void sl_checkpoint_close(struct sl_checkpoint *ck)
{
    struct sl_ck_priv *p;

    if (!ck)
        return;
    p = sl_ck_priv(ck);
    for (uint32_t i = 0; i < p->n_arenas; i++)
        free(p->arenas[i]);
    for (uint32_t i = 0; i < ck->n_files; i++) {
        free(ck->files[i].path);
        free(ck->files[i].name);
    }
    sl_name_table_free(&p->by_name);
    sl_ck_free_ignore(p->ignore);
    free(p->arenas);
    free(p->label);
    free(p->role);
    cJSON_Delete(p->text);
    free(p);
    free(ck->dir);
    free(ck->files);
    free(ck->tensors);
    sl_gguf_close(ck->gguf);
    cJSON_Delete(ck->config);
    free(ck);
}

uint32_t sl_checkpoint_find(const struct sl_checkpoint *ck, const char *name)
{
    return sl_name_table_find(&sl_ck_priv(ck)->by_name, name);
}

const char *sl_src_shape_text(const struct sl_src_tensor *t, char buf[SL_SHAPE_TEXT])
{
    size_t at = 1;

    strcpy(buf, "[");
    for (uint32_t i = 0; i < t->n_dims; i++)
        at += (size_t)snprintf(buf + at, SL_SHAPE_TEXT - at, "%s%" PRIu64, i ? ", " : "", t->shape[i]);
    strcpy(buf + at, "]");
    return buf;
}
