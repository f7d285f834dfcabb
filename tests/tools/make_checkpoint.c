/* Makes a checkpoint: DeepSeek-V3's form in FP8 or INT8 with block scales, or with experts packed as 4-bit integers
 * or as MXFP4; V3.2's too; Qwen2, Qwen3 and Llama in BF16; Qwen3 with experts, MiniMax-M2 and M3 in FP8; GLM-4.5's form with a
 * scale for each row; Ling 2.0's in FP8. */
#include "tests/generator/generator.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void copy_tokenizer(const struct config *c, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", c->tokenizer, name);
    copy_file(c, path, name);
}

static void usage(FILE *f)
{
    fputs("usage: make_checkpoint [--arch ARCH] [OPTION...] --out DIR\n"
          "  --arch deepseek|qwen2|llama|qwen3|qwen3moe|minimax|minimax3|glm4moe|ling   comes first (deepseek)\n"
          "  --preset small|demo|big-tensor|r1|k2\n"
          "      small: 15 MB; demo: 350 MB; big-tensor: one BF16 tensor of 256 MiB;\n"
          "      r1, k2: DeepSeek-R1's and Kimi-K2's own shapes (with --holes)\n"
          "  --layers --dense --hidden --inter --moe-inter --experts --used --groups\n"
          "  --groups-used --heads --kv-heads --q-lora --kv-lora --nope --rope --v-dim\n"
          "  --vocab --shards --seed --head-dim   numbers\n"
          "  --index-heads N               V3.2's form, by heads of the indexer (0)\n"
          "  --scales block|bf16|e8m0|tensor|row|bf16-row|mxfp8|none   form of the FP8 scales (block); none: BF16 weights\n"
          "  --scale-suffix NAME           weight_scale_inv\n"
          "  --packed                      experts in 4-bit integers as Kimi-K2-Thinking's, the rest BF16\n"
          "  --mxfp4                       experts in MXFP4 as DeepSeek-V4's; with --packed as compressed-tensors'\n"
          "  --int8                        8-bit integers in place of FP8, as compressed-tensors', in blocks as SGLang's\n"
          "  --bf16-bias                   router bias in BF16 instead of F32\n"
          "  --f32-proj                    the indexer's weights_proj in F32 instead of BF16\n"
          "  --no-mtp                      without it, where a preset has it\n"
          "  --mtp                         with a multi-token-prediction layer\n"
          "  --tied                        no lm_head\n"
          "  --no-head-norm                no norms on the heads of q and k, as GLM-4.5-Air\n"
          "  --holes                       large tensors are holes, but for a few\n"
          "  --config FILE                 config.json to copy in place of a made one\n"
          "  --sparse                      of each matrix only the beginning, then a hole\n"
          "  --tokenizer DIR               where DeepSeek's tokenizer files are (tests/tiny-v3)\n", f);
}

static struct config defaults(enum arch a)
{
    struct config c = { .arch = a, .layers = 2, .dense = 1, .hidden = 512, .inter = 1024, .moe_inter = 256,
                        .experts = 8, .used = 2, .groups = 2, .groups_used = 1, .heads = 8, .kv_heads = 8,
                        .q_lora = 256, .kv_lora = 256, .nope = 64, .rope = 32, .v_dim = 64, .vocab = 4096,
                        .index_dim = 64, .index_top = 16, .shards = 2, .seed = 1, .f32_bias = true, .scales = "block",
                        .scale_suffix = "weight_scale_inv", .tokenizer = "tests/tiny-v3" };
    if (a != DEEPSEEK) {
        c.kv_heads = 2;
        c.vocab = 512;
        c.scales = a == QWEN3MOE ? "bf16" : a == MINIMAX || a == MINIMAX3 || a == LING ? "block" : "none";
        c.head_norm = a == QWEN3 || a == QWEN3MOE || a == GLM4MOE || a == MINIMAX3;
        c.head_dim = c.head_norm || a == MINIMAX ? 128 : 0;
    }
    if (a == LING)
        c.head_dim = 64, c.mtp = true;
    if (a == GLM4MOE)
        c.scales = "row", c.scale_suffix = "weight_scale", c.mtp = true;
    return c;
}

static void preset(struct config *c, const char *name)
{
    if (!strcmp(name, "small"))
        return;
    if (!strcmp(name, "demo")) {
        c->layers = 5, c->hidden = 1024, c->inter = 4096, c->moe_inter = 512, c->experts = 32;
        c->used = 4, c->groups = 4, c->groups_used = 2, c->heads = 16, c->kv_heads = 16;
        c->q_lora = 512, c->kv_lora = 512, c->nope = 128, c->rope = 64, c->v_dim = 128, c->shards = 4;
    } else if (!strcmp(name, "big-tensor")) {
        c->layers = 1, c->hidden = 1024, c->inter = 2048, c->vocab = 131072, c->shards = 1, c->tied = true;
        if (c->arch == DEEPSEEK)
            die("big-tensor is for qwen2 and llama");
    } else if (!strcmp(name, "r1") || !strcmp(name, "k2")) {
        bool r1 = name[0] == 'r';
        c->layers = 61, c->dense = r1 ? 3 : 1, c->hidden = 7168, c->inter = 18432, c->moe_inter = 2048;
        c->experts = r1 ? 256 : 384, c->used = 8, c->groups = r1 ? 8 : 1, c->groups_used = r1 ? 4 : 1;
        c->heads = c->kv_heads = r1 ? 128 : 64, c->q_lora = 1536, c->kv_lora = 512, c->nope = 128;
        c->rope = 64, c->v_dim = 128, c->vocab = r1 ? 129280 : 163840, c->shards = r1 ? 163 : 61;
        c->mtp = r1;
    } else {
        die("preset %s: small, demo, big-tensor, r1 or k2", name);
    }
}

