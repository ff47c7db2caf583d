/* host_address.h - the address that the host of an endpoint (endpoint.h) stands for: looked up, and judged.
 *
 * A name may have several addresses; an IPv4 one is preferred. Looking up a name may take as long as the system's resolver waits for an
 * answer. */
#ifndef CROSSFEED_HOST_ADDRESS_H
#define CROSSFEED_HOST_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "endpoint.h"
#include "err.h"

struct host_address {
    union {
        struct sockaddr any;
        struct sockaddr_in ipv4;
        struct sockaddr_in6 ipv6;
    };
    socklen_t size;
};

/* Looks up a TCP endpoint's host. To listen, an interface's name comes before a host's, and '*' is 0.0.0.0. Returns ERR_INPUT if there is no
 * such host, ERR_SYSTEM if that cannot be found out now. The message begins with text, which is the endpoint as the user wrote it. */
int host_address_find(struct host_address *a, const struct endpoint *p, enum endpoint_use use, const char *text,
                      struct err *e);

/* Returns whether only this machine reaches the address. */
bool host_address_is_loopback(const struct host_address *a);

/* Writes ADDRESS:PORT, [ADDRESS]:PORT of IPv6. */
#define HOST_ADDRESS_SIZE 96
void host_address_text(const struct host_address *a, char text[HOST_ADDRESS_SIZE]);

/* Fills e for an endpoint, text, at which the system does not let us listen: number is the errno. Returns ERR_SYSTEM. */
int host_address_cannot_listen(const char *text, int number, struct err *e);

#endif
