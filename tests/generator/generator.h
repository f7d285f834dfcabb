/* The parts of tests/tools/make_checkpoint.c, which makes checkpoints of any size for tests and the demo: each file
 * writes one part of a checkpoint. Weights are drawn from a fixed generator: the same options give the same bytes. */
#ifndef SLUICE_TESTS_GENERATOR_H
#define SLUICE_TESTS_GENERATOR_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum arch { DEEPSEEK, QWEN2, LLAMA, QWEN3, QWEN3MOE, MINIMAX, MINIMAX3, GLM4MOE, LING, N_ARCHS };
enum kind { FP8, BF16, F32, SCALE_F32, SCALE_E8M0, PACKED, SHAPE, FP4, FP4_U8, SCALE_U8, INT8 };
enum fill { GAUSS, NORM, SMALL, SCALES, SIZES };

struct tensor {
    char name[96];
    enum kind kind;
    enum fill fill;
    uint64_t rows, cols; /* rows 0: one dimension */
    uint64_t fan;        /* weights feeding one output: sigma is 1 / sqrt(fan) */
    uint64_t sizes[2];   /* SHAPE: what it says */
    float level;         /* of scales: sigma in units of the weights' codes */
    uint64_t bytes;
    unsigned shard;
};

struct config {
    enum arch arch;
    uint64_t layers, dense, hidden, inter, moe_inter, experts, used, groups, groups_used;
    uint64_t heads, kv_heads, head_dim, q_lora, kv_lora, nope, rope, v_dim, vocab, shards, seed;
    uint64_t index_heads, index_dim, index_top; /* of V3.2's indexer; no heads: none; MiniMax-M3's has kv_heads */
    bool mtp, tied, f32_bias, f32_proj, sparse, holes, packed, mxfp4, int8, head_norm;
    const char *scales; /* block, bf16, e8m0, tensor, row, bf16-row, mxfp8; none: the weights are BF16 */
    const char *scale_suffix, *tokenizer, *config, *out;
};

struct list {
    struct tensor *t;
    size_t n, cap;
};

/* Effect: a line on standard error, exit 1. */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* A file of the checkpoint's folder; both die when that fails (gen_files.c). */
FILE *open_out(const struct config *c, const char *name);
void close_out(FILE *f, const char *name);
/* Effect: copies the file at path to that name in the folder. */
void copy_file(const struct config *c, const char *path, const char *name);

/* Effect: appends the tensors of the form that c describes (gen_tensors.c). */
void list_tensors(struct list *l, const struct config *c);
/* Bytes of an element. */
uint64_t kind_bytes(enum kind k);

/* Effect: what draw takes its numbers from; once (gen_data.c). */
void fill_tables(void);
/* Effect: draws the next n elements of a tensor; s is its own stream. */
void draw(const struct tensor *t, uint64_t n, void *buf, uint64_t *s);

/* Effect: spreads the tensors over the shards; writes these and their index (gen_shards.c). Returns the bytes of all. */
uint64_t write_shards(const struct config *c, struct list *l);

/* --arch's word, and config.json's entries "architectures" and "model_type" (gen_config.c). */
extern const struct arch_names { const char *option, *class, *type; } arch_names[N_ARCHS];
/* Effect: writes config.json (gen_config.c). */
void write_config(const struct config *c);
/* Effect: writes tokenizer.json and tokenizer_config.json, in forms but DeepSeek's (gen_tokenizer.c). */
void write_tokenizer(const struct config *c);

#endif
