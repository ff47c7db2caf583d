/* recipe.c - see recipe.h. */
#include "recipe.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const activation_names[] = {"relu", "topk", "batchtopk", "jumprelu"};

static bool has_k(const struct config *c)
{
    return c->activation == ACTIVATION_TOPK || c->activation == ACTIVATION_BATCHTOPK;
}

static void exclusive(const struct config *c, size_t n[2])
{
    char *end;
    n[0] = n[1] = 0;
    if (!*c->exclusive_latents)
        return;
    n[0] = strtoul(c->exclusive_latents, &end, 10); /* config.c has checked the text */
    n[1] = strtoul(end + 1, NULL, 10);
}

/* Which keys belong to which activations. */
static const struct {
    const char *key;
    bool relu, k, jumprelu;
} owned[] = {
    {"l1_coeff", true, false, false},
    {"l1_warmup", true, false, false},
    {"l1_norm", true, false, false},
    {"resample_steps", true, false, false},
    {"k", false, true, false},
    {"k_start", false, true, false},
    {"k_anneal_steps", false, true, false},
    {"score", false, true, false},
    {"threshold_start", false, true, false},
    {"threshold_beta", false, true, false},
    {"aux_coeff", false, true, false},
    {"aux_k", false, true, false},
    {"l0_coeff", false, false, true},
    {"tanh_scale", false, false, true},
    {"pre_act_coeff", false, false, true},
    {"bandwidth", false, false, true},
    {"ste_to_input", false, false, true},
    {"log_threshold_init", false, false, true},
    {"dec_init_norm", true, true, false},
};

int recipe_check(const struct config *c, struct err *e)
{
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) {
        bool fits = has_k(c) ? owned[i].k : c->activation == ACTIVATION_JUMPRELU ? owned[i].jumprelu : owned[i].relu;
        if (!fits && config_is_given(c, owned[i].key))
            return err_set(e, ERR_INPUT, "%s is given, activation %s has no use for it", owned[i].key,
                           activation_names[c->activation]);
    }
    if (c->lr_warmup_steps && config_is_given(c, "lr_warmup") && config_is_given(c, "lr_warmup_steps"))
        return err_set(e, ERR_INPUT, "lr_warmup %g and lr_warmup_steps %" PRIu64 " exclude each other", c->lr_warmup,
                       c->lr_warmup_steps);
    if (c->expansion && config_is_given(c, "expansion") && config_is_given(c, "dict_size"))
        return err_set(e, ERR_INPUT, "dict_size %" PRIu64 " and expansion %" PRIu64 " exclude each other", c->dict_size,
                       c->expansion);
    if (c->fail_on_collapse && !c->eval_blocks)
        return err_set(
            e, ERR_INPUT,
            "fail_on_collapse is true, eval_blocks 0: a collapse shows on held-out blocks, of which there are none");
    if (c->k_start && !c->k_anneal_steps)
        return err_set(e, ERR_INPUT, "k_start %" PRIu64 " with k_anneal_steps 0: over how many steps?", c->k_start);
    return 0;
}

/* Ties initial decoders only where there is something to tie: a flag that asks for it otherwise is refused, a preset does not mean it. */
static int settle_tied(struct config *c, const struct stream *stream, struct err *e)
{
    struct err why;
    if (!c->init_tied_models || stream_pairs_models(stream, &why) == 0)
        return 0;
    if (config_is_given(c, "init_tied_models"))
        return err_set(e, ERR_INPUT, "init_tied_models: %s", why.message);
    c->init_tied_models = false;
    return 0;
}

