/* source_model.h - activations of one or several models over a token tensor. */
#ifndef CROSSFEED_SOURCE_MODEL_H
#define CROSSFEED_SOURCE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "source.h"

struct source_model_options {
    const char *const *models; /* [n_models] folders, see model_load.h */
    uint32_t n_models;         /* 1 to STREAM_MAX_MODELS; their sites are stacked */
    const char *tokens;        /* token tensor, see tokens.h */
    uint32_t seq_len;          /* 0: as in the file */
    /* Of each sequence, see lengths.h: rows behind them are masked. NULL: those that lie beside the tokens, if there are and
     * no_lengths does not decline them; else all tokens are text. */
    const char *lengths;
    bool no_lengths;
    const char *sites;           /* globs, see site_picks.h; NULL: SITES_DEFAULT */
    bool keep_bos;               /* else the first position of each sequence gives no row */
    bool center_writing_weights; /* see model_load.h */
    bool bf16; /* computes products with weights in bf16 (linear.h), and logs the error that this makes */
};

/* The rows of a difference site ("1-0:...", site_picks.h) are of vectors that are subtracted in fp32, before they are
 * scaled (model_rows.h).
 *
 * Opens all of it, checks that it fits together, and allocates the workspace; strings need not outlive the call.
 * Refuses, naming both values: models of different d_model, vocab_size or tokenizer.json (where two have one); a
 * seq_len above a model's positions; seq_len 1 without keep_bos; bf16 on a processor without it; and what model_open,
 * tokens_open and sites_match refuse. Close with s->close(s->self). */
int source_model_open(struct source *s, const struct source_model_options *o, struct err *e);

#endif
