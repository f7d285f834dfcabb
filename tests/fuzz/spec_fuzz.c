/* Fuzz target: bytes as a job's specification, whose source is a small GGUF file. What the table of messages takes and a plan is made
 * of says the same when it is printed and read again. */
#include "tests/fuzz/fuzz_plan.h"
#include "tests/fuzz/fuzz_source.h"

#include "proto/json_file.h"
#include "proto/wire.h"

static char source[40];

static void make_source(void)
{
    int fd = memfd_create("source", MFD_CLOEXEC);

    fuzz_source(fd);
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
}

/* Returns the plan's code, and its fingerprint. */
static int make_plan(const cJSON *spec, char fingerprint[33])
{
    struct sl_job_plan j = {.ck = NULL};
    struct sl_error e = {0};
    int rc = sl_job_plan_open(&j, spec, source, &e);

    if (rc < 0) {
        plan_refused(rc, &e, source);
    } else {
        plan_sizes(j.plan);
        plan_tasks(j.plan);
        memcpy(fingerprint, j.plan->fingerprint, 33);
    }
    if (getenv("FUZZ_SAYS"))
        fprintf(stderr, "%d %s\n", rc, rc < 0 ? e.text : "");
    sl_job_plan_close(&j);
    return rc;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
    uint64_t s = seed;

    return json_change(data, size, max, &s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char first[33] = "", second[33] = "", *text;
    cJSON *spec = NULL, *again = NULL;
    struct sl_error e = {0};
    int rc;

    if (!source[0])
        make_source();
    if (sl_json_parse("spec", (const char *)data, size, NULL, &spec, &e) < 0)
        return 0;
    rc = sl_record_check("spec", spec, &e);
    if (rc < 0) {
        require(rc == SL_EUSAGE && e.text[0] && sl_utf8_all_shown(e.text));
    } else {
        rc = make_plan(spec, first);
        text = cJSON_PrintUnformatted(spec);
        require(text && sl_json_parse("spec", text, strlen(text), NULL, &again, &e) == 0 && sl_record_check("spec", again, &e) == 0);
        require(make_plan(again, second) == rc && strcmp(first, second) == 0);
        cJSON_free(text);
    }
    cJSON_Delete(again);
    cJSON_Delete(spec);
    return 0;
}
