#include "proto/keyring.h"

#include "proto/refusal.h"
#include "proto/sync_folder.h"
#include "proto/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_BYTES 512
#define ENTRIES_MAX 10000u

static const char *const role_names[] = {"none", "worker", "submitter", "admin"};

const char *sl_role_name(enum sl_role r)
{
    return role_names[r <= SL_ROLE_ADMIN ? r : SL_ROLE_NONE];
}

enum sl_role sl_role_by_name(const char *name)
{
    for (int r = SL_ROLE_WORKER; r <= SL_ROLE_ADMIN; r++)
        if (strcmp(role_names[r], name) == 0)
            return (enum sl_role)r;
    return SL_ROLE_NONE;
}

/* Z85 of 32 bytes: 40 characters of its alphabet. */
static bool is_key(const char *text)
{
    static const char alphabet[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                   ".-:+=^!/*?&<>()[]{}@%$#";

    return strlen(text) == SL_KEY_CHARS && strspn(text, alphabet) == SL_KEY_CHARS;
}

/* ---- reading line by line */

struct lines {
    FILE *f;
    const char *path;
    unsigned number;
    char text[LINE_MAX_BYTES];
};

/* forbidden: bits that the file's mode must not have; why: what is said then. */
static int open_lines(struct lines *l, const char *path, mode_t forbidden, const char *why,
                      struct sl_error *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    char said[128];

    *l = (struct lines){.path = path};
    if (fd < 0)
        return sl_fail(e, SL_EUSAGE, "%s: %s%s", path, sl_refusal(said, errno), errno == EACCES && (forbidden & S_IROTH)
                       ? ": chown it to that user, or name another: 'sluice keys' makes a key" : "");
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return sl_fail(e, SL_EUSAGE, "%s: not a regular file", path);
    }
    if (st.st_mode & forbidden) {
        close(fd);
        return sl_fail(e, SL_EUSAGE, "%s: mode %04o: %s", path, (unsigned)(st.st_mode & 07777), why);
    }
    l->f = fdopen(fd, "r");
    if (!l->f) {
        close(fd);
        return sl_fail(e, SL_EFAIL, "%s: out of memory", path);
    }
    return 0;
}

/* Returns 1 with the next line, 0 at the end. */
static int read_line(struct lines *l, struct sl_error *e)
{
    size_t n = 0;
    int c;

    l->number++;
    while ((c = getc(l->f)) != EOF && c != '\n') {
        if (c == '\0')
            return sl_fail(e, SL_EUSAGE, "%s:%u: a NUL byte", l->path, l->number);
        if (n + 2 == sizeof l->text)
            return sl_fail(e, SL_EUSAGE, "%s:%u: the line is too long", l->path, l->number);
        l->text[n++] = (char)c;
    }
    l->text[n] = '\0';
    if (ferror(l->f))
        return sl_fail(e, SL_EUSAGE, "%s: cannot be read", l->path);
    return n > 0 || c == '\n';
}

/* Returns 1 with the words of the next line that has any, 0 at the end. *n: how many;
 * one more than `most` says that there are too many. */
static int next_line(struct lines *l, char *word[], unsigned most, unsigned *n, struct sl_error *e)
{
    int rc;

    while ((rc = read_line(l, e)) == 1) {
        char *save = NULL, *hash;

        /* '#' is a character of keys: a comment begins a line or follows white space. */
        for (hash = strchr(l->text, '#'); hash; hash = strchr(hash + 1, '#'))
            if (hash == l->text || hash[-1] == ' ' || hash[-1] == '\t') {
                *hash = '\0';
                break;
            }
        *n = 0;
        for (char *w = strtok_r(l->text, " \t\r\n", &save); w && *n <= most;
             w = strtok_r(NULL, " \t\r\n", &save)) {
            if (*n < most)
                word[*n] = w;
            ++*n;
        }
        if (*n > 0)
            return 1;
    }
    return rc;
}

/* ---- key files */

