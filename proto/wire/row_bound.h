/* row_bound.h - the values that a row may have: finite, and not so large that the training step overflows.
 *
 * Producers check what they send and the trainer what it gets, in the same words. One value of 1e30 among millions of ordinary ones makes the
 * gradient infinite, and every batch that it is in. */
#ifndef CROSSFEED_ROW_BOUND_H
#define CROSSFEED_ROW_BOUND_H

#include <stddef.h>

#include "err.h"
#include "stream.h"

/* The greatest size of a value if no flag says another. The step has squares of values in fp32, which ends at 3.4e38: that of this one is 1e30,
 * and what is left is for the sums over sites, dimensions, latents and rows. Activations of models come nowhere near it. */
#define ROW_MAX_ABS_TEXT "1e15"
#define ROW_MAX_ABS 1e15

/* What --max-abs may be: up to where fp32 ends. */
#define ROW_MAX_ABS_LEAST 1e-30
#define ROW_MAX_ABS_MOST 3.4028235e38

/* Checks rows [n_rows, n_sites, d_model] of dtype, which may be unaligned, as they are sent: scaled, or raw. Masked rows may hold anything.
 * ERR_INPUT names the first value that is not finite or beyond max_abs (0: ROW_MAX_ABS): its sequence, position and site. */
int row_bound_check(const struct stream *s, const unsigned char *rows, const struct row_origin *origins, size_t n_rows,
                    enum row_dtype dtype, double max_abs, struct err *e);

#endif
