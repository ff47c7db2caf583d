/* model.c - see model.h. */
#include "model.h"

#include "mem.h"

struct hook_points model_points(const struct model *m)
{
    return (struct hook_points){.names = m->family->points, .n_layers = m->n_layer};
}

static void unpack(struct model *m)
{
    struct linear *linears[LAYER_LINEARS];
    for (uint32_t i = 0; m->layers && i < m->n_layer; i++) {
        layer_linears(&m->layers[i], linears);
        for (size_t j = 0; j < LAYER_LINEARS; j++)
            linear_unpack(linears[j]);
    }
    m->packed = false;
}

static int pack_layers(struct model *m, struct err *e)
{
    struct linear *linears[LAYER_LINEARS];
    int rc = 0;
    for (uint32_t i = 0; !rc && i < m->n_layer; i++) {
        layer_linears(&m->layers[i], linears);
        for (size_t j = 0; !rc && j < LAYER_LINEARS; j++)
            if (linears[j]->k)
                rc = linear_pack(linears[j], e);
    }
    return rc;
}

int model_pack(struct model *m, struct err *e)
{
    struct fingerprint hash;
    int rc = pack_layers(m, e);
    if (!rc)
        rc = fingerprint_init(&hash, e);
    if (rc) {
        unpack(m);
        return rc;
    }
    fingerprint_add_text(&hash, m->fingerprint);
    fingerprint_add_text(&hash, "bf16 products");
    fingerprint_finish(&hash, m->fingerprint);
    m->packed = true;
    return 0;
}

void model_close(struct model *m)
{
    unpack(m);
    for (size_t i = 0; i < m->n_owned; i++)
        mem_free(m->owned[i]);
    mem_free(m->owned);
    mem_free(m->layers);
    mem_free(m->own);
    hf_checkpoint_close(&m->checkpoint);
    *m = (struct model){0};
}
