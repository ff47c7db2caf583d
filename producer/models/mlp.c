/* mlp.c - see mlp.h. */
#include "mlp.h"

#include <string.h>

static const struct {
    const char *name;
    enum mlp_activation activation;
} activations[] = {
    {"gelu_new", MLP_GELU_TANH},  {"gelu", MLP_GELU_ERF},        {"relu", MLP_RELU},
    {"gelu_fast", MLP_GELU_TANH}, {"gelu_python", MLP_GELU_ERF}, {"gelu_pytorch_tanh", MLP_GELU_TANH},
};

int mlp_activation_find(const char *name)
{
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(name, activations[i].name) == 0)
            return (int)activations[i].activation;
    return -1;
}

const char *mlp_activation_name(enum mlp_activation activation)
{
    size_t i = 0;
    while (activations[i].activation != activation)
        i++;
    return activations[i].name;
}

int mlp_rows(const struct mlp *m, const struct forward_kernels *kernels, const struct operand *in,
             const struct operand *hidden, float *out, size_t first, size_t end, struct err *e)
{
    size_t inner = m->up.n;
    int rc = linear_multiply(&m->up, in, hidden->fp32, first, end, e);
    for (size_t t = first; !rc && t < end; t++) {
        kernels->activate(hidden->fp32 + t * inner, m->up.bias, m->activation, inner);
        operand_round(hidden, kernels, inner, t, t + 1);
    }
    return rc ? rc : linear_multiply(&m->down, hidden, out, first, end, e);
}
