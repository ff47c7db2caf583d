/* tiles.h - a batch cut into tiles of columns that fit the second-level cache, each contiguous.
 *
 * A sparse step goes to rows of x and of the residual in the order of each latent's list. One row of 9216 floats for
 * each active latent would come from memory; of a tile of 128 columns all rows stay in the cache while every latent of
 * a block takes its rows' share from it. Tiles are copies, since rows whose distance is a multiple of 4 KB fall on each other in
 * the cache. A tile lies within one site; its rows are `lanes` floats wide, padded with zeros. */
#ifndef CROSSFEED_TILES_H
#define CROSSFEED_TILES_H

#include <stddef.h>

#include "err.h"

enum { TILE_MAX_LANES = 128 };

struct tile {
    size_t site;
    size_t first, width; /* columns [first, first + width) of [n_inputs] */
    size_t lanes;        /* 16, 32, 64 or 128, at least width */
    size_t before;       /* lanes of the tiles before: in a batch of rows this tile lies at rows * before */
};

struct tiles {
    size_t n;          /* ordered by column */
    size_t lanes;      /* of all tiles: a batch takes rows * lanes floats */
    struct tile *tile; /* [n] */
};

/* Computes n and lanes for batches of up to max_rows and allocates nothing. Sizes are as checked by backend_n_params. */
struct tiles tiles_measure(size_t n_sites, size_t d_model, size_t max_rows);

int tiles_init(struct tiles *t, size_t n_sites, size_t d_model, size_t max_rows, struct err *e);
void tiles_release(struct tiles *t); /* safe on a zeroed struct */

#endif
