/* model_run.c - see model_run.h. */
#include "model_run.h"

#include <assert.h>

#include "clock.h"
#include "mem.h"

int model_reserve(struct workspace *w, const struct model *m, size_t n, size_t seq_len, struct err *e)
{
    struct workspace_sizes sizes = {.d = m->d_model, .packed = m->packed};
    for (uint32_t i = 0; i < m->n_layer; i++)
        layer_sizes(&m->layers[i], seq_len, &sizes);
    if (m->head.unembedding && !size_mul(HEAD_TOKENS, m->vocab_size, &sizes.logits))
        return err_set(e, ERR_MEMORY, "logits of %zu tokens of %u words do not fit in memory", HEAD_TOKENS,
                       m->vocab_size);
    return workspace_reserve(w, &sizes, n, seq_len, e);
}

/* Every site that a family names must be one that its layers visit, in the order in which it names them. */
static int not_visited(const struct pass *p, const struct model *m, struct err *e)
{
    const struct site *s = &p->sites[p->next];
    return err_set(e, ERR_INPUT, "model %s: layer %u of a %s model has no hook point %s where it is expected",
                   m->folder, s->layer, m->family->model_type, s->point);
}

int model_run(struct workspace *w, const struct model *m, const struct model_request *r, struct err *e)
{
    assert(!r->logits || m->head.unembedding);
    if (r->n_sites == 0 && !r->logits)
        return 0;
    int rc = model_reserve(w, m, r->n, r->seq_len, e);
    if (rc)
        return rc;
    struct pass p = {.kernels = forward_kernels_best(),
                     .n = r->n,
                     .seq_len = r->seq_len,
                     .tokens = r->n * r->seq_len,
                     .piece = linear_piece(m->packed, r->n * r->seq_len),
                     .d = m->d_model,
                     .x = w->residual.data,
                     .narrow = {w->narrow.data, m->packed ? w->narrow_bf16.data : NULL},
                     .wide = {w->wide.data, m->packed ? w->wide_bf16.data : NULL},
                     .out = w->out.data,
                     .scores = w->scores.data,
                     .sites = r->sites,
                     .n_sites = r->n_sites,
                     .goes_on = r->logits != NULL,
                     .hook = r->hook,
                     .context = r->context,
                     .workspace = w,
                     .clock = clock_s(),
                     .e = e};
    embedding_rows(&m->embedding, r->tokens, p.tokens, p.seq_len, p.x);
    pass_lap(&p, PASS_EMBED);
    for (uint32_t i = 0; !rc && i < m->n_layer; i++) {
        p.layer = i;
        rc = m->family->run(&p, &m->layers[i]);
    }
    if (rc)
        return rc == PASS_DONE ? 0 : rc;
    if (p.next < p.n_sites)
        return not_visited(&p, m, e);
    return head_run(&m->head, p.kernels, p.x, p.tokens, p.narrow.fp32, w->logits.data, r->logits, r->context, e);
}
