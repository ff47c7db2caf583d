/* source_synthetic.c - plants a dictionary and draws rows from it; see source_synthetic.h.
 *
 * Where all latents are alike, a row costs its active latents and its noise, not the dictionary: the number of active
 * latents is drawn from the binomial distribution by its table, then that many different ones uniformly, which together
 * is an independent coin for every latent. With unequal rates or pairs, every latent has its coin. */
#include "source_synthetic.h"

#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"
#include "overwrite.h"
#include "rng.h"
#include "safetensors.h"

#define ACTIVE_MAX 512 /* beyond about 700 the table would start at a number that is 0 in double */
#define RATE_MAX 0.5   /* of a latent */
#define TOGETHER 0.9   /* probability that a latent of a pair is active where the other is */
#define SOME_SHARE \
    0.1 /* of the shared latents, those that are weak in model 1, and those that are active in it alone */

struct planted {
    enum latent_kind kind;
    uint32_t first, end; /* its sites */
    double alone;        /* share of its activations that are at the second half of them only */
    int32_t partner;     /* the other latent of its pair, or -1 */
    double rate;         /* probability to be active in a row */
};

struct workspace {        /* of one thread */
    float *row;           /* [n_sites, d_model] */
    uint32_t *active;     /* [n_latents] */
    unsigned char *taken; /* [n_latents], all 0 between rows */
};

struct synthetic {
    struct synthetic_options o;
    struct stream stream;
    struct planted *latents; /* [n_latents] */
    float *directions;       /* [n_latents, n_sites, d_model] */
    double *at_most;         /* [n_latents + 1]: probability that at most i latents are active */
    struct workspace *workspaces;
    int n_threads;
};

struct synthetic_options synthetic_defaults(void)
{
    return (struct synthetic_options){.d_model = 64,
                                      .n_sites = 4,
                                      .n_models = 1,
                                      .n_latents = 256,
                                      .local = 0.2,
                                      .exclusive = 0.2,
                                      .active = 8,
                                      .rate_spread = 1,
                                      .weak_ratio = 1,
                                      .noise = 0.01,
                                      .seq_len = 128,
                                      .n_seq = 8192,
                                      .seed = 49};
}

static int check(const struct synthetic_options *o, struct err *e)
{
    if (o->n_models < 1 || o->n_models > 2 || o->n_sites % o->n_models != 0)
        return err_set(e, ERR_INPUT,
                       "synthetic: %" PRIu32 " models, must be 1, or 2 that share %" PRIu32 " sites evenly",
                       o->n_models, o->n_sites);
    if (o->n_latents == 0 || o->n_latents > 1u << 24)
        return err_set(e, ERR_INPUT, "synthetic: %" PRIu32 " latents, must be 1 to %u", o->n_latents, 1u << 24);
    if (!(o->local >= 0) || !(o->exclusive >= 0) || !(o->local + o->exclusive <= 1))
        return err_set(e, ERR_INPUT, "synthetic: shares %g local and %g exclusive, must be >= 0 and together at most 1",
                       o->local, o->exclusive);
    if (!(o->active > 0) || !(o->active <= ACTIVE_MAX) || !(o->active <= o->n_latents / 2.0))
        return err_set(e, ERR_INPUT,
                       "synthetic: %g active of %" PRIu32 " latents, must be > 0, at most %d and at most half",
                       o->active, o->n_latents, ACTIVE_MAX);
    if (!(o->rate_spread >= 1) || !(o->rate_spread <= 1e6))
        return err_set(e, ERR_INPUT, "synthetic: rates spread by a factor %g, must be 1 to 1e6", o->rate_spread);
    if (!(o->correlated >= 0) || !(o->correlated <= 1))
        return err_set(e, ERR_INPUT, "synthetic: share %g of correlated latents, must be 0 to 1", o->correlated);
    if (!(o->weak_ratio > 0) || !(o->weak_ratio <= 1))
        return err_set(e, ERR_INPUT, "synthetic: weak ratio %g, must be > 0 and at most 1", o->weak_ratio);
    if (o->weak_ratio < 1 && o->n_models != 2)
        return err_set(e, ERR_INPUT, "synthetic: weak ratio %g with %" PRIu32 " model, must be 2", o->weak_ratio,
                       o->n_models);
    if (!(o->alone >= 0) || !(o->alone <= 1))
        return err_set(e, ERR_INPUT, "synthetic: share %g active alone, must be 0 to 1", o->alone);
    if (o->alone > 0 && o->n_models != 2)
        return err_set(e, ERR_INPUT, "synthetic: share %g active alone with %" PRIu32 " model, must be 2", o->alone,
                       o->n_models);
    if (o->aligned && o->n_models != 2)
        return err_set(e, ERR_INPUT, "synthetic: aligned with %" PRIu32 " model, must be 2", o->n_models);
    if (!(o->noise >= 0) || !(o->noise <= 1e6))
        return err_set(e, ERR_INPUT, "synthetic: noise %g, must be 0 to 1e6", o->noise);
    return 0;
}

