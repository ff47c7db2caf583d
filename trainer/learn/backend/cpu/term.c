/* term.c - the table of loss terms, and their sums; see term.h. */
#include "term.h"

#include <assert.h>
#include <string.h>

#include "active.h"

enum { ADDED_MAX = 4, PIECES = 256 };

static const struct term *const all[] = {
    &term_l2,
    &term_l1,
};
static const struct term *added[ADDED_MAX];

const struct term *term_find(const char *name)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    for (size_t i = 0; i < ADDED_MAX && added[i]; i++)
        if (strcmp(added[i]->name, name) == 0)
            return added[i];
    return NULL;
}

void term_add(const struct term *t)
{
    size_t i = 0;
    while (i < ADDED_MAX && added[i])
        i++;
    assert(i < ADDED_MAX);
    added[i] = t;
}

double term_sum_entries(const struct term_input *in, double (*of)(const struct term_input *in, size_t latent,
                                                                  const float *f, size_t n, size_t stride))
{
    double piece[PIECES], sum = 0;
    size_t d_sae = in->c->d_sae, size = (d_sae + PIECES - 1) / PIECES;
    const struct active *a = in->lists;
#pragma omp parallel for schedule(dynamic)
    for (size_t p = 0; p < PIECES; p++) {
        piece[p] = 0;
        for (size_t j = p * size; j < (p + 1) * size && j < d_sae; j++)
            piece[p] += a ? of(in, j, a->f + a->begin[j], a->begin[j + 1] - a->begin[j], 1)
                          : of(in, j, in->w->f + j, in->rows, d_sae);
    }
    for (size_t p = 0; p < PIECES; p++)
        sum += piece[p];
    return sum;
}

int objective_init(struct objective *o, const struct backend_setup *setup, struct err *e)
{
    *o = (struct objective){.n = setup->n_terms};
    if (setup->n_terms == 0 || setup->n_terms > TERMS_MAX)
        return err_set(e, ERR_INPUT, "%zu loss terms, must be 1 to %d", setup->n_terms, TERMS_MAX);
    for (size_t i = 0; i < o->n; i++)
        if (!(o->terms[i] = term_find(setup->terms[i])))
            return err_set(e, ERR_INPUT, "loss term '%s' is not known", setup->terms[i]);
    return 0;
}

void objective_values(const struct objective *o, const struct term_input *in, double *value)
{
    for (size_t i = 0; i < o->n; i++)
        value[i] = o->terms[i]->value(in);
}

double objective_to_output(const struct objective *o, const struct term_input *in)
{
    double factor = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->terms[i]->to_output)
            factor += o->weight[i] * o->terms[i]->to_output(in);
    return factor;
}

void objective_to_entries(const struct objective *o, const struct term_input *in, size_t latent, const float *f,
                          float *grad, size_t n, size_t stride)
{
    for (size_t i = 0; i < o->n; i++)
        if (o->terms[i]->to_entries)
            o->terms[i]->to_entries(in, o->weight[i], latent, f, grad, n, stride);
}

void objective_to_decoder(const struct objective *o, const struct term_input *in, float *factor)
{
    size_t n_sites = in->c->n_sites;
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < in->c->d_sae; j++)
        for (size_t site = 0; site < n_sites; site++) {
            double norm = in->w->dec_norm[j * n_sites + site], slope = 0;
            for (size_t i = 0; i < o->n; i++)
                if (o->terms[i]->to_norm)
                    slope += o->terms[i]->to_norm(in, o->weight[i], j, site);
            factor[j * n_sites + site] = norm > 0 ? (float)(slope / norm) : 0;
        }
}
