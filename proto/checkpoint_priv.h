/* What the parts of the checkpoint reader share (checkpoint*.c only). */
#ifndef SLUICE_PROTO_CHECKPOINT_PRIV_H
#define SLUICE_PROTO_CHECKPOINT_PRIV_H

#include "proto/checkpoint.h"
#include "proto/name_table.h"
#include "proto/safetensors.h"
#include "proto/suffix.h"

#include <stddef.h>

enum sl_src_role {
    SL_ROLE_WEIGHT,
    SL_ROLE_SCALE,      /* scales the weight of its name */
    SL_ROLE_ACTIVATION, /* scale of activations or caches: dropped */
    SL_ROLE_PACKING,    /* shape, zero points or order of a packed weight */
};

struct sl_ck_ignore;

struct sl_ck_priv {
    struct sl_name_table by_name; /* tensor name -> index */
    char *label;                  /* the one file that was given; NULL: dir is what was */
    char **arenas;                /* tensor names live here; one a file, one of packed weights, and one of names of another form */
    uint32_t n_arenas;
    uint32_t cap_tensors;
    uint8_t *role;                /* enum sl_src_role of each tensor */
    const struct sl_header_watch *watch; /* while it is opened; NULL: none */
    bool mistral;                 /* in Mistral's own format */
    struct sl_ck_ignore *ignore;  /* checkpoint_ignore.c; NULL: not read yet */
    struct cJSON *text;           /* config.json with the text model's entries; NULL: it has none apart */
};

/* The reader's own part of a checkpoint, borrowed. */
static inline struct sl_ck_priv *sl_ck_priv(const struct sl_checkpoint *ck)
{
    return ck->priv;
}

/* Effect: room for n_files more files. Call once, before sl_ck_add_file. */
int sl_ck_reserve_files(struct sl_checkpoint *ck, uint32_t n_files, struct sl_error *e) SL_MUST_USE;

/* Effect: appends a file (dir NULL: name is a path) and its n tensors, which
 * are copied; takes over the names' memory, also after an error. */
int sl_ck_add_file(struct sl_checkpoint *ck, const char *dir, const char *name, uint64_t size,
                   int64_t mtime_ns, const struct sl_src_tensor *tensors, uint32_t n, char *names,
                   struct sl_error *e) SL_MUST_USE;

/* Effect: fills ck from the GGUF file or split set at path (checkpoint_gguf.c). */
int sl_ck_open_gguf(struct sl_checkpoint *ck, const char *path, struct sl_error *e) SL_MUST_USE;

/* Effect: tells weights from scales and checks every scale of FP8, INT8, packed integers and F4 and that
 * every scale has its weight (checkpoint_scale.c). */
int sl_ck_check_scales(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;

/* Effect: makes the table of names anew, after some were changed. Errors: SL_ESOURCE (one is there twice). */
int sl_ck_name_anew(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;

/* Effect: where the class has a text model inside: sl_ck_priv's `text`; and its tensors under their names without
 * the prefix, and those with names of some writers under the usual ones. Errors: SL_ESOURCE (checkpoint_text.c). */
int sl_ck_read_text(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;
int sl_ck_take_text(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;

/* Returns whether a folder's checkpoint is in Mistral's own format (checkpoint_mistral.c). */
bool sl_ck_has_params(const char *dir);
/* Effect: where ck->config is a params.json, makes it what a config.json would be, and the tensors' names those of such a
 * model. Errors: SL_EUNSUPPORTED (of another form than Mistral-Large-3's) (checkpoint_mistral.c). */
int sl_ck_take_params(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;
int sl_ck_take_mistral(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;

/* Effect: ck->fp8_*, int8, int_*, mxfp4 and nvfp4 = what config.json's quantization_config says. Errors: SL_ESOURCE (absurd blocks),
 * SL_EUNSUPPORTED (weights packed in another way) (checkpoint_quant.c). */
int sl_ck_read_quantization(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;

/* Effect: where config.json names a class that is not known, that is the error in e, whatever the weights are packed as.
 * Returns e's code. */
int sl_ck_class_first(const struct sl_checkpoint *ck, struct sl_error *e);

/* The same of a quantization_config whose method is not read, as whose names and scales are odd ones. */
int sl_ck_method_first(const struct sl_checkpoint *ck, struct sl_error *e);

/* Effect: each X.weight_packed becomes a tensor X.weight of I4, UINT8 or F4. Once, when all files are there.
 * Errors: SL_ESOURCE, SL_EUNSUPPORTED. */
int sl_ck_take_packed(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;

/* Effect: the same of each X.qweight, where quant_method says what it is (checkpoint_gptq.c). */
int sl_ck_take_gptq(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;

/* Effect: each name that ends in `from` ends in ".weight" instead. Errors: SL_EFAIL, SL_ESOURCE (a name is there twice). */
int sl_ck_name_weights(struct sl_checkpoint *ck, const char *from, struct sl_error *e) SL_MUST_USE;

/* Effect: sets zeros and order of a packed weight's scales, whose other members are set. Errors: SL_ESOURCE. */
int sl_ck_match_packing(const struct sl_checkpoint *ck, const struct sl_src_tensor *w, struct sl_scale *s, struct sl_error *e) SL_MUST_USE;

/* Returns whether a tensor of this name is of a weight of packed integers, and none itself. */
bool sl_ck_is_packing(const struct sl_checkpoint *ck, const char *name);

/* Effect: each matrix X.weight of bytes under scales of E8M0 becomes one of F4. Once, after
 * sl_ck_take_packed (checkpoint_fp4.c). */
void sl_ck_take_fp4(struct sl_checkpoint *ck);

/* Effect: each tensor of I8 under scales that are numbers becomes one of INT8. Once, after sl_ck_take_fp4. Errors:
 * SL_EUNSUPPORTED (it has zero points) (checkpoint_int8.c). */
int sl_ck_take_int8(struct sl_checkpoint *ck, struct sl_error *e) SL_MUST_USE;

/* Returns 1 when a tensor of this name scales a whole weight in NVFP4, or 0 when no such tensor has this name. Errors:
 * SL_ESOURCE (that weight is not there), SL_EUNSUPPORTED (or no NVFP4) (checkpoint_nvfp4.c). */
int sl_ck_own_scale_role(const struct sl_checkpoint *ck, const char *name, struct sl_error *e) SL_MUST_USE;

/* Returns the index of the scale that a weight of this name would have, or SL_NO_TENSOR. */
uint32_t sl_ck_find_scale(const struct sl_checkpoint *ck, const char *weight);

/* Returns the index of the tensor whose name is n bytes of name and the suffix, or SL_NO_TENSOR. */
uint32_t sl_ck_find_joined(const struct sl_checkpoint *ck, const char *name, size_t n, const char *suffix);

/* Frees what sl_checkpoint_ignores keeps; NULL is allowed. */
void sl_ck_free_ignore(struct sl_ck_ignore *g);

#endif
