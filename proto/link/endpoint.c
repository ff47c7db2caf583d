/* endpoint.c - takes endpoints apart and says what is wrong with them; see endpoint.h. ZeroMQ would say no more than "Invalid argument",
 * or take a port modulo 65536. */
#include "endpoint.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DIGITS "0123456789"
#define NAME_CHARACTERS DIGITS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz.-_"

static const struct {
    const char *form, *ports; /* as errors say them */
    unsigned long lowest;
} uses[] = {
    [ENDPOINT_CONNECT] = {"must be tcp://HOST:PORT or ipc://PATH", "1 to 65535", 1},
    [ENDPOINT_LISTEN] = {"must be tcp://HOST:PORT or ipc://PATH", "1 to 65535, or * for any free one", 0},
    [ENDPOINT_HTTP] = {"must be ADDRESS:PORT, as 127.0.0.1:9555", "1 to 65535, or * for any free one", 0},
};

static int take_port(struct endpoint *p, const char *port, const char *text, enum endpoint_use use, struct err *e)
{
    unsigned long number = strcmp(port, "*") == 0 ? 0 : strtoul(port, NULL, 10);
    bool digits = port[strspn(port, DIGITS)] == '\0' || strcmp(port, "*") == 0;
    if (!digits || strlen(port) > 5 || number > UINT16_MAX || number < uses[use].lowest)
        return err_set(e, ERR_INPUT, "endpoint '%s': port '%s', must be %s", text, port, uses[use].ports);
    p->port = (uint16_t)number;
    return 0;
}

/* Returns whether an address of IPv6 could be it; "fe80::1%eth0" names the interface through which it is reached. */
static bool is_ipv6(const char *host)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr binary;
    size_t size = strcspn(host, "%");
    if (size >= sizeof address || (host[size] && !host[size + 1]))
        return false;
    snprintf(address, sizeof address, "%.*s", (int)size, host);
    return inet_pton(AF_INET6, address, &binary) == 1;
}

static int check_host(const char *host, bool brackets, const char *text, enum endpoint_use use, struct err *e)
{
    struct in_addr ipv4;
    if (brackets && !is_ipv6(host))
        return err_set(e, ERR_INPUT, "endpoint '%s': '%s' is not an IPv6 address", text, host);
    if (brackets || (strcmp(host, "*") == 0 && use != ENDPOINT_CONNECT))
        return 0;
    if (strcmp(host, "*") == 0)
        return err_set(e, ERR_INPUT, "endpoint '%s': '*' is for listening, must be the host to connect to", text);
    if (strchr(host, ':'))
        return err_set(e, ERR_INPUT, "endpoint '%s': an IPv6 address stands in brackets, as [::1]", text);
    if (host[strspn(host, NAME_CHARACTERS)])
        return err_set(e, ERR_INPUT, "endpoint '%s': '%s' is neither an address nor a name", text, host);
    if (!host[strspn(host, DIGITS ".")] && inet_pton(AF_INET, host, &ipv4) != 1)
        return err_set(e, ERR_INPUT, "endpoint '%s': '%s' is not an IPv4 address", text, host);
    return 0;
}

/* Takes apart HOST:PORT or [HOST]:PORT, which is text or its end. */
static int take_tcp(struct endpoint *p, const char *place, const char *text, enum endpoint_use use, struct err *e)
{
    bool brackets = *place == '[';
    const char *begin = place + brackets, *end = brackets ? strchr(begin, ']') : strrchr(begin, ':');
    const char *colon = end && brackets ? end + 1 : end;
    if (!end || end == begin || *colon != ':' || !colon[1])
        return err_set(e, ERR_INPUT, "endpoint '%s': %s", text, uses[use].form);
    if ((size_t)(end - begin) >= sizeof p->host)
        return err_set(e, ERR_INPUT, "endpoint '%.80s...': host of %zu characters, at most %zu", text,
                       (size_t)(end - begin), sizeof p->host - 1);
    snprintf(p->host, sizeof p->host, "%.*s", (int)(end - begin), begin);
    return check_host(p->host, brackets, text, use, e) ? e->code : take_port(p, colon + 1, text, use, e);
}

static int take_ipc(struct endpoint *p, const char *path, const char *text, enum endpoint_use use, struct err *e)
{
    if (!*path)
        return err_set(e, ERR_INPUT, "endpoint '%s': %s", text, uses[use].form);
    if (strlen(path) >= sizeof p->path)
        return err_set(e, ERR_INPUT, "endpoint '%s': path of %zu bytes, the system takes at most %zu", text,
                       strlen(path), sizeof p->path - 1);
    p->ipc = true;
    snprintf(p->path, sizeof p->path, "%s", path);
    return 0;
}

int endpoint_parse(struct endpoint *p, const char *text, enum endpoint_use use, struct err *e)
{
    struct err own;
    e = e ? e : &own;
    *p = (struct endpoint){0};
    if (use == ENDPOINT_HTTP)
        return take_tcp(p, text, text, use, e);
    if (strncmp(text, "ipc://", 6) == 0)
        return take_ipc(p, text + 6, text, use, e);
    if (strncmp(text, "tcp://", 6) == 0)
        return take_tcp(p, text + 6, text, use, e);
    return err_set(e, ERR_INPUT, "endpoint '%s': %s", text, uses[use].form);
}

int endpoint_check_connect(const char *text, struct err *e)
{
    struct endpoint p;
    return endpoint_parse(&p, text, ENDPOINT_CONNECT, e);
}

int endpoint_check_listen(const char *text, struct err *e)
{
    struct endpoint p;
    return endpoint_parse(&p, text, ENDPOINT_LISTEN, e);
}

int endpoint_check_http(const char *text, struct err *e)
{
    struct endpoint p;
    return endpoint_parse(&p, text, ENDPOINT_HTTP, e);
}

/* ZeroMQ writes IPv4 as mapped into IPv6, tcp://[::ffff:127.0.0.1]:5555. A user expects what can be given to --connect. */
void endpoint_plain_ipv4(char *endpoint)
{
    static const char mapped[] = "tcp://[::ffff:";
    char *close = strchr(endpoint, ']'), *address = endpoint + sizeof mapped - 1;
    if (strncmp(endpoint, mapped, sizeof mapped - 1) != 0 || !close || !memchr(address, '.', (size_t)(close - address)))
        return;
    memmove(close, close + 1, strlen(close)); /* with the NUL */
    memmove(endpoint + strlen("tcp://"), address, strlen(address) + 1);
}

/* ZeroMQ silently takes over an ipc path that another process is listening on, and deletes a file that lies there, so one has to ask
 * first. */
bool endpoint_in_use(const struct endpoint *p)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _Static_assert(sizeof p->path == sizeof address.sun_path, "paths are as long as the system's");
    if (!p->ipc)
        return false;
    memcpy(address.sun_path, p->path, sizeof p->path);
    struct stat st;
    if (lstat(address.sun_path, &st) == 0 && !S_ISSOCK(st.st_mode))
        return true;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool used = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return used;
}
