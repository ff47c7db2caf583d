/* config.c - the table of the configuration's keys; see config.h. */
#include "config.h"

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
    float scale[STREAM_MAX_SITES];
    uint32_t n;
    return *text ? stream_parse_scale(text, scale, &n, e) : 0;
}

const struct setting config_keys[] = {
#define GROUP "Crosscoder"
    COUNT(dict_size, true, 1, 1e9, "65536", "number of latents, d_sae"),
    NUMBER(dec_init_norm, true, 0, 1e6, "0.005", "initial norm of each latent's decoder vector at each site"),
    NUMBER(l1_coeff, true, 0, 1e9, "2", "weight of the sparsity term"),
    NUMBER(l1_warmup, true, 0, 1, "0.05", "share of the steps in which l1_coeff rises linearly"),
#undef GROUP
#define GROUP "Optimiser"
    NUMBER(lr, true, 0, 1e3, "2e-5", "learning rate of Adam"),
    NUMBER(lr_warmup, true, 0, 1, "0.05", "share of the steps in which lr rises linearly"),
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
      .help = "the rows' scale: one number per site, comma-separated; default: measured"},
     .fixed = true},
    COUNT(scale_rows, true, 1, 1e9, "16384", "rows over which the scale is measured, at most one window"),
#undef GROUP
#define GROUP "Evaluation and checkpoints"
    COUNT(eval_blocks, true, 0, 500, "4", "blocks held out for evaluation, never trained on"),
    COUNT(eval_every, false, 1, MANY, "1000", "steps between evaluations on the held-out blocks"),
    COUNT(dead_rows, true, 1, MANY, "1e6", "a latent is dead when it has not fired for so many rows"),
    COUNT(log_every, false, 1, MANY, "100", "steps between lines of metrics.jsonl"),
    COUNT(save_every, false, 1, MANY, "10000", "steps between checkpoints"),
    COUNT(keep, false, 1, 1e6, "3", "checkpoints kept"),
#undef GROUP
#define GROUP "Producers"
    COUNT(credit, false, 1, 64, "64",
          "the most blocks that one producer may hold: it starts with 2, and has more where the way is long"),
    COUNT(lookahead_blocks, false, 0, 1e6, "4", "blocks that may arrive beyond one window"),
    COUNT(heartbeat_ms, false, 10, 1e6, "1000", "milliseconds between the pings of a producer"),
    COUNT(timeout_ms, false, 50, 1e7, "10000", "a producer that is silent for so many milliseconds is dropped"),
    COUNT(wait_timeout, false, 0, 1e9, "0",
          "seconds to wait when there is no producer; then the run is saved and ends with status 1; 0: for ever"),
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

json_t *config_to_json(const struct config *c)
{
    return settings_to_json(config_keys, config_n_keys, c);
}

int config_resume(struct config *c, const json_t *saved, const char *path, struct err *e)
{
    return settings_resume(config_keys, config_n_keys, c, c->given, saved, path, e);
}
