/* Messages between sluiced, workers and clients, by one table. proto/PROTOCOL.md
 * is their normative text. A message in memory is a cJSON tree that the table
 * allows; encode and decode both hold it against the table, so neither side
 * can send or be made to read what the text does not know. */
#ifndef SLUICE_PROTO_WIRE_H
#define SLUICE_PROTO_WIRE_H

#include "proto/error.h"
#include "proto/json_file.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SL_WIRE_VERSION 3
#define SL_WIRE_MAX 8388608u        /* bytes of a message, compressed or not */
#define SL_WIRE_COMPRESS 65536u     /* a longer one is sent as a zstd frame */
#define SL_WIRE_DEPTH 8
#define SL_WIRE_VALUES 300000u
#define SL_WIRE_UINT_MAX UINT64_C(999999999999999) /* 15 digits: exact in JSON, whoever prints it */
#define SL_TASKS_MAX 65536u         /* tasks of a plan */
#define SL_SWEEP_MAX 64u            /* jobs of one submit */
#define SL_ASK_MAX 1000u            /* jobs that one request names */
#define SL_AFTER_MAX 64u            /* jobs that one waits for */
#define SL_LABELS_MAX 32u           /* of a job, or asked for */
#define SL_HELD_MAX 1024u           /* tasks that a worker holds */
#define SL_WIRE_GPUS 16             /* GPUs of a worker */
#define SL_JOBS_MAX 500u            /* jobs of one answer */
#define SL_WORKERS_MAX 1000u        /* workers of one answer */
#define SL_SPEC_BYTES 6291456u      /* a job's specification: a grant has the sums of all tasks beside it, an answer its files */
#define SL_FILES_MAX 1000u          /* of a job that are named; it may have more */

/* Tasks of a job beside those of its plan. */
enum sl_special_task {
    SL_TASK_PREPARE = SL_TASKS_MAX,
    SL_TASK_STITCH,
    SL_TASK_PUBLISH,
    SL_TASK_VERIFY,
    SL_TASK_DISCARD,
    SL_TASK_LAST = SL_TASK_DISCARD
};

/* "prepare", "stitch" ... as PROTOCOL.md names them; NULL for a task of the plan, or none. */
const char *sl_task_name(uint64_t task);

/* Transport settings that both sides share. */
#define SL_WIRE_HWM 1000            /* messages of one peer that are not yet read; of a worker or client, not yet sent */
/* No ZMTP heartbeats: libzmq ends the program when one is due on a connection that is gone while what it sent is not
 * read. The protocol has its own, and TCP finds a machine that is gone. */
#define SL_WIRE_TCP_IDLE_S 30       /* without a sign of the other machine; then it is asked for one */
#define SL_WIRE_TCP_PROBE_S 10      /* so often, three times */
#define SL_WIRE_HANDSHAKE_MS 10000
#define SL_WIRE_LINGER_MS 500       /* for what is still unsent when a program ends */
#define SL_ZAP_DOMAIN "sluice"

enum sl_message_id {
    SL_M_HELLO, SL_M_WELCOME, SL_M_REHELLO, SL_M_PING, SL_M_PONG, SL_M_ERROR, SL_M_BYE,
    SL_M_PULL, SL_M_GRANT, SL_M_PROGRESS, SL_M_GPUS, SL_M_RESULT, SL_M_FAIL, SL_M_GIVEBACK, SL_M_ACK,
    SL_M_NACK, SL_M_REVOKE, SL_M_DRAIN, SL_M_SUBMIT, SL_M_SUBMITTED, SL_M_LIST, SL_M_HISTORY,
    SL_M_JOBS, SL_M_SHOW, SL_M_JOB, SL_M_CANCEL, SL_M_HOLD, SL_M_RELEASE, SL_M_RETRY, SL_M_SET,
    SL_M_STITCH, SL_M_VERIFY, SL_M_FORGET, SL_M_DONE, SL_M_WAIT, SL_M_ENDED, SL_M_WATCH,
    SL_M_WATCHING, SL_M_UNWATCH, SL_M_EVENT, SL_M_STATUS, SL_M_LOGS, SL_M_LOG, SL_M_WORKERS,
    SL_M_WORKER_LIST, SL_M_DRAIN_WORKER, SL_M_ABOUT, SL_M_DAEMON,
    SL_M_COUNT
};

enum sl_field_type {
    SL_F_STR, SL_F_PATH, SL_F_UINT, SL_F_BOOL, SL_F_HEX, SL_F_HEXES,
    SL_F_REC, SL_F_RECS, SL_F_UINTS, SL_F_STRS
};