static int read_key(struct lines *l, struct sl_key *k, struct sl_error *e)
{
    char *word[2], *to;
    unsigned n;
    int rc;

    while ((rc = next_line(l, word, 2, &n, e)) == 1) {
        bool secret = strcmp(word[0], "secret") == 0;

        if (n != 2 || (!secret && strcmp(word[0], "public") != 0) || !is_key(word[1]))
            return sl_fail(e, SL_EUSAGE, "%s:%u: 'public KEY' or 'secret KEY' is expected, KEY being "
                           "40 characters as 'sluice keys' writes them", l->path, l->number);
        to = secret ? k->secret_key : k->public_key;
        if (*to)
            return sl_fail(e, SL_EUSAGE, "%s:%u: a second %s key", l->path, l->number, word[0]);
        memcpy(to, word[1], SL_KEY_CHARS + 1);
    }
    return rc;
}

/* The allow-list's line of this key, where the file keeps it. What is no such line is a comment. */
static void read_allowed(struct lines *l, struct sl_key *k)
{
    char role[16], key[SL_KEY_CHARS + 1], name[sizeof k->name];

    rewind(l->f);
    while (fgets(l->text, sizeof l->text, l->f))
        if (sscanf(l->text, "# allow-list: %15s key %40s %64s", role, key, name) == 3 &&
            strcmp(key, k->public_key) == 0 && sl_role_by_name(role) != SL_ROLE_NONE && sl_utf8_all_shown(name)) {
            k->role = sl_role_by_name(role);
            strcpy(k->name, name);
            return;
        }
}

int sl_key_load(const char *path, bool want_secret, struct sl_key *k, struct sl_error *e)
{
    struct lines l;
    int rc;

    memset(k, 0, sizeof *k);
    SL_TRY(open_lines(&l, path, want_secret ? 077 : 0, "a secret key must be closed to others (chmod 600)", e));
    rc = read_key(&l, k, e);
    if (rc == 0)
        read_allowed(&l, k);
    fclose(l.f);
    explicit_bzero(l.text, sizeof l.text);
    if (rc == 0 && !*k->public_key)
        rc = sl_fail(e, SL_EUSAGE, "%s: no public key in it", path);
    if (rc == 0 && want_secret && !*k->secret_key)
        rc = sl_fail(e, SL_EUSAGE, "%s: no secret key in it; is it the .pub file?", path);
    if (rc < 0)
        explicit_bzero(k, sizeof *k);
    return rc;
}

static int is_there(const char *path, struct sl_error *e)
{
    return sl_fail(e, SL_EEXISTS, "%s: is there already; choose another name ('sluice keys --show' prints a key's line)",
                   path);
}

static int write_new(const char *path, mode_t mode, const char *text, struct sl_error *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode), rc;
    size_t n = strlen(text), at = 0;
    ssize_t got;

    if (fd < 0 && errno == EEXIST)
        return is_there(path, e);
    if (fd < 0)
        return sl_fail(e, sl_make_code(errno), "%s: cannot be made: %s", path, strerror(errno));
    while (at < n && ((got = write(fd, text + at, n - at)) > 0 || errno == EINTR))
        at += got > 0 ? (size_t)got : 0;
    rc = at == n && fsync(fd) == 0 ? 0
         : sl_fail(e, sl_write_code(errno), "%s: cannot be written: %s", path, strerror(errno));
    close(fd); /* synced before */
    if (rc < 0)
        unlink(path);
    return rc;
}

int sl_key_save(const char *path, const struct sl_key *k, struct sl_error *e)
{
    char allowed[160] = "", text[320], *pub;
    int rc;

    if (!is_key(k->public_key) || !is_key(k->secret_key))
        return sl_fail(e, SL_EUSAGE, "%s: no key pair to be written", path);
    if (asprintf(&pub, "%s.pub", path) < 0)
        return sl_no_memory(e);
    rc = access(pub, F_OK) == 0 ? is_there(pub, e) : 0;
    if (k->role != SL_ROLE_NONE)
        snprintf(allowed, sizeof allowed, "# allow-list: %s key %s %s\n", sl_role_name(k->role), k->public_key, k->name);
    snprintf(text, sizeof text, "%spublic %s\nsecret %s\n", allowed, k->public_key, k->secret_key);
    if (rc == 0)
        rc = write_new(path, 0600, text, e);
    snprintf(text, sizeof text, "%spublic %s\n", allowed, k->public_key);
    if (rc == 0) {
        rc = write_new(pub, 0644, text, e);
        if (rc == 0 && (rc = sl_sync_folder_of(path, e)) < 0)
            unlink(pub);
        if (rc < 0)
            unlink(path);
    }
    explicit_bzero(text, sizeof text);
    free(pub);
    return rc;
}

