/* The parts of a run of packed integers, between unit.c, which places them in a slab, and convert_unit.c. Other sources
 * have none. */
#ifndef SLUICE_WORKER_UNIT_PACKED_H
#define SLUICE_WORKER_UNIT_PACKED_H

#include "worker/unit.h"

/* Effect: what r->part has to hold for the run's elements, without places; which scales it has is set before, but where rows lie
 * side by side; scale_bytes: of one as stored. */
void sl_packed_set(const struct sl_model_src *ms, uint32_t scale_bytes, struct sl_unit_run *r);

/* Returns an upper bound of the slab bytes that the parts take, and what is made of them. */
uint64_t sl_packed_room(const struct sl_unit_run *r);

/* Effect: gives these places from `used` on; where rows lie side by side, also the run's weights and scales. Returns where they end. */
uint64_t sl_packed_place(struct sl_unit_run *r, uint64_t used);

/* Returns the reads that the parts take; and effect: *out = read i of them. */
uint64_t sl_packed_reads(const struct sl_unit_run *r);
void sl_packed_read(const struct sl_checkpoint *ck, const struct sl_unit_run *r, uint64_t i, struct sl_unit_read *out);

/* Effect: tells the run at which slab offset read i of them put its first wanted byte. */
void sl_packed_placed(struct sl_unit_run *r, uint64_t i, uint64_t at);

/* Effect: the scales of rows that lie side by side one row's after the other's, once all is read. */
void sl_packed_arrange(const struct sl_unit_env *env, const struct sl_unit_run *r, uint8_t *slab);

/* Returns the bytes of a band of a source's rows; 0: they do not lie side by side. */
uint64_t sl_packed_band(const struct sl_model_src *ms);

/* Effect: as sl_load_f32, of a run whose rows lie side by side in the slab; s->data is not used. band: SL_BANDS of them. */
int sl_packed_load(const struct sl_model_src *ms, const struct sl_unit_run *r, const uint8_t *slab, const struct sl_source *s, uint64_t skip,
                   uint64_t n, struct sl_band *band, float *out, uint64_t *bad) SL_MUST_USE;

/* Effect: s->zero and s->group, of parts that are read; s is else filled. Errors: SL_ESOURCE (a group that is none). */
int sl_packed_unpack(const struct sl_unit_env *env, const struct sl_unit_run *r, uint8_t *slab, struct sl_source *s,
                     struct sl_error *e) SL_MUST_USE;

#endif
