#include "proto/endpoint.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* The port's text, or NULL. The host without brackets goes to host. */
static const char *split(const char *endpoint, char host[256])
{
    const char *at = strncmp(endpoint, "tcp://", 6) == 0 ? endpoint + 6 : NULL;
    const char *colon = at ? strrchr(at, ':') : NULL;
    size_t n = colon ? (size_t)(colon - at) : 0;

    if (n == 0 || n > 255)
        return NULL;
    if (*at == '[') {
        if (n < 3 || colon[-1] != ']')
            return NULL;
        at++;
        n -= 2;
    }
    memcpy(host, at, n);
    host[n] = '\0';
    return colon + 1;
}

bool sl_endpoint_loopback(const char *endpoint)
{
    char host[256];
    struct in6_addr six;
    struct in_addr four;

    if (!split(endpoint, host))
        return false;
    if (strcmp(host, "localhost") == 0)
        return true;
    if (endpoint[6] == '[')
        return inet_pton(AF_INET6, host, &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
    return inet_pton(AF_INET, host, &four) == 1 && ntohl(four.s_addr) >> 24 == 127;
}

int sl_endpoint_check_tcp(const char *endpoint, bool bind, struct sl_error *e)
{
    char host[256];
    const char *port = split(endpoint, host);
    size_t n = port ? strlen(port) : 0;
    long v;

    if (!port || strchr(host, ';'))
        return sl_fail(e, SL_EUSAGE, "%s: no possible endpoint; expected tcp://%s:PORT, an IPv6 address in brackets",
                       endpoint, bind ? "ADDRESS" : "HOST");
    if (bind && strcmp(port, "*") == 0)
        return 0;
    v = n >= 1 && n <= 5 && strspn(port, "0123456789") == n ? strtol(port, NULL, 10) : -1;
    if (v < (bind ? 0 : 1) || v > 65535)
        return sl_fail(e, SL_EUSAGE, "%s: '%s' is no port; expected %d to 65535", endpoint, port, bind ? 0 : 1);
    return 0;
}