/* ---- the allow-list */

/* A user's number as the kernel knows it: the largest is nobody's. */
static bool is_uid(const char *text)
{
    size_t n = strlen(text);

    return n > 0 && n <= 10 && strspn(text, "0123456789") == n && (text[0] != '0' || n == 1) &&
           strtoull(text, NULL, 10) < UINT32_MAX;
}

static int add_entry(struct lines *l, struct sl_allow_list *list, char *const word[4], unsigned n,
                     struct sl_error *e)
{
    struct sl_allow_entry entry = {0}, *grown;

    if (n != 4)
        return sl_fail(e, SL_EUSAGE, "%s:%u: 'ROLE key KEY NAME' or 'ROLE uid NUMBER NAME' is expected",
                       l->path, l->number);
    entry.role = sl_role_by_name(word[0]);
    if (entry.role == SL_ROLE_NONE)
        return sl_fail(e, SL_EUSAGE, "%s:%u: role '%s': worker, submitter or admin is expected", l->path,
                       l->number, word[0]);
    entry.is_uid = strcmp(word[1], "uid") == 0;
    if ((!entry.is_uid && strcmp(word[1], "key") != 0) ||
        !(entry.is_uid ? is_uid(word[2]) : is_key(word[2])))
        return sl_fail(e, SL_EUSAGE, "%s:%u: '%s %s' is no 'key KEY' and no 'uid NUMBER'", l->path,
                       l->number, word[1], word[2]);
    if (strlen(word[3]) >= sizeof entry.name)
        return sl_fail(e, SL_EUSAGE, "%s:%u: the name is longer than 64 bytes", l->path, l->number);
    if (!sl_utf8_all_shown(word[3])) /* it stands in messages and log lines */
        return sl_fail(e, SL_EUSAGE, "%s:%u: the name '%s' is not UTF-8, or holds a control character", l->path,
                       l->number, word[3]);
    if (sl_allow_find(list, entry.is_uid, word[2]))
        return sl_fail(e, SL_EUSAGE, "%s:%u: %s stands there twice", l->path, l->number, word[2]);
    if (list->n == ENTRIES_MAX)
        return sl_fail(e, SL_EUSAGE, "%s:%u: more than %u entries", l->path, l->number, ENTRIES_MAX);
    snprintf(entry.subject, sizeof entry.subject, "%s", word[2]);
    snprintf(entry.name, sizeof entry.name, "%s", word[3]);
    grown = realloc(list->entries, (list->n + 1) * sizeof *grown);
    if (!grown)
        return sl_no_memory(e);
    list->entries = grown;
    grown[list->n++] = entry;
    return 0;
}

int sl_allow_load(const char *path, struct sl_allow_list *list, struct sl_error *e)
{
    struct lines l;
    char *word[4];
    unsigned n;
    int rc;

    *list = (struct sl_allow_list){0};
    SL_TRY(open_lines(&l, path, 022, "who may connect must not be written by others (chmod go-w)", e));
    while ((rc = next_line(&l, word, 4, &n, e)) == 1) {
        rc = add_entry(&l, list, word, n, e);
        if (rc < 0)
            break;
    }
    fclose(l.f);
    if (rc < 0)
        sl_allow_free(list);
    return rc < 0 ? rc : 0;
}

void sl_allow_free(struct sl_allow_list *l)
{
    free(l->entries);
    *l = (struct sl_allow_list){0};
}

const struct sl_allow_entry *sl_allow_find(const struct sl_allow_list *l, bool is_uid,
                                           const char *subject)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->entries[i].is_uid == is_uid && strcmp(l->entries[i].subject, subject) == 0)
            return &l->entries[i];
    return NULL;
}
