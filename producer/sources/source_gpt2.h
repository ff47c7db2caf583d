/* source_gpt2.h - activations of one or several GPT-2 family models over a token tensor. */
#ifndef CROSSFEED_SOURCE_GPT2_H
#define CROSSFEED_SOURCE_GPT2_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "source.h"

struct source_gpt2_options {
    const char *const *models; /* [n_models] folders, see gpt2_model.h */
    uint32_t n_models;         /* 1 to STREAM_MAX_MODELS; their sites are stacked */
    const char *tokens;        /* token tensor, see tokens.h */
    uint32_t seq_len;          /* 0: as in the file */
    const char
        *lengths; /* valid tokens a sequence, see tokens.h: rows of the padding behind are masked; NULL: no padding */
    const char *sites; /* globs, see sites.h; NULL: SITES_DEFAULT */
    bool keep_bos;     /* else the first position of each sequence gives no row */
    bool center_writing_weights;
    bool bf16; /* products with weights in bf16 (gpt2_bf16.h); the error that this makes is logged */
};

/* Opens all of it, checks that it fits together, and allocates the workspace; strings need not outlive the call.
 * Refused, naming both values: models of different n_embd, vocab_size or tokenizer.json (where two have one); seq_len
 * above a model's n_positions; seq_len 1 without keep_bos; bf16 on
 * a processor without it. Close with s->close(s->self). */
int source_gpt2_open(struct source *s, const struct source_gpt2_options *o, struct err *e);

#endif
