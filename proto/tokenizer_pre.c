/* Which pre-tokenizer a tokenizer.json describes. The converter encodes a test
 * text and looks the token ids up; here the regular expressions decide. */
#include "proto/arch_table.h"
#include "proto/tokenizer.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <string.h>

#define MAX_RULES 16
#define DIGITS "<digits>"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define WORDS_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define KIMI_UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI_LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}&&[^\\p{Han}]]"
#define KIMI_WORD(upper, lower) \
    "[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER upper KIMI_LOWER lower "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
#define O200K_WORD(upper, lower) \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]" upper "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]" lower \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
#define CJK "[一-龥ࠀ-一가-퟿]+"

/* Rules in order; one that ends in "..." stands for all with that beginning. */
static const struct { const char *pre; const char *rules[8]; } known[] = {
    {"deepseek-v3",
     {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"llama-bpe", {CONTRACTIONS "\\p{N}{1,3}" WORDS_REST}},
    {"kimi-k2", {"[\\p{Han}]+|" KIMI_WORD("*", "+") KIMI_WORD("+", "*") "\\p{N}{1,3}" WORDS_REST}},
    {"minimax-m2", {O200K_WORD("*", "+") O200K_WORD("+", "*") "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+"
                    "|\\s+(?!\\S)|\\s+"}},
    {"qwen2", {CONTRACTIONS "\\p{N}" WORDS_REST}},
    {"qwen35", {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*"
                "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
    {"exaone-moe", {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?"
                    "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"bailingmoe", {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]"
                    "|\\s+(?!\\S)|\\s+"}},
    {"deepseek-llm",
     {"[\\r\\n]", "\\s?[A-Za-zµÀ-ÖØ-öø-ƺ...", "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", CJK, DIGITS}},
    {"deepseek-coder", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, DIGITS}},
};

struct rules {
    const char *rule[MAX_RULES];
    int n;
    const char *odd; /* a kind that is not understood */
};

static void collect(const cJSON *j, struct rules *r, int depth)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(j, "type");
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(j, "pattern");
    const cJSON *regex = cJSON_GetObjectItemCaseSensitive(pattern, "Regex");
    const char *kind = cJSON_IsString(type) ? type->valuestring : "(no type)";

    if (r->n >= MAX_RULES || depth > 4) {
        r->odd = "more rules than any known tokenizer has";
    } else if (strcmp(kind, "Sequence") == 0) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(j, "pretokenizers");

        for (const cJSON *x = list ? list->child : NULL; x; x = x->next)
            collect(x, r, depth + 1);
    } else if (strcmp(kind, "Split") == 0 && cJSON_IsString(regex)) {
        r->rule[r->n++] = regex->valuestring;
    } else if (strcmp(kind, "Digits") == 0) {
        r->rule[r->n++] = DIGITS;
    } else if (strcmp(kind, "ByteLevel") == 0) {
        if (!cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(j, "use_regex")))
            r->rule[r->n++] = "<GPT-2's regular expression>";
    } else {
        r->odd = kind;
    }
}

/* The end of a line may stand in a regular expression as itself or escaped. */
static bool same_rule(const char *found, const char *wanted)
{
    for (; *wanted; found++, wanted++) {
        if (strcmp(wanted, "...") == 0)
            return true;
        if ((*found == '\r' || *found == '\n') && *wanted == '\\' &&
            wanted[1] == (*found == '\r' ? 'r' : 'n'))
            wanted++;
        else if (*found != *wanted)
            return false;
    }
    return !*found;
}

static const char *match(const struct rules *r)
{
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        int n = 0;

        while (n < 8 && known[k].rules[n] && n < r->n && same_rule(r->rule[n], known[k].rules[n]))
            n++;
        if (n == r->n && n > 0 && (n == 8 || !known[k].rules[n]))
            return known[k].pre;
    }
    return NULL;
}

