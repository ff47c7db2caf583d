/* backend.c - what follows from the functions of a backend, whichever it is; see backend.h. */
#include "backend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "stream.h"

int backend_find(const struct backend *b, const char *name, struct backend_tensor *t, struct err *e)
{
    for (size_t i = 0; b->ops->tensor(b, i, t); i++)
        if (strcmp(t->name, name) == 0)
            return 0;
    return err_set(e, ERR_INPUT, "backend %s: there is no tensor %s", b->ops->name, name);
}

int backend_get_all(const struct backend *b, const char *name, void *out, struct err *e)
{
    struct backend_tensor t;
    if (backend_find(b, name, &t, e))
        return e->code;
    return b->ops->get(b, name, &(struct backend_range){0, t.rows, 0, t.columns, false}, out, e);
}

int backend_put_all(struct backend *b, const char *name, const void *in, struct err *e)
{
    struct backend_tensor t;
    if (backend_find(b, name, &t, e))
        return e->code;
    return b->ops->put(b, name, &(struct backend_range){0, t.rows, 0, t.columns, false}, in, e);
}

double backend_loss(const struct backend_setup *s, const double *term, const double *weight)
{
    double loss = 0;
    for (size_t i = 0; i < s->n_terms; i++)
        loss += weight[i] * term[i];
    return loss;
}

double backend_clipped_share(const struct backend *b)
{
    return b->step > b->clipped_since ? (double)b->clipped / (double)(b->step - b->clipped_since) : (double)NAN;
}

void backend_describe_terms(const struct backend_setup *s, const double *term, char *text, size_t size)
{
    *text = 0;
    for (size_t i = 0, at = 0; i < s->n_terms && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%s %g", i ? ", " : "", s->terms[i], term[i]);
}

int backend_n_params(size_t n_sites, size_t d_model, size_t d_sae, size_t *n_params, struct err *e)
{
    size_t n_inputs, matrix, n, bytes;
    if (n_sites == 0 || n_sites > STREAM_MAX_SITES || d_model == 0 || d_sae == 0)
        return err_set(e, ERR_INPUT, "crosscoder: %zu sites (1 to %d), d_model %zu, d_sae %zu", n_sites,
                       STREAM_MAX_SITES, d_model, d_sae);
    if (!size_mul(n_sites, d_model, &n_inputs) || !size_mul(n_inputs, d_sae, &matrix) || !size_mul(matrix, 2, &n) ||
        __builtin_add_overflow(n, n_inputs, &n) || __builtin_add_overflow(n, d_sae, &n) || !size_mul(n, 16, &bytes))
        return err_set(e, ERR_MEMORY, "crosscoder: %zu sites of d_model %zu with d_sae %zu are too many parameters",
                       n_sites, d_model, d_sae);
    *n_params = n;
    return 0;
}

bool backend_has_term(const struct backend_setup *s, const char *name)
{
    for (size_t i = 0; i < s->n_terms; i++)
        if (strcmp(s->terms[i], name) == 0)
            return true;
    return false;
}

bool backend_has_thresholds(const struct backend_setup *s)
{
    return strcmp(s->activation, "jumprelu") == 0;
}

bool backend_has_k(const struct backend_setup *s)
{
    return strcmp(s->activation, "topk") == 0 || strcmp(s->activation, "batchtopk") == 0;
}

bool backend_may_see(const struct backend_setup *s, size_t j, size_t site)
{
    const struct partition *p = &s->partition;
    size_t first = s->d_sae - p->exclusive[0] - p->exclusive[1];
    if (j < first)
        return true;
    return (j < first + p->exclusive[0]) == (site < s->n_sites / 2);
}

int backend_check(const struct backend_setup *s, struct err *e)
{
    const struct partition *p = &s->partition;
    if (backend_has_k(s) && (s->most_k < 1 || s->most_k > s->d_sae))
        return err_set(e, ERR_INPUT, "k %zu, must be 1 to d_sae %zu", s->most_k, s->d_sae);
    if (backend_has_k(s) && backend_has_term(s, "l1"))
        return err_set(e, ERR_INPUT, "loss term 'l1' with activation '%s', which needs none", s->activation);
    if (backend_has_term(s, "aux") && !backend_has_k(s))
        return err_set(e, ERR_INPUT, "loss term 'aux' with activation '%s', which has no k", s->activation);
    if (backend_has_term(s, "aux") && s->aux_k < 1)
        return err_set(e, ERR_INPUT, "aux_k %zu, must be at least 1", s->aux_k);
    if (backend_has_thresholds(s) && !(s->bandwidth > 0))
        return err_set(e, ERR_INPUT, "bandwidth %g, must be above 0", s->bandwidth);
    if ((p->shared || p->exclusive[0] || p->exclusive[1]) && s->n_sites % 2)
        return err_set(e, ERR_INPUT, "shared or exclusive latents of two models with %zu sites, must be even",
                       s->n_sites);
    if (p->shared > s->d_sae || p->exclusive[0] > s->d_sae - p->shared ||
        p->exclusive[1] > s->d_sae - p->shared - p->exclusive[0])
        return err_set(e, ERR_INPUT, "%zu shared and %zu,%zu exclusive latents, d_sae is %zu", p->shared,
                       p->exclusive[0], p->exclusive[1], s->d_sae);
    return 0;
}
