/* socket_bytes.c - see socket_bytes.h. */
#include "socket_bytes.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

uint64_t socket_bytes_held(int fd, uint64_t given)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    int unread = 0;
    /* unread is asked first: what comes in between makes the result larger by that much, and not negative */
    if (ioctl(fd, SIOCINQ, &unread) != 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received)
        return 0;
    uint64_t out = (uint64_t)unread + given;
    return info.tcpi_bytes_received > out ? info.tcpi_bytes_received - out : 0;
}
