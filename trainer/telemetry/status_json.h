/* status_json.h - a snapshot of the status as JSON, as it stands in status.json. */
#ifndef CROSSFEED_STATUS_JSON_H
#define CROSSFEED_STATUS_JSON_H

#include <jansson.h>

#include "status.h"

/* Returns a new object, in which null is what is not known. If there is no memory for it, json_text says so (json_file.h). */
json_t *status_to_json(const struct status_snapshot *s);

#endif
