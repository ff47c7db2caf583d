/* term_l2.c - the loss term "l2": the squared error, sum over sites and dimensions of (x' - x)^2, as the reference has it. */
#include "term.h"

static double value(const struct term_input *in)
{
    double sum = 0;
    for (size_t i = 0; i < in->rows * in->c->n_sites; i++)
        sum += in->w->row_residual2[i];
    return sum / (double)in->rows;
}

/* d / dx' = (2 / B) (x' - x) */
static double to_output(const struct term_input *in)
{
    return 2 / (double)in->rows;
}

const struct term term_l2 = {.name = "l2", .value = value, .to_output = to_output};
