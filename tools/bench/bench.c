/* bench.c - the trainer's step, phase by phase, against what bounds each phase on this machine, measured in the same
 * run.
 *
 * Rows are normal, weights normal, and each latent's encoder bias set so that it is active at its own rate; the rates
 * follow a power law (a few latents fire often, most seldom, as in trained crosscoders) and sum to the L0 asked for.
 * Bounds: BLIS's own product of the encoder's shape; memory, read and written as Adam does; the second-level cache,
 * read a tile's row at a time. Every repetition measures all of them in turn, and medians are printed: a machine shared
 * with others slows both sides. Exit status as the programs'. */
#include <argp.h>
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
#include "kernels.h"
#include "mem.h"
#include "rng.h"
#include "safetensors.h"
#include "step.h"

enum { MAX_REPS = 99 };

struct arguments {
    size_t n_inputs, n_sites, d_sae, batch, l0, threads, reps;
    enum step_path path;
    bool recompute, json;
    const char *write;
};

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
    struct arguments a;
    struct crosscoder c;
    struct train_state t;
    struct step_report report, first; /* first: of the weights as written, for others to compare with */
    float *x;
    uint16_t *window; /* [window_rows, n_inputs] */
    size_t window_rows;
    double seconds[QUANTITIES][MAX_REPS];
};

/* ---- data ---- */

/* z with P(normal > z) = p */
static double quantile(double p)
{
    double low = -10, high = 10;
    for (int i = 0; i < 60; i++) {
        double z = (low + high) / 2;
        if (erfc(z / sqrt(2)) / 2 > p)
            low = z;
        else
            high = z;
    }
    return low;
}

static int make(struct bench *b, struct err *e)
{
    const struct arguments *a = &b->a;
    const struct train_setup setup = {a->batch, a->path, !a->recompute};
    if (a->n_inputs % a->n_sites)
        return err_set(e, ERR_INPUT, "%zu inputs are not %zu sites of one size", a->n_inputs, a->n_sites);
    if (crosscoder_init(&b->c, a->n_sites, a->n_inputs / a->n_sites, a->d_sae, e) ||
        train_state_init(&b->t, &b->c, &setup, e))
        return e->code;
    b->window_rows = 4 * a->batch;
    b->x = mem_alloc(a->batch * a->n_inputs, sizeof *b->x, "batch", e);
    b->window = mem_alloc(b->window_rows * a->n_inputs, sizeof *b->window, "window", e);
    uint32_t *rank = malloc(a->d_sae * sizeof *rank);
    if (!b->x || !b->window || !rank)
        return err_set(e, ERR_MEMORY, "no memory for the batch");
    double norm = 0.1, sum = 0, top;
    crosscoder_init_weights(&b->c, norm, 1);
#pragma omp parallel for
    for (size_t row = 0; row < b->window_rows; row++) {
        struct rng r;
        rng_init(&r, 2, RNG_TEST, row);
        for (size_t i = 0; i < a->n_inputs; i++) {
            float v = (float)rng_normal(&r);
            b->window[row * a->n_inputs + i] = bf16_from_f32(v);
            if (row < a->batch)
                b->x[row * a->n_inputs + i] = v;
        }
    }
    struct rng r;
    rng_init(&r, 3, RNG_TEST, 0);
    rng_permutation(&r, rank, a->d_sae);
    for (size_t j = 0; j < a->d_sae; j++)
        sum += pow((double)j + 10, -0.75);
    top = (double)a->l0 / sum;
    double spread = norm * sqrt((double)a->n_sites); /* of the pre-activations: x is normal */
    for (size_t j = 0; j < a->d_sae; j++)
        b->c.b_enc[j] = (float)(-spread * quantile(fmin(0.5, top * pow((double)rank[j] + 10, -0.75))));
    free(rank);
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
        {"x", TENSOR_F32, 2, {b->a.batch, c->n_inputs}},
    };
    struct safetensors_writer w;
    if (safetensors_write_begin(&w, b->a.write, specs, 5, NULL, 0, e) == 0 &&
        safetensors_write_data(&w, c->params, c->n_params * sizeof(float), e) == 0 &&
        safetensors_write_data(&w, b->x, b->a.batch * c->n_inputs * sizeof(float), e) == 0 &&
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
    size_t rows = b->a.batch, n = c->n_inputs;
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

/* All rows of a tile, in random order, over and over, by every thread; bytes: of all threads. */
static double time_cache(struct bench *b, double *bytes)
{
    enum { ROUNDS = 200 };
    const struct tile *t = b->t.forward.tiles.tile;
    size_t rows = b->a.batch;
    float *tile = b->t.forward.residual;
    uint32_t *order = malloc(rows * sizeof *order);
    float *ones = malloc(rows * sizeof *ones);
    struct rng r;
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
    double seconds = clock_s() - start;
    free(order);
    free(ones);
    *bytes = (double)ROUNDS * (double)omp_get_max_threads() * (double)(rows * t->lanes) * sizeof(float);
    return seconds;
}

/* A batch of random rows of the window. */
static double time_gather(struct bench *b)
{
    size_t n = b->c.n_inputs;
    double start = clock_s();
#pragma omp parallel for schedule(static)
    for (size_t row = 0; row < b->a.batch; row++) {
        size_t from = row * 2654435761u % b->window_rows;
        bf16_to_f32_n(b->t.forward.residual + row * n, (const unsigned char *)(b->window + from * n), n);
    }
    return clock_s() - start;
}

/* ---- measuring and printing ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(struct bench *b, enum quantity q)
{
    qsort(b->seconds[q], b->a.reps, sizeof(double), compare);
    return b->seconds[q][b->a.reps / 2];
}

static int measure(struct bench *b, double *memory_bytes, double *cache_bytes, struct err *e)
{
    const struct step_options o = {
        .adam = {0.9, 0.999, 1e-8}, .max_norm = 1, .lr = 1e-7, .l1_coeff = 2, .dead_rows = UINT64_MAX};
    for (size_t i = 0; i <= b->a.reps; i++) { /* the first is a warm-up */
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
        b->seconds[CACHE][k] = time_cache(b, cache_bytes);
        b->seconds[MEMORY][k] = time_memory(b, memory_bytes);
    }
    return 0;
}

