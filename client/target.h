/* `plan --target-size`: from a size to a recipe, by measured errors. The rules are in
 * proto/RECIPES.md, "Recipes by size". */
#ifndef SLUICE_CLIENT_TARGET_H
#define SLUICE_CLIENT_TARGET_H

#include "client/cli.h"
#include "client/progress.h"
#include "proto/mixture.h"
#include "worker/measure.h"

struct target_args {
    const char *size, *bpw; /* --target-size, --target-bpw; at most one */
    const char *types;      /* --types; NULL: the default candidates */
    const char *command;    /* for the recipe's first comment */
    const char *file;       /* where the recipe will be, by whose name it is called; NULL: stdout */
    int threads;
    enum progress_mode progress;
};

/* A stock recipe held against the same measure. */
struct target_stock {
    const char *name;
    int *types;             /* of the model's tensors */
    uint64_t bytes;         /* as target.bytes */
    double error;           /* mean over the free tensors; NaN: cannot be used */
    bool fits, allowed;     /* within the size; of the types that --types allows */
};

#define TARGET_STOCK_MAX 64

struct target {
    struct sl_job_plan probe;    /* the same job with every tensor in q8_0 */
    struct sl_recipe_opts ro;
    uint64_t want;               /* bytes of all files, or of all tensors: */
    bool by_bits;
    int candidates[SL_TYPE_LIMIT];
    uint32_t n_candidates;
    bool limited;                /* by --types */
    bool *free;                  /* for each tensor: the recipe decides its type */
    uint32_t n_free;
    int *types;                  /* for each tensor; of the free ones the choice */
    uint64_t *mask;              /* for each tensor the types to measure */
    double *share;               /* for each tensor what its error counts; 1 over all free ones */
    double *error;               /* n_tensors x SL_TYPE_LIMIT, from measure_errors */
    struct measure_stats stats;
    double seconds;
    struct target_stock stock[TARGET_STOCK_MAX];
    uint32_t n_stock;
    int best_stock;              /* -1: none fits */
    uint64_t bytes;              /* of the assignment, as want counts */
    double mean_error, bound;    /* of the assignment; no other has less than bound */
    bool exact, from_stock;      /* from_stock: fused groups differ as in the best stock recipe */
    char *text;                  /* the recipe */
    char name[256];              /* of the recipe: its file's, or "auto-281G" */
    char encoding[33];           /* "AUTO-281G" */
};

/* Effect: measures, chooses and writes the recipe's text into t->text. plan->recipe must be
 * NULL. Errors: SL_EUSAGE (a size that cannot be had, options that do not go together), and
 * those of opening and measuring. Release with target_free in every case. */
int target_make(struct target *t, const char *source, const struct cli_plan_args *plan,
                const struct target_args *a, struct sl_error *e) SL_MUST_USE;

/* Effect: t->mean_error = the measure of a recipe that the user named (plan->recipe). */
int target_measure(struct target *t, const char *source, const struct cli_plan_args *plan,
                   const struct target_args *a, struct sl_error *e) SL_MUST_USE;
void target_free(struct target *t);

/* target_model.c. Effect: opens the probe; finds out which tensors are free, what the
 * candidates are. */
int target_open(struct target *t, const char *source, const struct cli_plan_args *plan,
                const struct target_args *a, struct sl_error *e) SL_MUST_USE;
/* Effect: the stock recipes' types and sizes; those within `budget` fit. */
int target_list_stock(struct target *t, uint64_t budget, struct sl_error *e) SL_MUST_USE;
/* Returns the type that tensor i has where a rule says `type`, or -1 when it cannot. */
int target_type(const struct target *t, uint32_t i, int type);
bool target_is_candidate(const struct target *t, uint32_t i, int type);
/* Returns whether the tensor is MXFP4 in the source and kept so by that type. */
bool target_keeps(const struct target *t, uint32_t i, int type);

/* Effect: the tensor's error in a type will be measured; what is kept loses nothing, as t->error says from the start. */
void target_want_error(struct target *t, uint32_t i, int type);
/* Bytes of the tensor in a type, as t->want counts. */
uint64_t target_bytes(const struct target *t, uint32_t i, int type);
/* Effect: t->error for all types in t->mask. */
int target_run_measure(struct target *t, const struct target_args *a, struct sl_error *e) SL_MUST_USE;
/* The weighted mean error of an assignment over the free tensors; NaN when a type cannot be used. */
double target_error(const struct target *t, const int *types);
/* Effect: key = what tensors that are computed together have in common, else the name. */
void target_fused_key(const char *name, char key[SL_NAME_MAX]);

/* target_text.c. Effect: t->text = a recipe that gives t->types. */
int target_write(struct target *t, const struct target_args *a, struct sl_error *e) SL_MUST_USE;

#endif