/* Returns a number of mean 0 and standard deviation 1: the sum of four uniform bytes, less its mean 510, over
 * sqrt(4 (256^2 - 1) / 12). */
static inline float near_normal(struct rng *r)
{
    uint32_t u = rng_u32(r);
    u = (u & 0x00ff00ffu) + ((u >> 8) & 0x00ff00ffu);
    return ((float)(u & 0xffffu) + (float)(u >> 16) - 510.0f) * (1.0f / 147.80054f);
}

static void plant(struct synthetic *s)
{
    const struct synthetic_options *o = &s->o;
    size_t d_model = o->d_model;
    uint32_t n_local = 0, n_exclusive = 0, half = o->n_sites / 2;
    if (o->n_sites > 1) {
        n_local = (uint32_t)(o->local * o->n_latents + 0.5);
        n_exclusive = (uint32_t)(o->exclusive * o->n_latents + 0.5);
        if (n_exclusive > o->n_latents - n_local)
            n_exclusive = o->n_latents - n_local;
    }
    uint32_t n_shared = o->n_latents - n_local - n_exclusive;
    uint32_t n_some = (uint32_t)(SOME_SHARE * n_shared + 0.5), n_weak = o->weak_ratio < 1 ? n_some : 0;
    for (uint32_t l = 0; l < o->n_latents; l++) {
        struct rng r;
        rng_init(&r, o->seed, RNG_SYNTHETIC_DICTIONARY, l);
        uint32_t site = rng_below(&r, o->n_sites), side = rng_below(&r, 2);
        struct planted *p = &s->latents[l];
        if (l < n_shared)
            *p = (struct planted){
                .kind = LATENT_SHARED, .first = 0, .end = o->n_sites, .alone = l >= n_shared - n_some ? o->alone : 0};
        else if (l < n_shared + n_local)
            *p = (struct planted){.kind = LATENT_LOCAL, .first = site, .end = site + 1};
        else
            *p = (struct planted){.kind = LATENT_EXCLUSIVE, .first = side ? half : 0, .end = side ? o->n_sites : half};
        for (uint32_t i = p->first; i < p->end; i++) {
            float *v = s->directions + ((size_t)l * o->n_sites + i) * d_model;
            double squares = 0;
            while (squares == 0)
                for (size_t j = 0; j < d_model; j++) {
                    v[j] = near_normal(&r);
                    squares += (double)v[j] * v[j];
                }
            double factor = (0.8 + 0.4 * rng_uniform(&r)) / sqrt(squares);
            if (o->aligned && l < n_shared && i >= half) {
                memcpy(v, v - half * d_model, d_model * sizeof *v);
                factor = 1;
            }
            if (l < n_weak && i >= half)
                factor *= o->weak_ratio;
            for (size_t j = 0; j < d_model; j++)
                v[j] = (float)(v[j] * factor);
        }
    }
}

static bool all_alike(const struct synthetic_options *o)
{
    return o->rate_spread == 1 && o->correlated == 0;
}

/* Returns x^u of x >= 1 and u in [0, 1): the product of the square roots, fourth roots and so on that u's binary digits
 * name. pow may be rounded otherwise elsewhere. */
static double power(double x, double u)
{
    double result = 1;
    for (int digit = 0; digit < 40; digit++) {
        x = sqrt(x);
        u *= 2;
        if (u >= 1) {
            result *= x;
            u -= 1;
        }
    }
    return result;
}