/* The whole checkpoint; a line on standard output. */
static void write_checkpoint(const struct config *c)
{
    if (mkdir(c->out, 0777) && errno != EEXIST)
        die("%s: %s", c->out, strerror(errno));
    fill_tables();
    struct list l = { 0 };
    list_tensors(&l, c);
    uint64_t total = write_shards(c, &l);
    if (c->config)
        copy_file(c, c->config, "config.json");
    else
        write_config(c);
    if (c->arch == DEEPSEEK) {
        copy_tokenizer(c, "tokenizer.json");
        copy_tokenizer(c, "tokenizer_config.json");
    } else {
        write_tokenizer(c);
    }
    printf("%s: %zu tensors, %.1f MB in %" PRIu64 " file%s\n", c->out, l.n, (double)total / 1e6, c->shards,
           c->shards == 1 ? "" : "s");
    free(l.t);
}

static enum arch arch_of(const char *name)
{
    for (enum arch a = 0; a < N_ARCHS; a++)
        if (!strcmp(name, arch_names[a].option))
            return a;
    die("--arch %s: there is no such one; see --help", name);
}

static const char *scales_of(const char *name)
{
    static const char *const forms[] = { "block", "bf16", "e8m0", "tensor", "row", "bf16-row", "mxfp8", "none" };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (!strcmp(name, forms[i]))
            return forms[i];
    die("--scales %s: there is no such form; see --help", name);
}

#define NUMBER(name, field) { name, offsetof(struct config, field) }
static const struct { const char *name; size_t at; } numbers[] = {
    NUMBER("layers", layers), NUMBER("dense", dense), NUMBER("hidden", hidden), NUMBER("inter", inter),
    NUMBER("moe-inter", moe_inter), NUMBER("experts", experts), NUMBER("used", used), NUMBER("groups", groups),
    NUMBER("groups-used", groups_used), NUMBER("heads", heads), NUMBER("kv-heads", kv_heads), NUMBER("q-lora", q_lora),
    NUMBER("kv-lora", kv_lora), NUMBER("nope", nope), NUMBER("rope", rope), NUMBER("v-dim", v_dim), NUMBER("vocab", vocab),
    NUMBER("shards", shards), NUMBER("seed", seed), NUMBER("index-heads", index_heads), NUMBER("head-dim", head_dim),
};
enum { N_NUMBERS = sizeof numbers / sizeof *numbers, NUMBER_0 = 256 };

static const struct option words[] = {
    { "arch", 1, NULL, 'a' }, { "preset", 1, NULL, 'p' }, { "scales", 1, NULL, 's' }, { "scale-suffix", 1, NULL, 'x' },
    { "bf16-bias", 0, NULL, 'b' }, { "packed", 0, NULL, 'P' }, { "mxfp4", 0, NULL, '4' }, { "int8", 0, NULL, '8' }, { "f32-proj", 0, NULL, 'j' },
    { "mtp", 0, NULL, 'm' }, { "no-mtp", 0, NULL, 'M' }, { "tied", 0, NULL, 't' }, { "no-head-norm", 0, NULL, 'N' },
    { "sparse", 0, NULL, 'S' }, { "holes", 0, NULL, 'H' }, { "config", 1, NULL, 'c' }, { "tokenizer", 1, NULL, 'k' },
    { "out", 1, NULL, 'o' }, { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 },
};

static void take_number(struct config *c, int i, const char *text)
{
    char *end;
    uint64_t v = strtoull(text, &end, 10);
    if (*end || end == text)
        die("--%s %s: a number is expected", numbers[i].name, text);
    memcpy((char *)c + numbers[i].at, &v, sizeof v);
}

/* Returns false for what is no option. */
static bool take_word(struct config *c, int o, const char *arg)
{
    switch (o) {
    case 'a':
        if (c->out)
            die("--arch comes before the other options");
        *c = defaults(arch_of(arg));
        break;
    case 'p': preset(c, arg); break;
    case 's': c->scales = scales_of(arg); break;
    case 'x': c->scale_suffix = arg; break;
    case 'b': c->f32_bias = false; break;
    case 'P': c->packed = true; break;
    case '4': c->mxfp4 = true; break;
    case '8': c->int8 = true; break;
    case 'j': c->f32_proj = true; break;
    case 'm': c->mtp = true; break;
    case 'M': c->mtp = false; break;
    case 't': c->tied = true; break;
    case 'N': c->head_norm = false; break;
    case 'S': c->sparse = true; break;
    case 'k': c->tokenizer = arg; break;
    case 'H': c->holes = true; break;
    case 'c': c->config = arg; break;
    case 'o': c->out = arg; break;
    default: return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct option opts[N_NUMBERS + sizeof words / sizeof *words];
    struct config c = defaults(DEEPSEEK);
    for (int i = 0; i < N_NUMBERS; i++)
        opts[i] = (struct option){ numbers[i].name, required_argument, NULL, NUMBER_0 + i };
    memcpy(opts + N_NUMBERS, words, sizeof words);
    for (int o; (o = getopt_long(argc, argv, "", opts, NULL)) != -1;) {
        if (o >= NUMBER_0) {
            take_number(&c, o - NUMBER_0, optarg);
        } else if (!take_word(&c, o, optarg)) {
            usage(o == 'h' ? stdout : stderr);
            return o == 'h' ? 0 : 2;
        }
    }
    if (!c.out || optind != argc || c.shards == 0 || c.shards > 99999) {
        usage(stderr);
        return 2;
    }
    write_checkpoint(&c);
    return 0;
}
