/* model.h - a model ready for forward passes, and the interface behind which a family of models stands.
 *
 * A family is everything that config.json's model_type decides: how its sizes and options are called, which tensors it
 * has, what a layer is made of, in which order a layer computes and which hook points lie on the way. It is a new file
 * family_NAME.c with one struct family, and a line in families.c. What families share are the operations (embedding,
 * norm, linear, attention, mlp, layer, head); a family that computes otherwise has its own `run`, built from them. */
#ifndef CROSSFEED_MODEL_H
#define CROSSFEED_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "embedding.h"
#include "err.h"
#include "fingerprint.h"
#include "head.h"
#include "hf_checkpoint.h"
#include "layer.h"
#include "model_config.h"
#include "sites.h"

struct model {
    char folder[4096];
    const struct family *family;
    /* From config.json, by the family: */
    uint32_t vocab_size, d_model, n_layer, n_positions; /* n_positions: the longest sequence */
    void *own;                                          /* what only the family knows; one mem_alloc, or NULL */
    /* The weights, in fp32: */
    struct embedding embedding;
    struct layer *layers; /* [n_layer] */
    struct head head;     /* zero unless the model was opened with its head */
    bool centered;        /* see model_options */
    bool packed;          /* for bf16 products */
    /* Covers the configuration, the name, shape and fp32 values of each tensor (but for the head's, which no activation
     * depends on), and the processing: it is the same for the same model stored in another dtype of equal values, in
     * shards, or with another prefix. */
    char fingerprint[FINGERPRINT_SIZE];
    /* Where the weights lie: */
    struct hf_checkpoint checkpoint;
    float **owned; /* fp32 copies, [n_owned] */
    size_t n_owned;
};

/* A tensor that a family wants: where its values go, and the shape that it must have. */
struct want {
    const char *name;     /* as the family's reference implementation names it; of a layer: behind its number */
    const float **values; /* set to the fp32 values, row-major, owned by the model */
    size_t rows, columns; /* [rows, columns]; with rows = 0: [columns] */
    bool writes;          /* to the residual stream: what center_writing_weights centres */
};
#define MODEL_MAX_WANTS 32 /* that one call names */
#define MODEL_TEXT_SIZE 512

struct family {
    const char *model_type; /* in config.json */
    const char *prefix; /* names of tensors in a file may, but need not, have this before them: "transformer."; or "" */
    const char *layer_prefix; /* before a layer's number: "h." */
    /* Tensors that files may have of a layer beside those that it wants, NULL after the last: constants that its run computes
     * itself. Any other that is not wanted is refused. NULL: there are none. */
    const char *const *layer_constants;
    const char *const
        *points;     /* the hook points of a layer in the order in which run visits them, NULL after the last */
    bool can_center; /* centring the weights that write to the residual stream changes no result */
    /* Reads the sizes into m, and what else it needs into m->own. Refuses, naming file, key and value. */
    int (*configure)(struct model *m, const struct model_config *c, struct err *e);
    /* Writes all of the configuration that decides a result, as one line: part of the fingerprint. */
    void (*identify)(const struct model *m, char text[MODEL_TEXT_SIZE]);
    /* Fills in a zeroed layer: sizes and options, no weights. */
    void (*describe)(const struct model *m, uint32_t layer, struct layer *l);
    /* Name the tensors of the embedding, of layer l (described), and of the head, in the order of the fingerprint, at
     * most MODEL_MAX_WANTS, and return how many. The first of a layer tells whether a file has that layer. head_tensors
     * also describes m->head; where it is NULL, the family has no head to open. */
    size_t (*embedding_tensors)(struct model *m, struct want *wants);
    size_t (*layer_tensors)(const struct model *m, struct layer *l, struct want *wants);
    size_t (*head_tensors)(struct model *m, struct want *wants);
    /* Computes a layer, visiting all of `points` by pass_visit: layer_pre_norm, or the family's own. */
    int (*run)(struct pass *p, const struct layer *l);
};

/* Returns the model's hook points, for sites_match. They are valid while m is. */
struct hook_points model_points(const struct model *m);

/* Packs all weights of the layers for bf16 products (linear.h): model_run then computes in bf16, and m's fingerprint
 * is another. Refused where the processor has no bf16 products; m is then as before. */
int model_pack(struct model *m, struct err *e);

void model_close(struct model *m); /* safe on a zeroed struct */

#endif
