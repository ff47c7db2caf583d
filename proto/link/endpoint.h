/* endpoint.h - the names of places to listen at and to connect to: tcp://HOST:PORT, ipc://PATH. */
#ifndef CROSSFEED_ENDPOINT_H
#define CROSSFEED_ENDPOINT_H

#include <stdbool.h>

#include "err.h"

int endpoint_check(const char *endpoint, struct err *e); /* ERR_INPUT if it is neither */
bool endpoint_is_local(const char *endpoint);            /* loopback TCP or ipc: other machines do not reach it */
bool endpoint_in_use(const char *endpoint); /* an ipc path that somebody listens at, or at which a file lies */
void endpoint_plain_ipv4(char *endpoint);   /* in place: [::ffff:127.0.0.1] becomes 127.0.0.1 */

#endif
