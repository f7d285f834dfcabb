#include "proto/config_file.h"
#include "proto/config_value.h"

#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define FILE_MAX 262144   /* bytes of a configuration file */

struct slot {
    struct sl_config_value v;
    char *items[SL_CONFIG_ITEMS];
    char origin[256];
};

struct sl_config {
    struct slot slots[SL_CONFIG_KEYS];
    char *files[2];
    bool was_read[2];
    const char *(*env)(void *user, const char *name);
    void *user;
    bool root;
};

static void clear(struct slot *s)
{
    for (unsigned i = 0; i < s->v.n; i++)
        free(s->items[i]);
    s->v.n = 0;
    s->v.number = 0;
}

/* A value from a layer: replaces those of weaker layers. */
static int put(struct sl_config *c, enum sl_config_key k, enum sl_config_layer layer,
               const char *origin, const char *text, struct sl_error *e)
{
    const struct sl_config_info *info = sl_config_info(k);
    struct slot *s = &c->slots[k];
    uint64_t number;
    char *copy;

    SL_TRY(sl_config_check(info, text, &number, e));
    if (layer != s->v.layer || (layer == SL_CONFIG_FROM_OPTION && !info->list))
        clear(s);
    if (s->v.n && !info->list)
        return sl_fail(e, SL_EUSAGE, "%s.%s: given twice; the first is %s", info->section,
                       info->name, s->origin);
    if (s->v.n == SL_CONFIG_ITEMS)
        return sl_fail(e, SL_EUSAGE, "%s.%s: more than %d values", info->section, info->name,
                       SL_CONFIG_ITEMS);
    copy = strdup(text);
    if (!copy)
        return sl_no_memory(e);
    if (s->v.n == 0)
        snprintf(s->origin, sizeof s->origin, "%s", origin);
    s->items[s->v.n++] = copy;
    s->v.number = number;
    s->v.layer = layer;
    return 0;
}

/* ---- files */

struct reading {
    struct sl_config *c;
    FILE *f;
    const char *path;
    enum sl_config_layer layer;
    unsigned line;
    size_t bytes;
    bool has_value; /* the section at hand */
    int rc;
    struct sl_error *e;
};

static int refuse(struct reading *r, const char *what, const char *name)
{
    if (r->rc == 0)
        r->rc = sl_fail(r->e, SL_EUSAGE, "%s:%u: %s%s", r->path, r->line, what, name);
    return 0;
}

/* inih (55) says nothing of a section without values. It lets one stand behind a byte order mark, and behind blanks
 * where no value is before it in its section, which the line would go on with. */
static void check_section(struct reading *r, const char *line)
{
    char words[256];
    size_t n;

    if (r->line == 1 && strncmp(line, "\xEF\xBB\xBF", 3) == 0)
        line += 3;
    if (!r->has_value)
        line += strspn(line, " \t\v\f\r");
    n = strcspn(line, "]");
    if (*line == '[')
        r->has_value = false;
    if (*line != '[' || !line[n] || sl_config_has_section(line + 1, n - 1))
        return;
    snprintf(words, sizeof words, "%.*s; sluice.conf(5) lists them", (int)n - 1, line + 1);
    refuse(r, "no such section: ", words);
}

/* inih's reader: one line; what its buffer cannot hold would come back as a
 * line of its own, so it is refused here. */
static char *next_line(char *buf, int size, void *user)
{
    struct reading *r = user;
    size_t n;

    if (r->rc || !fgets(buf, size, r->f))
        return NULL;
    r->line++;
    n = strlen(buf);
    r->bytes += n;
    if (n + 1 == (size_t)size && buf[n - 1] != '\n')
        refuse(r, "the line is too long (198 bytes are allowed)", "");
    else if (n == 0 || (buf[n - 1] != '\n' && !feof(r->f)))
        refuse(r, "a NUL byte", "");
    else if (r->bytes > FILE_MAX)
        refuse(r, "the file is too long", "");
    else
        check_section(r, buf);
    return r->rc ? NULL : buf;
}

