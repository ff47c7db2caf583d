/* bench_step.c - the trainer's step; see bench.h.
 *
 * Rows are normal, weights normal, and each latent's encoder bias set so that it is active at its own rate; the rates
 * follow a power law (a few latents fire often, most seldom, as in trained crosscoders) and sum to the L0 asked for.
 * Bounds: BLIS's own product of the encoder's shape; memory, read and written as Adam does; the second-level cache,
 * read a tile's row at a time. */
#include "bench.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "bf16.h"
#include "clock.h"
#include "gemm.h"
#include "bench_data.h"
#include "kernels.h"
#include "mem.h"
#include "overwrite.h"
#include "rng.h"
#include "safetensors.h"
#include "step.h"

enum quantity {
    STEP,
    ENCODE,
    DECODE,
    GRADIENT,
    UPDATE,
    SGEMM,  /* the encoder's product as one call */
    TILES,  /* the same as the sparse encoder calls it */
    MEMORY, /* m, v read and written */
    CACHE,  /* rows of a tile read in random order */
    GATHER, /* bf16 rows from a window, to fp32 */
    QUANTITIES
};

struct bench {
    const struct bench_options *a;
    struct backend_setup setup;
    struct crosscoder c;
    struct train_state t;
    struct step_report report, first; /* first: of the weights as written, for others to compare with */
    float *x;
    uint16_t *window; /* [window_rows, n_inputs] */
    size_t window_rows;
    double seconds[QUANTITIES][BENCH_MAX_REPS];
};

/* ---- data ---- */

static int make(struct bench *b, struct err *e)
{
    const struct bench_options *a = b->a;
    b->setup = (struct backend_setup){.n_sites = a->n_sites,
                                      .d_model = a->n_inputs / a->n_sites,
                                      .d_sae = a->d_sae,
                                      .batch_size = a->batch,
                                      .activation = "relu",
                                      .terms = {"l2", "l1"},
                                      .n_terms = 2,
                                      .path = a->path,
                                      .keep_gradients = !a->recompute};
    if (crosscoder_init(&b->c, a->n_sites, a->n_inputs / a->n_sites, a->d_sae, false, e) ||
        train_state_init(&b->t, &b->c, &b->setup, e))
        return e->code;
    b->window_rows = 4 * a->batch;
    b->x = mem_alloc(a->batch * a->n_inputs, sizeof *b->x, "batch", e);
    b->window = mem_alloc(b->window_rows * a->n_inputs, sizeof *b->window, "window", e);
    if (!b->x || !b->window || bench_weights(&b->c, a->l0, e))
        return e->code;
#pragma omp parallel for
    for (size_t row = 0; row < a->batch; row++)
        bench_row(b->x + row * a->n_inputs, a->n_inputs, row);
#pragma omp parallel for
    for (size_t row = 0; row < b->window_rows; row++)
        for (size_t i = 0; i < a->n_inputs; i++)
            b->window[row * a->n_inputs + i] = bf16_from_f32(b->x[row % a->batch * a->n_inputs + i]);
    return 0;
}

/* W_enc, W_dec [d_sae, n_inputs], b_enc, b_dec, x: for bench_torch.py. */
static int write_data(const struct bench *b, struct err *e)
{
    const struct crosscoder *c = &b->c;
    const struct tensor_spec specs[] = {
        {"W_enc", TENSOR_F32, 2, {c->d_sae, c->n_inputs}},
        {"W_dec", TENSOR_F32, 2, {c->d_sae, c->n_inputs}},
        {"b_enc", TENSOR_F32, 1, {c->d_sae}},
        {"b_dec", TENSOR_F32, 1, {c->n_inputs}},
        {"x", TENSOR_F32, 2, {b->a->batch, c->n_inputs}},
    };
    static const struct file_kind kind = {"weights of a crosscoder", safetensors_file_has, "W_dec"};
    struct safetensors_writer w;
    if (overwrite_check(b->a->write, &kind, e))
        return e->code;
    if (safetensors_write_begin(&w, b->a->write, specs, 5, NULL, 0, e) == 0 &&
        safetensors_write_data(&w, c->params, c->n_params * sizeof(float), e) == 0 &&
        safetensors_write_data(&w, b->x, b->a->batch * c->n_inputs * sizeof(float), e) == 0 &&
        safetensors_write_commit(&w, e) == 0)
        return 0;
    safetensors_write_abandon(&w);
    return e->code;
}

/* ---- bounds ---- */

