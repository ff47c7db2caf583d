/* site_parts.h - what a site's name says: of which model it is, and at which hook point.
 *
 *   blocks.5.hook_resid_post       of the one model that there is
 *   1:blocks.5.hook_resid_post     of model 1
 *   1-0:blocks.5.hook_resid_post   model 1's vector less model 0's, subtracted in fp32 before it is scaled
 * Names that begin otherwise, as those of imported tensors may, name no model; the whole of them is the hook point. */
#ifndef CROSSFEED_SITE_PARTS_H
#define CROSSFEED_SITE_PARTS_H

#include <stdint.h>

struct site_parts {
    uint32_t n_models;      /* that the name names: 0, 1, or 2 of a difference */
    uint32_t model, less;   /* less: of a difference, the model whose vector is subtracted */
    const char *hook_point; /* points into the name */
};

/* Takes a name apart. Numbers are decimal without leading zeros, of at most 9 digits; any name can be taken apart. */
struct site_parts site_parts(const char *name);

#endif