/* Length of a value without the comment behind it, which inih (55) leaves on a list's further lines. */
static int without_comment(const char *value)
{
    const char *end = value;

    for (const char *p = value; *p && !(*p == ';' && p > end); p++)
        if (*p != ' ' && *p != '\t')
            end = p + 1;
    return (int)(end - value);
}

static int on_value(void *user, const char *section, const char *name, const char *value)
{
    struct reading *r = user;
    char full[128], origin[256], text[256];
    int k;

    if (r->rc)
        return 0;
    r->has_value = true;
    snprintf(full, sizeof full, "%s.%s", section, name);
    if (!*section)
        return refuse(r, "a value before the first [section]: ", name);
    k = sl_config_by_name(full);
    snprintf(origin, sizeof origin, "%s; sluice.conf(5) lists them", full);
    if (k < 0)
        return refuse(r, "no such key: ", origin);
    snprintf(origin, sizeof origin, "%s:%u", r->path, r->line);
    snprintf(text, sizeof text, "%.*s", without_comment(value), value);
    r->rc = put(r->c, (enum sl_config_key)k, r->layer, origin, text, r->e);
    if (r->rc < 0)
        sl_fail_context(r->e, "%s:%u", r->path, r->line);
    return r->rc == 0;
}

/* Returns 1 when the file was there and is read, 0 when it is not there. */
static int read_file(struct sl_config *c, const char *path, enum sl_config_layer layer,
                     struct sl_error *e)
{
    struct reading r = {.c = c, .path = path, .layer = layer, .e = e};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), bad;
    struct stat st;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (fd < 0 || fstat(fd, &st) != 0 || !(r.f = fdopen(fd, "r"))) {
        bad = errno;
        if (fd >= 0)
            close(fd);
        return sl_fail(e, SL_EFAIL, "%s: cannot be read: %s", path, strerror(bad));
    }
    if (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) { /* /dev/null: no configuration */
        fclose(r.f);
        return 1;
    }
    if (!S_ISREG(st.st_mode))
        r.rc = sl_fail(e, SL_EUSAGE, "%s: is not a file", path);
    else if (st.st_mode & S_IWOTH)
        r.rc = sl_fail(e, SL_EUSAGE, "%s: everybody may write to it; chmod o-w", path);
    if (r.rc == 0) {
        bad = ini_parse_stream(next_line, &r, on_value, &r);
        if (r.rc == 0 && ferror(r.f))
            r.rc = sl_fail(e, SL_EFAIL, "%s: cannot be read", path);
        if (r.rc == 0 && bad) {
            r.line = bad > 0 ? (unsigned)bad : 0;
            refuse(&r, "expected [section] or name = value", "");
        }
    }
    fclose(r.f);
    return r.rc < 0 ? r.rc : 1;
}

/* ---- environment */

static const char *from_process(void *user, const char *name)
{
    (void)user;
    return getenv(name);
}

static const char *env(const struct sl_config *c, const char *name)
{
    const char *v = c->env(c->user, name);

    return v && *v ? v : NULL;
}

static int read_env(struct sl_config *c, struct sl_error *e)
{
    for (int k = 0; k < SL_CONFIG_KEYS; k++) {
        const struct sl_config_info *info = sl_config_info((enum sl_config_key)k);
        const char *text = env(c, info->env);
        char item[4096];

        while (text) {
            size_t n = info->list ? strcspn(text, ",") : strlen(text);
            int rc;

            if (n >= sizeof item)
                return sl_fail(e, SL_EUSAGE, "%s: too long", info->env);
            memcpy(item, text, n);
            item[n] = '\0';
            rc = put(c, (enum sl_config_key)k, SL_CONFIG_FROM_ENV, info->env, item, e);
            if (rc < 0) {
                sl_fail_context(e, "%s", info->env);
                return rc;
            }
            text = text[n] ? text + n + 1 : NULL;
        }
    }
    return 0;
}

/* ---- what is built in */

static int builtin(struct sl_config *c, enum sl_config_key k, const char *a, const char *b,
                   struct sl_error *e)
{
    char text[4096];