/* The encoder's product into f: in one call, or tile by tile by as many threads. */
static double time_product(struct bench *b, bool tiles)
{
    const struct crosscoder *c = &b->c;
    size_t rows = b->a->batch, n = c->n_inputs;
    double start = clock_s();
    if (!tiles) {
        gemm(false, true, rows, c->d_sae, n, 1, b->x, n, c->w_enc, n, 0, b->t.forward.f, c->d_sae);
        return clock_s() - start;
    }
#pragma omp parallel for schedule(dynamic)
    for (size_t j = 0; j < c->d_sae; j += ACTIVE_TILE) {
        size_t width = c->d_sae - j < ACTIVE_TILE ? c->d_sae - j : ACTIVE_TILE;
        gemm(false, true, rows, width, n, 1, b->x, n, c->w_enc + j * n, n, 0, b->t.forward.f + rows * j, width);
    }
    return clock_s() - start;
}

/* m and v of one matrix, read and written once (by what they are): the same access as Adam's, without its arithmetic.
 */
static double time_memory(struct bench *b, double *bytes)
{
    size_t n = b->c.d_sae * b->c.n_inputs;
    double start = clock_s();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) {
        b->t.m[i] = 0.5f * b->t.m[i];
        b->t.v[i] = 0.5f * b->t.v[i];
    }
    *bytes = 16 * (double)n;
    return clock_s() - start;
}

/* Reads all rows of a tile, in random order, over and over, by every thread; bytes: of all threads. */
static int time_cache(struct bench *b, double *seconds, double *bytes, struct err *e)
{
    enum { ROUNDS = 200 };
    const struct tile *t = b->t.forward.tiles.tile;
    size_t rows = b->a->batch;
    float *tile = b->t.forward.residual;
    uint32_t *order = mem_alloc(rows, sizeof *order, "order of the rows", e);
    float *ones = order ? mem_alloc(rows, sizeof *ones, "ones", e) : NULL;
    struct rng r;
    if (!ones) {
        mem_free(order);
        return ERR_MEMORY;
    }
    rng_init(&r, 4, RNG_TEST, 0);
    rng_permutation(&r, order, rows);
    for (size_t i = 0; i < rows; i++)
        ones[i] = 1;
    double start = clock_s();
#pragma omp parallel
    {
        float sum[TILE_MAX_LANES];
        for (int i = 0; i < ROUNDS; i++)
            kernels_best()->gather(sum, tile, t->lanes, order, ones, rows);
    }
    *seconds = clock_s() - start;
    mem_free(order);
    mem_free(ones);
    *bytes = (double)ROUNDS * (double)omp_get_max_threads() * (double)(rows * t->lanes) * sizeof(float);
    return 0;
}

/* A batch of random rows of the window. */
static double time_gather(struct bench *b)
{
    size_t n = b->c.n_inputs;
    double start = clock_s();
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < b->a->batch; row++) {
        size_t from = row * 2654435761u % b->window_rows;
        bf16_to_f32_n(b->t.forward.residual + row * n, (const unsigned char *)(b->window + from * n), n);
    }
    return clock_s() - start;
}

/* ---- measuring and printing ---- */

static double median(struct bench *b, enum quantity q)
{
    return bench_median(b->seconds[q], b->a->reps);
}

static int measure(struct bench *b, double *memory_bytes, double *cache_bytes, struct err *e)
{
    const struct step_options o = {
        .adam = {0.9, 0.999, 1e-8}, .max_norm = 1, .lr = 1e-7, .weight = {1, 2}, .dead_rows = UINT64_MAX};
    for (size_t i = 0; i <= b->a->reps; i++) { /* the first is a warm-up */
        size_t k = i ? i - 1 : 0;
        b->seconds[SGEMM][k] = time_product(b, false);
        double start = clock_s();
        if (train_step(&b->t, b->x, &o, &b->report, e))
            return e->code;
        if (i == 0)
            b->first = b->report;
        b->seconds[STEP][k] = clock_s() - start;
        for (enum quantity q = ENCODE; q <= UPDATE; q++)
            b->seconds[q][k] = b->report.seconds[q - ENCODE];
        b->seconds[TILES][k] = time_product(b, true);
        b->seconds[GATHER][k] = time_gather(b);
        int rc = time_cache(b, &b->seconds[CACHE][k], cache_bytes, e);
        if (rc)
            return rc;
        b->seconds[MEMORY][k] = time_memory(b, memory_bytes);
    }
    return 0;
}

