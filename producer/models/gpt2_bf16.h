/* gpt2_bf16.h - a model's weights packed for bf16 products (gemm_bf16.h), and what that costs in accuracy.
 *
 * As under PyTorch's autocast, weights and inputs of the products are rounded to bf16; embeddings, biases and layer
 * norms stay fp32. Activations are then off by some tenths of a percent: a run says which of the two its producers
 * compute in, through the model's fingerprint. */
#ifndef CROSSFEED_GPT2_BF16_H
#define CROSSFEED_GPT2_BF16_H

#include "err.h"
#include "gemm_bf16.h"
#include "gpt2_model.h"

struct gpt2_bf16_layer {
    struct gemm_bf16 *attn_c_attn, *attn_c_proj, *mlp_c_fc, *mlp_c_proj;
};

/* Packs m's weights: gpt2_forward then computes in bf16, and m's fingerprint is another. Refused where the processor
 * has no bf16 products. gpt2_model_close releases it. */
int gpt2_bf16_pack(struct gpt2_model *m, struct err *e);
void gpt2_bf16_release(struct gpt2_model *m); /* back to fp32, fingerprint apart */

#endif