enum { SL_FROM_WORKER = 1, SL_FROM_CLIENT = 2, SL_FROM_DAEMON = 4 };

struct sl_record;
struct sl_field {
    const char *name;
    enum sl_field_type type;
    bool required;
    uint64_t limit;                  /* PROTOCOL.md, "Types of fields" */
    const struct sl_record *record;
};
struct sl_record {
    const char *name;
    const struct sl_field *fields;
    unsigned n_fields;
};
struct sl_message {
    const char *name;
    unsigned from;                   /* SL_FROM_ bits */
    const char *answers;             /* names, with a space between them */
    const struct sl_field *fields;
    unsigned n_fields;
};

/* The form of a message: name, who sends it, its fields. */
const struct sl_message *sl_message(enum sl_message_id id);
/* The i-th record, NULL past the last. */
const struct sl_record *sl_record(unsigned i);

/* The fields of record `stages`, in turn. */
#define SL_STAGES 7
extern const char *const sl_stage_name[SL_STAGES];

struct cJSON;

/* A message. tree is owned (sl_msg_free) and holds v, m and the fields. */
struct sl_msg {
    enum sl_message_id id;
    struct cJSON *tree;
};

/* Effect: an empty message of a kind; re (may be NULL) is what it answers.
 * Errors: SL_EFAIL (memory). */
int sl_msg_new(enum sl_message_id id, const char *re, struct sl_msg *m, struct sl_error *e)
    SL_MUST_USE;
void sl_msg_free(struct sl_msg *m);

/* Effect: *e = what a message of kind SL_M_ERROR says. Returns its code, SL_EFAIL where that is 0. */
int sl_msg_fail(const struct sl_msg *m, struct sl_error *e);

/* Fields of a message or of a record in it; object may be NULL. The default
 * when the field is absent. */
uint64_t sl_get_uint(const struct cJSON *object, const char *field, uint64_t absent);
const char *sl_get_str(const struct cJSON *object, const char *field); /* NULL: absent */
bool sl_get_bool(const struct cJSON *object, const char *field);
uint64_t sl_get_hex64(const struct cJSON *object, const char *field);

/* Setting fields. A failure (memory, a NULL item) is remembered in the tree, so that encode
 * and sl_record_check refuse it: a chain of sets needs no check of its own. A NULL string sets
 * nothing. */
void sl_put_uint(struct cJSON *object, const char *field, uint64_t v);
void sl_put_str(struct cJSON *object, const char *field, const char *v);
/* The same for words that somebody reads: what is no UTF-8 or a control character in them
 * becomes '?', and a character that was cut off at their end goes. */
void sl_put_text(struct cJSON *object, const char *field, const char *v);
/* Effect: an array of them, from the strings of list. */
void sl_put_texts(struct cJSON *object, const char *field, const struct cJSON *list);
void sl_put_bool(struct cJSON *object, const char *field, bool v); /* false sets nothing */
void sl_put_hex64(struct cJSON *object, const char *field, uint64_t v);
void sl_put_uints(struct cJSON *object, const char *field, const uint64_t *v, size_t n);
void sl_put_strs(struct cJSON *object, const char *field, const char *const *v, size_t n);
void sl_put(struct cJSON *object, const char *field, struct cJSON *item); /* takes item */
struct cJSON *sl_put_array(struct cJSON *object, const char *field);
struct cJSON *sl_add_object(struct cJSON *array);

/* Effect: *bytes (new memory, the caller's) = the message as it is sent.
 * Errors: SL_EUSAGE when the message breaks the table (a bug of the sender) or is
 * larger than SL_WIRE_MAX, SL_EFAIL when memory is out, now or when a field was set. */
int sl_wire_encode(const struct sl_msg *m, uint8_t **bytes, size_t *n, struct sl_error *e)
    SL_MUST_USE;

/* Effect: reads one message as received from a peer of the given kinds (SL_FROM_
 * bits). On success *m is the caller's (sl_msg_free). Errors: SL_EUSAGE with a
 * line for the sender, SL_EFAIL when memory is out. re, when not NULL, gets the message's "id" whenever it
 * could be read ("" otherwise), and name its "m", also in an error. */
int sl_wire_decode(const uint8_t *bytes, size_t n, unsigned from, struct sl_msg *m, char re[65],
                   char name[33], struct sl_error *e) SL_MUST_USE;

/* Effect: holds an object against a record of the table, by name. Errors:
 * SL_EUSAGE naming the field. */
int sl_record_check(const char *record, const struct cJSON *object, struct sl_error *e)
    SL_MUST_USE;

#endif
