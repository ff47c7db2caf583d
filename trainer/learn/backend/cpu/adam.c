/* adam.c - see adam.h. One pass over four arrays: bound by memory, not by arithmetic. */
#include "adam.h"

#include <math.h>

enum { PIECE = 16384 };

struct adam_factors adam_factors(const struct adam *a, float grad_scale, double lr, uint64_t t)
{
    return (struct adam_factors){
        .grad_scale = grad_scale,
        .one_minus_beta1 = (float)(1 - a->beta1),
        .beta2 = (float)a->beta2,
        .one_minus_beta2 = (float)(1 - a->beta2),
        .step_size = (float)(lr / (1 - pow(a->beta1, (double)t))),
        .correction2 = (float)sqrt(1 - pow(a->beta2, (double)t)),
        .eps = (float)a->eps,
    };
}

void adam_update(const struct adam_factors *k, float *p, float *m, float *v, const float *grad, size_t n)
{
    const struct kernels *kernels = kernels_best();
#pragma omp parallel
    {
        uint32_t mode = kernels_flush_denormals();
#pragma omp for schedule(static)
        for (size_t i = 0; i < n; i += PIECE)
            kernels->adam(k, p + i, m + i, v + i, grad + i, n - i < PIECE ? n - i : PIECE);
        kernels_restore_denormals(mode);
    }
}
