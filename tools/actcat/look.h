/* look.h - the four things that actcat prints, to stdout. */
#ifndef CROSSFEED_LOOK_H
#define CROSSFEED_LOOK_H

#include <stdbool.h>
#include <stddef.h>

#include "cache.h"
#include "err.h"

/* What it is and statistics of every site, over all rows that are there and not masked. */
int look_stats(struct cache *c, bool json, struct err *e);

/* Rows [first, stop): origin and the first values at each site. Refuses rows outside and rows that are not recorded.
 * json: an object a line, with all values. */
int look_rows(struct cache *c, size_t first, size_t stop, bool json, struct err *e);

/* The text of the row's sequence around it, the row's token marked. Recordings only, as others have no tokens. */
int look_text(struct cache *c, size_t row, const char *tokenizer, struct err *e);

/* Every shard against its checksum; a line for each that differs. ERR_INPUT if any does, or what c is has none. */
int look_verify(struct cache *c, struct err *e);

#endif
