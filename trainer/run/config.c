/* config.c - the table of the configuration's keys; see config.h. */
#include "config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "row_bound.h"
#include "scale_list.h"

#define FIELD(key) FLAG_FIELD(struct config, key)
#define MANY 1e15

/* A row: the key, whether it is fixed, its range, default and help, then more fields of the setting (.absent = "0"); GROUP is
 * the heading that it stands under. */
#define COUNT(...) KEY(FLAG_COUNT, __VA_ARGS__)
#define NUMBER(...) KEY(FLAG_NUMBER, __VA_ARGS__)
#define KEY(of_kind, key, is_fixed, least, most, value, text, ...) \
    {                                                              \
        .flag = {.name = #key,                                     \
                 .kind = of_kind,                                  \
                 FIELD(key),                                       \
                 .low = (least),                                   \
                 .high = (most),                                   \
                 .initial = (value),                               \
                 .group = GROUP,                                   \
                 .help = (text)},                                  \
        .fixed = (is_fixed), __VA_ARGS__                           \
    }

static int check_scale(const char *text, struct err *e)
{
    struct scale_list list;
    return *text ? scale_list_parse(&list, text, e) : 0;
}

/* One word of choices; `absent` is what runs did before the key. */
#define CHOICE(key, words, value, text)   \
    {                                     \
        .flag = {.name = #key,            \
                 .kind = FLAG_CHOICE,     \
                 FIELD(key),              \
                 .choices = (words),      \
                 .initial = (value),      \
                 .group = GROUP,          \
                 .help = (text)},         \
        .fixed = true, .absent = (value), \
    }
#define SWITCH(key, text)                 \
    {                                     \
        .flag = {.name = #key,            \
                 .kind = FLAG_SWITCH,     \
                 FIELD(key),              \
                 .initial = "false",      \
                 .arg = "true|false",     \
                 .group = GROUP,          \
                 .help = (text)},         \
        .fixed = true, .absent = "false", \
    }
#define TEXT(key, checked, of, text) \
    {                                \
        .flag = {.name = #key,       \
                 .kind = FLAG_TEXT,  \
                 FIELD(key),         \
                 .check = (checked), \
                 .initial = "",      \
                 .arg = (of),        \
                 .group = GROUP,     \
                 .help = (text)},    \
        .fixed = true, .absent = "", \
    }

static const char *const presets[] = {"none", "seed", "ckkissane", "batchtopk-2025", "jumprelu-2025", "diff-sae", NULL};
static const char *const activations[] = {"relu", "topk", "batchtopk", "jumprelu", NULL};
static const char *const scores[] = {"default", "none", "norm", "norm-sum", NULL};
static const char *const reconstructions[] = {"squared", "norm", NULL};
static const char *const l1_norms[] = {"norm-sum", "l2-of-norms", NULL};

static int check_pair(const char *text, struct err *e)
{
    size_t first = strspn(text, "0123456789"), second = text[first] ? strspn(text + first + 1, "0123456789") : 0;
    if (*text &&
        (first == 0 || second == 0 || first > 9 || second > 9 || text[first] != ',' || text[first + 1 + second]))
        return err_set(e, ERR_INPUT, "'%s': must be two numbers, as 100,100", text);
    return 0;
}

/* Steps ascend, since each begins where the one before ended. */
static int check_steps(const char *text, struct err *e)
{
    unsigned long long last = 0;
    while (*text) {
        char *end;
        unsigned long long step = strtoull(text, &end, 10);
        if (end == text || (*end && *end != ',') || step <= last)
            return err_set(e, ERR_INPUT, "'%s': must be ascending steps, as 25000,50000", text);
        last = step;
        text = *end ? end + 1 : end;
    }
    return 0;
}

