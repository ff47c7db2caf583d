/* activation.h - from pre-activations p = W_enc x + b_enc to active entries: one struct of functions for each kind.
 *
 * Pre-activations exist only tile by tile ([rows, a few latents] in the cache); [rows, d_sae] is nowhere stored. So an activation works
 * in two moves. `keep` sees each tile once, in any order and from any thread, and zeroes what cannot be active; what is left goes to the
 * lists of active.h. `settle` sees those lists when a strip of tiles is done, and after the last: one whose scope is a row or the batch
 * drops there the entries that others have beaten. Both depend on the data alone, so results do not depend on threads.
 *
 * A new activation is a file with one such struct and a line in activation.c's table. */
#ifndef CROSSFEED_ACTIVATION_H
#define CROSSFEED_ACTIVATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "crosscoder.h"
#include "err.h"

struct active;
struct forward;
struct selection;

/* What decides whether an entry is active: its own pre-activation, those of its row, or those of the whole batch. */
enum activation_scope { SCOPE_ENTRY, SCOPE_ROW, SCOPE_BATCH };

struct activation {
    const char *name;
    enum activation_scope scope; /* of SCOPE_ENTRY: dense steps are possible too */

    /* Allocates s->own; NULL: there is nothing to prepare. memory computes the bytes that this takes. */
    size_t (*memory)(const struct backend_setup *setup);
    int (*open)(struct selection *s, struct err *e);
    void (*close)(struct selection *s);

    /* Returns how many entries the lists hold at most when settle has been called. NULL for SCOPE_ENTRY. */
    size_t (*most)(const struct backend_setup *setup);

    /* Prepares for a batch of rows; c's decoder norms are in w. NULL: nothing to prepare. */
    void (*begin)(struct selection *s, const struct forward *w, const struct crosscoder *c, size_t rows);

    /* Adds bias [n] to p [n], a row's products of latents [first, first + n); replaces what cannot be active by 0 and the others by their
     * value f; adds 1 to count[i] for each kept. NaN is kept, for the loss to show it. -0 is kept too: an entry that is not active but has
     * a gradient. */
    void (*keep)(const struct selection *s, float *p, const float *bias, size_t row, size_t first, size_t n,
                 uint32_t *count);

    /* Removes from the lists of latents [0, latents) the entries that are not active, as far as is known; `last`: all is known.
     * NULL for SCOPE_ENTRY. */
    void (*settle)(struct selection *s, struct active *a, size_t latents, bool last);

    /* Turns the loss's gradient to f into that to p, at n entries of a latent that lie `stride` floats apart, and adds to *grad_threshold
     * what goes to the latent's log_threshold. NULL: the derivative is 1. */
    void (*gradient)(const struct selection *s, size_t latent, const float *f, float *grad, size_t n, size_t stride,
                     double *grad_threshold);
};

/* An activation at work on one crosscoder. */
struct selection {
    const struct activation *kind;
    const struct backend_setup *setup; /* borrowed */
    enum encode_mode mode;             /* of this batch */
    size_t k;                          /* topk, batchtopk: of this batch */
    float threshold;                   /* topk, batchtopk: of inference; negative: not known yet */
    float least;                       /* topk, batchtopk: the least kept score of the last batch; 0: none was kept */
    const float *factor;               /* topk, batchtopk: [d_sae] of the scores, of this batch */
    void *own;                         /* of the activation */
};

extern const struct activation activation_relu, activation_topk, activation_batchtopk, activation_jumprelu;

/* Returns the activation of that name, NULL if there is none. */
const struct activation *activation_find(const char *name);

/* Adds one to those that are found, for this process: how tests bring their own. At most four. */
void activation_add(const struct activation *a);

int selection_open(struct selection *s, const struct backend_setup *setup, struct err *e);
void selection_close(struct selection *s); /* safe on a zeroed struct */

#endif
