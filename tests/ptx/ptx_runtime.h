/* What stands in place of the CUDA runtime: kernels run by ptx.h, device memory with its shadow.
 * A finding is told on stderr, and all calls fail after it, as with a lost device. */
#ifndef SLUICE_TESTS_PTX_RUNTIME_H
#define SLUICE_TESTS_PTX_RUNTIME_H

#include "ptx.h"

/* Counts from now on, from nothing. */
void ptx_runtime_count(void);
/* Calls each(user, module, tally) for every module that was used since. */
void ptx_runtime_counted(void (*each)(void *user, const struct ptx_module *m, const struct ptx_tally *t), void *user);
/* Loads every module of the program, and calls each; false: one is not understood (said on stderr). */
bool ptx_runtime_modules(void (*each)(void *user, const struct ptx_module *m), void *user);

#endif
