/* gemm_bf16.c - see gemm_bf16.h.
 *
 * A primitive of a fixed number of rows, made for one thread, is shared by all threads; each call brings its own
 * scratch memory and handles, which take microseconds beside its milliseconds. */
#include "gemm_bf16.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "mem.h"

struct gemm_bf16 {
    dnnl_engine_t engine;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t a, c, scratch;
    dnnl_memory_t b; /* in the layout that the primitive wants */
};

static int failed(dnnl_status_t status, const char *what, struct err *e)
{
    return err_set(e, status == dnnl_out_of_memory ? ERR_MEMORY : ERR_SYSTEM, "bf16 product: %s: oneDNN status %d",
                   what, (int)status);
}

static int check_processor(struct err *e)
{
    unsigned has = (unsigned)dnnl_get_effective_cpu_isa(), needed = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    if ((has & needed) == needed) /* sets of bits, each a part of the newer ones */
        return 0;
    return err_set(e, ERR_INPUT, "bf16 products need AVX-512 BF16 (oneDNN's isa 0x%x), this processor has isa 0x%x",
                   needed, has);
}

/* Makes w->b of b [k, n], rounded and laid out as wanted. */
static int pack(struct gemm_bf16 *w, const float *b, const dnnl_memory_desc_t *wanted, size_t k, size_t n,
                struct err *e)
{
    dnnl_memory_desc_t plain;
    dnnl_memory_t source = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t reorder = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_status_t s;
    if ((s = dnnl_memory_desc_init_by_tag(&plain, 2, (dnnl_dims_t){(dnnl_dim_t)k, (dnnl_dim_t)n}, dnnl_f32, dnnl_ab)) ==
            dnnl_success &&
        (s = dnnl_memory_create(&source, &plain, w->engine, (void *)(uintptr_t)b)) == dnnl_success &&
        (s = dnnl_memory_create(&w->b, wanted, w->engine, DNNL_MEMORY_ALLOCATE)) == dnnl_success &&
        (s = dnnl_reorder_primitive_desc_create(&description, &plain, w->engine, wanted, w->engine, NULL)) ==
            dnnl_success &&
        (s = dnnl_primitive_create(&reorder, description)) == dnnl_success &&
        (s = dnnl_stream_create(&stream, w->engine, dnnl_stream_default_flags)) == dnnl_success) {
        const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, w->b}};
        if ((s = dnnl_primitive_execute(reorder, stream, 2, args)) == dnnl_success)
            s = dnnl_stream_wait(stream);
    }
    dnnl_stream_destroy(stream);
    dnnl_primitive_destroy(reorder);
    dnnl_primitive_desc_destroy(description);
    dnnl_memory_destroy(source);
    return s == dnnl_success ? 0 : failed(s, "cannot lay out a weight", e);
}

static int make(struct gemm_bf16 *w, const float *b, size_t k, size_t n, struct err *e)
{
    dnnl_memory_desc_t weight;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_dim_t rows = GEMM_BF16_ROWS, inner = (dnnl_dim_t)k, columns = (dnnl_dim_t)n;
    dnnl_status_t s;
    int rc = 0;
    if ((s = dnnl_engine_create(&w->engine, dnnl_cpu, 0)) == dnnl_success &&
        (s = dnnl_memory_desc_init_by_tag(&w->a, 2, (dnnl_dims_t){rows, inner}, dnnl_bf16, dnnl_ab)) == dnnl_success &&
        (s = dnnl_memory_desc_init_by_tag(&weight, 2, (dnnl_dims_t){inner, columns}, dnnl_bf16, dnnl_format_tag_any)) ==
            dnnl_success &&
        (s = dnnl_memory_desc_init_by_tag(&w->c, 2, (dnnl_dims_t){rows, columns}, dnnl_f32, dnnl_ab)) == dnnl_success &&
        (s = dnnl_matmul_desc_init(&matmul, &w->a, &weight, NULL, &w->c)) == dnnl_success &&
        (s = dnnl_primitive_attr_create(&attributes)) == dnnl_success &&
        (s = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user)) == dnnl_success &&
        (s = dnnl_primitive_desc_create(&description, &matmul, attributes, w->engine, NULL)) == dnnl_success &&
        (s = dnnl_primitive_create(&w->primitive, description)) == dnnl_success) {
        w->scratch = *dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
        rc = pack(w, b, dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0), k, n, e);
    } else {
        rc = failed(s, "cannot make it", e);
    }
    dnnl_primitive_desc_destroy(description);
    dnnl_primitive_attr_destroy(attributes);
    return rc;
}

int gemm_bf16_new(struct gemm_bf16 **out, const float *b, size_t k, size_t n, struct err *e)
{
    *out = NULL;
    int rc = check_processor(e);
    if (rc)
        return rc;
    struct gemm_bf16 *w = mem_alloc(1, sizeof *w, "bf16 product", e);
    if (!w)
        return ERR_MEMORY;
    int threads = omp_get_max_threads();
    omp_set_num_threads(1); /* oneDNN makes a primitive for the number of threads it finds */
    rc = make(w, b, k, n, e);
    omp_set_num_threads(threads);
    if (rc) {
        gemm_bf16_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

void gemm_bf16_free(struct gemm_bf16 *w)
{
    if (!w)
        return;
    dnnl_memory_destroy(w->b);
    dnnl_primitive_destroy(w->primitive);
    dnnl_engine_destroy(w->engine);
    mem_free(w);
}

int gemm_bf16(const struct gemm_bf16 *w, const uint16_t *a, float *c, struct err *e)
{
    dnnl_memory_t source = NULL, result = NULL, scratch = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_status_t s;
    if ((s = dnnl_memory_create(&source, &w->a, w->engine, (void *)(uintptr_t)a)) == dnnl_success &&
        (s = dnnl_memory_create(&result, &w->c, w->engine, c)) == dnnl_success &&
        (s = dnnl_memory_create(&scratch, &w->scratch, w->engine, DNNL_MEMORY_ALLOCATE)) == dnnl_success &&
        (s = dnnl_stream_create(&stream, w->engine, dnnl_stream_default_flags)) == dnnl_success) {
        const dnnl_exec_arg_t args[] = {
            {DNNL_ARG_SRC, source}, {DNNL_ARG_WEIGHTS, w->b}, {DNNL_ARG_DST, result}, {DNNL_ARG_SCRATCHPAD, scratch}};
        if ((s = dnnl_primitive_execute(w->primitive, stream, 4, args)) == dnnl_success)
            s = dnnl_stream_wait(stream);
    }
    dnnl_stream_destroy(stream);
    dnnl_memory_destroy(scratch);
    dnnl_memory_destroy(result);
    dnnl_memory_destroy(source);
    return s == dnnl_success ? 0 : failed(s, "cannot run it", e);
}
