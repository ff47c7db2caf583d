/* attention.h - causal softmax attention: every head of every sequence of a pass.
 *
 * Queries, keys and values come side by side in one row a token, as the product with qkv leaves them: n_head queries,
 * then n_kv_head keys, then n_kv_head values, each of head_dim values. Consecutive groups of n_head / n_kv_head query
 * heads share a key and a value head (in GPT-2 every query head has its own). What changes queries and keys before they
 * meet, such as rotary positions, works on those rows between the product and attention_heads. */
#ifndef CROSSFEED_ATTENTION_H
#define CROSSFEED_ATTENTION_H

#include <stddef.h>

#include "forward_kernels.h"
#include "linear.h"

struct attention {
    size_t n_head, n_kv_head, head_dim; /* n_kv_head divides n_head */
    float scale;                        /* of the scores, before the softmax */
    struct linear qkv;                  /* [d, (n_head + 2 n_kv_head) head_dim] */
    struct linear out;                  /* [n_head head_dim, d] */
};

/* Returns how many floats attention_heads needs for each thread. */
size_t attention_work(const struct attention *a, size_t seq_len);

/* Computes z [n * seq_len, n_head head_dim], the heads' outputs side by side, from qkv [n * seq_len, qkv.n], of n
 * sequences. work: [threads, attention_work], overwritten. Opens a parallel region of its own, one (sequence, head) a
 * thread at a time. */
void attention_heads(const struct attention *a, const struct forward_kernels *kernels, const float *qkv, float *z,
                     size_t n, size_t seq_len, float *work);

#endif