static void print_phase(const char *name, double seconds, double step, double amount, const char *unit, double bound,
                        const char *bound_name)
{
    printf("%-28s %8.4f s %5.1f %% of the step %8.1f %s, %5.1f %% of %s\n", name, seconds, 100 * seconds / step,
           amount / seconds * 1e-9, unit, 100 * bound / seconds, bound_name);
}

static void print(struct bench *b, double memory_bytes, double cache_bytes)
{
    double s[QUANTITIES];
    for (enum quantity q = 0; q < QUANTITIES; q++)
        s[q] = median(b, q);
    double rows = (double)b->a.batch, n = (double)b->c.n_inputs, d = (double)b->c.d_sae, entries = b->report.l0 * rows;
    double flops = 2 * rows * n * d, adam = 24 * (double)b->c.n_params;
    double memory = memory_bytes / s[MEMORY], cache = cache_bytes / s[CACHE];
    double encode = s[SGEMM], touch = 4 * entries * n; /* the rows of all entries, once */
    bool sparse = b->report.path == STEP_SPARSE;
    const char *path = sparse ? "sparse" : "dense";
    if (b->a.json) {
        json_t *line = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "path", path,
                                 "l0", b->first.l0, "loss", b->first.loss, "grad_norm", b->first.grad_norm, "step_s",
                                 s[STEP], "encode_s", s[ENCODE], "decode_s", s[DECODE], "gradient_s", s[GRADIENT],
                                 "update_s", s[UPDATE], "sgemm_s", s[SGEMM], "gather_s", s[GATHER], "memory_gb_s",
                                 memory * 1e-9, "cache_gb_s", cache * 1e-9);
        json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        json_decref(line);
        putchar('\n');
        return;
    }
    printf("%zu inputs (%zu sites), d_sae %zu, batch %zu, L0 %.1f, %zu threads, %s, %s path, medians of %zu\n",
           b->c.n_inputs, b->c.n_sites, b->c.d_sae, b->a.batch, b->report.l0, b->a.threads, kernels_best()->name, path,
           b->a.reps);
    printf("bounds: sgemm %.1f GFLOP/s, memory %.1f GB/s, second-level cache %.1f GB/s\n", flops / s[SGEMM] * 1e-9,
           memory * 1e-9, cache * 1e-9);
    print_phase("encoder, all", s[ENCODE], s[STEP], flops, "GFLOP/s", encode, "sgemm");
    if (sparse) {
        double rest = s[STEP] - s[ENCODE];
        print_phase("  its products in tiles", s[TILES], s[STEP], flops, "GFLOP/s", encode, "sgemm");
        print_phase("  threshold and lists", fmax(s[ENCODE] - s[TILES], 1e-9), s[STEP], 4 * rows * d, "GB/s",
                    4 * rows * d / cache, "the cache");
        print_phase("decode", s[DECODE], s[STEP], 2 * touch, "GB/s", 2 * touch / cache + 4 * n * d / memory,
                    "cache and memory");
        print_phase("gradient, norms", s[GRADIENT], s[STEP], 2 * touch, "GB/s", 2 * touch / cache + 4 * n * d / memory,
                    "cache and memory");
        print_phase("gradient again and Adam", s[UPDATE], s[STEP], 2 * touch + adam, "GB/s",
                    2 * touch / cache + adam / memory, "cache and memory");
        print_phase("all but the encoder", rest, s[STEP], 6 * touch + adam + 8 * n * d, "GB/s",
                    6 * touch / cache + (adam + 8 * n * d) / memory, "cache and memory");
    } else {
        print_phase("decode", s[DECODE], s[STEP], flops, "GFLOP/s", encode, "sgemm");
        print_phase("gradients", s[GRADIENT], s[STEP], 3 * flops, "GFLOP/s", 3 * encode, "sgemm");
        if (b->a.recompute)
            print_phase("two gradients again, Adam", s[UPDATE], s[STEP], 2 * flops, "GFLOP/s",
                        2 * encode + adam / memory, "sgemm and memory");
        else
            print_phase("Adam", s[UPDATE], s[STEP], adam * 28 / 24, "GB/s", adam * 28 / 24 / memory, "memory");
    }
    print_phase("step", s[STEP], s[STEP], flops, "GFLOP/s", encode, "one sgemm");
    printf("%.0f rows/s; beside the step, gathering a batch from bf16: %.4f s, %.1f GB/s\n", rows / s[STEP], s[GATHER],
           6 * rows * n / s[GATHER] * 1e-9);
}