    if ((size_t)snprintf(text, sizeof text, "%s%s", a, b) >= sizeof text)
        return sl_fail(e, SL_EUSAGE, "%s: too long", a);
    return put(c, k, SL_CONFIG_BUILTIN, "built-in", text, e);
}

/* A user's own daemon goes before the system's. */
static int set_endpoint(struct sl_config *c, const struct sl_config_opts *o, struct sl_error *e)
{
    const char *run = c->root ? NULL : env(c, "XDG_RUNTIME_DIR");
    char path[4096];

    if (!run || *run != '/')
        return builtin(c, SL_CONFIG_ENDPOINT, "ipc://", SL_CONFIG_SOCKET, e);
    if ((size_t)snprintf(path, sizeof path, "%s/sluice/sluiced.sock", run) >= sizeof path)
        return sl_fail(e, SL_EUSAGE, "XDG_RUNTIME_DIR: too long");
    if (o->system_socket && access(path, F_OK) != 0 && access(o->system_socket, F_OK) == 0)
        return builtin(c, SL_CONFIG_ENDPOINT, "ipc://", o->system_socket, e);
    return builtin(c, SL_CONFIG_ENDPOINT, "ipc://", path, e);
}

/* A user has folders of the session; root and system users those of the system.
 * STATE_DIRECTORY is what systemd gives a service. */
static int set_builtins(struct sl_config *c, const struct sl_config_opts *o, struct sl_error *e)
{
    const char *state = env(c, "STATE_DIRECTORY"), *tail = "";

    for (int k = 0; k < SL_CONFIG_KEYS; k++) {
        const char *text = sl_config_info((enum sl_config_key)k)->builtin;

        c->slots[k].v.items = (const char *const *)c->slots[k].items;
        c->slots[k].v.origin = c->slots[k].origin;
        strcpy(c->slots[k].origin, "built-in");
        if (text)
            SL_TRY(put(c, (enum sl_config_key)k, SL_CONFIG_BUILTIN, "built-in", text, e));
    }
    SL_TRY(set_endpoint(c, o, e));
    if (!state && !c->root) {
        state = env(c, "XDG_STATE_HOME");
        tail = "/sluice";
        if (!state || *state != '/') { /* a relative one counts for nothing */
            state = env(c, "HOME");
            tail = "/.local/state/sluice";
        }
    }
    if (!state || *state != '/')
        return builtin(c, SL_CONFIG_STATE_DIR, "/var/lib/sluice", "", e);
    return builtin(c, SL_CONFIG_STATE_DIR, state, tail, e);
}

static int choose_files(struct sl_config *c, const struct sl_config_opts *o, struct sl_error *e)
{
    const char *only = o->path ? o->path : env(c, "SLUICE_CONFIG");
    const char *home = env(c, "XDG_CONFIG_HOME"), *tail = "/sluice/sluice.conf";
    char path[4096];

    if (only) {
        c->files[0] = strdup(only);
        return c->files[0] ? 0 : sl_no_memory(e);
    }
    c->files[0] = strdup(o->system_path ? o->system_path : SL_CONFIG_SYSTEM);
    if (!c->files[0])
        return sl_no_memory(e);
    if (!home || *home != '/') {
        home = env(c, "HOME");
        tail = "/.config/sluice/sluice.conf";
    }
    if (!home || *home != '/')
        return 0;
    if ((size_t)snprintf(path, sizeof path, "%s%s", home, tail) >= sizeof path)
        return sl_fail(e, SL_EUSAGE, "HOME: too long");
    c->files[1] = strdup(path);
    return c->files[1] ? 0 : sl_no_memory(e);
}

static int fill(struct sl_config *c, const struct sl_config_opts *o, struct sl_error *e)
{
    SL_TRY(set_builtins(c, o, e));
    SL_TRY(choose_files(c, o, e));
    for (int i = 0; i < 2 && c->files[i]; i++) {
        int rc = read_file(c, c->files[i], i ? SL_CONFIG_FROM_USER : SL_CONFIG_FROM_SYSTEM, e);

        SL_TRY(rc);
        c->was_read[i] = rc == 1;
    }
    if ((o->path || env(c, "SLUICE_CONFIG")) && !c->was_read[0])
        return sl_fail(e, SL_EUSAGE, "%s%s: no such file", o->path ? "" : "SLUICE_CONFIG: ", c->files[0]);
    return read_env(c, e);
}

