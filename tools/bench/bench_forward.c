/* bench_forward.c - the producer's forward pass of a random GPT-2; see bench.h.
 *
 * All residual streams (blocks.*.hook_resid_post) are stored as rows in bf16, as actgen does. Bounds: BLIS's sgemm, and
 * oneDNN's bf16 product, each over the four weights of a layer and all tokens; memory, by copying the residual stream.
 * Floating-point operations counted: the products, of attention the causal half alone; nothing element-wise. */
#include "bench.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "bf16.h"
#include "clock.h"
#include "file.h"
#include "forward_kernels.h"
#include "gemm.h"
#include "mem.h"
#include "model_load.h"
#include "model_run.h"
#include "random_gpt2.h"
#include "rows.h"
#include "sites.h"

enum { PRODUCT = PASS_PHASES, COPY, QUANTITIES }; /* after the phases: bounds */

struct bench {
    const struct bench_options *o;
    struct model model;
    struct workspace workspace;
    struct site_list sites;
    struct stream stream;
    struct rows rows;
    uint32_t *tokens; /* [sequences, seq_len] */
    size_t n_tokens;
    float *input, *output;   /* of the products: [n_tokens, widest] */
    uint16_t *input_bf16;    /* the same */
    double last_mean_square; /* of the last site's vectors */
    double seconds[QUANTITIES][BENCH_MAX_REPS];
};

static int store(void *context, const struct site *site, float *vectors, struct err *e)
{
    (void)e;
    struct bench *b = context;
    size_t index = (size_t)(site - b->sites.sites), d = b->stream.d_model;
#pragma omp parallel for
    for (size_t t = 0; t < b->n_tokens; t++)
        rows_put(&b->rows, t, index, vectors + t * d);
    return 0;
}

static int look(void *context, const struct site *site, float *vectors, struct err *e)
{
    (void)e;
    struct bench *b = context;
    double sum = 0;
    size_t n = b->n_tokens * b->stream.d_model;
    if ((size_t)(site - b->sites.sites) + 1 == b->sites.n)
        for (size_t i = 0; i < n; i++)
            sum += (double)vectors[i] * (double)vectors[i];
    b->last_mean_square = sum / (double)n;
    return 0;
}

static int open_model(struct bench *b, struct err *e)
{
    const struct bench_options *o = b->o;
    const struct random_gpt2 config = {.vocab_size = 50257,
                                       .n_positions = o->seq_len,
                                       .n_embd = o->d_model,
                                       .n_layer = o->n_layer,
                                       .n_head = o->n_head};
    char temporary[] = "/tmp/bench-gpt2-XXXXXX", path[4096];
    const char *folder = o->model ? o->model : mkdtemp(temporary);
    if (!folder)
        return err_set(e, ERR_SYSTEM, "%s: cannot be made", temporary);
    int rc = file_join(path, sizeof path, folder, "config.json", e);
    if (!rc && access(path, F_OK) != 0)
        rc = random_gpt2_write(folder, &config, e);
    if (!rc)
        rc = model_open(&b->model, folder, NULL, e);
    if (!o->model) { /* the map keeps the weights */
        unlink(path);
        if (file_join(path, sizeof path, folder, "model.safetensors", e) == 0)
            unlink(path);
        rmdir(folder);
    }
    const struct model *m = &b->model;
    if (!rc && (m->d_model != o->d_model || m->n_layer != o->n_layer || m->n_positions < o->seq_len))
        rc = err_set(e, ERR_MISMATCH, "%s has d_model %u, %u layers, %u positions; asked for %u, %u, %u", folder,
                     m->d_model, m->n_layer, m->n_positions, o->d_model, o->n_layer, o->seq_len);
    return rc;
}

