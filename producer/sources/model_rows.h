/* model_rows.h - the vectors of forward passes on their way into rows: each wanted site's, or its difference between
 * two models, which waits until both have been over the same sequences.
 *
 * Models are computed in the order of their numbers, a piece of sequences at a time. Of a difference, the first one's
 * vectors of the piece are kept for the second. */
#ifndef CROSSFEED_MODEL_ROWS_H
#define CROSSFEED_MODEL_ROWS_H

#include <stddef.h>

#include "err.h"
#include "model.h"
#include "rows.h"
#include "sites.h"

struct model_rows {
    const struct model *models;
    const struct site_list *sites;
    size_t d, seq_len, dropped;           /* dropped: leading positions that give no row */
    size_t capacity;                      /* sequences that a piece has at most */
    size_t kept_at[2 * STREAM_MAX_SITES]; /* of each site: its place in kept, or that it has none */
    size_t n_kept;
    float *kept; /* [n_kept, capacity * seq_len, d] */
    /* Of the piece that is being computed: */
    struct rows *rows;
    size_t first_row, first_sequence, n;
};

/* Decides how many sequences a piece has, from the stream alone: about 8192 tokens, and as many as need 256 MB for what
 * is kept, but at least one sequence. models, of one d_model, and sites must outlive m. */
int model_rows_init(struct model_rows *m, const struct model *models, const struct site_list *sites, size_t seq_len,
                    size_t dropped, struct err *e);
void model_rows_release(struct model_rows *m); /* safe on a zeroed struct */

/* Prepares m for a piece of n sequences, whose rows are r's from first_row on. */
void model_rows_begin(struct model_rows *m, struct rows *r, size_t first_row, size_t first_sequence, size_t n);

/* Stores one site's vectors; a pass_hook, m its context, that changes nothing. site: one of m->sites. Fails with
 * ERR_INPUT at an activation or a difference that is not finite, naming model, site, sequence and position. */
int model_rows_put(void *m, const struct site *site, float *vectors, struct err *e);

#endif
