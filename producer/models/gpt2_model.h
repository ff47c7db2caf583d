/* gpt2_model.h - the weights of a GPT-2 family checkpoint (a Hugging Face folder), ready for gpt2_forward.
 *
 * Tensors have the names of Hugging Face's GPT2Model, with or without "transformer." before them. F32 tensors stay
 * where they are in the memory map; F16, BF16 and F64, and what is processed, become fp32 copies. What a forward pass
 * up to the last layer's residual stream does not need is not looked at: ln_f, lm_head, attn.bias, attn.masked_bias.
 * Refused, naming file and tensor: a missing tensor, another shape than config.json implies (both shapes), NaN or
 * infinity (the index), layers beyond n_layer. */
#ifndef CROSSFEED_GPT2_MODEL_H
#define CROSSFEED_GPT2_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "hf_checkpoint.h"
#include "err.h"
#include "fingerprint.h"
#include "gpt2_config.h"

/* d = n_embd; matrices as Hugging Face's Conv1D stores them, [in, out]: y = x W + b. */
struct gpt2_layer {
    const float *ln_1_weight, *ln_1_bias; /* [d] */
    const float *attn_c_attn_weight;      /* [d, 3d]: columns of Q, then K, then V; of each, head after head */
    const float *attn_c_attn_bias;        /* [3d] */
    const float *attn_c_proj_weight;      /* [d, d] */
    const float *attn_c_proj_bias;        /* [d] */
    const float *ln_2_weight, *ln_2_bias; /* [d] */
    const float *mlp_c_fc_weight;         /* [d, n_inner] */
    const float *mlp_c_fc_bias;           /* [n_inner] */
    const float *mlp_c_proj_weight;       /* [n_inner, d] */
    const float *mlp_c_proj_bias;         /* [d] */
};

struct gpt2_model {
    char folder[4096];
    struct gpt2_config config;
    const float *wte;             /* [vocab_size, d] */
    const float *wpe;             /* [n_positions, d] */
    struct gpt2_layer *layers;    /* [n_layer] */
    struct gpt2_bf16_layer *bf16; /* [n_layer] (gpt2_bf16.h), or NULL: fp32 */
    /* Of the configuration, each tensor's name, shape and fp32 values, and the processing: the same for the same model
     * stored in another dtype of equal values, in shards, or with another prefix. */
    char fingerprint[FINGERPRINT_SIZE];
    struct hf_checkpoint checkpoint;
    float **owned; /* fp32 copies, [n_owned] */
    size_t n_owned;
};

/* center_writing_weights: what TransformerLens does under that name when it loads GPT-2: wte, wpe and the weights and
 * biases of attn.c_proj and mlp.c_proj lose their mean over the d outputs, so that the residual stream has mean 0. (Its
 * other defaults, fold_ln and fold_value_biases, do not change what the hook points of sites.h hold.) */
int gpt2_model_open(struct gpt2_model *m, const char *folder, bool center_writing_weights, struct err *e);
void gpt2_model_close(struct gpt2_model *m); /* safe on a zeroed struct */

#endif
