/* layer.h - one layer of a transformer: what it is made of, and the forward pass of the common kind.
 *
 * (TransformerLens says "block"; in this project a block is a number of sequences.) A family fills in a struct layer
 * from config.json, has its weights loaded into it (model.h), and names the function that computes it. A part that a
 * family's layers do not have stays zero. */
#ifndef CROSSFEED_LAYER_H
#define CROSSFEED_LAYER_H

#include <stddef.h>

#include "attention.h"
#include "mlp.h"
#include "norm.h"
#include "pass.h"

struct layer {
    struct norm attention_norm, mlp_norm; /* before attention, before the MLP */
    struct attention attention;
    struct mlp mlp;
};

#define LAYER_LINEARS 4

/* Writes pointers to all linears of a layer, absent ones (k = 0) too. */
void layer_linears(struct layer *l, struct linear *linears[LAYER_LINEARS]);

/* Raises sizes to what layer l needs for sequences of seq_len tokens; sizes->d is the model's. */
void layer_sizes(const struct layer *l, size_t seq_len, struct workspace_sizes *sizes);

/* Computes a layer with its norms before attention and MLP, one after the other (Radford et al., "Language Models are
 * Unsupervised Multitask Learners", 2019), which in the names of its hook points, site_hook_points, is:
 *   hook_attn_out  = Attention(norm(hook_resid_pre)) out        hook_resid_mid  = hook_resid_pre + hook_attn_out
 *   hook_mlp_out   = MLP(norm(hook_resid_mid))                  hook_resid_post = hook_resid_mid + hook_mlp_out
 * Returns 0, PASS_DONE or an error, p->e filled. */
int layer_pre_norm(struct pass *p, const struct layer *l);

#endif
