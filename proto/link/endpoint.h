/* endpoint.h - places to listen at and to connect to, as users write them: tcp://HOST:PORT, ipc://PATH, and of an HTTP server
 * HOST:PORT.
 *
 * Every endpoint of every program is read here, so that what is wrong with one is said in the same words before ZeroMQ gets it. HOST is
 * an IPv4 address, an IPv6 address in brackets, or a name that is looked up (host_address.h): to listen, the name may also be that of a
 * network interface, and '*' means all addresses of this machine. PORT is 1 to 65535; to listen, 0 and '*' mean any free one. A PATH that
 * begins with '@' has no file. */
#ifndef CROSSFEED_ENDPOINT_H
#define CROSSFEED_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

enum endpoint_use {
    ENDPOINT_CONNECT, /* tcp:// or ipc:// */
    ENDPOINT_LISTEN,  /* tcp:// or ipc:// */
    ENDPOINT_HTTP,    /* HOST:PORT, to listen at */
};

struct endpoint {
    bool ipc;
    char path[108]; /* of ipc */
    char host[256]; /* of TCP, without brackets; "*": all addresses */
    uint16_t port;  /* of TCP; 0: any free one */
};

/* Reads an endpoint. Returns ERR_INPUT, naming it and what is wrong, if it is none of that use; whether its host and its path exist is not
 * asked. */
int endpoint_parse(struct endpoint *p, const char *text, enum endpoint_use use, struct err *e);

/* Check the text of a flag (flags.h). */
int endpoint_check_connect(const char *text, struct err *e);
int endpoint_check_listen(const char *text, struct err *e);
int endpoint_check_http(const char *text, struct err *e);

/* Returns whether somebody listens at an ipc path, or a file lies there. */
bool endpoint_in_use(const struct endpoint *p);

/* Changes tcp://[::ffff:127.0.0.1]:PORT to tcp://127.0.0.1:PORT, in place. */
void endpoint_plain_ipv4(char *endpoint);

#endif
