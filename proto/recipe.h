/* Recipes: which GGUF tensor gets which type. */
#ifndef SLUICE_PROTO_RECIPE_H
#define SLUICE_PROTO_RECIPE_H

#include "proto/model.h"
#include "proto/weight_words.h"

struct sl_recipe;
struct sl_imatrix;

/* Effect: loads a recipe by name (from the user's folders or compiled in; letter case is
 * ignored, "Q4_K_M" = "q4_k_m"; "q4_k" and "15", llama-quantize's alias and number,
 * are q4_k_m too) or, when name_or_path has a '/' or ends with ".recipe", from a
 * file. Errors: SL_EUSAGE with file, line and what was
 * expected; an unknown name lists the known ones that are near it. */
int sl_recipe_load(const char *name_or_path, struct sl_recipe **out, struct sl_error *e)
    SL_MUST_USE;
void sl_recipe_close(struct sl_recipe *r);
/* Returns whether sl_recipe_load would find something under this name, good or bad. */
bool sl_recipe_known(const char *name_or_path);
const char *sl_recipe_name(const struct sl_recipe *r);    /* "dq3_k_m" */
const char *sl_recipe_text(const struct sl_recipe *r);    /* the file's text */
const char *sl_recipe_advice(const struct sl_recipe *r);  /* one line */
uint32_t sl_recipe_file_type(const struct sl_recipe *r);  /* general.file_type */
bool sl_recipe_is_copy(const struct sl_recipe *r);        /* "file_type source": a GGUF file is copied */
const char *sl_recipe_encoding(const struct sl_recipe *r); /* for file names: "DQ3_K_M" */

/* Stock recipes in the order `sluice recipes` lists them; NULL past the last. */
const char *sl_recipe_stock_name(uint32_t i);

/* Returns whether this is this release's text of the stock recipe of that name. */
bool sl_recipe_is_stock(const char *name, const char *text);

/* Returns the first type that the recipe names and Sluice cannot write, or -1. */
int sl_recipe_unwritable(const struct sl_recipe *r);

/* Returns whether a tensor that this recipe puts into `type` needs an importance matrix. */
bool sl_recipe_needs_imatrix(const struct sl_recipe *r, const char *tensor, int type,
                             bool rules_2025);

/* Effect: parses a recipe's text (NUL-terminated, copied). name: what
 * sl_recipe_name gives; where: how errors call it ("dir/x.recipe").
 * Errors: SL_EUSAGE, "where:line: ...". */
int sl_recipe_parse(const char *name, const char *where, const char *text,
                    struct sl_recipe **out, struct sl_error *e) SL_MUST_USE;

/* Effect: parses an earlier release's text of the stock recipe `now`. Returns 1, or 0 where there is no such:
 * `now` is no stock recipe, has another name or this very text. Errors: as sl_recipe_parse. */
int sl_recipe_earlier(const struct sl_recipe *now, const char *name, const char *text, struct sl_recipe **out,
                      struct sl_error *e) SL_MUST_USE;

/* llama-quantize's options on top of a recipe. */
struct sl_type_override {
    const char *pattern; /* regular expression, searched in the tensor name */
    int type;
};
struct sl_recipe_opts {
    const struct sl_type_override *overrides; /* --tensor-type, first match wins */
    uint32_t n_overrides;
    int output_type;      /* --output-tensor-type; -1: none */
    int embedding_type;   /* --token-embedding-type; -1: none */
    bool leave_output;    /* --leave-output-tensor */
    bool pure;            /* --pure */
    bool has_imatrix;     /* some llama.cpp rules ask */
    const struct sl_imatrix *imatrix; /* NULL: with has_imatrix, the tensors that `words` leave
                                         have data (a synthetic imatrix) */
    struct sl_weight_words words;
    bool rules_2025;      /* llama.cpp's rules of February 2025 instead of August 2026 */
    bool allow_requantize; /* --allow-requantize: quantized tensors may be quantized again */
    uint8_t *used;        /* NULL, or n_overrides + sl_recipe_rules(r) bytes, zero: the assignment
                             sets those to 1 whose override or rule decided a tensor */
    bool any_type;        /* sizes only: types that cannot be written, or not without an
                             imatrix when there is none, are no error */
};

/* Effect: types[i] = the ggml type of m->tensors[i]. *n_fallback = tensors
 * whose columns forced another type. Errors: SL_EUSAGE (pattern that does not
 * compile, columns that no type divides, an imatrix of another size, a tensor that
 * is quantized already), naming the tensor; SL_EUSAGE for types that need data of an imatrix and have none, naming the
 * tensors, as many as the line has room for, and their number; SL_EUNSUPPORTED (a type that Sluice cannot write). The rules in
 * full: proto/RECIPES.md. */
int sl_recipe_assign(const struct sl_recipe *r, const struct sl_model *m,
                     const struct sl_recipe_opts *o, int *types, uint32_t *n_fallback,
                     struct sl_error *e) SL_MUST_USE;

/* Returns whether a recipe has a say in a tensor's type: in that of norms, routers and the like none has. */
bool sl_recipe_may_quantize(const struct sl_out_tensor *t);

/* Returns whether token_embd.weight is the output too, and rules see it as output.weight. */
bool sl_recipe_tied(const struct sl_model *m);

/* Returns the number of the recipe's rules. */
uint32_t sl_recipe_rules(const struct sl_recipe *r);

/* Effect: after an assignment with o->used, *out (the caller's, free; NULL: nothing to say) =
 * a line for each override, and each rule of a recipe that is not stock, that decided no
 * tensor: which, and why; ten at most, then how many more. None for those whose tensors got their
 * type all the same (types: what was assigned). Rules for dense or moe layers
 * alone may find none: they say so themselves. Errors: SL_EFAIL (memory). */
int sl_recipe_idle(const struct sl_recipe *r, const struct sl_model *m, const struct sl_recipe_opts *o,
                   const int *types, char **out, struct sl_error *e) SL_MUST_USE;

#endif
