/* llama.cpp's mixtures: which tensor gets which type under an ftype such as
 * Q4_K_M. Rules of August 2026 (llama.cpp 34af94cd9) and of February 2025
 * (c392e5094). Assignment only: a mixture may name types that Sluice cannot
 * write. */
#ifndef SLUICE_PROTO_MIXTURE_H
#define SLUICE_PROTO_MIXTURE_H

#include "proto/model.h"

struct sl_mixture; /* one row of the table of mixtures */

/* The i-th mixture, NULL past the last; by name in any letter case, or NULL. */
const struct sl_mixture *sl_mixture_at(uint32_t i);
const struct sl_mixture *sl_mixture_by_name(const char *name);
const char *sl_mixture_name(const struct sl_mixture *x);     /* "q4_k_m" */
uint32_t sl_mixture_file_type(const struct sl_mixture *x);   /* general.file_type */
int sl_mixture_base_type(const struct sl_mixture *x);        /* where no rule speaks */
bool sl_mixture_is_outtype(const struct sl_mixture *x);      /* the converter writes it by itself */

/* The state of one pass over a model's tensors. Some rules count tensors, so
 * tensors are asked in the model's order; a tensor that is typed by other
 * means is not asked and not counted, as in llama-quantize. */
struct sl_mixture_pass {
    const struct sl_mixture *x;
    const struct sl_model *m;
    bool has_imatrix, rules_2025;
    int output_type;         /* --output-tensor-type, which a tied embedding follows; -1 */
    bool tied;               /* no output.weight: token_embd is typed as output */
    uint64_t n_attn_v, i_attn_v, i_ffn_down, i_ffn_gate, i_ffn_up;
};

/* Effect: *p = a pass that has asked for no tensor yet. x and m must outlive it. rules_2025: those
 * of February 2025. output_type is -1, until the caller sets it. */
void sl_mixture_begin(struct sl_mixture_pass *p, const struct sl_mixture *x,
                      const struct sl_model *m, bool has_imatrix, bool rules_2025);

/* Returns the type that the mixture gives t, before the column fallback.
 * Errors: SL_EUNSUPPORTED when a rule needs a layer and the name has none. */
int sl_mixture_type(struct sl_mixture_pass *p, const struct sl_out_tensor *t, struct sl_error *e)
    SL_MUST_USE;

/* Returns whether llama-quantize would quantize this tensor at all: two
 * dimensions, a name that ends with "weight", no norm, no router, and none of
 * the small tensors that it leaves alone. */
bool sl_mixture_quantizable(const struct sl_out_tensor *t);

/* Returns the type that llama.cpp takes when rows of `cols` weights do not
 * divide into the type's blocks; the type itself when they do; -1 when no
 * other type is defined for it (q1_0; in 2025: types with blocks of 32). */
int sl_mixture_fallback(int type, uint64_t cols, bool rules_2025);

/* Returns whether llama-quantize refuses to write this tensor in this type
 * without an importance matrix. x may be NULL (no mixture). */
bool sl_mixture_needs_imatrix(const struct sl_mixture *x, const char *name, int type,
                              bool rules_2025);

/* Returns whether layer i of n is one of those that get more bits: the first
 * and last eighth, and every third between. */
bool sl_mixture_more_bits(uint64_t i, uint64_t n);

/* Returns whether the name begins with "blk.N." and N in *layer. */
bool sl_tensor_layer(const char *name, uint64_t *layer);

#endif
