/* status_text.h - a snapshot of the status in Prometheus' text format 0.0.4: metrics crossfeed_*, each with its HELP and TYPE. */
#ifndef CROSSFEED_STATUS_TEXT_H
#define CROSSFEED_STATUS_TEXT_H

#include <stddef.h>

#include "status.h"

/* Returns a new text with a NUL at its end, which *size does not count and which free() frees; NULL if there is no memory for it. */
char *status_to_text(const struct status_snapshot *s, size_t *size);

#endif
