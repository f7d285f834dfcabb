#include "proto/config_value.h"

#include "proto/size_text.h"

#include <stdio.h>
#include <string.h>

/* A number with a unit behind it; required: it must have one. */
static bool scaled(const char *s, const struct sl_size_unit *u, bool required, uint64_t *out)
{
    return !(required && *s && s[strlen(s) - 1] >= '0' && s[strlen(s) - 1] <= '9') && sl_parse_scaled(s, u, out);
}

bool sl_parse_duration(const char *text, uint64_t *ms)
{
    static const struct sl_size_unit units[] = {
        {"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}, {"", 1},
    };

    return scaled(text, units, true, ms);
}

static bool boolean(const char *s, uint64_t *out)
{
    static const char *const names[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};

    for (unsigned i = 0; i < 8; i++)
        if (strcmp(s, names[i]) == 0) {
            *out = i & 1;
            return true;
        }
    return false;
}

static bool choice(const char *list, const char *s, uint64_t *out)
{
    size_t n = strlen(s);

    for (uint64_t i = 0; n; i++) {
        size_t len = strcspn(list, "|");

        if (len == n && strncmp(list, s, n) == 0) {
            *out = i;
            return true;
        }
        if (!list[len])
            break;
        list += len + 1;
    }
    return false;
}

/* Digits, of at most 65535, to the end. */
static bool port(const char *s)
{
    unsigned long v = 0;
    size_t n = strspn(s, "0123456789");

    for (size_t i = 0; i < n && v <= 65535; i++)
        v = v * 10 + (unsigned long)(s[i] - '0');
    return n > 0 && !s[n] && v <= 65535;
}

static bool host_and_port(const char *s)
{
    const char *colon = strrchr(s, ':');

    return colon && colon > s && (port(colon + 1) || strcmp(colon, ":*") == 0);
}

static bool endpoint(const char *s)
{
    if (strncmp(s, "ipc://", 6) == 0)
        return s[6] == '/' && s[7];
    return strncmp(s, "tcp://", 6) == 0 && host_and_port(s + 6);
}

static bool device(const char *s)
{
    if (strcmp(s, "auto") == 0)
        return true;
    for (;; s++) {
        size_t n = strcspn(s, ",");
        bool cpu = n == 3 && strncmp(s, "cpu", 3) == 0;
        bool uuid = n > 4 && (strncmp(s, "GPU-", 4) == 0 || strncmp(s, "MIG-", 4) == 0);

        if (!cpu && !uuid && (strncmp(s, "cuda:", 5) != 0 || n == 5 || strspn(s + 5, "0123456789") != n - 5))
            return false;
        s += n;
        if (!*s)
            return true;
    }
}

static const char *limit_text(const struct sl_config_info *k, uint64_t v, char buf[32])
{
    static const struct sl_size_unit times[] = {{"h", 3600000}, {"min", 60000}, {"s", 1000}, {"ms", 1}};
    static const struct sl_size_unit sizes[] = {{"Ti", UINT64_C(1) << 40}, {"Gi", 1073741824},
                                        {"Mi", 1048576}, {"M", 1000000}, {"", 1}};
    const struct sl_size_unit *u = k->type == SL_CONFIG_IS_TIME ? times : sizes;

    if (k->type == SL_CONFIG_IS_NUMBER)
        u += 4;
    while (v % u->factor)
        u++;
    snprintf(buf, 32, "%llu%s", (unsigned long long)(v / u->factor), u->name);
    return buf;
}

int sl_config_check(const struct sl_config_info *k, const char *text, uint64_t *number,
                    struct sl_error *e)
{
    static const struct sl_size_unit plain[] = {{"", 1}};
    const char *expected = "";
    char range[128], low[32], high[32];
    bool ok = true;

    *number = 0;
    switch (k->type) {
    case SL_CONFIG_IS_PATH:
        ok = *text == '/' || (*text == '\0' && k->builtin);
        expected = "an absolute path";
        break;
    case SL_CONFIG_IS_NUMBER:
        ok = scaled(text, plain, false, number);
        expected = "a number";
        break;
    case SL_CONFIG_IS_SIZE:
        ok = sl_parse_size(text, number);
        expected = "a size (512Mi, 4G)";
        break;
    case SL_CONFIG_IS_TIME:
        ok = sl_parse_duration(text, number);
        expected = "a time with its unit (500ms, 30s, 2min, 1h)";
        break;
    case SL_CONFIG_IS_BOOL:
        ok = boolean(text, number);
        expected = "yes or no";
        break;
    case SL_CONFIG_IS_CHOICE:
        ok = choice(k->choices, text, number);
        expected = k->choices;
        break;
    case SL_CONFIG_IS_ENDPOINT:
        ok = endpoint(text);
        expected = "ipc:///PATH or tcp://HOST:PORT (up to 65535)";
        break;
    case SL_CONFIG_IS_ADDRESS:
        ok = strcmp(text, "off") == 0 || host_and_port(text);
        expected = "ADDRESS:PORT (127.0.0.1:9560) or off";
        break;
    case SL_CONFIG_IS_DEVICE:
        ok = device(text);
        expected = "auto, cpu, cuda:N or GPU-UUID";
        break;
    }
    if (ok && k->max && (*number < k->min || *number > k->max)) {
        snprintf(range, sizeof range, "%s to %s", limit_text(k, k->min, low),
                 limit_text(k, k->max, high));
        expected = range;
        ok = false;
    }
    if (!ok)
        return sl_fail(e, SL_EUSAGE, "%s.%s: expected %s, not '%s'", k->section, k->name, expected,
                       text);
    return 0;
}
