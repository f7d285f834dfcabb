/* Configuration of the three programs: sluice.conf, environment, options.
 *
 * Layers, from the strongest: option, environment, the user's file
 * ($XDG_CONFIG_HOME/sluice/sluice.conf, else ~/.config/sluice/sluice.conf),
 * /etc/sluice/sluice.conf, built-in. A stronger layer replaces a weaker one's
 * value, also of a list. Every value knows where it came from.
 *
 * The file is INI: [section], "name = value", comments from ';' or '#' at the
 * beginning of a line and from " ;" within it. A list is its key repeated, or
 * further values on indented lines below; in an environment variable ',' stands
 * between them. Unknown sections and keys, a value twice, a value that the key
 * does not take, a line over 197 bytes: refused with file and line. */
#ifndef SLUICE_PROTO_CONFIG_FILE_H
#define SLUICE_PROTO_CONFIG_FILE_H

#include "proto/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SL_CONFIG_SYSTEM "/etc/sluice/sluice.conf"
#define SL_CONFIG_SOCKET "/run/sluice/sluiced.sock"
#define SL_CONFIG_ITEMS 64          /* values of a list */

enum sl_config_key {
    /* [sluice]: every program */
    SL_CONFIG_ENDPOINT,             /* of the daemon, for workers and clients */
    SL_CONFIG_ROOT,                 /* list: folders below which daemon and workers act */
    SL_CONFIG_LOG,                  /* form of log lines: auto, plain, json, journal */
    SL_CONFIG_LOG_LEVEL,            /* error, warning, notice, info, debug */
    SL_CONFIG_KEY,                  /* own key file, for tcp; "" none */
    SL_CONFIG_SERVER_KEY,           /* the daemon's public key file, for tcp; "" none */
    SL_CONFIG_PLAIN_TCP,            /* tcp without keys, loopback only */
    /* [daemon] */
    SL_CONFIG_LISTEN,               /* list: endpoints to bind; empty: the endpoint */
    SL_CONFIG_STATE_DIR,
    SL_CONFIG_ALLOW,                /* allow-list file; "" none */
    SL_CONFIG_METRICS,              /* "off" or ADDRESS:PORT */
    SL_CONFIG_METRICS_REMOTE,       /* the address may be other than loopback */
    SL_CONFIG_HEARTBEAT,            /* number: ms */
    SL_CONFIG_LEASE,                /* number: ms */
    SL_CONFIG_ATTEMPTS,             /* of a task */
    SL_CONFIG_QUARANTINE_WORKERS,   /* a task that failed on so many is set aside */
    SL_CONFIG_LOSSES,               /* so is one with which so many went away in a row */
    /* [worker] */
    SL_CONFIG_DEVICE,               /* auto, cpu, cuda:N */
    SL_CONFIG_THREADS,              /* 0: all processors */
    SL_CONFIG_MEM,                  /* number: bytes */
    SL_CONFIG_IO,                   /* auto, uring, pread */
    SL_CONFIG_AHEAD,                /* tasks held beside the one in hand */
    SL_CONFIG_KEYS
};

enum sl_config_type {
    SL_CONFIG_IS_PATH,              /* absolute */
    SL_CONFIG_IS_NUMBER,
    SL_CONFIG_IS_SIZE,              /* bytes: 1G, 512Mi; K M G T decimal, Ki Mi Gi Ti binary */
    SL_CONFIG_IS_TIME,              /* ms: 500ms, 5s, 2min, 1h; a unit is required */
    SL_CONFIG_IS_BOOL,              /* yes, no, true, false, on, off, 1, 0 */
    SL_CONFIG_IS_CHOICE,            /* one of `choices` */
    SL_CONFIG_IS_ENDPOINT,          /* ipc:///PATH, tcp://HOST:PORT */
    SL_CONFIG_IS_ADDRESS,           /* ADDRESS:PORT, off */
    SL_CONFIG_IS_DEVICE             /* auto, cpu, or devices with ',' between them */
};

