/* metrics_endpoint.h - answers GET /metrics over HTTP with the status in Prometheus' text format.
 *
 * A thread of its own (libmicrohttpd's) answers from a snapshot, so that a scraper holds up nobody. It takes few connections at a time,
 * each with little memory and a time-out; with too many, that which is here longest gives way to the next. It refuses other paths, other
 * methods and request bodies. */
#ifndef CROSSFEED_METRICS_ENDPOINT_H
#define CROSSFEED_METRICS_ENDPOINT_H

#include <stdbool.h>

#include "err.h"
#include "status.h"

struct metrics_endpoint;

/* Starts to serve at address: 127.0.0.1:9555, [::1]:9555 or NAME:9555 (endpoint.h). Anything but loopback is refused unless insecure,
 * because what is shown is open to all who can connect. The status is borrowed until metrics_endpoint_stop. */
int metrics_endpoint_start(struct metrics_endpoint **m, const char *address, bool insecure, struct status *status,
                           struct err *e);

/* Returns the URL, with the port that is in use. */
const char *metrics_endpoint_url(const struct metrics_endpoint *m);

/* Ends the thread and frees the endpoint. m may be NULL. */
void metrics_endpoint_stop(struct metrics_endpoint *m);

#endif
