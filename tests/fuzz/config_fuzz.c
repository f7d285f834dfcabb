/* Fuzz target: bytes as the config.json, or params.json, of a model that is planned before its download. Whatever they are, it is
 * said what is wrong, or the plan's sizes, tasks and header agree. */
#include "tests/fuzz/fuzz_plan.h"

#include <fcntl.h>

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    uint64_t s = seed;

    return json_change(data, size, max, &s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const recipes[] = {"q4_k_m", "dq3_k_m", "iq1_s", "f32"};
    struct sl_job_options o = {.config_only = true, .any_type = true};
    uint64_t s = size;
    char path[40];
    int fd = memfd_create("config", MFD_CLOEXEC);

    for (size_t i = 0; i < size; i++)
        s = s * 31 + data[i];
    o.layout = s & 1 ? "legacy" : NULL;
    o.no_mtp = s >> 1 & 1;
    o.split_max_bytes = s >> 2 & 1 ? 1 << 20 : 0;
    require(fd >= 0 && (size == 0 || write(fd, data, size) == (ssize_t)size));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    plan_check(path, recipes[s >> 3 & 3], &o);
    close(fd);
    return 0;
}
