/* tiktoken.model: a token in base64 and its rank on each line. The rank is the token's id and
 * its priority: of all neighbours in a text that make a token together, those of the lowest rank
 * are joined first. GGUF wants the same as pairs to be joined, which follow from the ranks. */
#ifndef SLUICE_PROTO_TIKTOKEN_H
#define SLUICE_PROTO_TIKTOKEN_H

#include "proto/error.h"
#include "proto/name_table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SL_TIKTOKEN_MAX_BYTES (16u << 20) /* of a file; Kimi-K2's has 2.8 MB */
#define SL_TIKTOKEN_MAX_TOKEN 1024u       /* bytes of a token */

struct sl_tiktoken {
    uint32_t n;         /* tokens: ranks 0 to n - 1, each once */
    const char **text;  /* of each rank, in the byte-level alphabet; NUL-terminated, in `arena` */
    uint32_t *order;    /* ranks in the file's order */
    struct sl_name_table rank_of;
    char *arena;
};

/* Effect: parses the file's text (len bytes, NUL-terminated; it is cut up), label names it in
 * errors. by_line: whatever numbers the lines have, ranks count tokens that were not there before; a token that stands
 * again is passed over. *t is the caller's (sl_tiktoken_free), after an error too. max = most tokens that there
 * may be. Errors: SL_ESOURCE with the line: no token and rank, bad base64, a token or rank that
 * stands twice, ranks that are missing, one of the 256 bytes missing, a file or a token too
 * large; SL_EFAIL (out of memory). */
int sl_tiktoken_parse(const char *label, char *text, size_t len, uint64_t max, bool by_line,
                      struct sl_tiktoken *t, struct sl_error *e) SL_MUST_USE;
void sl_tiktoken_free(struct sl_tiktoken *t);

/* Effect: *merges = a pair "left right" for each token that joining by ranks makes (*n of them), in
 * the file's order: the last two parts that it leaves. They are the caller's, in one block:
 * free(*merges). Quick: quadratic in a token's length alone. Errors: SL_EFAIL (out of memory). */
int sl_tiktoken_merges(const struct sl_tiktoken *t, const char *label, const char ***merges,
                       uint64_t *n, struct sl_error *e) SL_MUST_USE;

#endif
