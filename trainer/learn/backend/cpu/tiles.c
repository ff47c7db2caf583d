/* tiles.c - see tiles.h. */
#include "tiles.h"

#include <string.h>

#include "mem.h"

enum { CACHE = 5 << 18 }; /* bytes of a tile at most: most of a second-level cache of 2 MB */

/* The widest tile for so many rows. */
static size_t widest(size_t max_rows)
{
    size_t lanes = TILE_MAX_LANES;
    while (lanes > 16 && lanes * sizeof(float) > CACHE / max_rows)
        lanes /= 2;
    return lanes;
}

/* Lanes of the tile at the start of `left` columns: narrower ones for the rest of a site, instead of much padding. */
static size_t lanes_for(size_t left, size_t widest_lanes)
{
    size_t lanes = widest_lanes;
    while (lanes > 16 && lanes > left)
        lanes /= 2;
    return lanes;
}

struct tiles tiles_measure(size_t n_sites, size_t d_model, size_t max_rows)
{
    size_t lanes = widest(max_rows);
    struct tiles t = {.n = d_model / lanes, .lanes = d_model / lanes * lanes};
    for (size_t left = d_model % lanes, l; left > 0; left -= left < l ? left : l) {
        l = lanes_for(left, lanes);
        t.n++;
        t.lanes += l;
    }
    t.n *= n_sites;
    t.lanes *= n_sites;
    return t;
}

int tiles_init(struct tiles *t, size_t n_sites, size_t d_model, size_t max_rows, struct err *e)
{
    *t = tiles_measure(n_sites, d_model, max_rows);
    t->tile = mem_alloc(t->n, sizeof *t->tile, "tiles of a batch", e);
    if (!t->tile)
        return ERR_MEMORY;
    struct tile *out = t->tile;
    size_t before = 0;
    for (size_t site = 0; site < n_sites; site++)
        for (size_t i = 0; i < d_model; i += (out++)->width) {
            size_t left = d_model - i, lanes = lanes_for(left, widest(max_rows));
            *out = (struct tile){site, site * d_model + i, left < lanes ? left : lanes, lanes, before};
            before += lanes;
        }
    return 0;
}

void tiles_release(struct tiles *t)
{
    mem_free(t->tile);
    memset(t, 0, sizeof *t);
}