struct sl_config_info {
    const char *section, *name;     /* "daemon", "lease" */
    const char *env;                /* "SLUICE_LEASE" */
    enum sl_config_type type;
    bool list;
    uint64_t min, max;              /* of numbers, sizes (bytes), times (ms); 0, 0: no limits */
    const char *choices;            /* with '|' between them; NULL */
    const char *builtin;            /* NULL: none, or it depends on user and environment */
    const char *help;               /* one line */
};

enum sl_config_layer {
    SL_CONFIG_BUILTIN,
    SL_CONFIG_FROM_SYSTEM,
    SL_CONFIG_FROM_USER,
    SL_CONFIG_FROM_ENV,
    SL_CONFIG_FROM_OPTION
};

struct sl_config_value {
    enum sl_config_layer layer;
    /* "built-in", "/etc/sluice/sluice.conf:12" (of the first value), "SLUICE_LEASE", "--lease" */
    const char *origin;
    const char *const *items;       /* as written; n 0 only for an empty list */
    unsigned n;
    uint64_t number;                /* numbers, sizes, times, bools; index of a choice */
};

struct sl_config_opts {
    /* Read this file alone, in place of user's and system's; it must be there.
     * NULL: $SLUICE_CONFIG, else the two usual ones, each of which may be absent. */
    const char *path;
    /* A client's: the endpoint of this socket is built in where the user has no
     * daemon (no socket below $XDG_RUNTIME_DIR) and it is there. NULL: none. */
    const char *system_socket;
    /* For tests: replaces SL_CONFIG_SYSTEM, getenv, geteuid() == 0. NULL: the real ones. */
    const char *system_path;
    const char *(*env)(void *user, const char *name);
    void *user;
    bool not_root;
};

struct sl_config;

/* Effect: reads files and environment. Errors: SL_EUSAGE with file and line, or
 * the variable, and what was expected; SL_EFAIL (cannot be read, memory). */
int sl_config_open(const struct sl_config_opts *o, struct sl_config **out, struct sl_error *e)
    SL_MUST_USE;
void sl_config_close(struct sl_config *c);

/* Effect: a command line's option; `option` ("--lease") is its origin. Of a
 * scalar the last one counts; a list grows by each. A path may be relative to the
 * current folder. Text is copied. Errors:
 * SL_EUSAGE naming the option. */
int sl_config_set(struct sl_config *c, enum sl_config_key k, const char *text,
                  const char *option, struct sl_error *e) SL_MUST_USE;

/* Never NULL; valid until the next sl_config_set of that key. */
const struct sl_config_value *sl_config_get(const struct sl_config *c, enum sl_config_key k);
/* The first value; "" when there is none. */
const char *sl_config_text(const struct sl_config *c, enum sl_config_key k);
uint64_t sl_config_number(const struct sl_config *c, enum sl_config_key k);

/* Errors: SL_EUSAGE naming origin and key of the first file or folder among this
 * key's values that this process cannot reach. */
int sl_config_there(const struct sl_config *c, enum sl_config_key k, struct sl_error *e) SL_MUST_USE;

/* What two keys' values must be to each other, whatever program reads them. Errors: SL_EUSAGE naming both and where they
 * are from. */
int sl_config_check_pairs(const struct sl_config *c, struct sl_error *e) SL_MUST_USE;

/* Facts of a key, for option tables, man pages, `config show`. Never NULL. */
const struct sl_config_info *sl_config_info(enum sl_config_key k);
/* Whether a key has the section of these n bytes. */
bool sl_config_has_section(const char *name, size_t n);
/* Returns the key of "section.name", or -1. */
int sl_config_by_name(const char *name);

/* The files that were looked for, weakest first, and whether each was there.
 * Returns NULL past the last. */
const char *sl_config_file(const struct sl_config *c, unsigned i, bool *read);

#endif