/* Gives each latent its rate and its partner. order: room for a number per latent. */
static int set_rates(struct synthetic *s, uint32_t *order, struct err *e)
{
    const struct synthetic_options *o = &s->o;
    uint32_t n = o->n_latents, n_pairs = (uint32_t)(o->correlated * n / 2 + 0.25);
    struct rng r;
    double sum = 0, greatest = 0;
    for (uint32_t l = 0; l < n; l++) {
        s->latents[l].partner = -1;
        s->latents[l].rate = o->active / n;
    }
    if (all_alike(o))
        return 0;
    rng_init(&r, o->seed, RNG_SYNTHETIC_RATES, 0);
    rng_permutation(&r, order, n);
    for (uint32_t i = 0; i < n; i++)
        sum += s->latents[order[i]].rate = power(o->rate_spread, n > 1 ? i / (n - 1.0) * (1 - 1e-12) : 0);
    for (uint32_t l = 0; l < n; l++)
        s->latents[l].rate *= o->active / sum;
    rng_init(&r, o->seed, RNG_SYNTHETIC_RATES, 1);
    rng_permutation(&r, order, n);
    for (uint32_t i = 0; i < n_pairs; i++) {
        struct planted *a = &s->latents[order[2 * i]], *b = &s->latents[order[2 * i + 1]];
        a->partner = (int32_t)order[2 * i + 1];
        b->partner = (int32_t)order[2 * i];
        a->rate = b->rate = (a->rate + b->rate) / 2;
    }
    for (uint32_t l = 0; l < n; l++)
        greatest = s->latents[l].rate > greatest ? s->latents[l].rate : greatest;
    if (greatest > RATE_MAX)
        return err_set(e, ERR_INPUT,
                       "synthetic: rates spread by a factor %g with %g active of %" PRIu32
                       " latents: the greatest rate is %.3g, must be at most %g",
                       o->rate_spread, o->active, n, greatest, RATE_MAX);
    return 0;
}

/* Fills in the table of Binomial(n, p): P(0) = (1-p)^n, P(i+1) = P(i) (n-i)/(i+1) p/(1-p). */
static void tabulate(struct synthetic *s)
{
    uint32_t n = s->o.n_latents;
    double p = s->o.active / n, probability = 1, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        probability *= 1 - p;
    for (uint32_t i = 0; i <= n; i++) {
        sum += probability;
        s->at_most[i] = sum;
        probability *= (double)(n - i) / (i + 1.0) * (p / (1 - p));
    }
}

/* Draws how many latents are active in a row where they are all alike. */
static uint32_t draw_number(const struct synthetic *s, struct rng *r)
{
    double u = rng_uniform(r);
    uint32_t n = 0;
    while (n < s->o.n_latents && u >= s->at_most[n])
        n++;
    return n;
}

/* Draws which latents are active in a row by a coin for each. The second of a pair has that coin which makes its rate
 * equal to the first's, given that both are active together as often as TOGETHER says. Returns how many. */
static uint32_t draw_each(const struct synthetic *s, const struct workspace *w, struct rng *r)
{
    uint32_t n = 0;
    for (uint32_t l = 0; l < s->o.n_latents; l++) {
        const struct planted *p = &s->latents[l];
        double rate = p->rate;
        if (p->partner >= 0 && (uint32_t)p->partner < l)
            rate = w->taken[p->partner] ? TOGETHER : rate * (1 - TOGETHER) / (1 - rate);
        if (rng_uniform(r) < rate) {
            w->taken[l] = 1;
            w->active[n++] = l;
        }
    }
    return n;
}

static void draw_row(const struct synthetic *s, const struct workspace *w, struct rng *r)
{
    const struct synthetic_options *o = &s->o;
    size_t d_model = o->d_model, width = o->n_sites * d_model;
    float noise = (float)o->noise;
    if (noise > 0)
        for (size_t j = 0; j < width; j++)
            w->row[j] = noise * near_normal(r);
    else
        memset(w->row, 0, width * sizeof *w->row);
    bool alike = all_alike(o);
    uint32_t n = alike ? draw_number(s, r) : draw_each(s, w, r);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t l = w->active[i];
        if (alike) {
            do
                l = rng_below(r, o->n_latents);
            while (w->taken[l]);
            w->taken[l] = 1;
            w->active[i] = l;
        }
        float coefficient = (float)(0.5 + rng_uniform(r));
        const struct planted *p = &s->latents[l];
        const float *direction = s->directions + (size_t)l * width;
        size_t first = p->alone > 0 && rng_uniform(r) < p->alone ? o->n_sites / 2 : p->first;
        for (size_t j = first * d_model; j < p->end * d_model; j++)
            w->row[j] += coefficient * direction[j];
    }
    for (uint32_t i = 0; i < n; i++)
        w->taken[w->active[i]] = 0;
}

static int compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    struct synthetic *s = self;
    uint32_t seq_len = s->o.seq_len;
    if (n > s->o.n_seq || first > s->o.n_seq - n)
        return err_set(e, ERR_INPUT, "synthetic: sequences %" PRIu32 " to %" PRIu32 " wanted, there are %" PRIu32,
                       first, first + n - 1, s->o.n_seq);
