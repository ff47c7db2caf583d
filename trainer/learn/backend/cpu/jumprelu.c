/* jumprelu.c - the activation "jumprelu" (Rajamanoharan et al. 2024): f = p where p > theta = exp(log_threshold), else 0; theta is trained.
 *
 * A step function has no gradient to its threshold. The straight-through estimate is, where |p - theta| < bandwidth / 2,
 *   d f / d log_threshold = -theta / bandwidth           and with ste_to_input the same, positive, added to d f / d p
 * So an entry that is not active but near has a gradient: it is kept as -0, which is 0 to every sum. The sums of max(theta - p, 0), for the
 * pre-activation loss, are counted on the way. */
#include <math.h>
#include <string.h>

#include "activation.h"
#include "forward.h"
#include "mem.h"

struct jumprelu {
    float *theta;  /* [d_sae] of this batch */
    double *below; /* [d_sae] sum over rows of max(theta - p, 0): forward's below_sum */
};

static size_t memory(const struct backend_setup *setup)
{
    return setup->d_sae * sizeof(float);
}

static void close_jumprelu(struct selection *s)
{
    struct jumprelu *u = s->own;
    if (u)
        mem_free(u->theta);
    mem_free(u);
    s->own = NULL;
}

static int open_jumprelu(struct selection *s, struct err *e)
{
    struct jumprelu *u = s->own = mem_alloc(1, sizeof *u, "selection", e);
    if (u && (u->theta = mem_alloc(s->setup->d_sae, sizeof *u->theta, "thresholds", e)))
        return 0;
    close_jumprelu(s);
    return ERR_MEMORY;
}

static void begin(struct selection *s, const struct forward *w, const struct crosscoder *c, size_t rows)
{
    struct jumprelu *u = s->own;
    (void)rows;
    u->below = w->below_sum;
    for (size_t j = 0; j < c->d_sae; j++) {
        u->theta[j] = (float)exp((double)c->log_threshold[j]);
        u->below[j] = 0;
    }
}

static void keep(const struct selection *s, float *p, const float *bias, size_t row, size_t first, size_t n,
                 uint32_t *count)
{
    const struct jumprelu *u = s->own;
    const float *theta = u->theta + first;
    double *below = u->below + first;
    float half = (float)(s->setup->bandwidth / 2);
    (void)row;
    for (size_t i = 0; i < n; i++) {
        float v = p[i] + bias[i], under = theta[i] - v;
        below[i] += under > 0 ? (double)under : 0;
        v = under >= 0 ? (under < half ? -0.0f : 0.0f) : v;
        p[i] = v;
        count[i] += !(under >= half); /* kept: active, near, or NaN */
    }
}

static void gradient(const struct selection *s, size_t latent, const float *f, float *grad, size_t n, size_t stride,
                     double *grad_threshold)
{
    const struct jumprelu *u = s->own;
    float theta = u->theta[latent], half = (float)(s->setup->bandwidth / 2),
          slope = (float)((double)theta / s->setup->bandwidth);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        float v = f[i * stride], *g = &grad[i * stride];
        bool active = v > 0, near = active ? v - theta < half : signbit(v);
        if (near)
            sum -= (double)(slope * *g);
        *g = (active ? *g : 0) + (near && s->setup->ste_to_input ? slope * *g : 0);
    }
    *grad_threshold += sum;
}

const struct activation activation_jumprelu = {.name = "jumprelu",
                                               .scope = SCOPE_ENTRY,
                                               .memory = memory,
                                               .open = open_jumprelu,
                                               .close = close_jumprelu,
                                               .begin = begin,
                                               .keep = keep,
                                               .gradient = gradient};
