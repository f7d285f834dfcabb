/* The memory of the pipeline: a fixed number of equal slabs in one mapping,
 * taken when the engine opens. A slab holds all of one unit:
 *
 *   | weights, run by run | raw scales | scales in F32 | ... | output |
 *   0                                                          slab_bytes
 */
#ifndef SLUICE_WORKER_SLAB_H
#define SLUICE_WORKER_SLAB_H

#include "proto/error.h"

#include <stdbool.h>
#include <stdint.h>

#define SL_MIB ((uint64_t)1 << 20)
#define SL_MEM_MIN ((uint64_t)64000000)
#define SL_MEM_USUAL (1024 * SL_MIB) /* where nobody says how much */
#define SL_SLAB_MIN ((uint64_t)1 << 17)

struct sl_slabs {
    uint8_t *base;
    uint64_t slab_bytes; /* multiple of 4096 */
    unsigned n;
};

/* Effect: refuses less memory than any job needs. Errors: SL_EUSAGE. */
int sl_slabs_enough(uint64_t mem_bytes, struct sl_error *e) SL_MUST_USE;

/* Effect: chooses number and size of slabs for mem_bytes of memory in all, of which a fifth, 160 MiB at
 * most but `beside` bytes at least, is left to the rest of the process and `scratch` bytes to the compute
 * threads. A small job, of job_bytes read and written (0: not known), gets no more than a quarter of that.
 * least: bytes that one slab must have. wide: larger ones, where there is room for as many. forced: slab size asked
 * for, 0: none. base stays NULL. Errors: SL_EUSAGE, saying what is needed. */
int sl_slabs_choose(uint64_t mem_bytes, unsigned threads, uint64_t scratch, uint64_t least, bool wide,
                    uint64_t beside, uint64_t forced, uint64_t job_bytes, struct sl_slabs *out,
                    struct sl_error *e) SL_MUST_USE;

/* Effect: maps the memory. Errors: SL_EFAIL. Free with sl_slabs_close. */
int sl_slabs_open(struct sl_slabs *s, struct sl_error *e) SL_MUST_USE;
void sl_slabs_close(struct sl_slabs *s);

#endif
