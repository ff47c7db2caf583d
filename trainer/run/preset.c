/* preset.c - the table of presets; see preset.h. */
#include "preset.h"

#include <stddef.h>

struct value {
    const char *key, *text;
};

static const struct value seed[] = {
    {"seed", "51"},
    {"batch_size", "2048"},
    {"buffer_mult", "512"},
    {"lr", "2e-5"},
    {"lr_from_zero", "true"},
    {"lr_warmup", "0.05"},
    {"lr_decay", "0.2"},
    {"num_tokens", "4e8"},
    {"l1_coeff", "2"},
    {"l1_warmup", "0.05"},
    {"beta1", "0.9"},
    {"beta2", "0.999"},
    {"dict_size", "65536"},
    {"model_batch_size", "32"},
    {"dec_init_norm", "0.005"},
    {"max_grad_norm", "1"},
    {NULL, NULL},
};

static const struct value ckkissane[] = {
    {"seed", "49"},        {"batch_size", "4096"}, {"buffer_mult", "128"},    {"lr", "5e-5"},
    {"lr_warmup", "0"},    {"lr_decay", "0.2"},    {"num_tokens", "4e8"},     {"l1_coeff", "2"},
    {"l1_warmup", "0.05"}, {"dict_size", "16384"}, {"model_batch_size", "4"}, {"dec_init_norm", "0.08"},
    {NULL, NULL},
};

static const struct value batchtopk_2025[] = {
    {"activation", "batchtopk"},
    {"reconstruction", "norm"},
    {"k", "100"},
    {"k_start", "1024"},
    {"k_anneal_steps", "2000"},
    {"aux_coeff", "0.03125"},
    {"aux_k", "0"},
    {"dead_rows", "1e7"},
    {"threshold_start", "1000"},
    {"threshold_beta", "0.999"},
    {"lr", "1e-4"},
    {"lr_warmup_steps", "1000"},
    {"lr_from_zero", "true"},
    {"lr_decay", "0"},
    {"batch_size", "2048"},
    {"expansion", "32"},
    {"dec_init_norm", "1"},
    {"init_tied_models", "true"},
    {"b_dec_init", "geometric-median"},
    {"center", "true"},
    {"scale_mode", "total-std"},
    {"scale_target", "1"},
    {"max_grad_norm", "1"},
    {NULL, NULL},
};

static const struct value jumprelu_2025[] = {
    {"activation", "jumprelu"},
    {"lr", "2e-4"},
    {"lr_warmup", "0"},
    {"lr_decay", "0.2"},
    {"batch_size", "32768"},
    {"l0_coeff", "20"},
    {"tanh_scale", "4"},
    {"bandwidth", "2"},
    {"pre_act_coeff", "3e-6"},
    {"log_threshold_init", "0.1"},
    {NULL, NULL},
};

static const struct value diff_sae[] = {
    {"activation", "batchtopk"}, {"k", "100"}, {"expansion", "2"}, {"lr", "1e-4"}, {NULL, NULL},
};

static const struct value *const presets[] = {
    [PRESET_NONE] = NULL,
    [PRESET_SEED] = seed,
    [PRESET_CKKISSANE] = ckkissane,
    [PRESET_BATCHTOPK_2025] = batchtopk_2025,
    [PRESET_JUMPRELU_2025] = jumprelu_2025,
    [PRESET_DIFF_SAE] = diff_sae,
};

void preset_apply(struct config *c)
{
    for (const struct value *v = presets[c->preset]; v && v->key; v++) {
        size_t i = config_index(v->key);
        if (!c->given[i])
            flag_set(&config_keys[i].flag, c, v->text, NULL); /* a test sets every preset */
    }
}
