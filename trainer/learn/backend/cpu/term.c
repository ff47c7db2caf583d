/* term.c - the table of loss terms, and their sums; see term.h. */
#include "term.h"

#include <assert.h>
#include <string.h>

#include "active.h"

enum { ADDED_MAX = 4, PIECES = 256 };

static const struct term *const all[] = {
    &term_l2, &term_norm, &term_l1, &term_l1_joint, &term_tanh, &term_pre_act, &term_aux,
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

/* ---- for the terms ---- */

struct latent_entries term_entries(const struct term_input *in, size_t latent)
{
    const struct active *a = in->lists;
    if (!a)
        return (struct latent_entries){in->w->f + latent, in->rows, in->c->d_sae};
    return (struct latent_entries){a->f + a->begin[latent], a->begin[latent + 1] - a->begin[latent], 1};
}

double term_sum_latents(const struct term_input *in, double (*of)(const struct term_input *in, size_t latent))
{
    double piece[PIECES], sum = 0;
    size_t d_sae = in->c->d_sae, size = (d_sae + PIECES - 1) / PIECES;
#pragma omp parallel for schedule(dynamic)
    for (size_t p = 0; p < PIECES; p++) {
        piece[p] = 0;
        for (size_t j = p * size; j < (p + 1) * size && j < d_sae; j++)
            piece[p] += of(in, j);
    }
    for (size_t p = 0; p < PIECES; p++)
        sum += piece[p];
    return sum;
}

double term_sparsity_factor(const struct term_input *in, size_t latent)
{
    return latent < in->setup->partition.shared ? in->setup->shared_coeff : 1;
}

/* ---- the objective ---- */

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

double objective_weight(const struct objective *o, const char *name)
{
    for (size_t i = 0; i < o->n; i++)
        if (strcmp(o->terms[i]->name, name) == 0)
            return o->weight[i];
    return 0;
}

bool objective_by_rows(const struct objective *o)
{
    for (size_t i = 0; i < o->n; i++)
        if (o->terms[i]->to_rows)
            return true;
    return false;
}

bool objective_to_output(const struct objective *o, const struct term_input *in, double *uniform, double *factor)
{
    *uniform = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->terms[i]->to_output)
            *uniform += o->weight[i] * o->terms[i]->to_output(in);
    if (!objective_by_rows(o))
        return false;
    for (size_t i = 0; i < in->rows * in->c->n_sites; i++)
        factor[i] = *uniform;
    for (size_t i = 0; i < o->n; i++)
        if (o->terms[i]->to_rows)
            o->terms[i]->to_rows(in, o->weight[i], factor);
    return true;
}

void objective_to_entries(const struct objective *o, const struct term_input *in, size_t latent,
                          const struct latent_entries *entries, float *grad)
{
    for (size_t i = 0; i < o->n; i++)
        if (o->terms[i]->to_entries)
            o->terms[i]->to_entries(in, o->weight[i], latent, entries, grad);
}

void objective_to_decoder(const struct objective *o, const struct term_input *in, float *factor)
{
    size_t n_sites = in->c->n_sites;
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < in->c->d_sae; j++) {
        double slope[STREAM_MAX_SITES];
        memset(slope, 0, n_sites * sizeof *slope);
        for (size_t i = 0; i < o->n; i++)
            if (o->terms[i]->to_norms)
                o->terms[i]->to_norms(in, o->weight[i], j, slope);
        for (size_t site = 0; site < n_sites; site++) {
            double norm = in->w->dec_norm[j * n_sites + site];
            factor[j * n_sites + site] = norm > 0 ? (float)(slope[site] / norm) : 0;
        }
    }
}

double objective_to_inactive(const struct objective *o, const struct term_input *in, size_t latent)
{
    double sum = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->terms[i]->to_inactive)
            sum += o->terms[i]->to_inactive(in, o->weight[i], latent);
    return sum;
}

double objective_to_threshold(const struct objective *o, const struct term_input *in, size_t latent)
{
    double sum = 0;
    for (size_t i = 0; i < o->n; i++)
        if (o->terms[i]->to_threshold)
            sum += o->terms[i]->to_threshold(in, o->weight[i], latent);
    return sum;
}
