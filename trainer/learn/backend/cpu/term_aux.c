/* term_aux.c - the loss term "aux" (AuxK, Gao et al. 2024): how well the dead latents would reconstruct the error. Its value and gradient
 * are aux.h's, which the step calls itself. */
#include "term.h"

static double value(const struct term_input *in)
{
    return in->aux_loss;
}

const struct term term_aux = {.name = "aux", .value = value};
