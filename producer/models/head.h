/* head.h - the last step of a model, from the residual stream to logits: the final norm and the unembedding. */
#ifndef CROSSFEED_HEAD_H
#define CROSSFEED_HEAD_H

#include <stddef.h>

#include "err.h"
#include "forward_kernels.h"
#include "norm.h"

#define HEAD_TOKENS ((size_t)128) /* whose logits exist at a time: those of a whole pass would take gigabytes */

struct head {
    struct norm norm;
    const float
        *unembedding; /* [vocab_size, d]; borrowed from the model; NULL: the model was opened without its head */
    size_t vocab_size;
};

/* Receives the logits [n, vocab_size], fp32, of the tokens [first, first + n) of a pass, sequence after sequence; n is
 * at most HEAD_TOKENS. They exist until it returns. Not 0 (e filled) ends the pass. */
typedef int (*head_receiver)(void *context, size_t first, size_t n, const float *logits, struct err *e);

/* Computes logits = norm(x) unembedding^T, always in fp32, for x [tokens, d], and hands them over in order. normed [at
 * least HEAD_TOKENS, d] and logits [HEAD_TOKENS, vocab_size] are overwritten. Returns 0 or what receive returned. */
int head_run(const struct head *h, const struct forward_kernels *kernels, const float *x, size_t tokens, float *normed,
             float *logits, head_receiver receive, void *context, struct err *e);

#endif
