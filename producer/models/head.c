/* head.c - see head.h. The product is split among threads by columns: the vocabulary is the wide side. */
#include "head.h"

#include "gemm.h"

int head_run(const struct head *h, const struct forward_kernels *kernels, const float *x, size_t tokens, float *normed,
             float *logits, head_receiver receive, void *context, struct err *e)
{
    size_t d = h->norm.d;
    int rc = 0;
    for (size_t first = 0; !rc && first < tokens; first += HEAD_TOKENS) {
        size_t n = tokens - first < HEAD_TOKENS ? tokens - first : HEAD_TOKENS;
        norm_rows(&h->norm, kernels, x + first * d, &(struct operand){normed, NULL}, 0, n);
        gemm(false, true, n, h->vocab_size, d, 1, normed, d, h->unembedding, d, 0, logits, h->vocab_size);
        rc = receive(context, first, n, logits, e);
    }
    return rc;
}
