/* A tokenizer of 256 bytes, a few merges and special tokens, in the form of each model's own. */
#include "generator.h"

/* The character that byte-level BPE shows for a byte: itself where printable,
 * otherwise U+0100 and on, in order. As a JSON string's content. */
static void byte_token(FILE *f, int byte)
{
    unsigned extra = 0, code = 0;
    for (int b = 0; b <= byte; b++) {
        bool shown = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        code = shown ? (unsigned)b : 256 + extra++;
    }
    if (code == '"' || code == '\\')
        fprintf(f, "\\%c", (char)code);
    else if (code < 128)
        fputc((int)code, f);
    else
        fprintf(f, "\\u%04x", code);
}

static bool is_minimax(const struct config *c)
{
    return c->arch == MINIMAX || c->arch == MINIMAX3;
}

/* How text is split, and what is put before it: MiniMax-M2's, GLM's, Ling's, and those of DeepSeek-R1's distillations. */
static void write_rules(FILE *f, const struct config *c, const char *bos)
{
#define UPPER "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define LOWER "[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]"
#define BEFORE "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
#define SHORT "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    bool minimax = is_minimax(c), glm = c->arch == GLM4MOE, ling = c->arch == LING;
    const char *words = ling ? "'(?i:[sdmt]|ll|ve|re)|" BEFORE "+\\\\p{L}+"
                        : minimax ? BEFORE UPPER "*" LOWER "+" SHORT "?|" BEFORE UPPER "+" LOWER "*" SHORT "?"
                        : SHORT "|" BEFORE "\\\\p{L}+";
    fprintf(f, "\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
               "\"pattern\":{\"Regex\":\"%s|\\\\p{N}%s| ?[^\\\\s\\\\p{L}\\\\p{N}]+%s[\\\\r\\\\n%s]*|\\\\s*[\\\\r\\\\n]%s|"
               "\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"%s\",\"invert\":%s},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
               "\"trim_offsets\":true,\"use_regex\":false}]},\"post_processor\":",
            minimax ? "{\"type\":\"NFC\"}" : "null", words, minimax || glm || c->arch == LLAMA ? "{1,3}" : "",
            ling ? "+" : "", minimax ? "/" : "", ling ? "" : "+", minimax ? "Removed" : "Isolated", minimax ? "true" : "false");
    if (minimax || ling)
        fputs("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":false,\"use_regex\":true}", f);
    else if (glm)
        fputs("null", f);
    else
        fprintf(f, "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"%s\",\"type_id\":0}},"
                   "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"%s\":{\"id\":\"%s\","
                   "\"ids\":[256],\"tokens\":[\"%s\"]}}}", bos, bos, bos, bos);
}

/* special: those at the ids of write_tokenizer. */
static void write_tokenizer_config(const struct config *c, const char *const *special)
{
    FILE *f = open_out(c, "tokenizer_config.json");
    if (is_minimax(c))
        fprintf(f, "{\"add_prefix_space\":false,\"bos_token\":\"%s\",\"clean_up_tokenization_spaces\":false,\"eos_token\":\"%s\","
                   "\"unk_token\":\"%s\",\"model_max_length\":40960000,\"tokenizer_class\":\"GPT2Tokenizer\"}\n",
                special[0], special[1], special[1]);
    else if (c->arch == LING)
        fprintf(f, "{\"add_bos_token\":false,\"add_eos_token\":false,\"bos_token\":\"%s\",\"clean_up_tokenization_spaces\":false,"
                   "\"cls_token\":\"%s\",\"eos_token\":\"%s\",\"fast_tokenizer\":true,\"gmask_token\":\"%s\",\"merges_file\":null,"
                   "\"pad_token\":\"%s\",\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"trust_remote_code\":true}\n",
                special[0], special[2], special[4], special[3], special[1]);
    else if (c->arch == GLM4MOE)
        fputs("{\"clean_up_tokenization_spaces\":false,\"do_lower_case\":false,\"eos_token\":\"<|endoftext|>\",\"extra_special_tokens\":{},"
              "\"model_max_length\":128000,\"pad_token\":\"<|endoftext|>\",\"padding_side\":\"left\",\"remove_space\":false,"
              "\"tokenizer_class\":\"PreTrainedTokenizer\"}\n", f);
    else
        fprintf(f, "{\"add_bos_token\":true,\"add_eos_token\":false,\"bos_token\":\"%s\",\"eos_token\":\"%s\","
                   "\"pad_token\":\"%s\",\"unk_token\":null,\"tokenizer_class\":\"LlamaTokenizerFast\"}\n",
                special[0], special[1], special[1]);
    close_out(f, "tokenizer_config.json");
}

/* 256 bytes, 64 merges of letter pairs, and two specials, GLM's eight or Ling's five: before the merges, in MiniMax-M2's,
 * GLM's and Ling's form behind them. */
void write_tokenizer(const struct config *c)
{
    static const char *const names[] = { "<\\uff5cbegin\\u2581of\\u2581sentence\\uff5c>",
                                         "<\\uff5cend\\u2581of\\u2581sentence\\uff5c>" };
    static const char *const minimax_names[] = { "]~!b[", "[e~[" };
    static const char *const glm_names[] = { "[gMASK]", "<|endoftext|>", "[sMASK]", "<sop>", "<think>", "<|user|>",
                                             "<|assistant|>", "<|observation|>" };
    static const char *const ling_names[] = { "<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]", "<|role_end|>" };
    bool minimax = is_minimax(c), glm = c->arch == GLM4MOE, ling = c->arch == LING, last = minimax || glm || ling;
    const char *const *special = glm ? glm_names : ling ? ling_names : minimax ? minimax_names : names;
    int n = glm ? 8 : ling ? 5 : 2;
    FILE *f = open_out(c, "tokenizer.json");
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[", f);
    for (int i = 0; i < n; i++)
        fprintf(f, "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                   "\"normalized\":false,\"special\":%s}", i ? "," : "", (last ? 320 : 256) + i, special[i], glm && i == 4 ? "false" : "true");
    fputs("],", f);
    write_rules(f, c, special[0]);
    fprintf(f, ",\"decoder\":{\"type\":\"ByteLevel\"%s},\"model\":{\"type\":\"BPE\",\"vocab\":{",
            last ? ",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true" : "");
    for (int b = 0; b < 256; b++) {
        fputs(b ? ",\"" : "\"", f);
        byte_token(f, b);
        fprintf(f, "\":%d", b);
    }
    const char *letters = "etaoinsh";
    for (int i = 0; i < 64; i++)
        fprintf(f, ",\"%c%c\":%d", letters[i / 8], letters[i % 8], (last ? 256 : 258) + i);
    fputs("},\"merges\":[", f);
    for (int i = 0; i < 64; i++)
        fprintf(f, "%s\"%c %c\"", i ? "," : "", letters[i / 8], letters[i % 8]);
    fputs("]}}\n", f);
    close_out(f, "tokenizer.json");
    write_tokenizer_config(c, special);
}
