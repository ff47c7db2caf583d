/* checkpoint.h - a run's state on disk: a folder step_0000001000.
 *
 *   crosscoder.safetensors  weights, scale and mean in the reference's layout (weights_file.h): usable by itself
 *   state.safetensors       adam_m, adam_v [n_params] F32, rows_since_fired [d_sae] I64; step, rows,
 *                           window, position (of the next row, plan.h), clipped, clipped_since and skipped
 *                           (backend.h) and manifest (its name) in its metadata; checkpoints without the clipped two
 *                           count from their step on, those without skipped passed no batch over
 *   cfg.json                configuration and stream
 *   manifest.json           run, step, and what the other files hold (checkpoint_manifest.h)
 * Files are hashed as they are written, and all of them before anything of them is used; runs that are older than the manifest have none.
 * checkpoint_folder.h gives it its name when it is whole. */
#ifndef CROSSFEED_CHECKPOINT_H
#define CROSSFEED_CHECKPOINT_H

#include <stdbool.h>

#include <jansson.h>

#include "backend.h"
#include "checkpoint_manifest.h"
#include "err.h"
#include "normalisation.h"
#include "plan.h"

#define CHECKPOINT_NAME_SIZE 64

/* Writes the name of a step's checkpoint. */
void checkpoint_name(char name[CHECKPOINT_NAME_SIZE], uint64_t step);

/* Returns the step in a checkpoint's path or name. */
uint64_t checkpoint_step(const char *path);

/* Returns the bytes of memory that saving or loading takes, of a setup and of centred rows. */
size_t checkpoint_memory(const struct backend_setup *s, bool centred);

/* Returns the most bytes on disk that a checkpoint takes. */
size_t checkpoint_bytes(const struct backend *b, bool centred);

/* Writes the files of a checkpoint of b into a folder that exists, the manifest last; all is synced. next: the place of the row after the last
 * batch; cfg is borrowed and has the run's id. */
int checkpoint_write(const char *folder, const struct backend *b, const struct normalisation *n,
                     const struct plan_place *next, const json_t *cfg, struct err *e);

struct checkpoint_id {
    char run[FINGERPRINT_SIZE]; /* "": not known */
    uint64_t step;              /* as its name says */
    bool has_manifest;
    struct checkpoint_manifest manifest;
};

/* Tells what the checkpoint at path (its name step_ and digits) says that it is. ERR_DAMAGED if its manifest does not hold, is of another step,
 * or is missing where there was one. */
int checkpoint_identify(const char *path, struct checkpoint_id *id, struct err *e);

/* Reads all its files and compares them with its manifest: ERR_DAMAGED. One without a manifest passes. */
int checkpoint_verify(const char *path, const struct checkpoint_id *id, struct err *e);

/* Reads cfg.json of a checkpoint; owned by the caller (json_decref), NULL after an error. */
int checkpoint_config(const char *path, json_t **cfg, struct err *e);

/* Fills the opened b (weights, moments, ages, step), n as weights_file_load does, and next. */
int checkpoint_load(const char *path, struct backend *b, struct normalisation *n, struct plan_place *next,
                    struct err *e);

#endif
