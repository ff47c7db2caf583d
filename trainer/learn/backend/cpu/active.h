/* active.h - the activations of a batch as lists, one a latent: which rows it is active in, and how much.
 *
 * By latent alone: decoding, too, goes latent by latent through tiles that stay in the cache (sparse.h), so that lists
 * by row would only be a second copy. The encoder's product is made a strip of latents at a time, in tiles
 * of [rows, ACTIVE_TILE], and is a list before it leaves the cache: f [rows, d_sae] is nowhere stored. Where the batch
 * has more active entries than the lists hold (which depends on the data alone) the dense f is made instead, out of
 * what is done already and one product for the rest. */
#ifndef CROSSFEED_ACTIVE_H
#define CROSSFEED_ACTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "activation.h"
#include "crosscoder.h"
#include "err.h"
#include "forward.h"

/* Latents in a tile of the encoder's product, and tiles in a strip. */
enum { ACTIVE_TILE = 1024, ACTIVE_TILES = 4 };

/* Latent j's entries are [begin[j], begin[j + 1]), rows ascending. */
struct active {
    size_t capacity;
    size_t *begin; /* [d_sae + 1] */
    uint32_t *row; /* [capacity], readable for ROWS_AHEAD more */
    float *f;      /* [capacity] not 0; may be NaN */
    float *grad;   /* [capacity] the loss's gradient to f, then to p: by sparse.h */
    float *strip;  /* [ACTIVE_TILES][max_rows, ACTIVE_TILE] */
};

/* Bytes of an entry, all arrays. */
enum { ACTIVE_ENTRY = sizeof(uint32_t) + 2 * sizeof(float) };

/* Returns the bytes of so many entries; capacity * ACTIVE_ENTRY at most SIZE_MAX / 2. */
size_t active_entries_bytes(size_t capacity);

/* Returns the latents in a strip: what is encoded before anything of it is listed. */
size_t active_strip(size_t d_sae);

/* Computes the bytes that active_init takes beside the entries. Fails where they do not fit in size_t. */
int active_memory(size_t d_sae, size_t max_rows, size_t *bytes, struct err *e);
/* Gives the lists their entries [active_entries_bytes(capacity)], aligned to 4, borrowed. */
void active_entries(struct active *a, size_t capacity, void *entries);

/* Allocates all but the entries: entries [active_entries_bytes(capacity)], aligned to 4, are borrowed. */
int active_init(struct active *a, const struct crosscoder *c, size_t max_rows, size_t capacity, void *entries,
                struct err *e);
void active_release(struct active *a); /* safe on a zeroed struct */

/* Encodes x [rows, n_inputs] instead of forward_encode. True: the lists are complete, and f_sum, fired and the norms of w; w->f is not
 * touched. False: too many entries, and the lists are void; of an activation of SCOPE_ENTRY all that forward_encode fills is filled. */
bool active_encode(struct active *a, struct forward *w, const struct crosscoder *c, struct selection *s, const float *x,
                   size_t rows);

/* Moves a tile's entries [rows, width] to their latents' places, which begin[first..first + width] says; width at most ACTIVE_TILE. */
void active_list_tile(struct active *a, size_t rows, size_t first, size_t width, const float *tile);

/* Shortens the lists of latents [0, latents) to the entries that `stays` says yes to; for an activation's settle. */
void active_drop(struct active *a, size_t latents, bool (*stays)(void *context, uint32_t row, size_t latent, float f),
                 void *context);

#endif
