/* The table of messages; proto/PROTOCOL.md says what they mean, and
 * tests/unit/protocol_text_test.c holds the two against each other. */
#include "proto/roots.h"
#include "proto/wire.h"

#define PATH_BYTES 4095
#define TEXT_BYTES 1023
#define NAME_BYTES 64

#define FIELDS(array) array, sizeof array / sizeof array[0]

static const struct sl_field ref_fields[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_record ref_record = {"ref", FIELDS(ref_fields)};

static const struct sl_field lease_fields[] = {
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_record lease_record = {"lease", FIELDS(lease_fields)};

static const struct sl_field work_fields[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"bytes", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_record work_record = {"work", FIELDS(work_fields)};

static const struct sl_field type_rule_fields[] = {
    {"pattern", SL_F_STR, true, 1024, NULL},
    {"type", SL_F_STR, true, 16, NULL},
};
static const struct sl_record type_rule_record = {"type_rule", FIELDS(type_rule_fields)};

static const struct sl_field options_fields[] = {
    {"layout", SL_F_STR, false, 16, NULL},
    {"no_mtp", SL_F_BOOL, false, 0, NULL},
    {"round_through", SL_F_STR, false, 16, NULL},
    {"rules", SL_F_STR, false, 16, NULL},
    {"split_max_bytes", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"split_max_tensors", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"no_tensor_first_split", SL_F_BOOL, false, 0, NULL},
    {"keep_split", SL_F_BOOL, false, 0, NULL},
    {"task_bytes", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"model_name", SL_F_STR, false, 255, NULL},
    {"output_type", SL_F_STR, false, 16, NULL},
    {"embedding_type", SL_F_STR, false, 16, NULL},
    {"tensor_types", SL_F_RECS, false, 4096, &type_rule_record},
    {"override_kv", SL_F_STRS, false, 256, NULL},
    {"imatrix", SL_F_PATH, false, PATH_BYTES, NULL},
    {"synthetic_imatrix", SL_F_BOOL, false, 0, NULL},
    {"include_weights", SL_F_STRS, false, 256, NULL},
    {"exclude_weights", SL_F_STRS, false, 256, NULL},
    {"leave_output", SL_F_BOOL, false, 0, NULL},
    {"pure", SL_F_BOOL, false, 0, NULL},
    {"allow_requantize", SL_F_BOOL, false, 0, NULL},
    {"sha256", SL_F_BOOL, false, 0, NULL},
    {"force", SL_F_BOOL, false, 0, NULL},
    {"sparse", SL_F_BOOL, false, 0, NULL},
};
static const struct sl_record options_record = {"options", FIELDS(options_fields)};

static const struct sl_field spec_fields[] = {
    {"source", SL_F_PATH, true, PATH_BYTES, NULL},
    {"output", SL_F_PATH, true, PATH_BYTES, NULL},
    {"prefix", SL_F_STR, true, 200, NULL},
    {"recipe", SL_F_STR, true, 255, NULL},
    {"recipe_text", SL_F_STR, true, 1u << 20, NULL},
    {"options", SL_F_REC, false, 0, &options_record},
};
static const struct sl_record spec_record = {"spec", FIELDS(spec_fields)};

static const struct sl_field plan_fields[] = {
    {"fingerprint", SL_F_HEX, true, 32, NULL},
    {"source", SL_F_STR, true, 255, NULL},
    {"recipe", SL_F_STR, true, 255, NULL},
    {"options", SL_F_STR, true, 255, NULL},
    {"version", SL_F_STR, true, 16, NULL},
    {"file_bytes", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"src_bytes", SL_F_UINTS, true, SL_TASKS_MAX, NULL},
    {"out_bytes", SL_F_UINTS, true, SL_TASKS_MAX, NULL},
    {"shard", SL_F_UINTS, true, SL_TASKS_MAX, NULL},
};
static const struct sl_record plan_record = {"plan", FIELDS(plan_fields)};

static const struct sl_field job_fields[] = {
    {"id", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"state", SL_F_STR, true, 16, NULL},
    {"reason", SL_F_STR, false, TEXT_BYTES, NULL},
    {"priority", SL_F_UINT, true, 100, NULL},
    {"group", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"after", SL_F_UINTS, false, SL_AFTER_MAX, NULL},
    {"labels", SL_F_STRS, false, SL_LABELS_MAX, NULL},
    {"user", SL_F_STR, true, NAME_BYTES, NULL},
    {"source", SL_F_PATH, true, PATH_BYTES, NULL},
    {"output", SL_F_PATH, true, PATH_BYTES, NULL},
    {"prefix", SL_F_STR, true, 200, NULL},
    {"recipe", SL_F_STR, true, 255, NULL},
    {"submitted", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"started", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"ended", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"tasks", SL_F_UINT, true, SL_TASKS_MAX, NULL},
    {"done", SL_F_UINT, true, SL_TASKS_MAX, NULL},
    {"leased", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"quarantined", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"src_bytes", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"done_bytes", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"file_bytes", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"rate", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"code", SL_F_UINT, false, 255, NULL},
    {"error", SL_F_STR, false, TEXT_BYTES, NULL},
    {"files", SL_F_STRS, false, SL_FILES_MAX, NULL},
};
static const struct sl_record job_record = {"job", FIELDS(job_fields)};

static const struct sl_field failure_fields[] = {
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"worker", SL_F_STR, true, NAME_BYTES, NULL},
    {"code", SL_F_UINT, true, 255, NULL},
    {"text", SL_F_STR, true, TEXT_BYTES, NULL},
    {"time", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_record failure_record = {"failure", FIELDS(failure_fields)};

static const struct sl_field gpu_fields[] = {
    {"device", SL_F_STR, true, 16, NULL},
    {"name", SL_F_STR, true, 127, NULL},
    {"celsius", SL_F_UINT, false, 1000, NULL},
    {"watts", SL_F_UINT, false, 100000, NULL},
    {"memory", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"memory_used", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_record gpu_record = {"gpu", FIELDS(gpu_fields)};

static const struct sl_field worker_fields[] = {
    {"name", SL_F_STR, true, NAME_BYTES, NULL},
    {"instance", SL_F_HEX, true, 32, NULL},
    {"host", SL_F_STR, true, NAME_BYTES, NULL},
    {"pid", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"device", SL_F_STR, false, NAME_BYTES, NULL},
    {"threads", SL_F_UINT, false, 4096, NULL},
    {"mem", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"state", SL_F_STR, true, 16, NULL},
    {"seen", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"held", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"job", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, false, SL_TASK_LAST, NULL},
    {"tensor", SL_F_STR, false, 128, NULL},
    {"rate", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"done", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"bytes", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"gpus", SL_F_RECS, false, SL_WIRE_GPUS, &gpu_record},
};
static const struct sl_record worker_record = {"worker", FIELDS(worker_fields)};

static const struct sl_field event_fields[] = {
    {"id", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"time", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"job", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, false, SL_TASK_LAST, NULL},
    {"worker", SL_F_STR, false, NAME_BYTES, NULL},
    {"kind", SL_F_STR, true, 32, NULL},
    {"text", SL_F_STR, true, TEXT_BYTES, NULL},
};
static const struct sl_record event_record = {"event", FIELDS(event_fields)};

const char *const sl_stage_name[SL_STAGES] = {"kernels", "waiting", "no_slab", "sync", "reading", "ready",
                                              "writing"};
static const struct sl_field stages_fields[] = {
    {"kernels", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"waiting", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"no_slab", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"sync", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"reading", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"ready", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"writing", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_record stages_record = {"stages", FIELDS(stages_fields)};

static const struct sl_field hello_message[] = {
    {"role", SL_F_STR, true, 16, NULL},
    {"version", SL_F_STR, true, 32, NULL},
    {"instance", SL_F_HEX, true, 32, NULL},
    {"name", SL_F_STR, true, NAME_BYTES, NULL},
    {"host", SL_F_STR, true, NAME_BYTES, NULL},
    {"pid", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"bytes", SL_F_STR, false, 16, NULL},
    {"device", SL_F_STR, false, NAME_BYTES, NULL},
    {"threads", SL_F_UINT, false, 4096, NULL},
    {"mem", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"held", SL_F_RECS, false, SL_HELD_MAX, &ref_record},
};
static const struct sl_field welcome_message[] = {
    {"daemon", SL_F_HEX, true, 32, NULL},
    {"version", SL_F_STR, true, 32, NULL},
    {"role", SL_F_STR, true, 16, NULL},
    {"heartbeat_ms", SL_F_UINT, true, 3600000, NULL},
    {"lease_ms", SL_F_UINT, true, 86400000, NULL},
    {"dropped", SL_F_RECS, false, SL_HELD_MAX, &ref_record},
};
static const struct sl_field ping_message[] = {
    {"n", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_field pong_message[] = {
    {"n", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_field error_message[] = {
    {"code", SL_F_UINT, true, 255, NULL},
    {"text", SL_F_STR, true, TEXT_BYTES, NULL},
    {"message", SL_F_STR, false, 32, NULL},
};
static const struct sl_field bye_message[] = {
    {"text", SL_F_STR, false, TEXT_BYTES, NULL},
};
static const struct sl_field pull_message[] = {
    {"want", SL_F_UINT, true, 64, NULL},
};
static const struct sl_field grant_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"tasks", SL_F_RECS, true, 64, &lease_record},
    {"lease_ms", SL_F_UINT, true, 86400000, NULL},
    {"group", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"with", SL_F_UINT, false, SL_SWEEP_MAX, NULL},
    {"spec", SL_F_REC, false, 0, &spec_record},
    {"fingerprint", SL_F_HEX, false, 32, NULL},
    {"sums", SL_F_HEXES, false, 1u << 20, NULL},
};
static const struct sl_field progress_message[] = {
    {"bytes", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"tasks", SL_F_RECS, true, SL_HELD_MAX, &work_record},
    {"rate", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"tensor", SL_F_STR, false, 128, NULL},
    {"stages", SL_F_REC, false, 0, &stages_record},
};
static const struct sl_field gpus_message[] = {
    {"gpus", SL_F_RECS, true, SL_WIRE_GPUS, &gpu_record},
};
static const struct sl_field result_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"bytes", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"checksum", SL_F_HEX, false, 16, NULL},
    {"plan", SL_F_REC, false, 0, &plan_record},
    {"files", SL_F_STRS, false, SL_FILES_MAX, NULL},
};
static const struct sl_field fail_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"code", SL_F_UINT, true, 255, NULL},
    {"text", SL_F_STR, true, TEXT_BYTES, NULL},
    {"bad", SL_F_UINTS, false, SL_TASKS_MAX, NULL},
};
static const struct sl_field giveback_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_field ack_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_field nack_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"task", SL_F_UINT, true, SL_TASK_LAST, NULL},
    {"epoch", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"code", SL_F_UINT, true, 255, NULL},
    {"text", SL_F_STR, true, TEXT_BYTES, NULL},
};
static const struct sl_field revoke_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"tasks", SL_F_UINTS, true, SL_TASK_LAST + 1, NULL},
    {"text", SL_F_STR, true, TEXT_BYTES, NULL},
};
static const struct sl_field drain_message[] = {
    {"text", SL_F_STR, false, TEXT_BYTES, NULL},
};
static const struct sl_field submit_message[] = {
    {"key", SL_F_STR, true, NAME_BYTES, NULL},
    {"specs", SL_F_RECS, true, SL_SWEEP_MAX, &spec_record},
    {"priority", SL_F_UINT, false, 100, NULL},
    {"after", SL_F_UINTS, false, SL_AFTER_MAX, NULL},
    {"labels", SL_F_STRS, false, SL_LABELS_MAX, NULL},
    {"hold", SL_F_BOOL, false, 0, NULL},
    {"attempts", SL_F_UINT, false, 100, NULL},
    {"manual_stitch", SL_F_BOOL, false, 0, NULL},
    {"verify", SL_F_BOOL, false, 0, NULL},
};
static const struct sl_field submitted_message[] = {
    {"jobs", SL_F_UINTS, true, SL_SWEEP_MAX, NULL},
    {"again", SL_F_BOOL, false, 0, NULL},
};
static const struct sl_field list_message[] = {
    {"states", SL_F_STRS, false, 16, NULL},
    {"labels", SL_F_STRS, false, SL_LABELS_MAX, NULL},
    {"before", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"limit", SL_F_UINT, false, 1000, NULL},
};
static const struct sl_field history_message[] = {
    {"states", SL_F_STRS, false, 16, NULL},
    {"labels", SL_F_STRS, false, SL_LABELS_MAX, NULL},
    {"before", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"limit", SL_F_UINT, false, 1000, NULL},
};
static const struct sl_field jobs_message[] = {
    {"jobs", SL_F_RECS, true, SL_JOBS_MAX, &job_record},
    {"more", SL_F_BOOL, false, 0, NULL},
};
static const struct sl_field show_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_field job_message[] = {
    {"job", SL_F_REC, true, 0, &job_record},
    {"spec", SL_F_REC, true, 0, &spec_record},
    {"fingerprint", SL_F_HEX, false, 32, NULL},
    {"map", SL_F_STR, false, SL_TASKS_MAX, NULL},
    {"failures", SL_F_RECS, true, 200, &failure_record},
};
static const struct sl_field cancel_message[] = {
    {"jobs", SL_F_UINTS, true, SL_ASK_MAX, NULL},
    {"discard", SL_F_BOOL, false, 0, NULL},
};
static const struct sl_field hold_message[] = {
    {"jobs", SL_F_UINTS, true, SL_ASK_MAX, NULL},
};
static const struct sl_field release_message[] = {
    {"jobs", SL_F_UINTS, true, SL_ASK_MAX, NULL},
};
static const struct sl_field retry_message[] = {
    {"jobs", SL_F_UINTS, true, SL_ASK_MAX, NULL},
};
static const struct sl_field set_message[] = {
    {"jobs", SL_F_UINTS, true, SL_ASK_MAX, NULL},
    {"priority", SL_F_UINT, false, 100, NULL},
    {"add_labels", SL_F_STRS, false, SL_LABELS_MAX, NULL},
    {"remove_labels", SL_F_STRS, false, SL_LABELS_MAX, NULL},
    {"attempts", SL_F_UINT, false, 100, NULL},
};
static const struct sl_field stitch_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_field verify_message[] = {
    {"job", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_field forget_message[] = {
    {"jobs", SL_F_UINTS, true, SL_ASK_MAX, NULL},
};
static const struct sl_field done_message[] = {
    {"jobs", SL_F_UINTS, false, SL_ASK_MAX, NULL},
};
static const struct sl_field wait_message[] = {
    {"jobs", SL_F_UINTS, true, SL_ASK_MAX, NULL},
};
static const struct sl_field ended_message[] = {
    {"job", SL_F_REC, true, 0, &job_record},
};
static const struct sl_field watch_message[] = {
    {"jobs", SL_F_UINTS, false, SL_ASK_MAX, NULL},
    {"since", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"every_ms", SL_F_UINT, false, 3600000, NULL},
};
static const struct sl_field watching_message[] = {
    {"last", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
};
static const struct sl_field event_message[] = {
    {"event", SL_F_REC, true, 0, &event_record},
};
static const struct sl_field status_message[] = {
    {"jobs", SL_F_RECS, true, SL_JOBS_MAX, &job_record},
    {"workers", SL_F_RECS, true, SL_WORKERS_MAX, &worker_record},
};
static const struct sl_field logs_message[] = {
    {"job", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"since", SL_F_UINT, false, SL_WIRE_UINT_MAX, NULL},
    {"limit", SL_F_UINT, false, 1000, NULL},
};
static const struct sl_field log_message[] = {
    {"events", SL_F_RECS, true, 1000, &event_record},
    {"more", SL_F_BOOL, false, 0, NULL},
};
static const struct sl_field worker_list_message[] = {
    {"workers", SL_F_RECS, true, SL_WORKERS_MAX, &worker_record},
};
static const struct sl_field drain_worker_message[] = {
    {"worker", SL_F_STR, true, NAME_BYTES, NULL},
};
static const struct sl_field daemon_message[] = {
    {"version", SL_F_STR, true, 32, NULL},
    {"pid", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"uptime_ms", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"workers", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"jobs", SL_F_UINT, true, SL_WIRE_UINT_MAX, NULL},
    {"roots", SL_F_STRS, true, SL_ROOTS_MAX, NULL},
    {"state", SL_F_PATH, true, PATH_BYTES, NULL},
};

static const struct sl_message messages[SL_M_COUNT] = {
    [SL_M_HELLO] = {"hello", SL_FROM_WORKER | SL_FROM_CLIENT, "welcome error", FIELDS(hello_message)},
    [SL_M_WELCOME] = {"welcome", SL_FROM_DAEMON, "", FIELDS(welcome_message)},
    [SL_M_REHELLO] = {"rehello", SL_FROM_DAEMON, "hello", NULL, 0},
    [SL_M_PING] = {"ping", SL_FROM_WORKER | SL_FROM_CLIENT | SL_FROM_DAEMON, "pong", FIELDS(ping_message)},
    [SL_M_PONG] = {"pong", SL_FROM_WORKER | SL_FROM_CLIENT | SL_FROM_DAEMON, "", FIELDS(pong_message)},
    [SL_M_ERROR] = {"error", SL_FROM_DAEMON, "", FIELDS(error_message)},
    [SL_M_BYE] = {"bye", SL_FROM_WORKER | SL_FROM_CLIENT | SL_FROM_DAEMON, "", FIELDS(bye_message)},
    [SL_M_PULL] = {"pull", SL_FROM_WORKER, "grant", FIELDS(pull_message)},
    [SL_M_GRANT] = {"grant", SL_FROM_DAEMON, "result fail giveback", FIELDS(grant_message)},
    [SL_M_PROGRESS] = {"progress", SL_FROM_WORKER, "", FIELDS(progress_message)},
    [SL_M_GPUS] = {"gpus", SL_FROM_WORKER, "", FIELDS(gpus_message)},
    [SL_M_RESULT] = {"result", SL_FROM_WORKER, "ack nack", FIELDS(result_message)},
    [SL_M_FAIL] = {"fail", SL_FROM_WORKER, "ack nack", FIELDS(fail_message)},
    [SL_M_GIVEBACK] = {"giveback", SL_FROM_WORKER, "ack nack", FIELDS(giveback_message)},
    [SL_M_ACK] = {"ack", SL_FROM_DAEMON, "", FIELDS(ack_message)},
    [SL_M_NACK] = {"nack", SL_FROM_DAEMON, "", FIELDS(nack_message)},
    [SL_M_REVOKE] = {"revoke", SL_FROM_DAEMON, "", FIELDS(revoke_message)},
    [SL_M_DRAIN] = {"drain", SL_FROM_DAEMON, "", FIELDS(drain_message)},
    [SL_M_SUBMIT] = {"submit", SL_FROM_CLIENT, "submitted error", FIELDS(submit_message)},
    [SL_M_SUBMITTED] = {"submitted", SL_FROM_DAEMON, "", FIELDS(submitted_message)},
    [SL_M_LIST] = {"list", SL_FROM_CLIENT, "jobs error", FIELDS(list_message)},
    [SL_M_HISTORY] = {"history", SL_FROM_CLIENT, "jobs error", FIELDS(history_message)},
    [SL_M_JOBS] = {"jobs", SL_FROM_DAEMON, "", FIELDS(jobs_message)},
    [SL_M_SHOW] = {"show", SL_FROM_CLIENT, "job error", FIELDS(show_message)},
    [SL_M_JOB] = {"job", SL_FROM_DAEMON, "", FIELDS(job_message)},
    [SL_M_CANCEL] = {"cancel", SL_FROM_CLIENT, "done error", FIELDS(cancel_message)},
    [SL_M_HOLD] = {"hold", SL_FROM_CLIENT, "done error", FIELDS(hold_message)},
    [SL_M_RELEASE] = {"release", SL_FROM_CLIENT, "done error", FIELDS(release_message)},
    [SL_M_RETRY] = {"retry", SL_FROM_CLIENT, "done error", FIELDS(retry_message)},
    [SL_M_SET] = {"set", SL_FROM_CLIENT, "done error", FIELDS(set_message)},
    [SL_M_STITCH] = {"stitch", SL_FROM_CLIENT, "done error", FIELDS(stitch_message)},
    [SL_M_VERIFY] = {"verify", SL_FROM_CLIENT, "done error", FIELDS(verify_message)},
    [SL_M_FORGET] = {"forget", SL_FROM_CLIENT, "done error", FIELDS(forget_message)},
    [SL_M_DONE] = {"done", SL_FROM_DAEMON, "", FIELDS(done_message)},
    [SL_M_WAIT] = {"wait", SL_FROM_CLIENT, "ended error", FIELDS(wait_message)},
    [SL_M_ENDED] = {"ended", SL_FROM_DAEMON, "", FIELDS(ended_message)},
    [SL_M_WATCH] = {"watch", SL_FROM_CLIENT, "watching error", FIELDS(watch_message)},
    [SL_M_WATCHING] = {"watching", SL_FROM_DAEMON, "", FIELDS(watching_message)},
    [SL_M_UNWATCH] = {"unwatch", SL_FROM_CLIENT, "done error", NULL, 0},
    [SL_M_EVENT] = {"event", SL_FROM_DAEMON, "", FIELDS(event_message)},
    [SL_M_STATUS] = {"status", SL_FROM_DAEMON, "", FIELDS(status_message)},
    [SL_M_LOGS] = {"logs", SL_FROM_CLIENT, "log error", FIELDS(logs_message)},
    [SL_M_LOG] = {"log", SL_FROM_DAEMON, "", FIELDS(log_message)},
    [SL_M_WORKERS] = {"workers", SL_FROM_CLIENT, "worker_list error", NULL, 0},
    [SL_M_WORKER_LIST] = {"worker_list", SL_FROM_DAEMON, "", FIELDS(worker_list_message)},
    [SL_M_DRAIN_WORKER] = {"drain_worker", SL_FROM_CLIENT, "done error", FIELDS(drain_worker_message)},
    [SL_M_ABOUT] = {"about", SL_FROM_CLIENT, "daemon error", NULL, 0},
    [SL_M_DAEMON] = {"daemon", SL_FROM_DAEMON, "", FIELDS(daemon_message)},
};

static const struct sl_record *const records[] = {
    &ref_record, &lease_record, &work_record, &type_rule_record, &options_record, &spec_record, &plan_record,
    &job_record, &failure_record, &gpu_record, &worker_record, &event_record, &stages_record,
};

const struct sl_message *sl_message(enum sl_message_id id)
{
    return id < SL_M_COUNT ? &messages[id] : NULL;
}

const struct sl_record *sl_record(unsigned i)
{
    return i < sizeof records / sizeof records[0] ? records[i] : NULL;
}
