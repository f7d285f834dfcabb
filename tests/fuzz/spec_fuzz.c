/* Fuzz target: bytes as a job's specification, whose source is a small GGUF file. What the table of messages takes and a plan is made
 * of says the same when it is printed and read again. */
#include "tests/fuzz/fuzz_plan.h"

#include "proto/json_file.h"
#include "proto/wire.h"

#define ROWS 64

static char source[40];

/* A Llama of one layer, as much of it as a plan asks for. */
static void make_source(void)
{
    static const char *const names[] = {"token_embd.weight", "output_norm.weight", "output.weight", "blk.0.attn_q.weight",
                                        "blk.0.attn_v.weight", "blk.0.ffn_down.weight"};
    struct sl_gguf_tensor t[6] = {{.n_dims = 0}};
    struct sl_kvs kvs = {NULL, 0, 0};
    uint64_t at = 0, len;
    uint8_t *header;
    int fd = memfd_create("source", MFD_CLOEXEC);

    for (int i = 0; i < 6; i++) {
        strcpy(t[i].name, names[i]);
        t[i].n_dims = i == 1 ? 1 : 2;
        t[i].type = SL_TYPE_F32;
        memcpy(t[i].ne, (uint64_t[]){256, i == 1 ? 1 : ROWS, 1, 1}, sizeof t[i].ne);
        t[i].bytes = sl_type_bytes(SL_TYPE_F32, t[i].ne[0] * t[i].ne[1]);
        t[i].offset = at;
        at += sl_gguf_padded(t[i].bytes);
    }
    require(sl_kvs_set_str(&kvs, "general.architecture", "llama") == 0 && sl_kvs_set_u32(&kvs, "general.file_type", 0) == 0 &&
            sl_kvs_set_u32(&kvs, "llama.block_count", 1) == 0 && sl_kvs_set_u32(&kvs, "llama.embedding_length", 256) == 0);
    require(sl_gguf_header(&kvs, t, 6, &header, &len) == 0);
    require(fd >= 0 && write(fd, header, len) == (ssize_t)len && ftruncate(fd, (off_t)(len + at)) == 0);
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    free(header);
    sl_kvs_free(&kvs);
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
