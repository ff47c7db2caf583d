/* stream_json.h - a stream's description as JSON, in cfg.json and in a recording's manifest. */
#ifndef CROSSFEED_STREAM_JSON_H
#define CROSSFEED_STREAM_JSON_H

#include <jansson.h>

#include "err.h"
#include "stream.h"

/* Returns a new object, owned by the caller (json_decref), or NULL; what turns it into text says why (json_file.h). The
 * scale and the dtypes offered are not in it. */
json_t *stream_to_json(const struct stream *s);

/* Reads the stream from a saved object, as one that offers both dtypes and has no scale. path names the file in errors.
 */
int stream_from_json(struct stream *s, const json_t *saved, const char *path, struct err *e);

#endif
