/* gpt2_config.h - config.json of a GPT-2 family checkpoint, as Hugging Face's GPT2Config writes it.
 *
 * Read: what decides the result of a forward pass. Ignored: dropout (inference), reorder_and_upcast_attn (no effect in
 * fp32), everything about generation. Refused, naming file, key and value: a model_type other than gpt2, an activation
 * that is none of enum gpt2_activation, cross-attention, n_embd that n_head does not divide, values of a wrong type. */
#ifndef CROSSFEED_GPT2_CONFIG_H
#define CROSSFEED_GPT2_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

/* Names of transformers.activations.ACT2FN; several names of one formula are one activation here. */
enum gpt2_activation {
    GPT2_GELU_TANH, /* gelu_new, gelu_pytorch_tanh, gelu_fast: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
    GPT2_GELU_ERF,  /* gelu, gelu_python: x/2 (1 + erf(x / sqrt 2)) */
    GPT2_RELU,      /* relu */
};

struct gpt2_config {
    uint32_t vocab_size, n_positions, n_embd, n_layer, n_head; /* n_positions: or its older name, n_ctx */
    uint32_t n_inner;                                          /* width of the MLP; null or absent: 4 n_embd */
    enum gpt2_activation activation;                           /* default gelu_new */
    float layer_norm_epsilon;                                  /* default 1e-5 */
    bool scale_attn_weights;                                   /* scores / sqrt(n_embd / n_head); default true */
    bool scale_attn_by_inverse_layer_idx;                      /* scores / (layer + 1); default false */
};

const char *gpt2_activation_name(enum gpt2_activation activation);
int gpt2_config_read(struct gpt2_config *c, const char *path, struct err *e);

#endif
