/* sites.h - which activations: hook points, named as TransformerLens names them, picked by globs.
 *
 * A model has five hook points a layer (TransformerLens, HookedTransformer's TransformerBlock):
 *   blocks.{L}.hook_resid_pre   the residual stream entering layer L
 *   blocks.{L}.hook_attn_out    what its attention adds (bias included)
 *   blocks.{L}.hook_resid_mid   = resid_pre + attn_out
 *   blocks.{L}.hook_mlp_out     what its MLP adds (bias included)
 *   blocks.{L}.hook_resid_post  = resid_mid + mlp_out; of the last layer: before the final layer norm
 * A site is a hook point of one model. Of several models, names start with the model's number:
 * "1:blocks.5.hook_mlp_out". */
#ifndef CROSSFEED_SITES_H
#define CROSSFEED_SITES_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "stream.h"

#define SITES_DEFAULT "blocks.*.hook_resid_post"

enum site_kind { SITE_RESID_PRE, SITE_ATTN_OUT, SITE_RESID_MID, SITE_MLP_OUT, SITE_RESID_POST }; /* forward order */
#define SITE_KINDS 5

struct site {
    uint32_t model, layer;
    enum site_kind kind;
};

struct site_list {
    size_t n;
    struct site sites[STREAM_MAX_SITES]; /* by model, then in forward order; each once */
};

/* The name of a site, prefixed by the model's number if n_models > 1. */
void site_name(char name[SITE_NAME_SIZE], const struct site *s, uint32_t n_models);

/* Picks the sites that any of the globs (fnmatch(3), comma-separated; NULL = SITES_DEFAULT) matches. Of several models,
 * a glob with a ':' is matched against "0:blocks...", any other against each model's "blocks...".
 * n_layers: [n_models]. ERR_INPUT, naming the glob, if one matches nothing; or if more than STREAM_MAX_SITES match. */
int sites_match(struct site_list *list, const char *globs, const uint32_t *n_layers, uint32_t n_models, struct err *e);

#endif
