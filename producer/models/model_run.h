/* model_run.h - the forward pass of a model of any family, over several sequences at once, up to the last site that is
 * wanted or on to the logits.
 *
 * In fp32; of a model packed for bf16 (model_pack) the products with weights take both factors rounded to bf16 and sum
 * in fp32, as PyTorch's autocast does, and all else stays fp32: residual stream, norms, attention, activation, logits.
 * The same call gives the same bits, whatever the number of threads. */
#ifndef CROSSFEED_MODEL_RUN_H
#define CROSSFEED_MODEL_RUN_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "head.h"
#include "model.h"
#include "pass.h"
#include "sites.h"
#include "workspace.h"

struct model_request {
    const uint32_t *tokens;   /* [n, seq_len], each below vocab_size (the caller has checked) */
    size_t n, seq_len;        /* at least 1; seq_len at most n_positions */
    const struct site *sites; /* [n_sites] of this model, in forward order, each once */
    size_t n_sites;           /* may be 0 */
    pass_hook hook;           /* is called for each site, in that order, and may replace its vectors */
    head_receiver logits;     /* receives the logits of all tokens; NULL: the pass ends at the last site. Only of a
                                 model opened with its head. What hooks replaced counts. */
    void *context;            /* of hook and logits */
};

/* Makes room for n sequences, so that later passes allocate nothing. Only grows. */
int model_reserve(struct workspace *w, const struct model *m, size_t n, size_t seq_len, struct err *e);

/* Runs a pass. Fails with what hook or logits returned, with ERR_MEMORY, or as linear_multiply does. */
int model_run(struct workspace *w, const struct model *m, const struct model_request *r, struct err *e);

#endif