int sl_config_open(const struct sl_config_opts *o, struct sl_config **out, struct sl_error *e)
{
    static const struct sl_config_opts none;
    struct sl_config *c = calloc(1, sizeof *c);
    int rc;

    *out = NULL;
    if (!c)
        return sl_no_memory(e);
    if (!o)
        o = &none;
    c->env = o->env ? o->env : from_process;
    c->user = o->user;
    c->root = !o->not_root && geteuid() == 0;
    rc = fill(c, o, e);
    if (rc < 0) {
        sl_config_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void sl_config_close(struct sl_config *c)
{
    if (!c)
        return;
    for (int k = 0; k < SL_CONFIG_KEYS; k++)
        clear(&c->slots[k]);
    free(c->files[0]);
    free(c->files[1]);
    free(c);
}

/* A relative path, made absolute. */
static int from_here(const char *text, char *path, size_t cap, struct sl_error *e)
{
    size_t n;

    if (strcmp(text, ".") == 0)
        text = "";
    while (strncmp(text, "./", 2) == 0)
        text += 2;
    if (!getcwd(path, cap))
        return sl_fail(e, SL_EFAIL, "the current folder: %s", strerror(errno));
    n = strlen(path);
    if (*text && (size_t)snprintf(path + n, cap - n, "%s%s", path[n - 1] == '/' ? "" : "/", text) >= cap - n)
        return sl_fail(e, SL_EUSAGE, "'%.64s...': too long", text);
    return 0;
}

int sl_config_set(struct sl_config *c, enum sl_config_key k, const char *text,
                  const char *option, struct sl_error *e)
{
    char path[4096];
    int rc = 0;

    if (sl_config_info(k)->type == SL_CONFIG_IS_PATH && *text && *text != '/') {
        rc = from_here(text, path, sizeof path, e);
        text = path;
    }
    if (rc == 0)
        rc = put(c, k, SL_CONFIG_FROM_OPTION, option, text, e);
    if (rc < 0)
        sl_fail_context(e, "%s", option);
    return rc;
}

const struct sl_config_value *sl_config_get(const struct sl_config *c, enum sl_config_key k)
{
    return &c->slots[(unsigned)k < SL_CONFIG_KEYS ? k : 0].v;
}

const char *sl_config_text(const struct sl_config *c, enum sl_config_key k)
{
    const struct sl_config_value *v = sl_config_get(c, k);

    return v->n ? v->items[0] : "";
}

uint64_t sl_config_number(const struct sl_config *c, enum sl_config_key k)
{
    return sl_config_get(c, k)->number;
}

int sl_config_there(const struct sl_config *c, enum sl_config_key k, struct sl_error *e)
{
    const struct sl_config_info *info = sl_config_info(k);
    const struct sl_config_value *v = sl_config_get(c, k);

    for (unsigned i = 0; i < v->n; i++)
        if (*v->items[i] && access(v->items[i], F_OK) != 0)
            return sl_fail(e, SL_EUSAGE, "%s: %s.%s: %s: %s", v->origin, info->section, info->name,
                           v->items[i], strerror(errno));
    return 0;
}

int sl_config_check_pairs(const struct sl_config *c, struct sl_error *e)
{
    const struct sl_config_value *lease = sl_config_get(c, SL_CONFIG_LEASE), *heartbeat = sl_config_get(c, SL_CONFIG_HEARTBEAT);

    if (lease->number < 2 * heartbeat->number)
        return sl_fail(e, SL_EUSAGE, "daemon.lease = %s (%s) must be at least twice daemon.heartbeat = %s (%s): progress is told "
                       "each heartbeat, and a lease without any ends", lease->items[0], lease->origin, heartbeat->items[0],
                       heartbeat->origin);
    return 0;
}

const char *sl_config_file(const struct sl_config *c, unsigned i, bool *read)
{
    if (i > 1 || !c->files[i])
        return NULL;
    *read = c->was_read[i];
    return c->files[i];
}
