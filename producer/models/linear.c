/* linear.c - see linear.h. */
#include "linear.h"

#include "gemm.h"

int linear_pack(struct linear *w, struct err *e)
{
    return gemm_bf16_new(&w->packed, w->weight, w->k, w->n, e);
}

void linear_unpack(struct linear *w)
{
    gemm_bf16_free(w->packed);
    w->packed = NULL;
}

size_t linear_piece(bool packed, size_t tokens)
{
    return packed ? GEMM_BF16_ROWS : gemm_piece_rows(tokens);
}

int linear_multiply(const struct linear *w, const struct operand *a, float *y, size_t first, size_t end, struct err *e)
{
    if (w->packed)
        return gemm_bf16(w->packed, a->bf16 + first * w->k, y + first * w->n, e);
    gemm_piece(false, false, end - first, w->n, w->k, 1, a->fp32 + first * w->k, w->k, w->weight, w->n, 0,
               y + first * w->n, w->n);
    return 0;
}
