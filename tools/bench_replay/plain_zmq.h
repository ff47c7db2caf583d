/* plain_zmq.h - how fast ZeroMQ alone carries messages of given sizes: a DEALER in a process of its own sends, a ROUTER
 * here receives and drops. */
#ifndef CROSSFEED_PLAIN_ZMQ_H
#define CROSSFEED_PLAIN_ZMQ_H

#include <stddef.h>

#include "err.h"

/* n messages of a header frame and a payload frame each (bytes). Payloads are sent without copying, from data
 * [data_size] in turns (as the real thing sends from a map). *seconds: from the first one received to the last. */
struct plain_messages {
    size_t n, header, payload;
    const unsigned char *data;
    size_t data_size;
};
int plain_zmq(const struct plain_messages *m, double *seconds, struct err *e);

#endif
