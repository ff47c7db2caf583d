/* cache.h - activations on disk to look at: a recording, .npy files or .safetensors files, read piece by piece.
 *
 * Values come as they are stored: of a recording scaled, of other caches whatever they are, NaN and all. Rows are
 * numbered as in a whole recording: sequence * rows_per_seq onwards. What has been read does not stay in memory. */
#ifndef CROSSFEED_CACHE_H
#define CROSSFEED_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"
#include "recording.h"
#include "source.h"
#include "source_import.h"

#define CACHE_PIECE_ROWS 256

struct cache {
    bool is_recording;
    struct recording recording; /* if is_recording */
    struct source import;       /* if not */
    const struct stream *stream;
    size_t n_rows; /* of a whole one */
};

/* Opens what the options name: a folder is a recording; files are all .npy or all .safetensors. Refuses what is
 * neither. */
int cache_open(struct cache *c, const struct import_options *o, struct err *e);
/* Safe on a zeroed struct. */
void cache_close(struct cache *c);

/* Reads up to CACHE_PIECE_ROWS rows from first on (at most n): values [*got, n_sites, d_model] and origins [*got]. *got
 * 0: row first is not recorded, and *skip rows from it on are not. */
int cache_read(struct cache *c, size_t first, size_t n, float *values, struct row_origin *origins, size_t *got,
               size_t *skip, struct err *e);

#endif
