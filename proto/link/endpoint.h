/* endpoint.h - the names of places to listen at and to connect to: tcp://HOST:PORT and ipc://PATH. */
#ifndef CROSSFEED_ENDPOINT_H
#define CROSSFEED_ENDPOINT_H

#include <stdbool.h>

#include "err.h"

/* Returns ERR_INPUT if the endpoint is neither. */
int endpoint_check(const char *endpoint, struct err *e);

/* Returns whether other machines do not reach the endpoint: it is loopback TCP or ipc. */
bool endpoint_is_local(const char *endpoint);

/* Returns whether the endpoint is an ipc path that somebody listens at, or at which a file lies. */
bool endpoint_in_use(const char *endpoint);

/* Changes [::ffff:127.0.0.1] to 127.0.0.1, in place. */
void endpoint_plain_ipv4(char *endpoint);

#endif