/* ---- command line ---- */

static const struct argp_option options[] = {
    {"n-inputs", 'n', "N", 0, "sites times d_model (9216)", 0},
    {"sites", 's', "N", 0, "sites (12)", 0},
    {"d-sae", 'd', "N", 0, "latents (16384)", 0},
    {"batch", 'b', "N", 0, "rows a step (2048)", 0},
    {"l0", 'l', "N", 0, "active latents a row (128)", 0},
    {"threads", 't', "N", 0, "threads (all cores)", 0},
    {"reps", 'r', "N", 0, "repetitions, of which the median counts (5)", 0},
    {"path", 'p', "PATH", 0, "auto, dense or sparse (auto)", 0},
    {"recompute", 'R', NULL, 0, "dense steps keep no gradients", 0},
    {"json", 'j', NULL, 0, "one JSON line instead of the table", 0},
    {"write", 'w', "FILE", 0, "write weights and batch (safetensors) before the first step", 0},
    {0},
};

static void count(size_t *out, const char *text, struct argp_state *state)
{
    char *end;
    unsigned long long v = strtoull(text, &end, 10);
    if (*end || v == 0 || v > UINT32_MAX || *text == '-')
        argp_error(state, "%s: not a number from 1 on", text);
    *out = (size_t)v;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case 'n':
        count(&a->n_inputs, text, state);
        return 0;
    case 's':
        count(&a->n_sites, text, state);
        return 0;
    case 'd':
        count(&a->d_sae, text, state);
        return 0;
    case 'b':
        count(&a->batch, text, state);
        return 0;
    case 'l':
        count(&a->l0, text, state);
        return 0;
    case 't':
        count(&a->threads, text, state);
        return 0;
    case 'r':
        count(&a->reps, text, state);
        if (a->reps > MAX_REPS)
            argp_error(state, "more than %d repetitions", MAX_REPS);
        return 0;
    case 'p':
        a->path = strcmp(text, "dense") == 0 ? STEP_DENSE : strcmp(text, "sparse") == 0 ? STEP_SPARSE : STEP_AUTO;
        if (a->path == STEP_AUTO && strcmp(text, "auto") != 0)
            argp_error(state, "%s: no such path", text);
        return 0;
    case 'R':
        a->recompute = true;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case 'w':
        a->write = text;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {options, parse, NULL, "Times a training step, phase by phase.", NULL, NULL, NULL};
    static struct bench b;
    struct err e;
    double memory_bytes = 0, cache_bytes = 0;
    b.a = (struct arguments){.n_inputs = 9216,
                             .n_sites = 12,
                             .d_sae = 16384,
                             .batch = 2048,
                             .l0 = 128,
                             .threads = (size_t)omp_get_num_procs(),
                             .reps = 5};
    argp_parse(&argp, argc, argv, 0, NULL, &b.a);
    omp_set_num_threads((int)b.a.threads);
    gemm_set_threads((int)b.a.threads);
    int rc = make(&b, &e);
    if (rc == 0 && b.a.write)
        rc = write_data(&b, &e);
    if (rc == 0)
        rc = measure(&b, &memory_bytes, &cache_bytes, &e);
    if (rc == 0)
        print(&b, memory_bytes, cache_bytes);
    else
        fprintf(stderr, "bench: %s\n", e.message);
    train_state_release(&b.t);
    crosscoder_release(&b.c);
    mem_free(b.x);
    mem_free(b.window);
    return rc ? 1 : 0;
}
