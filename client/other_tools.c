#include "client/other_tools.h"

#include <stddef.h>
#include <string.h>

struct pair {
    const char *theirs, *ours;
};

/* convert_hf_to_gguf.py's names of what Sluice has. */
static const struct pair names[] = {{"outfile", "output"}, {"outtype", "recipe"}, {"no-nextn", "no-mtp"}, {NULL, NULL}};

static const struct pair converter[] = {
    {"--bigendian", "files are little-endian"},
    {"--dspark", "convert_hf_to_gguf.py makes such a file"},
    {"--fp8-as-q8", "q8_0 for every matrix is --recipe q8_0"},
    {"--fuse-gate-up-exps", "tensors stay apart; leave it out"},
    {"--fuse-qkv", "tensors stay apart; leave it out"},
    {"--metadata", "use --model-name, and --override-kv KEY=str:TEXT for each other key, such as general.author"},
    {"--mmproj", "the text model alone is converted; convert_hf_to_gguf.py --mmproj makes the other part's file"},
    {"--mtp", "layers for multi-token prediction stay in the model where llama.cpp runs them; convert_hf_to_gguf.py --mtp makes a file of them alone"},
    {"--no-lazy", "tensors are always streamed; leave it out"},
    {"--print-supported-models", "README.md lists them"},
    {"--remote", "the checkpoint must be on this machine; 'hf download' fetches it"},
    {"--use-temp-file", "there is no temporary copy; leave it out"},
    {"--verbose", "--dry-run shows every tensor"},
    {"--vocab-only", "convert_hf_to_gguf.py --vocab-only makes a file of the tokenizer alone"},
    {NULL, NULL},
};

#define SECOND "the output stands second, without an option: IN.gguf OUT.gguf RECIPE"
static const struct pair quantize[] = {{"-o", SECOND}, {"--output", SECOND}, {"--outfile", SECOND}, {NULL, NULL}};

/* llama-imatrix, for `sluice imatrix`. */
#define COLLECTS "llama-imatrix collects one, with a GGUF file of the model (--recipe q8_0 will do); here its FILE is shown or converted"
static const struct pair imatrix[] = {
    {"-m", COLLECTS}, {"--model", COLLECTS}, {"-f", COLLECTS}, {"--file", COLLECTS},
    {"--in-file", "FILE stands without an option; several are put together by llama-imatrix"},
    {"-o", "use --convert OUT"},
    {"--output-format", "use --format, with --convert OUT"},
    {"--show-statistics", "llama-imatrix shows statistics; here --entries lists what the file holds"},
    {NULL, NULL},
};

#define COPIES "'sluice quantize FIRST.gguf OUT.gguf COPY' makes one file of a set; --split-max-size SIZE makes a set of one file"
#define SETS "'sluice quantize IN.gguf OUT.gguf COPY --override-kv KEY=TYPE:VALUE' writes a copy with another value"
#define SHOWS "'sluice inspect FILE.gguf' shows metadata and tensors"
#define HASHES "'sluice verify FILE.gguf --sha256' prints hashes; those of the tensors are in FILE.gguf.xxh64"
#define FETCHES "'hf download' fetches checkpoints"
static const struct pair verbs[] = {
    {"gguf-split", COPIES}, {"split", COPIES}, {"merge", COPIES},
    {"gguf-set-metadata", SETS}, {"gguf-new-metadata", SETS}, {"set-metadata", SETS}, {"new-metadata", SETS},
    {"gguf-dump", SHOWS}, {"dump", SHOWS},
    {"gguf-hash", HASHES}, {"hash", HASHES},
    {"download", FETCHES}, {"pull", FETCHES},
    {NULL, NULL},
};

static const char *find(const struct pair *p, const char *theirs)
{
    while (p->theirs && strcmp(p->theirs, theirs) != 0)
        p++;
    return p->ours;
}

const char *other_tools_verb(const char *name)
{
    return find(verbs, strncmp(name, "llama-", 6) == 0 ? name + 6 : name);
}

const char *other_tools_option(const char *verb, const char *option)
{
    if (strcmp(verb, "imatrix") == 0)
        return find(imatrix, option);
    if (strcmp(verb, "quantize") == 0)
        return find(quantize, option);
    if (strcmp(verb, "plan") == 0 || strcmp(verb, "convert") == 0 || strcmp(verb, "submit") == 0)
        return find(converter, option);
    return NULL;
}

const char *other_tools_name(const char *name)
{
    const char *ours = find(names, name);

    return ours ? ours : name;
}
