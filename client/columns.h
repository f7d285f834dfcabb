/* Lists as people and programs read them: fields of records, chosen by name,
 * as aligned columns, as lines with separators, or as JSON lines. */
#ifndef SLUICE_CLIENT_COLUMNS_H
#define SLUICE_CLIENT_COLUMNS_H

#include "proto/error.h"

#include <stdbool.h>
#include <stdio.h>

struct cJSON;

#define COLUMNS_MAX 48
#define CELL_MAX 1100

/* One field that a list can show. */
struct column {
    const char *name;     /* for -o, and in the table's head in capitals */
    bool right;           /* numbers */
    /* Effect: writes the field of a record as text ("" when it has none). raw:
     * for programs: plain numbers, RFC 3339 times. NULL: the record's field of that
     * name as it is: text, a number, or a list of them with commas between. */
    void (*text)(const struct cJSON *record, bool raw, char out[CELL_MAX]);
};

/* The fields that were chosen. */
struct columns {
    const struct column *column[COLUMNS_MAX];
    unsigned n;
    const char *drop; /* those that a narrow terminal does without, in this order; NULL */
};

/* Effect: finds the fields of "id,state,reason" ("all": every one) in a table
 * ended by a NULL name. Errors: SL_EUSAGE naming the field and those there are. */
int columns_choose(const struct column *all, const char *names, struct columns *out,
                   struct sl_error *e) SL_MUST_USE;

/* Effect: writes a record's cell, cut to fit. */
void column_cell(const struct column *c, const struct cJSON *record, bool raw, char out[CELL_MAX]);

/* Effect: prints it whole; raw: as in columns_print's parsable form. */
void column_print(FILE *to, const struct column *c, const struct cJSON *record, bool raw);

enum columns_form { COLUMNS_TABLE, COLUMNS_PARSABLE };

/* Effect: prints the records of an array. Table: aligned, with a head; at width (0: never) columns of
 * `drop` are left out and the last one is cut; with colour, words of states have theirs. Parsable: no head, '|'
 * between fields; '\', '|' and newlines in a field are written \\, \| and \n. */
void columns_print(FILE *to, const struct columns *c, const struct cJSON *array,
                   enum columns_form form, int width, bool colour);

#endif