const struct setting config_keys[] = {
#define GROUP "Crosscoder"
    COUNT(dict_size, true, 1, 1e9, "65536", "number of latents, d_sae"),
    COUNT(expansion, true, 0, 1e6, "0", "if not 0, dict_size is so many times d_model", .absent = "0"),
    CHOICE(preset, presets, "none", "published recipe that sets the keys which no flag sets"),
    CHOICE(activation, activations, "relu", "what makes pre-activations active"),
    CHOICE(reconstruction, reconstructions, "squared",
           "the error: its square over all sites, or the mean of its norms at the sites"),
    COUNT(shared_latents, true, 0, 1e9, "0", "the first so many latents have one decoder for both models",
          .absent = "0"),
    NUMBER(shared_coeff, true, 0, 1e6, "0.1", "the sparsity penalty of shared latents is multiplied by this",
           .absent = "0.1"),
    TEXT(exclusive_latents, check_pair, "A,B",
         "of the last A + B latents, A see and write model 0 only, B model 1 only"),
    NUMBER(dec_init_norm, true, 0, 1e6, "0.005", "initial norm of each latent's decoder vector at each site"),
    SWITCH(init_tied_models, "sites of two models that share a hook point get the same initial decoder"),
    CHOICE(b_dec_init, b_dec_init_names, "zero", "initial b_dec, over the rows that the scale is measured over"),
    NUMBER(l1_coeff, true, 0, 1e9, "2", "weight of the sparsity term"),
    NUMBER(l1_warmup, true, 0, 1, "0.05", "share of the steps in which l1_coeff rises linearly"),
    CHOICE(l1_norm, l1_norms, "norm-sum", "relu: what f is multiplied by in the sparsity term"),
    TEXT(resample_steps, check_steps, "LIST", "relu: steps at which latents that are dead start anew"),
#undef GROUP
#define GROUP "TopK and BatchTopK"
    COUNT(k, true, 1, 1e9, "100", "active latents a row; of batchtopk, on the mean of a batch", .absent = "100"),
    COUNT(k_start, true, 0, 1e9, "0", "k at the first step; 0: k", .absent = "0"),
    COUNT(k_anneal_steps, true, 0, MANY, "0", "steps in which k goes linearly from k_start to its value",
          .absent = "0"),
    CHOICE(score, scores, "default",
           "what a latent's pre-activation is multiplied by to select; default: none for topk, norm-sum for batchtopk"),
    COUNT(threshold_start, true, 0, MANY, "1000", "the step from which the inference threshold is averaged",
          .absent = "1000"),
    NUMBER(threshold_beta, true, 0, 1, "0.999", "of that moving average", .absent = "0.999"),
    NUMBER(aux_coeff, true, 0, 1e6, "0.03125", "weight of AuxK, by which dead latents come alive again; 0: none",
           .absent = "0.03125"),
    COUNT(aux_k, true, 0, 1e9, "0", "dead latents a row that AuxK takes; 0: d_model / 2", .absent = "0"),
#undef GROUP
#define GROUP "JumpReLU"
    NUMBER(l0_coeff, true, 0, 1e9, "20", "weight of the tanh sparsity term, rising linearly from 0 over the whole run",
           .absent = "20"),
    NUMBER(tanh_scale, true, 0, 1e6, "4", "c of tanh(c f N)", .absent = "4"),
    NUMBER(pre_act_coeff, true, 0, 1e6, "3e-6", "weight of the pre-activation loss", .absent = "3e-6"),
    NUMBER(bandwidth, true, 1e-9, 1e6, "2", "width of the threshold's straight-through estimate", .absent = "2"),
    NUMBER(log_threshold_init, true, -50, 50, "0.1", "initial logarithm of the thresholds", .absent = "0.1"),
    SWITCH(ste_to_input, "the estimate goes to the pre-activation, too"),
#undef GROUP
#define GROUP "Optimiser"
    NUMBER(lr, true, 0, 1e3, "2e-5", "learning rate of Adam"),
    NUMBER(lr_warmup, true, 0, 1, "0.05", "share of the steps in which lr rises linearly"),
    COUNT(lr_warmup_steps, true, 0, MANY, "0", "if not 0, steps in which lr rises, instead of a share", .absent = "0"),
    SWITCH(lr_from_zero, "lr is 0 at the first step, as in neelnanda-io/Crosscoders"),
    NUMBER(lr_decay, true, 0, 1, "0.2", "share of the steps, the last ones, in which lr falls linearly to 0"),
    NUMBER(beta1, true, 0, 0.9999999, "0.9", "Adam's decay of the first moment"),
    NUMBER(beta2, true, 0, 0.9999999999, "0.999", "Adam's decay of the second moment"),
    NUMBER(eps, true, 0, 1, "1e-8", "Adam's epsilon"),
    NUMBER(max_grad_norm, true, 1e-30, 1e30, "1", "the global gradient norm is clipped to this"),
#undef GROUP
#define GROUP "Data and window"
    COUNT(num_tokens, true, 1, MANY, "4e8", "rows to train on; the last incomplete batch is not trained"),
    COUNT(batch_size, true, 1, 1e7, "2048", "rows a step"),
    COUNT(buffer_mult, true, 1, 1e9, "512", "the shuffle window holds batch_size * buffer_mult rows"),
    COUNT(model_batch_size, true, 1, 1e6, "4", "sequences a block, the unit that a producer computes"),
    COUNT(seed, true, 0, 9e15, "49", "seed of initial weights, block order and row order"),
    {{.name = "dtype",
      .kind = FLAG_CHOICE,
      FIELD(dtype),
      .choices = row_dtype_names,
      .initial = "bf16",
      .group = GROUP,
      .help = "type of the rows on the wire and in the window"},
     .fixed = true},
    {{.name = "scale",
      .kind = FLAG_TEXT,
      FIELD(scale),
      .check = check_scale,
      .initial = "",
      .arg = "LIST",
      .group = GROUP,
      .help =
          "the rows' scale: a number a site, comma-separated, in the order of the sites or as NAME=NUMBER; default: "
          "measured"},
     .fixed = true},
    COUNT(scale_rows, true, 1, 1e9, "16384", "rows over which the scale is measured, at most one window"),
    CHOICE(scale_mode, scale_mode_names, "mean-norm",
           "what is brought to scale_target at each site: the mean norm over sqrt(d_model), or the root of the summed "
           "variance"),
    NUMBER(scale_target, true, 1e-30, 1e30, "1", "what the scale brings it to", .absent = "1"),
    NUMBER(max_abs, false, ROW_MAX_ABS_LEAST, ROW_MAX_ABS_MOST, ROW_MAX_ABS_TEXT,
           "a row with a value greater than this in size, as it is sent, is refused; squares of greater ones would "
           "overflow in a step"),
    COUNT(skip_bad_batches, false, 0, MANY, "0",
          "batches that are passed over because their loss or gradient norm is not finite; one more ends the run"),
    SWITCH(center, "subtract from the rows their mean, per site and dimension, over those rows"),
#undef GROUP
#define GROUP "Evaluation and checkpoints"
    COUNT(eval_blocks, true, 0, 500, "4", "blocks held out for evaluation, never trained on"),
    COUNT(eval_every, false, 1, MANY, "1000", "steps between evaluations on the held-out blocks"),
    {{.name = "fail_on_collapse",
      .kind = FLAG_SWITCH,
      FIELD(fail_on_collapse),
      .initial = "false",
      .arg = "true|false",
      .group = GROUP,
      .help = "a run that has collapsed after the warm-up (L0 0, or FVU above 1, on the held-out blocks) is saved and "
              "ends with status 1"},
     .absent = "false"},
    COUNT(dead_rows, true, 1, MANY, "1e6", "a latent is dead when it has not fired for so many rows"),
    COUNT(log_every, false, 1, MANY, "100", "steps between lines of metrics.jsonl"),
    COUNT(save_every, false, 1, MANY, "10000", "steps between checkpoints"),
    COUNT(keep, false, 1, 1e6, "3", "checkpoints kept"),
    COUNT(save_retries, false, 0, 1e6, "10", "times that a failed save is tried again before the run ends"),
#undef GROUP
#define GROUP "Producers"
    COUNT(credit, false, 1, 64, "64",
          "the most blocks that one producer may hold: it starts with 2, and has more where the way is long"),
    COUNT(lookahead_blocks, false, 0, 1e6, "4", "blocks that may arrive beyond one window"),
    COUNT(heartbeat_ms, false, 10, 1e6, "1000", "milliseconds between the pings of a producer"),
    COUNT(timeout_ms, false, 50, 1e7, "10000", "a producer that is silent for so many milliseconds is dropped"),
    COUNT(wait_timeout, false, 0, 1e9, "0",
          "seconds to wait when there is no producer; then the run is saved and ends with status 1; 0: for ever"),
    COUNT(source_retries, false, 0, 1000, "5",
          "how often a block that every producer has failed is asked for again, after 1 s, then 2, 4 and so on, before "
          "the run fails"),
    COUNT(ban_minutes, false, 0, 1e6, "10",
          "for so long a key, or without keys an address, is out from which wrong rows came too often; 0: for the rest "
          "of the run"),
    NUMBER(max_bad, false, 0, 1, "1",
           "share of the answers of a key or address that may be wrong, of ten or more; beyond, it is out; 1: only "
           "three in a row count"),
    NUMBER(audit, false, 0, 1, "0",
           "share of the blocks that are computed twice, by two producers if there are two, and compared"),
    NUMBER(audit_tolerance, false, 0, 1e30, "0.02",
           "how far apart the two may be, relative to a vector's length; beyond, the run fails"),
#undef GROUP
#define GROUP "Machine"
    COUNT(threads, false, 0, 4096, "0", "threads of the training step; 0: one a core"),
};
const size_t config_n_keys = sizeof config_keys / sizeof config_keys[0];
_Static_assert(sizeof config_keys / sizeof config_keys[0] <= CONFIG_MAX_KEYS, "struct config has room for all keys");

int config_set(struct config *c, size_t i, const char *text, struct err *e)
{
    int rc = flag_set(&config_keys[i].flag, c, text, e);
    if (rc == 0)
        c->given[i] = true;
    return rc;
}

void config_init(struct config *c)
{
    *c = (struct config){0};
    for (size_t i = 0; i < config_n_keys; i++)
        flag_set_initial(&config_keys[i].flag, c);
}

size_t config_index(const char *name)
{
    size_t i = 0;
    while (i < config_n_keys && strcmp(config_keys[i].flag.name, name) != 0)
        i++;
    assert(i < config_n_keys);
    return i;
}

bool config_is_given(const struct config *c, const char *name)
{
    return c->given[config_index(name)];
}

json_t *config_to_json(const struct config *c)
{
    return settings_to_json(config_keys, config_n_keys, c);
}

int config_resume(struct config *c, const json_t *saved, const char *path, struct err *e)
{
    return settings_resume(config_keys, config_n_keys, c, c->given, saved, path, e);
}
