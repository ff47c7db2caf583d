/* term_norm.c - the loss term "norm": the mean over sites of the norm of the error at the site, not squared, as crosscoder_learning has it
 * (`--reconstruction norm`). */
#include <math.h>

#include "term.h"

static double value(const struct term_input *in)
{
    double sum = 0;
    for (size_t i = 0; i < in->rows * in->c->n_sites; i++)
        sum += sqrt(in->w->row_residual2[i]);
    return sum / (double)(in->rows * in->c->n_sites);
}

/* d / dx' = (x' - x) / (B M |x' - x|), of each row at each site; 0 where there is no error */
static void to_rows(const struct term_input *in, double weight, double *factor)
{
    double each = weight / (double)(in->rows * in->c->n_sites);
    for (size_t i = 0; i < in->rows * in->c->n_sites; i++) {
        double norm = sqrt(in->w->row_residual2[i]);
        factor[i] += norm > 0 ? each / norm : 0;
    }
}

const struct term term_norm = {.name = "norm", .value = value, .to_rows = to_rows};
