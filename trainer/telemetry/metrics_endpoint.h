/* metrics_endpoint.h - GET /metrics over HTTP: the status in Prometheus' text format, for scrapers.
 *
 * A thread of its own (libmicrohttpd's) answers from a snapshot, so that a scraper holds up nobody. Few connections at
 * a time, each with little memory and a time-out; no other path or method, no request bodies. */
#ifndef CROSSFEED_METRICS_ENDPOINT_H
#define CROSSFEED_METRICS_ENDPOINT_H

#include <stdbool.h>

#include "err.h"
#include "status.h"

struct metrics_endpoint;

/* address: 127.0.0.1:9555, [::1]:9555, localhost:9555; port 0: any free one. Anything but loopback is refused unless
 * insecure, for what is shown is open to all who can connect. status outlives it. */
int metrics_endpoint_start(struct metrics_endpoint **m, const char *address, bool insecure, struct status *status,
                           struct err *e);
const char *metrics_endpoint_url(const struct metrics_endpoint *m); /* with the port in use */
void metrics_endpoint_stop(struct metrics_endpoint *m);             /* NULL is fine */

#endif
