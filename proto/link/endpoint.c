/* endpoint.c - what can be said of an endpoint before ZeroMQ gets it; see endpoint.h. */
#include "endpoint.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* This is checked here because ZeroMQ would say no more than "Invalid argument". */
int endpoint_check(const char *endpoint, struct err *e)
{
    const char *port = strrchr(endpoint, ':');
    if ((strncmp(endpoint, "tcp://", 6) == 0 && port > endpoint + 6 && port[1]) ||
        (strncmp(endpoint, "ipc://", 6) == 0 && endpoint[6]))
        return 0;
    return err_set(e, ERR_INPUT, "endpoint '%s': must be tcp://HOST:PORT or ipc://PATH", endpoint);
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

/* Local are tcp://127.x.y.z:port, tcp://localhost:port, tcp://[::1]:port and ipc://. */
bool endpoint_is_local(const char *endpoint)
{
    if (strncmp(endpoint, "ipc://", 6) == 0 || strncmp(endpoint, "tcp://localhost:", 16) == 0 ||
        strncmp(endpoint, "tcp://[::1]:", 12) == 0)
        return true;
    char host[64];
    struct in_addr address;
    const char *colon = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) != 0 || colon < endpoint + 6 || (size_t)(colon - endpoint - 6) >= sizeof host)
        return false;
    memcpy(host, endpoint + 6, (size_t)(colon - endpoint - 6));
    host[colon - endpoint - 6] = '\0';
    return inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

/* ZeroMQ silently takes over an ipc path that another process is listening on, and deletes a file that lies there, so one has to ask
 * first. */
bool endpoint_in_use(const char *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strncmp(endpoint, "ipc://", 6) != 0 || strlen(endpoint + 6) >= sizeof address.sun_path)
        return false;
    strcpy(address.sun_path, endpoint + 6);
    struct stat st;
    if (lstat(address.sun_path, &st) == 0 && !S_ISSOCK(st.st_mode))
        return true;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool used = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return used;
}
