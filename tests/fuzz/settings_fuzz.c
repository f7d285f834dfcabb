/* Fuzz target: what people write for the programs, and what a worker left beside an output. The first byte says what the rest is:
 * sluice.conf, a key file, an allow-list, a claim, --override-kv, or a size, time and endpoint. Whatever it is, a refusal names file
 * and line, or the option; what is taken is in its bounds. */
#include "tests/fuzz/fuzz_dir.h"

#include "proto/config_value.h"
#include "proto/endpoint.h"
#include "proto/job_spec.h"
#include "proto/keyring.h"
#include "proto/size_text.h"
#include "proto/utf8.h"
#include "worker/claim.h"

static char path[128];

static void refused(int rc, const struct sl_error *e, const char *names)
{
    require(rc == SL_EUSAGE && e->code == rc && strstr(e->text, names) && sl_utf8_all_shown(e->text));
}

static const char *no_variable(void *user, const char *name)
{
    (void)user, (void)name;
    return NULL;
}

static void read_config(void)
{
    struct sl_config_opts o = {.path = path, .env = no_variable};
    struct sl_config *c = NULL;
    struct sl_error e = {0};
    int rc = sl_config_open(&o, &c, &e);

    if (rc < 0) {
        refused(rc, &e, "job.sluice-job:");
        return;
    }
    for (int k = 0; k < SL_CONFIG_KEYS; k++) {
        const struct sl_config_info *info = sl_config_info((enum sl_config_key)k);
        const struct sl_config_value *v = sl_config_get(c, (enum sl_config_key)k);

        require(v->n <= SL_CONFIG_ITEMS && (info->list || v->n <= 1));
        require(!info->max || !v->n || (v->number >= info->min && v->number <= info->max));
    }
    sl_config_close(c);
}

static void read_keys(bool secret)
{
    struct sl_error e = {0};
    struct sl_key k;
    int rc = sl_key_load(path, secret, &k, &e);

    if (rc < 0)
        refused(rc, &e, "job.sluice-job");
    else
        require(strlen(k.public_key) == SL_KEY_CHARS && (!secret || strlen(k.secret_key) == SL_KEY_CHARS));
}

static void read_allowed(void)
{
    struct sl_error e = {0};
    struct sl_allow_list l = {0};
    int rc = sl_allow_load(path, &l, &e);

    if (rc < 0)
        refused(rc, &e, "job.sluice-job");
    for (size_t i = 0; rc == 0 && i < l.n; i++) {
        require(l.entries[i].role != SL_ROLE_NONE);
        require(sl_allow_find(&l, l.entries[i].is_uid, l.entries[i].subject) == &l.entries[i]);
    }
    sl_allow_free(&l);
}

/* One of which nothing can be read counts as there, and keeps others away. */
static void read_claim(void)
{
    struct claim_lease l = {.fingerprint = "00112233445566778899aabbccddeeff", .job = 7, .epoch = 3};
    struct output o = {.dir = (char *)fuzz_dir(), .prefix = (char[]){"job"}};
    struct sl_error e = {0};
    bool own = claim_is_of(&o, l.fingerprint, l.job);

    require(claim_there(&o) && claim_absent(&o, &e) == SL_EEXISTS && sl_utf8_all_shown(e.text));
    if (claim_free(&o, &l, false, &e) < 0)
        require((e.code == SL_EEXISTS || e.code == SL_EFAIL) && e.text[0] && sl_utf8_all_shown(e.text));
    else
        require(own || !claim_is_of(&o, l.fingerprint, l.job));
}

static void read_texts(const char *text)
{
    struct sl_kvs kvs = {NULL, 0, 0};
    struct sl_error e = {0};
    uint64_t v;

    if (sl_parse_size(text, &v))
        require(v <= SL_SIZE_MAX && text[0] >= '0' && text[0] <= '9');
    (void)sl_parse_duration(text, &v);
    if (sl_endpoint_check_tcp(text, true, &e) < 0)
        require(e.code == SL_EUSAGE && sl_utf8_all_shown(e.text));
    else
        require(strncmp(text, "tcp://", 6) == 0);
    (void)sl_endpoint_loopback(text);
    if (sl_parse_override_kv(&kvs, text, &e) < 0)
        refused(e.code, &e, "--override-kv");
    else
        require(kvs.n == 1 && (kvs.kv[0].elem != SL_KV_STR || sl_utf8_valid(kvs.kv[0].strs[0])));
    sl_kvs_free(&kvs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text;
    int fd;

    if (size < 1 || size > 1 << 16)
        return 0;
    snprintf(path, sizeof path, "%s/job.sluice-job", fuzz_dir());
    fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    require(fd >= 0 && write(fd, data + 1, size - 1) == (ssize_t)size - 1);
    close(fd);
    text = strndup((const char *)data + 1, size - 1);
    require(text != NULL);
    switch (data[0] % 5) {
    case 0: read_config(); break;
    case 1: read_keys(data[0] & 8); break;
    case 2: read_allowed(); break;
    case 3: read_claim(); break;
    default: read_texts(text); break;
    }
    free(text);
    return 0;
}
