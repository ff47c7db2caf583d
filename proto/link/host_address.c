/* host_address.c - asks the system's interfaces and its resolver; see host_address.h. */
#include "host_address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

static void set(struct host_address *a, const struct sockaddr *from, uint16_t port)
{
    *a = (struct host_address){0};
    if (from->sa_family == AF_INET) {
        memcpy(&a->ipv4, from, sizeof a->ipv4);
        a->ipv4.sin_port = htons(port);
        a->size = sizeof a->ipv4;
    } else {
        memcpy(&a->ipv6, from, sizeof a->ipv6);
        a->ipv6.sin6_port = htons(port);
        a->size = sizeof a->ipv6;
    }
}

/* Keeps an address of a list if it is better than what a has: any is better than none (size 0), IPv4 than IPv6. */
static void prefer(struct host_address *a, const struct sockaddr *from, uint16_t port)
{
    bool first = a->size == 0, ipv4 = from->sa_family == AF_INET, ipv6 = from->sa_family == AF_INET6;
    if ((first && (ipv4 || ipv6)) || (ipv4 && a->any.sa_family == AF_INET6))
        set(a, from, port);
}

/* Finds a network interface of that name. *known tells whether there is one; if it has no address, a's size is 0. */
static int find_interface(struct host_address *a, const struct endpoint *p, bool *known, struct err *e)
{
    struct ifaddrs *all;
    if (getifaddrs(&all) != 0)
        return err_errno(e, errno, "cannot list the network interfaces");
    *known = false;
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        bool same = strcmp(i->ifa_name, p->host) == 0;
        *known |= same;
        if (same && i->ifa_addr)
            prefer(a, i->ifa_addr, p->port);
    }
    freeifaddrs(all);
    return 0;
}

static int find_host(struct host_address *a, const struct endpoint *p, enum endpoint_use use, const char *text,
                     struct err *e)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int failed = getaddrinfo(p->host, NULL, &hints, &found);
    for (const struct addrinfo *i = found; i; i = i->ai_next)
        prefer(a, i->ai_addr, p->port);
    if (found)
        freeaddrinfo(found);
    if (a->size)
        return 0;
    bool none = !failed || failed == EAI_NONAME || failed == EAI_NODATA || failed == EAI_ADDRFAMILY;
    return err_set(e, none ? ERR_INPUT : ERR_SYSTEM, "endpoint '%s': %s'%s' does not resolve: %s", text,
                   use == ENDPOINT_CONNECT ? "host " : "no network interface has the name, and host ", p->host,
                   gai_strerror(failed ? failed : EAI_NODATA));
}

int host_address_find(struct host_address *a, const struct endpoint *p, enum endpoint_use use, const char *text,
                      struct err *e)
{
    bool interface = false;
    *a = (struct host_address){0};
    if (strcmp(p->host, "*") == 0) {
        const struct sockaddr_in all = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY)};
        set(a, (const struct sockaddr *)&all, p->port);
        return 0;
    }
    if (use != ENDPOINT_CONNECT && find_interface(a, p, &interface, e))
        return err_prefix(e, "endpoint '%s'", text);
    if (interface && a->size == 0)
        return err_set(e, ERR_INPUT, "endpoint '%s': network interface '%s' has no address", text, p->host);
    return interface ? 0 : find_host(a, p, use, text, e);
}

bool host_address_is_loopback(const struct host_address *a)
{
    return a->any.sa_family == AF_INET ? ntohl(a->ipv4.sin_addr.s_addr) >> 24 == 127
                                       : IN6_IS_ADDR_LOOPBACK(&a->ipv6.sin6_addr);
}

void host_address_text(const struct host_address *a, char text[HOST_ADDRESS_SIZE])
{
    char host[INET6_ADDRSTRLEN + 24] = "";
    bool ipv6 = a->any.sa_family == AF_INET6;
    getnameinfo(&a->any, a->size, host, sizeof host, NULL, 0, NI_NUMERICHOST);
    snprintf(text, HOST_ADDRESS_SIZE, ipv6 ? "[%s]:%u" : "%s:%u", host,
             (unsigned)ntohs(ipv6 ? a->ipv6.sin6_port : a->ipv4.sin_port));
}

int host_address_cannot_listen(const char *text, int number, struct err *e)
{
    if (number == EADDRNOTAVAIL)
        return err_set(e, ERR_SYSTEM, "%s: cannot listen: the address is not one of this machine", text);
    return err_errno(e, number, "%s: cannot listen", text);
}
