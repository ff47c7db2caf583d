/* workspace.h - the memory that forward passes work in, taken before the first and reused by all. */
#ifndef CROSSFEED_WORKSPACE_H
#define CROSSFEED_WORKSPACE_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

/* What the time of a pass goes to: the embedding; norm and QKV; attention; its projection; norm and MLP; the hook. */
enum pass_phase { PASS_EMBED, PASS_QKV, PASS_ATTENTION, PASS_PROJECTION, PASS_MLP, PASS_HOOK, PASS_PHASES };

/* Belongs to one thread of control; may serve several models in turn. Zero-initialise. */
struct workspace {
    struct workspace_buffer {
        void *data;
        size_t size;             /* bytes */
    } residual,                  /* [tokens, d]: the residual stream */
        narrow,                  /* [tokens, narrow]: a norm's output, then the attention heads' */
        wide,                    /* [tokens, wide]: QKV, then the hidden layer of the MLP */
        out,                     /* [tokens, d]: what attention, then what the MLP adds to the residual stream */
        scores,                  /* [threads, scores] */
        narrow_bf16, wide_bf16,  /* as narrow and wide, where weights are packed: the inputs of products */
        logits;                  /* [HEAD_TOKENS, vocab_size], where a model has its head */
    double seconds[PASS_PHASES]; /* summed over passes */
};

/* What a model needs for a pass. Sizes in values, of one token each but for the last two. */
struct workspace_sizes {
    size_t d, narrow, wide;
    bool packed;   /* weights are (linear.h) */
    size_t scores; /* of one thread */
    size_t logits; /* all in all */
};

/* Makes room for n sequences of seq_len tokens; only grows. Fails with ERR_MEMORY, saying what for. */
int workspace_reserve(struct workspace *w, const struct workspace_sizes *sizes, size_t n, size_t seq_len,
                      struct err *e);
void workspace_release(struct workspace *w); /* safe on a zeroed struct */

#endif