int recipe_settle(struct config *c, const struct stream *stream, struct err *e)
{
    if (c->expansion && !config_is_given(c, "dict_size"))
        c->dict_size = c->expansion * stream->d_model;
    if (has_k(c) && c->aux_k == 0)
        c->aux_k = stream->d_model / 2 ? stream->d_model / 2 : 1;
    if (has_k(c) && c->score == CONFIG_SCORE_DEFAULT)
        c->score = c->activation == ACTIVATION_TOPK ? CONFIG_SCORE_NONE : CONFIG_SCORE_NORM_SUM;
    if (has_k(c) && (c->k > c->dict_size || c->k_start > c->dict_size))
        return err_set(e, ERR_INPUT, "k %" PRIu64 " is more than dict_size %" PRIu64,
                       c->k > c->k_start ? c->k : c->k_start, c->dict_size);
    if ((c->shared_latents || *c->exclusive_latents) && stream_pairs_models(stream, e))
        return err_prefix(e, "%s", c->shared_latents ? "shared_latents" : "exclusive_latents");
    return settle_tied(c, stream, e);
}

struct backend_setup recipe_setup(const struct config *c, const struct stream *stream)
{
    struct backend_setup s = {.n_sites = stream->n_sites,
                              .d_model = stream->d_model,
                              .d_sae = c->dict_size,
                              .batch_size = c->batch_size,
                              .activation = activation_names[c->activation],
                              .terms = {c->reconstruction == RECONSTRUCTION_NORM ? "norm" : "l2"},
                              .n_terms = 1,
                              .shared_coeff = c->shared_coeff,
                              .partition = {.shared = c->shared_latents}};
    exclusive(c, s.partition.exclusive);
    s.two_models = stream_pairs_models(stream, NULL) == 0;
    if (has_k(c)) {
        s.score = c->score == CONFIG_SCORE_NONE   ? SCORE_NONE
                  : c->score == CONFIG_SCORE_NORM ? SCORE_NORM
                                                  : SCORE_NORM_SUM;
        s.most_k = c->k > c->k_start ? c->k : c->k_start;
        s.aux_k = c->aux_k;
        if (c->aux_coeff > 0)
            s.terms[s.n_terms++] = "aux";
    } else if (c->activation == ACTIVATION_JUMPRELU) {
        s.bandwidth = c->bandwidth;
        s.ste_to_input = c->ste_to_input;
        s.tanh_scale = c->tanh_scale;
        s.terms[s.n_terms++] = "tanh";
        s.terms[s.n_terms++] = "pre_act";
    } else {
        s.terms[s.n_terms++] = c->l1_norm == L1_NORM_JOINT ? "l1_joint" : "l1";
    }
    return s;
}

/* Returns k at a step: linear from k_start to k, rounded, at least 1. */
static size_t k_at(const struct config *c, uint64_t step)
{
    if (!c->k_start || step >= c->k_anneal_steps)
        return c->k;
    double from = (double)c->k_start, to = (double)c->k, share = (double)step / (double)c->k_anneal_steps;
    double k = nearbyint(from + (to - from) * share);
    return k < 1 ? 1 : (size_t)k;
}

struct step_options recipe_step(const struct config *c, const struct schedule *schedule, uint64_t step)
{
    struct step_options o = {
        .adam = {.beta1 = c->beta1, .beta2 = c->beta2, .eps = c->eps},
        .max_norm = c->max_grad_norm,
        .lr = schedule_lr(schedule, step),
        .weight = {1},
        .dead_rows = c->dead_rows,
    };
    if (has_k(c)) {
        o.k = k_at(c, step);
        o.move_threshold = step >= c->threshold_start;
        o.threshold_beta = c->threshold_beta;
        o.weight[1] = c->aux_coeff;
    } else if (c->activation == ACTIVATION_JUMPRELU) {
        o.weight[1] = c->l0_coeff * (double)step / (double)schedule->total_steps;
        o.weight[2] = c->pre_act_coeff;
    } else {
        o.weight[1] = schedule_l1_coeff(schedule, step);
    }
    return o;
}

bool recipe_resamples(const struct config *c, uint64_t steps, uint64_t *before)
{
    *before = 0;
    for (const char *text = c->resample_steps; *text;) {
        char *end;
        uint64_t step = strtoull(text, &end, 10); /* config.c has checked that they ascend */
        if (step == steps)
            return true;
        *before = step;
        text = *end ? end + 1 : end;
    }
    return false;
}