static int make(struct bench *b, struct err *e)
{
    const struct bench_options *o = b->o;
    size_t widest = 4 * (size_t)o->d_model;
    b->n_tokens = (size_t)o->sequences * o->seq_len;
    if (open_model(b, e))
        return e->code;
    struct hook_points points = model_points(&b->model);
    if (sites_match(&b->sites, NULL, &points, 1, e))
        return e->code;
    b->stream = (struct stream){.n_sites = (uint32_t)b->sites.n, .d_model = o->d_model};
    size_t padded = (b->n_tokens + GEMM_BF16_ROWS - 1) / GEMM_BF16_ROWS * GEMM_BF16_ROWS;
    if (rows_init(&b->rows, &b->stream, b->n_tokens, e) ||
        !(b->tokens = mem_alloc(b->n_tokens, sizeof *b->tokens, "tokens", e)) ||
        !(b->input = mem_alloc(padded * widest, sizeof *b->input, "input", e)) ||
        !(b->output = mem_alloc(padded * widest, sizeof *b->output, "output", e)) ||
        !(b->input_bf16 = mem_alloc(padded * widest, sizeof *b->input_bf16, "input", e)))
        return e->code;
    rows_begin(&b->rows, &b->stream, b->n_tokens, ROW_BF16, NULL);
    for (size_t i = 0; i < b->n_tokens; i++)
        b->tokens[i] = (uint32_t)(i * 7919 % b->model.vocab_size);
#pragma omp parallel for
    for (size_t i = 0; i < padded * widest; i++) {
        b->input[i] = (float)(i % 1021) / 1021 - 0.5f;
        b->input_bf16[i] = bf16_from_f32(b->input[i]);
    }
    return 0;
}

/* ---- bounds ---- */

/* Multiplies all tokens with one weight. */
static int multiply(struct bench *b, const struct linear *w, struct err *e)
{
    int failed = 0;
    if (!w->packed) {
        gemm(false, false, b->n_tokens, w->n, w->k, 1, b->input, w->k, w->weight, w->n, 0, b->output, w->n);
        return 0;
    }
#pragma omp parallel for schedule(dynamic) reduction(| : failed)
    for (size_t first = 0; first < b->n_tokens; first += GEMM_BF16_ROWS) {
        struct err ours;
        failed |= gemm_bf16(w->packed, b->input_bf16 + first * w->k, b->output + first * w->n, &ours) != 0;
    }
    return failed ? err_set(e, ERR_SYSTEM, "a bf16 product failed") : 0;
}

/* Times the four products of one layer. */
static int time_products(struct bench *b, size_t rep, struct err *e)
{
    struct linear *linears[LAYER_LINEARS];
    layer_linears(&b->model.layers[rep % b->model.n_layer], linears);
    double start = clock_s();
    for (size_t i = 0; i < LAYER_LINEARS; i++)
        if (multiply(b, linears[i], e))
            return e->code;
    b->seconds[PRODUCT][rep] = clock_s() - start;
    return 0;
}

static void time_copy(struct bench *b, size_t rep)
{
    size_t d = b->model.d_model;
    double start = clock_s();
#pragma omp parallel for
    for (size_t t = 0; t < b->n_tokens; t++)
        memcpy(b->output + t * d, b->input + t * d, d * sizeof(float));
    b->seconds[COPY][rep] = clock_s() - start;
}

/* ---- measuring and printing ---- */

static int run(struct bench *b, pass_hook hook, struct err *e)
{
    const struct model_request r = {.tokens = b->tokens,
                                    .n = b->o->sequences,
                                    .seq_len = b->o->seq_len,
                                    .sites = b->sites.sites,
                                    .n_sites = b->sites.n,
                                    .hook = hook,
                                    .context = b};
    return model_run(&b->workspace, &b->model, &r, e);
}

static int measure(struct bench *b, struct err *e)
{
    if (run(b, look, e)) /* a warm-up, too */
        return e->code;
    for (size_t rep = 0; rep < b->o->reps; rep++) {
        memset(b->workspace.seconds, 0, sizeof b->workspace.seconds);
        if (time_products(b, rep, e) || run(b, store, e))
            return e->code;
        for (int i = 0; i < PASS_PHASES; i++)
            b->seconds[i][rep] = b->workspace.seconds[i];
        time_copy(b, rep);
    }
    return 0;
}

struct result {
    double forward, hook, rate, share; /* seconds; of the product: flop/s; of all flops at that rate */
};