#pragma omp parallel for num_threads(s->n_threads)
    for (uint32_t i = 0; i < n; i++) {
        const struct workspace *w = &s->workspaces[omp_get_thread_num()];
        struct rng random;
        rng_init(&random, s->o.seed, RNG_SYNTHETIC_ROWS, first + i);
        for (uint32_t p = 0; p < seq_len; p++) {
            size_t row = (size_t)i * seq_len + p;
            draw_row(s, w, &random);
            for (uint32_t site = 0; site < s->o.n_sites; site++)
                rows_put(r, row, site, w->row + (size_t)site * s->o.d_model);
            rows_put_origin(r, row, (struct row_origin){.sequence = first + i, .position = p});
        }
    }
    return 0;
}

static void release(void *self)
{
    struct synthetic *s = self;
    if (!s)
        return;
    for (int i = 0; s->workspaces && i < s->n_threads; i++) {
        mem_free(s->workspaces[i].row);
        mem_free(s->workspaces[i].active);
        mem_free(s->workspaces[i].taken);
    }
    mem_free(s->workspaces);
    mem_free(s->at_most);
    mem_free(s->directions);
    mem_free(s->latents);
    mem_free(s);
}

/* Describes the stream. The fingerprints cover every option, so two producers agree only if all their options do. */
static int describe(struct stream *t, const struct synthetic_options *o, struct err *e)
{
    *t = (struct stream){.n_sites = o->n_sites,
                         .d_model = o->d_model,
                         .seq_len = o->seq_len,
                         .rows_per_seq = o->seq_len,
                         .n_seq = o->n_seq,
                         .n_models = o->n_models,
                         .can_bf16 = true,
                         .can_f32 = true};
    uint32_t per_model = o->n_sites / o->n_models;
    for (uint32_t i = 0; i < o->n_sites && i < STREAM_MAX_SITES; i++)
        if (o->n_models == 1)
            snprintf(t->sites[i], SITE_NAME_SIZE, "blocks.%" PRIu32 ".hook_resid_post", i);
        else
            snprintf(t->sites[i], SITE_NAME_SIZE, "%" PRIu32 ":blocks.%" PRIu32 ".hook_resid_post", i / per_model,
                     i % per_model);
    int rc = stream_check(t, e);
    if (rc)
        return rc;
    char text[448];
    struct fingerprint f;
    snprintf(text, sizeof text, "synthetic 1 %" PRIu32 " %" PRIu32 " %a %a %a %a %" PRIu64, o->n_models, o->n_latents,
             o->local, o->exclusive, o->active, o->noise, o->seed);
    size_t used = strlen(text);
    if (!all_alike(o) || o->weak_ratio < 1 || o->aligned)
        snprintf(text + used, sizeof text - used, " rates %a %a weak %a aligned %d", o->rate_spread, o->correlated,
                 o->weak_ratio, o->aligned);
    used = strlen(text);
    if (o->alone > 0)
        snprintf(text + used, sizeof text - used, " alone %a", o->alone);
    for (uint32_t m = 0; m <= o->n_models; m++) { /* the models, then the tokens, of which there are none */
        if ((rc = fingerprint_init(&f, e)))
            return rc;
        uint32_t sizes[] = {m, o->n_sites, o->d_model, o->seq_len, o->n_seq};
        fingerprint_add_text(&f, m < o->n_models ? text : "synthetic tokens");
        fingerprint_add(&f, sizes, sizeof sizes);
        fingerprint_finish(&f, m < o->n_models ? t->model_fingerprints[m] : t->tokens_fingerprint);
    }
    return 0;
}

