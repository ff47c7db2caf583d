/* model_load.h - opens a model folder as Hugging Face ships it (config.json and safetensors), of any known family.
 *
 * F32 tensors stay where they are in the memory map; F16, BF16 and F64, and what is processed, become fp32 copies.
 * Refused, naming file and tensor: a missing tensor, another shape than config.json implies (both shapes), NaN or infinity
 * (the index), layers beyond those that config.json counts; and what would be left out of what the model computes: a
 * layer's tensor that the family does not want, tensors of an adapter, and an adapter beside the model. */
#ifndef CROSSFEED_MODEL_LOAD_H
#define CROSSFEED_MODEL_LOAD_H

#include <stdbool.h>

#include "err.h"
#include "model.h"

struct model_options {
    /* What TransformerLens does under that name when it loads GPT-2: the tensors that write to the residual stream lose
     * their mean over the d outputs, so that the residual stream has mean 0. (Its other defaults, fold_ln and
     * fold_value_biases, do not change what the hook points hold.) Refused for a family whose results it would
     * change. */
    bool center_writing_weights;
    bool head; /* loads what logits need, too (head.h) */
};

/* Reads config.json alone: m gets its family, its sizes and the family's own options. Refuses an unknown model_type,
 * listing those that are known. Close with model_close. */
int model_describe(struct model *m, const char *folder, struct err *e);

/* Opens all of a model. o may be NULL: no option. Close with model_close; after a failure m is closed. */
int model_open(struct model *m, const char *folder, const struct model_options *o, struct err *e);

#endif
