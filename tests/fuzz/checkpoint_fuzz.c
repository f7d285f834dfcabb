/* Fuzz target: a checkpoint's folder (fuzz_folder.h): config.json or params.json, the headers of shards, their index, tokenizer,
 * model card. Whatever is in it, it is said what is wrong, or the plan's sizes, tasks and header agree. The first line may ask for
 * the other layout (l), no layers for multi-token prediction (n), small files (s), a file alone (f). */
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sl_job_options o = {.any_type = true};
    struct folder f;
    char path[160];

    if (size > 1 << 18)
        return 0;
    folder_cut(data, size, &f);
    if (f.n == 0)
        return 0;
    for (size_t i = 0; i < f.n_first; i++) {
        o.layout = f.first[i] == 'l' ? "legacy" : o.layout;
        o.no_mtp = o.no_mtp || f.first[i] == 'n';
        o.split_max_bytes = f.first[i] == 's' ? 1 << 18 : o.split_max_bytes;
    }
    snprintf(path, sizeof path, "%s", fuzz_dir());
    if (memchr(f.first, 'f', f.n_first))
        snprintf(path, sizeof path, "%s/%s", fuzz_dir(), f.file[0].name);
    folder_write(&f);
    plan_check(path, "q4_k_m", &o);
    folder_clear(&f);
    return 0;
}
