/* gpt2_forward.h - the forward pass of GPT-2, over several sequences at once, up to the last site wanted.
 *
 * Of each layer (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019; numerically as
 * Hugging Face's GPT2Model in eval mode):
 *   attn_out  = Attention(LN(resid_pre; ln_1)) attn.c_proj        resid_mid  = resid_pre + attn_out
 *   mlp_out   = act(LN(resid_mid; ln_2) mlp.c_fc) mlp.c_proj      resid_post = resid_mid + mlp_out
 * with causal softmax attention. In fp32; of a model packed for bf16 (gpt2_bf16.h) the products with weights take both
 * factors rounded to bf16 and sum in fp32, as PyTorch's autocast does, and all else stays fp32: residual stream, layer
 * norm, attention, activation. The same call gives the same bits, whatever the number of threads. */
#ifndef CROSSFEED_GPT2_FORWARD_H
#define CROSSFEED_GPT2_FORWARD_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "gpt2_model.h"
#include "sites.h"

/* What the time goes to: embedding; layer norm and QKV; attention; its projection; layer norm and MLP; the hook. */
enum forward_phase {
    FORWARD_EMBED,
    FORWARD_QKV,
    FORWARD_ATTENTION,
    FORWARD_PROJECTION,
    FORWARD_MLP,
    FORWARD_HOOK,
    FORWARD_PHASES
};

/* Workspace, of one thread of control; may serve several models in turn. Zero-initialise. */
struct gpt2_forward {
    struct gpt2_buffer {
        void *data;
        size_t size;                /* bytes */
    } residual,                     /* [tokens, d] */
        narrow,                     /* [tokens, d]: the layer norm's output, then the attention heads' */
        wide,                       /* [tokens, max(3d, n_inner)]: QKV, then the hidden layer of the MLP */
        out,                        /* [tokens, d]: attn_out, mlp_out */
        scores,                     /* [threads, query tile, seq_len] */
        narrow_bf16,                /* [tokens, d], of packed models: the input of a product */
        wide_bf16;                  /* [tokens, n_inner]: the same */
    double seconds[FORWARD_PHASES]; /* summed over passes */
};

/* Receives a site's vectors [n * seq_len, d_model], fp32, while they exist. Not 0 (e filled) ends the pass. */
typedef int (*gpt2_hook)(void *context, const struct site *site, const float *vectors, struct err *e);

/* Room for n sequences, so that later passes allocate nothing. Only grows. */
int gpt2_forward_reserve(struct gpt2_forward *f, const struct gpt2_model *m, size_t n, size_t seq_len, struct err *e);
void gpt2_forward_release(struct gpt2_forward *f);

/* tokens: [n, seq_len], each below vocab_size; seq_len at most n_positions; n at least 1 (the caller has checked).
 * sites: n_sites of this model, in forward order, each once; hook is called for each, in that order. */
int gpt2_forward_run(struct gpt2_forward *f, const struct gpt2_model *m, const uint32_t *tokens, size_t n,
                     size_t seq_len, const struct site *sites, size_t n_sites, gpt2_hook hook, void *context,
                     struct err *e);

#endif
