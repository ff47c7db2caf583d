/* checkpoint.h - a run's state on disk: OUT/checkpoints/step_0000001000/, complete or not there at all.
 *
 *   crosscoder.safetensors  weights, scale and mean in the reference's layout (weights_file.h): usable by itself
 *   state.safetensors       adam_m, adam_v [n_params] F32, rows_since_fired [d_sae] I64; step, rows,
 *                           window, position (of the next row, plan.h), clipped and clipped_since (backend.h)
 *                           in its metadata; checkpoints older than the last two count from their step on
 *   cfg.json                configuration and stream
 * Written to a folder of another name, synced, renamed. */
#ifndef CROSSFEED_CHECKPOINT_H
#define CROSSFEED_CHECKPOINT_H

#include <jansson.h>

#include "backend.h"
#include "err.h"
#include "normalisation.h"
#include "plan.h"

/* Returns the bytes that saving or loading takes, of a setup and of centred rows. */
size_t checkpoint_memory(const struct backend_setup *s, bool centred);

/* Saves the weights and state of b, and then removes all but the newest `keep`. next: the place of the row after the
 * last batch; cfg is borrowed. path [4096] (may be NULL) is told. */
int checkpoint_save(const char *out, const struct backend *b, const struct normalisation *n,
                    const struct plan_place *next, const json_t *cfg, size_t keep, char *path, struct err *e);

/* Finds the newest checkpoint below out, path [4096]; ERR_ABSENT if there is none. */
int checkpoint_latest(const char *out, char *path, struct err *e);

/* Returns the steps done at a checkpoint that checkpoint_latest found. */
uint64_t checkpoint_step(const char *path);

/* Reads cfg.json of a checkpoint; owned by the caller (json_decref). */
int checkpoint_config(const char *path, json_t **cfg, struct err *e);

/* Fills the opened b (weights, moments, ages, step), n as weights_file_load does, and next. */
int checkpoint_load(const char *path, struct backend *b, struct normalisation *n, struct plan_place *next,
                    struct err *e);

#endif
