/* look.h - the four things that actcat prints, to stdout. */
#ifndef CROSSFEED_LOOK_H
#define CROSSFEED_LOOK_H

#include <stdbool.h>
#include <stddef.h>

#include "cache.h"
#include "err.h"

/* Prints what it is and statistics of every site, over all rows that are there and not masked. */
int look_stats(struct cache *c, bool json, struct err *e);

/* Prints rows [first, stop): origin and the first values at each site. Refuses rows outside and rows that are not
 * recorded. json: an object a line, with all values. */
int look_rows(struct cache *c, size_t first, size_t stop, bool json, struct err *e);

/* Prints the text of the row's sequence around it, the row's token marked. Refuses all but recordings, as others have
 * no tokens. */
int look_text(struct cache *c, size_t row, const char *tokenizer, struct err *e);

/* Compares every shard with its checksum and prints a line for each that differs. Returns ERR_INPUT if any does, or if
 * what c is has none. */
int look_verify(struct cache *c, struct err *e);

#endif
