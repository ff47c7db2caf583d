/* pass.h - a forward pass under way: what every layer of it works on, and its stops at hook points.
 *
 * A layer's forward (layer.h, or a family's own) reads and writes these buffers and calls pass_visit at each of its
 * family's hook points, in their order. */
#ifndef CROSSFEED_PASS_H
#define CROSSFEED_PASS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "forward_kernels.h"
#include "linear.h"
#include "sites.h"
#include "workspace.h"

/* Receives a site's vectors [n * seq_len, d_model], fp32, and may replace them: the pass goes on with what it leaves
 * there. They exist until it returns. Not 0 (e filled) ends the pass. */
typedef int (*pass_hook)(void *context, const struct site *site, float *vectors, struct err *e);

#define PASS_DONE 1 /* returned instead of 0 or an error: the last site has been seen, and no logits are wanted */

struct pass {
    const struct forward_kernels *kernels;
    size_t n, seq_len, tokens; /* sequences; tokens = n * seq_len */
    size_t piece;              /* tokens of a piece (linear.h) */
    size_t d;
    /* The buffers of struct workspace: */
    float *x; /* the residual stream */
    struct operand narrow, wide;
    float *out, *scores;
    /* The sites that are left, and what to do there: */
    const struct site *sites;
    size_t n_sites, next; /* next: the first site not yet seen */
    uint32_t layer;       /* the one that is being computed */
    bool goes_on;         /* after the last site, to the logits */
    pass_hook hook;
    void *context;
    struct workspace *workspace; /* its seconds */
    double clock;                /* seconds up to here are accounted for */
    struct err *e;
    int failed; /* the code of a failure within a parallel region */
};

/* Returns the end of the piece that begins at first. */
static inline size_t pass_piece_end(const struct pass *p, size_t first)
{
    return p->tokens - first < p->piece ? p->tokens : first + p->piece;
}

/* Returns whether the next site is this hook point of the current layer. */
bool pass_stops_at(const struct pass *p, const char *point);

/* Calls the hook if the next site is this hook point of the current layer; the time goes to PASS_HOOK. Returns 0 to go
 * on, PASS_DONE, or the hook's error. */
int pass_visit(struct pass *p, const char *point, float *vectors);

/* Adds the seconds since the last call to a phase. */
void pass_lap(struct pass *p, enum pass_phase phase);

/* Notes a failure within a parallel region, from any of its threads; p->failed is then its code, and p->e has it. */
void pass_fail(struct pass *p, const struct err *e);

#endif
