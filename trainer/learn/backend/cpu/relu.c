/* relu.c - the activation max(p, 0) of the reference: an entry is active where its pre-activation is above 0.
 *
 * Its derivative is 1 at active entries; at p = 0 it is 0, as PyTorch has it, since such an entry is not active. */
#include "activation.h"
#include "kernels.h"

static void keep(const struct selection *s, float *p, const float *bias, size_t row, size_t first, size_t n,
                 uint32_t *count)
{
    (void)s, (void)row, (void)first;
    kernels_best()->threshold(p, bias, count, n);
}

const struct activation activation_relu = {.name = "relu", .scope = SCOPE_ENTRY, .keep = keep};
