/* precision.c - see precision.h. */
#include "precision.h"

#include <math.h>
#include <string.h>

#include "mem.h"

struct comparison {
    float *fp32; /* [n_sites, seq_len, d] */
    size_t seq_len, first, d;
    const struct site *sites;
    double *error;
};

static int keep(void *context, const struct site *site, float *vectors, struct err *e)
{
    (void)e;
    struct comparison *c = context;
    size_t n = c->seq_len * c->d;
    memcpy(c->fp32 + (size_t)(site - c->sites) * n, vectors, n * sizeof *vectors);
    return 0;
}

static int compare(void *context, const struct site *site, float *vectors, struct err *e)
{
    (void)e;
    struct comparison *c = context;
    size_t index = (size_t)(site - c->sites);
    double sum = 0;
    for (size_t t = c->first; t < c->seq_len; t++) {
        const float *a = vectors + t * c->d, *b = c->fp32 + (index * c->seq_len + t) * c->d;
        double difference2 = 0, norm2 = 0;
        for (size_t i = 0; i < c->d; i++) {
            double difference = (double)a[i] - (double)b[i];
            difference2 += difference * difference;
            norm2 += (double)b[i] * (double)b[i];
        }
        sum += norm2 > 0 ? sqrt(difference2 / norm2) : difference2 > 0;
    }
    c->error[index] = sum / (double)(c->seq_len - c->first);
    return 0;
}

int precision_pack(struct model *m, struct workspace *w, const uint32_t *tokens, size_t seq_len, size_t first,
                   const struct site *sites, size_t n_sites, double *error, struct err *e)
{
    size_t values, d = m->d_model;
    if (!size_product((const size_t[]){n_sites, seq_len, d}, 3, &values))
        return err_set(e, ERR_MEMORY, "%zu sites of %zu vectors of %zu do not fit in memory", n_sites, seq_len, d);
    struct comparison c = {
        mem_alloc(values, sizeof(float), "fp32 activations to compare with", e), seq_len, first, d, sites, error};
    struct model_request r = {
        .tokens = tokens, .n = 1, .seq_len = seq_len, .sites = sites, .n_sites = n_sites, .hook = keep, .context = &c};
    int rc = c.fp32 ? 0 : ERR_MEMORY;
    if (!rc)
        rc = model_run(w, m, &r, e);
    if (!rc)
        rc = model_pack(m, e);
    r.hook = compare;
    if (!rc)
        rc = model_run(w, m, &r, e);
    mem_free(c.fp32);
    return rc;
}