int source_synthetic_open(struct source *source, const struct synthetic_options *o, struct err *e)
{
    *source = (struct source){0};
    struct synthetic *s = NULL;
    int rc = check(o, e);
    if (rc)
        return rc;
    if (!(s = mem_alloc(1, sizeof *s, "synthetic source", e)))
        return ERR_MEMORY;
    s->o = *o;
    s->n_threads = omp_get_max_threads();
    if ((rc = describe(&s->stream, o, e)))
        goto out;
    rc = ERR_MEMORY;
    size_t width = (size_t)o->n_sites * o->d_model; /* stream_check: a row fits a chunk */
    if (!(s->latents = mem_alloc(o->n_latents, sizeof *s->latents, "planted latents", e)) ||
        !(s->directions = mem_alloc(o->n_latents, width * sizeof *s->directions, "planted directions", e)) ||
        !(s->at_most = mem_alloc((size_t)o->n_latents + 1, sizeof *s->at_most, "binomial table", e)) ||
        !(s->workspaces = mem_alloc((size_t)s->n_threads, sizeof *s->workspaces, "synthetic workspaces", e)))
        goto out;
    for (int i = 0; i < s->n_threads; i++) {
        struct workspace *w = &s->workspaces[i];
        if (!(w->row = mem_alloc(width, sizeof *w->row, "synthetic row", e)) ||
            !(w->active = mem_alloc(o->n_latents, sizeof *w->active, "active latents", e)) ||
            !(w->taken = mem_alloc(o->n_latents, 1, "active latents", e)))
            goto out;
    }
    plant(s);
    if ((rc = set_rates(s, s->workspaces[0].active, e)))
        goto out;
    tabulate(s);
    *source = (struct source){.stream = s->stream, .self = s, .compute = compute, .close = release};
    return 0;
out:
    release(s);
    return rc;
}

int source_synthetic_write_truth(const struct source *source, const char *path, struct err *e)
{
    const struct synthetic *s = source->self;
    const struct synthetic_options *o = &s->o;
    char n_models[16], active[32], noise[32], seed[32], local[32], exclusive[32], spread[32], correlated[32], weak[32],
        alone[32];
    snprintf(n_models, sizeof n_models, "%" PRIu32, o->n_models);
    snprintf(active, sizeof active, "%g", o->active);
    snprintf(noise, sizeof noise, "%g", o->noise);
    snprintf(seed, sizeof seed, "%" PRIu64, o->seed);
    snprintf(local, sizeof local, "%g", o->local);
    snprintf(exclusive, sizeof exclusive, "%g", o->exclusive);
    snprintf(spread, sizeof spread, "%g", o->rate_spread);
    snprintf(correlated, sizeof correlated, "%g", o->correlated);
    snprintf(weak, sizeof weak, "%g", o->weak_ratio);
    snprintf(alone, sizeof alone, "%g", o->alone);
    const char *metadata[] = {
        "n_models",    n_models, "active",     active,     "noise",     noise,
        "seed",        seed,     "local",      local,      "exclusive", exclusive,
        "rate_spread", spread,   "correlated", correlated, "aligned",   o->aligned ? "1" : "0",
        "weak_ratio",  weak,     "alone",      alone,      "model",     source->stream.model_fingerprints[0]};
    const struct tensor_spec specs[] = {{"directions", TENSOR_F32, 3, {o->n_latents, o->n_sites, o->d_model}},
                                        {"kind", TENSOR_I32, 1, {o->n_latents}},
                                        {"rate", TENSOR_F32, 1, {o->n_latents}},
                                        {"partner", TENSOR_I32, 1, {o->n_latents}},
                                        {"alone", TENSOR_F32, 1, {o->n_latents}}};
    static const struct file_kind kind_of_file = {"a planted dictionary", safetensors_file_has, "directions"};
    struct safetensors_writer w;
    if (overwrite_check(path, &kind_of_file, e))
        return e->code;
    int rc = safetensors_write_begin(&w, path, specs, sizeof specs / sizeof *specs, metadata,
                                     sizeof metadata / sizeof *metadata / 2, e);
    if (rc)
        return rc;
    rc = safetensors_write_data(&w, s->directions,
                                (size_t)o->n_latents * o->n_sites * o->d_model * sizeof *s->directions, e);
    for (uint32_t l = 0; !rc && l < o->n_latents; l++) {
        int32_t kind = (int32_t)s->latents[l].kind;
        rc = safetensors_write_data(&w, &kind, sizeof kind, e);
    }
    for (uint32_t l = 0; !rc && l < o->n_latents; l++) {
        float rate = (float)s->latents[l].rate;
        rc = safetensors_write_data(&w, &rate, sizeof rate, e);
    }
    for (uint32_t l = 0; !rc && l < o->n_latents; l++)
        rc = safetensors_write_data(&w, &s->latents[l].partner, sizeof s->latents[l].partner, e);
    for (uint32_t l = 0; !rc && l < o->n_latents; l++) {
        float alone_share = (float)s->latents[l].alone;
        rc = safetensors_write_data(&w, &alone_share, sizeof alone_share, e);
    }
    if (!rc)
        rc = safetensors_write_commit(&w, e);
    safetensors_write_abandon(&w);
    return rc;
}
