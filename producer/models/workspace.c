/* workspace.c - see workspace.h. */
#include "workspace.h"

#include <omp.h>
#include <stdint.h>

#include "gemm_bf16.h"
#include "mem.h"

static int grow(struct workspace_buffer *b, size_t rows, size_t columns, size_t element, const char *what,
                struct err *e)
{
    size_t size;
    if (!size_product((const size_t[]){rows, columns, element}, 3, &size))
        return err_set(e, ERR_MEMORY, "%s: %zu x %zu values do not fit in memory", what, rows, columns);
    if (b->data && b->size >= size)
        return 0;
    mem_free(b->data);
    *b = (struct workspace_buffer){.data = mem_alloc(size, 1, what, e)};
    if (!b->data)
        return ERR_MEMORY;
    b->size = size;
    return 0;
}

int workspace_reserve(struct workspace *w, const struct workspace_sizes *s, size_t n, size_t seq_len, struct err *e)
{
    size_t tokens = 0, threads = (size_t)omp_get_max_threads(), fp32 = sizeof(float), bf16 = sizeof(uint16_t);
    /* Whole pieces: a bf16 product reads and writes all rows of the last one, too. */
    if (!size_mul(n, seq_len, &tokens) || tokens > SIZE_MAX - GEMM_BF16_ROWS)
        return err_set(e, ERR_MEMORY, "%zu sequences of %zu tokens do not fit in memory", n, seq_len);
    tokens = (tokens + GEMM_BF16_ROWS - 1) / GEMM_BF16_ROWS * GEMM_BF16_ROWS;
    if (grow(&w->residual, tokens, s->d, fp32, "residual stream", e) ||
        grow(&w->narrow, tokens, s->narrow, fp32, "attention heads", e) ||
        grow(&w->wide, tokens, s->wide, fp32, "hidden layer", e) ||
        grow(&w->out, tokens, s->d, fp32, "attention and MLP output", e) ||
        grow(&w->scores, threads, s->scores, fp32, "attention scores", e) ||
        grow(&w->logits, 1, s->logits, fp32, "logits", e) ||
        (s->packed && grow(&w->narrow_bf16, tokens, s->narrow, bf16, "inputs in bf16", e)) ||
        (s->packed && grow(&w->wide_bf16, tokens, s->wide, bf16, "hidden layer in bf16", e)))
        return ERR_MEMORY;
    return 0;
}

void workspace_release(struct workspace *w)
{
    struct workspace_buffer *const all[] = {&w->residual, &w->narrow,      &w->wide,      &w->out,
                                            &w->scores,   &w->narrow_bf16, &w->wide_bf16, &w->logits};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]->data);
    *w = (struct workspace){0};
}
