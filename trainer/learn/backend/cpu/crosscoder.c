/* crosscoder.c - see crosscoder.h. */
#include "crosscoder.h"

#include <string.h>

#include "backend.h"
#include "mem.h"

int crosscoder_init(struct crosscoder *c, size_t n_sites, size_t d_model, size_t d_sae, bool thresholds, struct err *e)
{
    memset(c, 0, sizeof *c);
    size_t n_params = 0;
    int rc = backend_n_params(n_sites, d_model, d_sae, &n_params, e);
    if (rc)
        return rc;
    n_params += thresholds ? d_sae : 0; /* fits: 16 bytes a parameter were counted, 12 are taken */
    float *params = mem_alloc(n_params, sizeof *params, "crosscoder parameters", e);
    if (!params)
        return ERR_MEMORY;
    size_t n_inputs = n_sites * d_model, matrix = d_sae * n_inputs;
    *c = (struct crosscoder){
        .n_sites = n_sites,
        .d_model = d_model,
        .n_inputs = n_inputs,
        .d_sae = d_sae,
        .n_params = n_params,
        .params = params,
        .w_enc = params,
        .w_dec = params + matrix,
        .b_enc = params + 2 * matrix,
        .b_dec = params + 2 * matrix + d_sae,
        .log_threshold = thresholds ? params + 2 * matrix + d_sae + n_inputs : NULL,
    };
    return 0;
}

void crosscoder_release(struct crosscoder *c)
{
    mem_free(c->params);
    memset(c, 0, sizeof *c);
}
