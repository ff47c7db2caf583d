/* attention.c - see attention.h.
 *
 * A head runs in tiles of queries, so that its scores stay in cache and half of the causal square is never computed.
 * Its keys and values are copied close together first: rows of all heads lie a page apart, which would cost more than
 * the products. */
#include "attention.h"

#include <omp.h>
#include <string.h>

#include "gemm.h"

#define QUERY_TILE ((size_t)128)

static size_t query_tile(size_t seq_len)
{
    return seq_len < QUERY_TILE ? seq_len : QUERY_TILE;
}

size_t attention_work(const struct attention *a, size_t seq_len)
{
    return (query_tile(seq_len) + 2 * a->head_dim) * seq_len;
}

/* Computes one head of one sequence. q, k, v: its queries, keys and values, [seq_len, head_dim] each, row stride qkv.n;
 * z: its outputs, row stride n_head head_dim. work: scores [tile, seq_len], then keys and values [seq_len, head_dim] */
static void attend(const struct attention *a, const struct forward_kernels *kernels, const float *q, const float *k,
                   const float *v, float *z, size_t seq_len, float *work)
{
    size_t stride = a->qkv.n, z_stride = a->n_head * a->head_dim, d_head = a->head_dim, tile = query_tile(seq_len);
    float inverse[QUERY_TILE], *scores = work, *keys = work + tile * seq_len, *values = keys + seq_len * d_head;
    for (size_t t = 0; t < seq_len; t++) {
        memcpy(keys + t * d_head, k + t * stride, d_head * sizeof *keys);
        memcpy(values + t * d_head, v + t * stride, d_head * sizeof *values);
    }
    for (size_t first = 0; first < seq_len; first += tile) {
        size_t end = seq_len - first < tile ? seq_len : first + tile, rows = end - first;
        /* scores [rows, end] = scale * Q K^T, of the queries first..end and the keys 0..end */
        gemm(false, true, rows, end, d_head, a->scale, q + first * stride, stride, keys, d_head, 0, scores, end);
        for (size_t i = 0; i < rows; i++)
            inverse[i] = kernels->softmax(scores + i * end, first + i + 1, end);
        /* z [rows, head_dim] = scores V, divided by the sums of the scores */
        gemm(false, false, rows, d_head, end, 1, scores, end, values, d_head, 0, z + first * z_stride, z_stride);
        for (size_t i = 0; i < rows; i++)
            kernels->multiply(z + (first + i) * z_stride, inverse[i], d_head);
    }
}

void attention_heads(const struct attention *a, const struct forward_kernels *kernels, const float *qkv, float *z,
                     size_t n, size_t seq_len, float *work)
{
    size_t one = attention_work(a, seq_len), group = a->n_head / a->n_kv_head;
#pragma omp parallel for schedule(dynamic)
    for (size_t task = 0; task < n * a->n_head; task++) {
        size_t start = task / a->n_head * seq_len, head = task % a->n_head;
        const float *row = qkv + start * a->qkv.n;
        const float *k = row + (a->n_head + head / group) * a->head_dim, *v = k + a->n_kv_head * a->head_dim;
        attend(a, kernels, row + head * a->head_dim, k, v, z + (start * a->n_head + head) * a->head_dim, seq_len,
               work + (size_t)omp_get_thread_num() * one);
    }
}
