/* One choice for each group, the total error least, the total size within a
 * budget: the multiple-choice knapsack behind `plan --target-size`. */
#ifndef SLUICE_PROTO_SIZE_SOLVER_H
#define SLUICE_PROTO_SIZE_SOLVER_H

#include "proto/error.h"

#include <stdbool.h>
#include <stdint.h>

struct sl_choice {
    uint64_t bytes;
    double error; /* >= 0; NaN: cannot be chosen */
};

struct sl_choice_group {
    const struct sl_choice *choices;
    uint32_t n;
};

struct sl_solution {
    uint32_t *pick;  /* for each group, an index into its choices; owned */
    uint64_t bytes;
    double error;
    double bound;    /* no assignment within the budget has less */
    bool exact;      /* error is the least there is (but for 1 part in 10^9) */
};

/* Effect: finds an assignment of at most `budget` bytes. start: one that is within the
 * budget, or NULL; the result is never worse. Deterministic. Method: the Lagrangian
 * relaxation gives a bound and a first assignment; then dynamic programming over the
 * assignments that no other beats in both bytes and error, groups in turn, without
 * those whose bound is above the best known. While no more than 4096 are left at a
 * time, the result is exact. out->pick is the caller's (sl_solution_free).
 * Errors: SL_EUSAGE when the smallest choices exceed the budget; SL_EFAIL. */
int sl_size_solve(const struct sl_choice_group *groups, uint32_t n, uint64_t budget,
                  const uint32_t *start, struct sl_solution *out, struct sl_error *e) SL_MUST_USE;
void sl_solution_free(struct sl_solution *s);

#endif
