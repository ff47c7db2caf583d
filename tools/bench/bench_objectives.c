/* bench_objectives.c - a step of each activation at one shape, as a ratio to relu's; see bench.h.
 *
 * All have the same weights and rows; topk and batchtopk take k = L0. With AuxK a number of latents are dead: they write little (so that they
 * are not selected) and would be active in half of the rows, which is the most that AuxK can have to do. relu is timed first and last. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "bench_data.h"
#include "clock.h"
#include "kernels.h"
#include "mem.h"

struct variant {
    const char *name, *activation;
    const char *terms[TERMS_MAX];
    size_t n_terms;
    bool dead;
};

static const struct variant variants[] = {
    {"relu, l1", "relu", {"l2", "l1"}, 2, false},
    {"topk", "topk", {"l2"}, 1, false},
    {"batchtopk", "batchtopk", {"l2"}, 1, false},
    {"batchtopk, norms of the error", "batchtopk", {"norm"}, 1, false},
    {"batchtopk, AuxK", "batchtopk", {"l2", "aux"}, 2, true},
    {"jumprelu", "jumprelu", {"l2", "tanh", "pre_act"}, 3, false},
    {"relu, l1", "relu", {"l2", "l1"}, 2, false},
};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

struct result {
    double seconds[BENCH_MAX_REPS], phases[STEP_PHASES], median;
    struct step_report report;
    size_t aux_entries;
};

/* Gives the first latents of the batch's dead ones little to write, and a bias under which half of the rows are active. */
static void make_dead(struct crosscoder *c, struct train_state *t, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        size_t j = k * (c->d_sae / n);
        c->b_enc[j] = 0;
        t->rows_since_fired[j] = 1 << 30;
        for (size_t i = 0; i < c->n_inputs; i++)
            c->w_dec[j * c->n_inputs + i] *= 1e-6f;
    }
}

static int measure(const struct bench_options *o, const struct variant *v, const float *x, struct result *out,
                   struct err *e)
{
    struct backend_setup setup = {.n_sites = o->n_sites,
                                  .d_model = o->n_inputs / o->n_sites,
                                  .d_sae = o->d_sae,
                                  .batch_size = o->batch,
                                  .activation = v->activation,
                                  .n_terms = v->n_terms,
                                  .score = SCORE_NORM_SUM,
                                  .most_k = o->l0,
                                  .aux_k = o->n_inputs / o->n_sites / 2,
                                  .bandwidth = 0.01,
                                  .tanh_scale = 4,
                                  .shared_coeff = 1};
    const struct step_options so = {.adam = {0.9, 0.999, 1e-8},
                                    .max_norm = 1,
                                    .lr = 1e-7,
                                    .weight = {1, strcmp(v->activation, "relu") == 0 ? 2 : 0.03125, 3e-6},
                                    .dead_rows = 1 << 29,
                                    .k = o->l0};
    struct crosscoder c = {0};
    struct train_state t = {0};
    memcpy(setup.terms, v->terms, sizeof setup.terms);
    int rc = crosscoder_init(&c, setup.n_sites, setup.d_model, setup.d_sae, backend_has_thresholds(&setup), e);
    if (!rc)
        rc = train_state_init(&t, &c, &setup, e);
    if (!rc)
        rc = bench_weights(&c, backend_has_k(&setup) ? o->l0 * 3 / 2 : o->l0,
                           e); /* more than k, or there is no choice */
    for (size_t j = 0; !rc && c.log_threshold && j < c.d_sae; j++) {
        c.log_threshold[j] = -4; /* as active as relu, all but */
        c.b_enc[j] += 0.0183f;
    }
    if (!rc && v->dead)
        make_dead(&c, &t, o->dead);
    for (size_t i = 0; !rc && i <= o->reps; i++) { /* the first is a warm-up */
        double start = clock_s();
        if (!(rc = train_step(&t, x, &so, &out->report, e)) && i > 0)
            out->seconds[i - 1] = clock_s() - start;
    }
    out->aux_entries = t.aux.lists.begin ? t.aux.lists.begin[c.d_sae] : 0;
    out->median = bench_median(out->seconds, o->reps);
    train_state_release(&t);
    crosscoder_release(&c);
    return rc;
}

static void print(const struct bench_options *o, const struct result *r)
{
    double relu = (r[0].median + r[VARIANTS - 1].median) / 2;
    if (!o->json)
        printf("%zu inputs (%zu sites), d_sae %zu, batch %zu, L0 = k = %zu, %zu dead, %zu threads, %s, medians of %zu\n"
               "%-32s %9s %9s %9s %9s %9s %9s %9s\n",
               o->n_inputs, o->n_sites, o->d_sae, o->batch, o->l0, o->dead, o->threads, kernels_best()->name, o->reps,
               "", "step s", "of relu", "encode", "decode", "gradient", "update", "L0");
    for (size_t i = 0; i < VARIANTS; i++) {
        const struct step_report *s = &r[i].report;
        if (o->json) {
            json_t *line = json_pack("{s:s, s:s, s:s, s:f, s:f, s:f}", "part", "objectives", "name", variants[i].name,
                                     "path", s->path == STEP_SPARSE ? "sparse" : "dense", "step_s", r[i].median,
                                     "of_relu", r[i].median / relu, "l0", s->l0);
            json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
            json_decref(line);
            putchar('\n');
            continue;
        }
        printf("%-32s %9.3f %9.3f %9.3f %9.3f %9.3f %9.3f %9.1f%s", variants[i].name, r[i].median, r[i].median / relu,
               s->seconds[STEP_ENCODE], s->seconds[STEP_DECODE], s->seconds[STEP_GRADIENT], s->seconds[STEP_UPDATE],
               s->l0, s->path == STEP_SPARSE ? "" : " (dense)");
        if (variants[i].dead)
            printf(", AuxK %.1f a row", (double)r[i].aux_entries / (double)o->batch);
        putchar('\n');
    }
}

int bench_objectives(const struct bench_options *o, struct err *e)
{
    struct result *r = mem_alloc(VARIANTS, sizeof *r, "results", e);
    float *x = mem_alloc(o->batch * o->n_inputs, sizeof *x, "batch", e);
    int rc = r && x ? 0 : ERR_MEMORY;
    if (o->dead < 1 || o->dead > o->d_sae)
        rc = err_set(e, ERR_INPUT, "%zu dead latents of %zu", o->dead, o->d_sae);
#pragma omp parallel for
    for (size_t row = 0; row < (rc ? 0 : o->batch); row++)
        bench_row(x + row * o->n_inputs, o->n_inputs, row);
    for (size_t i = 0; !rc && i < VARIANTS; i++)
        rc = measure(o, &variants[i], x, &r[i], e);
    if (!rc)
        print(o, r);
    mem_free(r);
    mem_free(x);
    return rc;
}
