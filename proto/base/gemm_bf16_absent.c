/* gemm_bf16_absent.c - takes gemm_bf16.c's place in a build without oneDNN: the product is refused where it is asked for. */
#include "gemm_bf16.h"

int gemm_bf16_new(struct gemm_bf16 **w, const float *b, size_t k, size_t n, struct err *e)
{
    (void)b, (void)k, (void)n;
    *w = NULL;
    return err_set(e, ERR_INPUT,
                   "bf16 products need oneDNN, and this program was built without it "
                   "(CROSSFEED_ONEDNN=OFF)");
}

void gemm_bf16_free(struct gemm_bf16 *w)
{
    (void)w; /* there are none */
}

int gemm_bf16(const struct gemm_bf16 *w, const uint16_t *a, float *c, struct err *e)
{
    (void)w, (void)a, (void)c;
    return err_set(e, ERR_INPUT, "bf16 products need oneDNN");
}
