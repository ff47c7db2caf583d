/* sites.h - which activations are wanted: hook points, named as TransformerLens names them, picked by globs.
 *
 * A model's family says which hook points each of its layers has (model_points). Most have five, as TransformerLens's
 * TransformerBlock does:
 *   blocks.{L}.hook_resid_pre   the residual stream entering layer L
 *   blocks.{L}.hook_attn_out    what its attention adds (bias included)
 *   blocks.{L}.hook_resid_mid   = resid_pre + attn_out
 *   blocks.{L}.hook_mlp_out     what its MLP adds (bias included)
 *   blocks.{L}.hook_resid_post  = resid_mid + mlp_out; of the last layer: before the final norm
 * A site is a hook point of one model. Of several models, names start with the model's number:
 * "1:blocks.5.hook_mlp_out"; "1-0:blocks.5.hook_mlp_out" is model 1's vector less model 0's. */
#ifndef CROSSFEED_SITES_H
#define CROSSFEED_SITES_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "site_picks.h"
#include "stream.h"

#define SITES_DEFAULT "blocks.*.hook_resid_post"

/* The hook points of a model. */
struct hook_points {
    const char *const *names; /* of each layer, in forward order, NULL after the last: "hook_resid_pre", ...; static */
    uint32_t n_layers;
};

struct site {
    uint32_t model, layer;
    const char *point; /* "hook_resid_post": one of its model's hook_points.names */
};

/* What is wanted, and the sites whose vectors it takes. */
struct site_list {
    size_t n;
    struct site sites[2 * STREAM_MAX_SITES]; /* by model, then in forward order; each once. Of a model at most
                                                STREAM_MAX_SITES */
    struct site_picks wanted;                /* indices into sites */
};

/* Writes the name of a site, prefixed by the model's number if n_models > 1. */
void site_name(char name[SITE_NAME_SIZE], const struct site *s, uint32_t n_models);

/* Writes the name of wanted site i. */
void site_list_name(char name[SITE_NAME_SIZE], const struct site_list *list, size_t i, uint32_t n_models);

/* Picks the sites that globs want of all hook points of the models (site_picks.h; NULL = SITES_DEFAULT). models:
 * [n_models], each with at least one layer and one hook point. Fails as site_picks_match does. */
int sites_match(struct site_list *list, const char *globs, const struct hook_points *models, uint32_t n_models,
                struct err *e);

#endif
