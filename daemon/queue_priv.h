/* Between queue.c, which alone talks to SQLite (statements, tables, transactions, epochs),
 * and what the statements say: queue_jobs.c, queue_tasks.c. */
#ifndef SLUICE_DAEMON_QUEUE_PRIV_H
#define SLUICE_DAEMON_QUEUE_PRIV_H

#include "daemon/queue.h"

struct sqlite3_stmt;

/* A statement is known by its address: sql must be a literal. kinds: a letter for each
 * value bound, i uint64_t, s text (which stays the caller's, until the last row). */

/* Effect: *st is ready for db_next. One reader of a statement at a time. */
int db_query(struct sl_queue *q, struct sqlite3_stmt **st, struct sl_error *e, const char *sql,
             const char *kinds, ...) SL_MUST_USE;
/* Returns 1 with a row, 0 at the end. */
int db_next(struct sl_queue *q, struct sqlite3_stmt *st, struct sl_error *e) SL_MUST_USE;
/* Column i of the row; a text lives until the next db_next or db_reset. */
uint64_t db_number(struct sqlite3_stmt *st, int i);
const char *db_text(struct sqlite3_stmt *st, int i);
/* Ends a query before its last row; harmless after it. */
void db_reset(struct sqlite3_stmt *st);

/* Effect: runs a writing statement inside the transaction, which it opens. Returns the
 * rows changed. */
int db_change(struct sl_queue *q, struct sl_error *e, const char *sql, const char *kinds, ...)
    SL_MUST_USE;
/* The same where the number of rows does not matter. */
#define CHANGE(...) SL_TRY(db_change(__VA_ARGS__))
/* The row last inserted. */
uint64_t db_last_id(const struct sl_queue *q);

/* Effect: writes that a block of epochs beyond those in use is reserved, when the last
 * one is half used. */
int db_reserve_epochs(struct sl_queue *q, struct sl_error *e) SL_MUST_USE;

/* Effect: removes events and submits' keys that are older than what is kept. */
int db_trim(struct sl_queue *q, struct sl_error *e) SL_MUST_USE;

#endif
