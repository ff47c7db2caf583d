/* adam.c - see adam.h. One pass over five arrays: bound by memory, not by arithmetic. */
#include "adam.h"

#include <math.h>

void adam_update(const struct adam *a, float *p, float *m, float *v, const float *grad, size_t n, float grad_scale,
                 double lr, uint64_t t)
{
    float one_minus_beta1 = (float)(1 - a->beta1), beta2 = (float)a->beta2, one_minus_beta2 = (float)(1 - a->beta2);
    float step_size = (float)(lr / (1 - pow(a->beta1, (double)t)));
    float correction2 = (float)sqrt(1 - pow(a->beta2, (double)t)), eps = (float)a->eps;
#pragma omp parallel for simd schedule(static)
    for (size_t i = 0; i < n; i++) {
        float g = grad_scale * grad[i];
        m[i] += one_minus_beta1 * (g - m[i]);
        v[i] = beta2 * v[i] + one_minus_beta2 * g * g;
        p[i] -= step_size * m[i] / (sqrtf(v[i]) / correction2 + eps);
    }
}
