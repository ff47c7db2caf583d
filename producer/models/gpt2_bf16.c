/* gpt2_bf16.c - see gpt2_bf16.h. */
#include "gpt2_bf16.h"

#include "mem.h"

int gpt2_bf16_pack(struct gpt2_model *m, struct err *e)
{
    size_t d = m->config.n_embd, inner = m->config.n_inner;
    m->bf16 = mem_alloc(m->config.n_layer, sizeof *m->bf16, "weights in bf16", e);
    if (!m->bf16)
        return ERR_MEMORY;
    for (uint32_t i = 0; i < m->config.n_layer; i++) {
        const struct gpt2_layer *l = &m->layers[i];
        struct gpt2_bf16_layer *p = &m->bf16[i];
        if (gemm_bf16_new(&p->attn_c_attn, l->attn_c_attn_weight, d, 3 * d, e) ||
            gemm_bf16_new(&p->attn_c_proj, l->attn_c_proj_weight, d, d, e) ||
            gemm_bf16_new(&p->mlp_c_fc, l->mlp_c_fc_weight, d, inner, e) ||
            gemm_bf16_new(&p->mlp_c_proj, l->mlp_c_proj_weight, inner, d, e)) {
            gpt2_bf16_release(m);
            return e->code;
        }
    }
    struct fingerprint hash;
    if (fingerprint_init(&hash, e)) {
        gpt2_bf16_release(m);
        return ERR_MEMORY;
    }
    fingerprint_add_text(&hash, m->fingerprint);
    fingerprint_add_text(&hash, "bf16 products");
    fingerprint_finish(&hash, m->fingerprint);
    return 0;
}

void gpt2_bf16_release(struct gpt2_model *m)
{
    for (uint32_t i = 0; m->bf16 && i < m->config.n_layer; i++) {
        struct gpt2_bf16_layer *p = &m->bf16[i];
        gemm_bf16_free(p->attn_c_attn);
        gemm_bf16_free(p->attn_c_proj);
        gemm_bf16_free(p->mlp_c_fc);
        gemm_bf16_free(p->mlp_c_proj);
    }
    mem_free(m->bf16);
    m->bf16 = NULL;
}