static struct result print(struct bench *b)
{
    const struct bench_options *o = b->o;
    const char *bound = b->model.packed ? "bf16 product" : "sgemm", *whole = "pass";
    double tokens = (double)b->n_tokens, d = o->d_model, layers = o->n_layer, s[QUANTITIES];
    struct result r = {0};
    for (int i = 0; i < QUANTITIES; i++)
        s[i] = bench_median(b->seconds[i], o->reps);
    for (int i = 0; i < PASS_HOOK; i++)
        r.forward += s[i];
    r.hook = s[PASS_HOOK];
    r.rate = 24 * tokens * d * d / s[PRODUCT];
    double bytes = 8 * tokens * d, memory = bytes / s[COPY];
    double weights = layers * 2 * tokens * d * d; /* of one [d, d] in each layer */
    double attention = layers * tokens * 2 * d * ((double)o->seq_len + 1);
    double all = 12 * weights + attention, stored = layers * tokens * d * 6;
    r.share = all / r.rate / r.forward;
    if (o->json)
        return r;
    printf("GPT-2, %u layers, d_model %u, %u heads, %u sequences of %u tokens, %zu threads, %s, %s, medians of %zu\n",
           o->n_layer, o->d_model, o->n_head, o->sequences, o->seq_len, o->threads, forward_kernels_best()->name,
           b->model.packed ? "bf16" : "fp32", o->reps);
    printf("bounds: %s %.1f GFLOP/s, memory %.1f GB/s\n", bound, r.rate * 1e-9, memory * 1e-9);
    bench_line("embedding", s[PASS_EMBED], r.forward, whole, 8 * tokens * d, "GB/s", 8 * tokens * d / memory, "memory");
    bench_line("layer norm, QKV", s[PASS_QKV], r.forward, whole, 3 * weights, "GFLOP/s", 3 * weights / r.rate, bound);
    bench_line("attention", s[PASS_ATTENTION], r.forward, whole, attention, "GFLOP/s", attention / r.rate, bound);
    bench_line("projection, residual", s[PASS_PROJECTION], r.forward, whole, weights, "GFLOP/s", weights / r.rate,
               bound);
    bench_line("layer norm, MLP, residual", s[PASS_MLP], r.forward, whole, 8 * weights, "GFLOP/s", 8 * weights / r.rate,
               bound);
    bench_line("forward pass", r.forward, r.forward, whole, all, "GFLOP/s", all / r.rate, bound);
    bench_line("beside it: storing the rows", r.hook, r.forward, whole, stored, "GB/s", stored / memory, "memory");
    printf("%.0f tokens/s, storing included\n", tokens / (r.forward + r.hook));
    return r;
}

static int both(struct bench *b, struct err *e)
{
    struct result fp32, bf16 = {.forward = NAN};
    if (make(b, e) || measure(b, e))
        return e->code;
    double mean_square = b->last_mean_square;
    fp32 = print(b);
    if (model_pack(&b->model, e) == 0) {
        if (!b->o->json)
            putchar('\n');
        if (measure(b, e))
            return e->code;
        bf16 = print(b);
        if (!b->o->json)
            printf("bf16 is %.2f times as fast as fp32, storing included\n",
                   (fp32.forward + fp32.hook) / (bf16.forward + bf16.hook));
    } else if (e->code != ERR_INPUT) {
        return e->code;
    } else if (!b->o->json) {
        printf("no bf16: %s\n", e->message);
    }
    if (b->o->json) {
        json_t *line =
            json_pack("{s:s, s:f, s:f, s:f, s:f, s:f}", "part", "forward", "fp32_s", fp32.forward, "store_s", fp32.hook,
                      "sgemm_gflops", fp32.rate * 1e-9, "share_of_sgemm", fp32.share, "mean_square", mean_square);
        if (isfinite(bf16.forward))
            json_object_set_new(line, "bf16_s", json_real(bf16.forward));
        json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
        json_decref(line);
        putchar('\n');
    }
    return 0;
}

int bench_forward(const struct bench_options *o, struct err *e)
{
    struct bench *b = mem_alloc(1, sizeof *b, "bench", e);
    if (!b)
        return ERR_MEMORY;
    b->o = o;
    int rc = both(b, e);
    model_close(&b->model);
    workspace_release(&b->workspace);
    rows_release(&b->rows);
    mem_free(b->tokens);
    mem_free(b->input);
    mem_free(b->output);
    mem_free(b->input_bf16);
    mem_free(b);
    return rc;
}