/* The token that a post-processor puts before every text, or NULL. */
static const char *first_token(const cJSON *processor)
{
    const cJSON *single = cJSON_GetObjectItemCaseSensitive(processor, "single");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(processor, "processors");
    const cJSON *special = cJSON_GetObjectItemCaseSensitive(cJSON_IsArray(single) ? single->child : NULL, "SpecialToken");
    const char *first = sl_config_str(special, "id");

    for (const cJSON *x = cJSON_IsArray(list) ? list->child : NULL; x && !first; x = x->next)
        first = first_token(x);
    return first;
}

/* Whether every text begins with DeepSeek's own token. Llama's class asks add_bos_token for that, the others the
 * post-processor. R1's distills have Qwen's rules besides, and a name of their own for it; DeepSeek-V4 does without. */
static bool begins_texts(const cJSON *tokenizer, const cJSON *config, const cJSON *model)
{
    const char *class = sl_config_str(config, "tokenizer_class"), *first;
    const cJSON *add = cJSON_GetObjectItemCaseSensitive(config, "add_bos_token");

    if (!class)
        class = sl_config_str(model, "tokenizer_class");
    if (class && strncmp(class, "LlamaTokenizer", 14) == 0)
        first = !add || cJSON_IsTrue(add) ? sl_token_text(cJSON_GetObjectItemCaseSensitive(config, "bos_token")) : NULL;
    else
        first = first_token(cJSON_GetObjectItemCaseSensitive(tokenizer, "post_processor"));
    return first && strcmp(first, "<｜begin▁of▁sentence｜>") == 0;
}

int sl_tokenizer_pre(const cJSON *tokenizer, const cJSON *config, const cJSON *model, const struct sl_arch *arch,
                     const char **pre, struct sl_error *e)
{
    const cJSON *j = cJSON_GetObjectItemCaseSensitive(tokenizer, "pre_tokenizer");
    struct rules r = {.n = 0};

    if (cJSON_IsObject(j))
        collect(j, &r, 0);
    *pre = r.odd ? NULL : match(&r);
    if (*pre && strcmp(*pre, "qwen2") == 0 && begins_texts(tokenizer, config, model))
        *pre = "deepseek-r1-qwen";
    if (*pre && arch && arch->tokens == SL_TOKENS_GLM && strcmp(*pre, "llama-bpe") == 0)
        *pre = "glm4";
    if (*pre && arch && arch->tokens == SL_TOKENS_SOLAR && strcmp(*pre, "qwen2") == 0)
        *pre = "solar-open";
    if (*pre && arch && arch->tokens == SL_TOKENS_V4 && strcmp(*pre, "deepseek-v3") == 0 &&
        !begins_texts(tokenizer, config, model))
        *pre = "joyai-llm";
    if (*pre && arch && arch->tokens == SL_TOKENS_HY3 && strcmp(*pre, "deepseek-v3") == 0)
        *pre = "hunyuan-dense";
    if (*pre && arch && arch->tokens == SL_TOKENS_LLAMA4 && strcmp(*pre, "minimax-m2") == 0)
        *pre = "llama4";
    if (*pre && arch && arch->tokens == SL_TOKENS_LING && strcmp(*pre, "bailingmoe") == 0)
        *pre = "bailingmoe2";
    if (*pre)
        return 0;
    if (r.odd)
        return sl_fail(e, SL_EUNSUPPORTED, "tokenizer.json: pre_tokenizer with '%.80s' is not "
                       "supported; supported: those of DeepSeek V2 to V4, R1, GLM, Hy3, K-EXAONE, Kimi-K2, Ling, MiniMax-M2, Qwen, Solar-Open, Llama 3 and 4", r.odd);
    return sl_fail(e, SL_EUNSUPPORTED, "tokenizer.json: unknown pre_tokenizer of %d rule%s, first "
                   "'%.200s'; supported: those of DeepSeek V2 to V4, R1, GLM, Hy3, K-EXAONE, Kimi-K2, Ling, MiniMax-M2, Qwen, Solar-Open, Llama 3 and 4", r.n,
                   r.n == 1 ? "" : "s", r.n ? r.rule[0] : "");
}