static void print(struct bench *b, double memory_bytes, double cache_bytes)
{
    double s[QUANTITIES];
    for (enum quantity q = 0; q < QUANTITIES; q++)
        s[q] = median(b, q);
    double rows = (double)b->a->batch, n = (double)b->c.n_inputs, d = (double)b->c.d_sae, entries = b->report.l0 * rows;
    double flops = 2 * rows * n * d, adam = 24 * (double)b->c.n_params;
    double memory = memory_bytes / s[MEMORY], cache = cache_bytes / s[CACHE];
    double encode = s[SGEMM], touch = 4 * entries * n; /* the rows of all entries, once */
    bool sparse = b->report.path == STEP_SPARSE;
    const char *path = sparse ? "sparse" : "dense";
    if (b->a->json) {
        json_t *line = json_pack("{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "part",
                                 "step", "path", path, "l0", b->first.l0, "loss", b->first.loss, "grad_norm",
                                 b->first.grad_norm, "step_s", s[STEP], "encode_s", s[ENCODE], "decode_s", s[DECODE],
                                 "gradient_s", s[GRADIENT], "update_s", s[UPDATE], "sgemm_s", s[SGEMM], "gather_s",
                                 s[GATHER], "memory_gb_s", memory * 1e-9, "cache_gb_s", cache * 1e-9);
        json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        json_decref(line);
        putchar('\n');
        return;
    }
    printf("%zu inputs (%zu sites), d_sae %zu, batch %zu, L0 %.1f, %zu threads, %s, %s path, medians of %zu\n",
           b->c.n_inputs, b->c.n_sites, b->c.d_sae, b->a->batch, b->report.l0, b->a->threads, kernels_best()->name,
           path, b->a->reps);
    printf("bounds: sgemm %.1f GFLOP/s, memory %.1f GB/s, second-level cache %.1f GB/s\n", flops / s[SGEMM] * 1e-9,
           memory * 1e-9, cache * 1e-9);
    bench_line("encoder, all", s[ENCODE], s[STEP], "step", flops, "GFLOP/s", encode, "sgemm");
    if (sparse) {
        double rest = s[STEP] - s[ENCODE];
        bench_line("  its products in tiles", s[TILES], s[STEP], "step", flops, "GFLOP/s", encode, "sgemm");
        bench_line("  threshold and lists", fmax(s[ENCODE] - s[TILES], 1e-9), s[STEP], "step", 4 * rows * d, "GB/s",
                   4 * rows * d / cache, "the cache");
        bench_line("decode", s[DECODE], s[STEP], "step", 2 * touch, "GB/s", 2 * touch / cache + 4 * n * d / memory,
                   "cache and memory");
        bench_line("gradient, norms", s[GRADIENT], s[STEP], "step", 2 * touch, "GB/s",
                   2 * touch / cache + 4 * n * d / memory, "cache and memory");
        bench_line("gradient again and Adam", s[UPDATE], s[STEP], "step", 2 * touch + adam, "GB/s",
                   2 * touch / cache + adam / memory, "cache and memory");
        bench_line("all but the encoder", rest, s[STEP], "step", 6 * touch + adam + 8 * n * d, "GB/s",
                   6 * touch / cache + (adam + 8 * n * d) / memory, "cache and memory");
    } else {
        bench_line("decode", s[DECODE], s[STEP], "step", flops, "GFLOP/s", encode, "sgemm");
        bench_line("gradients", s[GRADIENT], s[STEP], "step", 3 * flops, "GFLOP/s", 3 * encode, "sgemm");
        if (b->a->recompute)
            bench_line("two gradients again, Adam", s[UPDATE], s[STEP], "step", 2 * flops, "GFLOP/s",
                       2 * encode + adam / memory, "sgemm and memory");
        else
            bench_line("Adam", s[UPDATE], s[STEP], "step", adam * 28 / 24, "GB/s", adam * 28 / 24 / memory, "memory");
    }
    bench_line("step", s[STEP], s[STEP], "step", flops, "GFLOP/s", encode, "one sgemm");
    printf("%.0f rows/s; beside the step, gathering a batch from bf16: %.4f s, %.1f GB/s\n", rows / s[STEP], s[GATHER],
           6 * rows * n / s[GATHER] * 1e-9);
}

int bench_step(const struct bench_options *o, struct err *e)
{
    struct bench *b = mem_alloc(1, sizeof *b, "bench", e);
    double memory_bytes = 0, cache_bytes = 0;
    if (!b)
        return ERR_MEMORY;
    b->a = o;
    int rc = make(b, e);
    if (rc == 0 && o->write)
        rc = write_data(b, e);
    if (rc == 0)
        rc = measure(b, &memory_bytes, &cache_bytes, e);
    if (rc == 0)
        print(b, memory_bytes, cache_bytes);
    train_state_release(&b->t);
    crosscoder_release(&b->c);
    mem_free(b->x);
    mem_free(b->window);
    mem_free(b);
    return rc;
}
