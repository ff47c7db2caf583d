/* gemm.c - row-major sgemm by BLIS's typed interface; see gemm.h.
 *
 * The threads are OpenMP's, each with a piece of C and BLIS on one thread, not BLIS's own: those spin for each other at
 * several barriers a product, and where another program has one of the cores (a trainer and a producer on one machine)
 * each waits for a time slice. Measured with two cores half busy: GPT-2's forward pass 3.5 to 12 times faster this way.
 */
#include "gemm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <omp.h>

#include <blis.h>

#include "cpu.h"

#define REGISTERS ((size_t)64) /* rows or columns that a kernel computes at a time, at most */

static int n_threads = 1;
static pthread_once_t kernels_chosen = PTHREAD_ONCE_INIT;

/* BLIS 0.9 takes its AVX-512 kernels only where it finds the processor's name in a table of 2017 (it wants to know the
 * number of FMA units), and AVX2's elsewhere: 97 instead of 148 GFLOP/s a core on the Xeon this was measured on. Where
 * the name is unknown to it, the instructions decide. A BLIS_ARCH_TYPE that the user has set stays. */
static void choose_kernels(void)
{
#if defined(BLIS_CONFIG_SKX)
    if (cpu_has_avx512()) {
        char id[16];
        snprintf(id, sizeof id, "%d", BLIS_ARCH_SKX);
        setenv("BLIS_ARCH_TYPE", id, 0);
    }
#endif
    bli_init(); /* before anything that asks for the kernels: BLIS 0.9 aborts if the variable is read first */
}

void gemm_set_threads(int threads)
{
    n_threads = threads < 1 ? 1 : threads;
}

int gemm_threads(void)
{
    return n_threads;
}

/* Each thread's product packs [mc, kc] of one operand and [kc, nc] of the other, rounded up to the kernel's registers. */
size_t gemm_memory(size_t most)
{
    pthread_once(&kernels_chosen, choose_kernels);
    cntx_t *context = bli_gks_query_cntx();
    size_t block[3];
    const bszid_t ids[] = {BLIS_MC, BLIS_KC, BLIS_NC};
    for (int i = 0; i < 3; i++) {
        size_t greatest = (size_t)bli_cntx_get_blksz_max_dt(BLIS_FLOAT, ids[i], context);
        block[i] = greatest < most + REGISTERS ? greatest : most + REGISTERS;
    }
    return (size_t)n_threads * (block[0] + block[2]) * block[1] * sizeof(float);
}

/* Computes one product on one thread. small: BLIS may take its path for small products. */
static void product(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a,
                    size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc, bool small)
{
    rntm_t rntm = BLIS_RNTM_INITIALIZER;
    bli_rntm_set_num_threads(1, &rntm);
    if (!small)
        bli_rntm_disable_l3_sup(&rntm);
    /* BLIS takes row and column strides: a transposed operand only swaps them. BLIS does not write through a or b. */
    inc_t rs_a = transpose_a ? 1 : (inc_t)lda, cs_a = transpose_a ? (inc_t)lda : 1;
    inc_t rs_b = transpose_b ? 1 : (inc_t)ldb, cs_b = transpose_b ? (inc_t)ldb : 1;
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, (dim_t)m, (dim_t)n, (dim_t)k, &alpha, (float *)(uintptr_t)a,
                 rs_a, cs_a, (float *)(uintptr_t)b, rs_b, cs_b, &beta, c, (inc_t)ldc, 1, NULL, &rntm);
}

void gemm_piece(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a,
                size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    pthread_once(&kernels_chosen, choose_kernels);
    if (m && n)
        product(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, false);
}

size_t gemm_piece_rows(size_t rows)
{
    size_t threads = (size_t)n_threads, pieces = rows / threads >= 1024 ? 2 * threads : threads;
    return ((rows + pieces - 1) / pieces + 31) / 32 * 32;
}

void gemm(bool transpose_a, bool transpose_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
          const float *b, size_t ldb, float beta, float *c, size_t ldc)
{
    if (m == 0 || n == 0)
        return;
    pthread_once(&kernels_chosen, choose_kernels);
    /* Inside a parallel region (even of one thread), and for a product of some microseconds, one thread. */
    if (omp_get_level() > 0 || (double)m * (double)n * (double)k < 1 << 20) {
        product(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, true);
        return;
    }
    /* Pieces of rows or of columns, whichever are more; two a thread if they are large (packing is done for each
     * piece). Never by the path for small products: its edge kernels sum in another order, and where the edges lie
     * depends on the number of threads (measured on BLIS 0.9: 531 of 11132 shapes differ between 1 and 2 threads;
     * without it, none). */
    bool by_rows = m >= n;
    size_t total = by_rows ? m : n, step = gemm_piece_rows(total);
#pragma omp parallel for num_threads(n_threads) schedule(dynamic)
    for (size_t i = 0; i < total; i += step) {
        size_t width = total - i < step ? total - i : step;
        if (by_rows)
            product(transpose_a, transpose_b, width, n, k, alpha, transpose_a ? a + i : a + i * lda, lda, b, ldb, beta,
                    c + i * ldc, ldc, false);
        else
            product(transpose_a, transpose_b, m, width, k, alpha, a, lda, transpose_b ? b + i * ldb : b + i, ldb, beta,
                    c + i, ldc, false);
    }
}
