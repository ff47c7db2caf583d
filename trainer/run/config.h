/* config.h - the run's configuration under the reference's names: one table for flags, cfg.json and resuming.
 *
 * A key's flag is its name with '-' for '_' (batch_size: --batch-size). settings.h says what a resumed run may change. To add
 * a key: a field in struct config, a line in config.c's table; `absent` is what runs did before it. */
#ifndef CROSSFEED_CONFIG_H
#define CROSSFEED_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "err.h"
#include "initial_bias.h"
#include "scale.h"
#include "settings.h"
#include "stream.h"

#define CONFIG_TEXT_SIZE SETTING_TEXT_SIZE
#define CONFIG_MAX_KEYS 256

/* The words of their keys are in config.c. */
enum config_preset {
    PRESET_NONE,
    PRESET_SEED,
    PRESET_CKKISSANE,
    PRESET_BATCHTOPK_2025,
    PRESET_JUMPRELU_2025,
    PRESET_DIFF_SAE
};
enum config_activation { ACTIVATION_RELU, ACTIVATION_TOPK, ACTIVATION_BATCHTOPK, ACTIVATION_JUMPRELU };
enum config_score { CONFIG_SCORE_DEFAULT, CONFIG_SCORE_NONE, CONFIG_SCORE_NORM, CONFIG_SCORE_NORM_SUM };
enum config_reconstruction { RECONSTRUCTION_SQUARED, RECONSTRUCTION_NORM };
enum config_l1_norm { L1_NORM_SUM, L1_NORM_JOINT };

struct config {
    /* the reference's keys */
    uint64_t seed, batch_size, buffer_mult, num_tokens, dict_size, model_batch_size;
    double lr, l1_coeff, beta1, beta2, dec_init_norm;
    /* what the reference has as constants, or lacks */
    double eps, max_grad_norm, lr_warmup, lr_decay, l1_warmup;
    uint64_t eval_blocks, scale_rows, dead_rows;
    enum row_dtype dtype;
    enum config_preset preset; /* preset.h: what it sets, where no flag did */
    /* the objective: recipe.h says what follows */
    enum config_activation activation;
    enum config_score score;
    enum config_reconstruction reconstruction;
    enum config_l1_norm l1_norm;
    uint64_t expansion, k, k_start, k_anneal_steps, threshold_start, aux_k, lr_warmup_steps, shared_latents;
    double threshold_beta, aux_coeff, l0_coeff, tanh_scale, bandwidth, pre_act_coeff, shared_coeff;
    bool ste_to_input, lr_from_zero;
    char exclusive_latents[64], resample_steps[CONFIG_TEXT_SIZE];
    char scale[CONFIG_TEXT_SIZE]; /* "" = measured */
    /* measured beside the scale, and how weights start */
    bool center, init_tied_models;
    enum scale_mode scale_mode;
    enum b_dec_init b_dec_init;
    double scale_target, log_threshold_init;
    /* the same result whatever these are */
    double audit, audit_tolerance, max_abs, max_bad;
    bool fail_on_collapse; /* but that the run ends, as does the next: */
    uint64_t skip_bad_batches;
    uint64_t log_every, eval_every, save_every, keep, save_retries, lookahead_blocks, credit, heartbeat_ms, timeout_ms,
        wait_timeout, source_retries, ban_minutes, threads;
    bool given[CONFIG_MAX_KEYS]; /* [i]: a flag set key i */
};

extern const struct setting config_keys[]; /* [config_n_keys] */
extern const size_t config_n_keys;

/* Sets every key to its default; none is given. */
void config_init(struct config *c);

/* Sets key i from a flag's text ("4e8" is a count too). Refuses what is not of its kind or out of range. */
int config_set(struct config *c, size_t i, const char *text, struct err *e);

/* Returns the index of a key that exists. */
size_t config_index(const char *name);

/* Returns whether a flag set the key of that name. */
bool config_is_given(const struct config *c, const char *name);

/* A new object with every key. NULL: out of memory. */
json_t *config_to_json(const struct config *c);

/* Makes c what the saved run had, where c was not given otherwise; see settings_resume. */
int config_resume(struct config *c, const json_t *saved, const char *path, struct err *e);

#endif
