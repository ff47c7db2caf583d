/* config.h - the run's configuration under the reference's names: one table for flags, cfg.json and resuming.
 *
 * A key's flag is its name with '-' for '_' (batch_size: --batch-size). Keys that change the result are fixed for the
 * whole run: a resumed run takes them from the checkpoint, and a flag that says otherwise is refused with both values.
 */
#ifndef CROSSFEED_CONFIG_H
#define CROSSFEED_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "err.h"
#include "stream.h"

#define CONFIG_TEXT_SIZE 4096

struct config {
    /* the reference's keys */
    uint64_t seed, batch_size, buffer_mult, num_tokens, dict_size, model_batch_size;
    double lr, l1_coeff, beta1, beta2, dec_init_norm;
    /* what the reference has as constants, or lacks */
    double eps, max_grad_norm, lr_warmup, lr_decay, l1_warmup;
    uint64_t eval_blocks, scale_rows, dead_rows;
    enum row_dtype dtype;
    char scale[CONFIG_TEXT_SIZE]; /* "" = measured */
    /* the same result whatever these are */
    double audit, audit_tolerance;
    uint64_t log_every, eval_every, save_every, keep, lookahead_blocks, credit, heartbeat_ms, timeout_ms, wait_timeout,
        threads;
    uint64_t given; /* bit i: key i was set by a flag */
};

enum config_kind { CONFIG_COUNT, CONFIG_NUMBER, CONFIG_DTYPE, CONFIG_TEXT };

struct config_key {
    const char *name;
    enum config_kind kind;
    size_t offset;
    bool fixed;          /* changes the result */
    double low, high;    /* CONFIG_COUNT and CONFIG_NUMBER: allowed range, both ends in */
    const char *initial; /* the default, as a user would write it */
    const char *help;
};

extern const struct config_key config_keys[];
extern const size_t config_n_keys;

void config_init(struct config *c); /* the defaults */

/* Sets key i from a flag's text ("4e8" is a count too). Refuses what is not of its kind or out of range. */
int config_set(struct config *c, size_t i, const char *text, struct err *e);

/* A new object with every key. NULL: out of memory. */
json_t *config_to_json(const struct config *c);

/* c becomes what the saved run had, where c was not given otherwise. ERR_MISMATCH for a fixed key given another value.
 * path names the saved file in errors. */
int config_resume(struct config *c, const json_t *saved, const char *path, struct err *e);

#endif
