/* status_text.h - a snapshot in Prometheus' text format 0.0.4: HELP and TYPE before each metric, names crossfeed_*. */
#ifndef CROSSFEED_STATUS_TEXT_H
#define CROSSFEED_STATUS_TEXT_H

#include <stddef.h>

#include "status.h"

/* New, NUL-terminated, *size without the NUL; free() it. NULL: out of memory. */
char *status_to_text(const struct status_snapshot *s, size_t *size);

#endif
