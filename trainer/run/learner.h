/* learner.h - one crosscoder being trained: its configuration, schedule, backend, metrics and folder.
 *
 * A run is one stream of batches and n learners that are fed from it (run.h). A learner knows nothing of producers, windows or other
 * learners: it is opened for a stream's shape, given batches and held-out rows, and asked to save. Its calls come in the order in which
 * they stand below. One thread. */
#ifndef CROSSFEED_LEARNER_H
#define CROSSFEED_LEARNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "backend.h"
#include "checkpoint_folder.h"
#include "checkpoint_tally.h"
#include "config.h"
#include "err.h"
#include "evaluation.h"
#include "health.h"
#include "metrics.h"
#include "normalisation.h"
#include "plan.h"
#include "recovery.h"
#include "row_sample.h"
#include "schedule.h"
#include "stream.h"

#define PATH_SIZE 4096

/* All strings must outlive the learner. */
struct learner_options {
    struct config config; /* as the flags gave it */
    uint64_t seed;        /* of the initial weights */
    const char
        *out;    /* folder: metrics.jsonl, checkpoints/, at the end crosscoder.safetensors, cfg.json, summary.json */
    bool resume; /* from the newest sound checkpoint in out, */
    uint64_t resume_from; /* or that of this step; 0: none in particular */
    const char *init;     /* crosscoder.safetensors to start from instead of random weights; or NULL */
    bool scale_from_init; /* the run's rows are scaled (and centred) as init's were */
    const char *truth;    /* ground truth of a synthetic source: the run ends with the share recovered; or NULL */
};

struct learner_memory { /* bytes */
    size_t parameters;  /* weights, moments, kept gradients */
    size_t workspace;   /* of a step and an evaluation, and what is kept to measure what was recovered */
    size_t rare;        /* for a moment: saving or resampling */
};

struct learner {
    const struct learner_options *o;
    struct config config;       /* o's; of a resumed learner, the checkpoint's */
    char checkpoint[PATH_SIZE]; /* resumed from; "" = none */
    struct checkpoint_choice choice;
    struct checkpoint_tally tally;
    int lock; /* of the folder; -1: none */
    struct schedule schedule;
    struct backend_setup setup;
    struct backend *backend;
    struct evaluation evaluation;
    bool measured;  /* the held-out rows' mean is known */
    bool evaluated; /* evaluation_report is filled */
    struct evaluation_report evaluation_report;
    struct recovery recovery;         /* if there is a ground truth */
    const struct normalisation *rows; /* borrowed; NULL until learner_describe */
    struct step_report step;          /* of the last step */
    struct metrics metrics;
    struct health health;
    char init_fingerprint[FINGERPRINT_SIZE]; /* of the file that the run started from; "": it had none */
    json_t *cfg;                             /* what cfg.json will hold; NULL until learner_describe */
    uint64_t saved_step;                     /* of the newest checkpoint; UINT64_MAX: none */
};

/* Takes the folder: refuses one that holds a run or, resuming, none, that cannot be written, or that another trainer has. After a failure,
 * too, l is to be released. */
int learner_claim(struct learner *l, const struct learner_options *o, struct err *e);

/* Resuming: chooses the checkpoint (checkpoint_folder.h), all of which is verified, and takes the configuration from it. *saved is its
 * cfg.json, owned by the caller (json_decref). One of a run that has collapsed is refused if fail_on_collapse is set. */
int learner_find_checkpoint(struct learner *l, json_t **saved, struct err *e);

/* Makes the schedule; refuses settings that do not go together. */
int learner_plan_steps(struct learner *l, struct err *e);

/* Tells whether a learner that is resumed has nothing left to do: all its steps are done and summary.json says how it went, with a truth
 * also what was recovered. */
int learner_is_finished(const struct learner *l, bool *finished, struct err *e);

/* Takes results that a finished learner's folder lacks (weights, cfg.json) from its checkpoint, which has the same. */
int learner_put_back(const struct learner *l, struct err *e);

/* Settles the backend's setup for a stream's shape and computes the bytes that the learner will take; nothing is allocated. machine_bytes: the
 * machine's memory, of which kept gradients may take a tenth. */
int learner_size(struct learner *l, const struct stream *stream, size_t machine_bytes, struct learner_memory *m,
                 struct err *e);

/* Returns whether learner_begin has something to do: initial weights that depend on rows. After learner_size. */
bool learner_wants_rows(const struct learner *l);

/* Allocates, and loads or draws the weights. Resuming, and with scale_from_init, it fills n (its scale, and its mean if that is not NULL);
 * resuming, also next. n->centred: whether the run's rows are. */
int learner_open(struct learner *l, struct normalisation *n, struct plan_place *next, struct err *e);

/* Refuses weights to start from that were trained on rows of another scale or mean than the run's, now that these are known, unless a flag
 * says what is meant. */
int learner_check_init(const struct learner *l, const struct normalisation *n, const struct stream *stream,
                       struct err *e);

/* Settles the initial weights that depend on rows: those that the scale was measured over, at least one. */
int learner_begin(struct learner *l, const struct row_sample *rows, struct err *e);

/* Opens metrics.jsonl. status: borrowed, hears of steps; NULL for all learners of a run but one. */
int learner_open_metrics(struct learner *l, struct status *status, struct err *e);

/* Refuses a disk without room for what is still to be saved: after a save there are `keep` checkpoints, and one more before the oldest goes. */
int learner_check_room(struct learner *l, bool centred, struct err *e);

/* Makes cfg once it is known what the rows are like, and lets the folder say whose it is; n must outlive the learner. */
int learner_describe(struct learner *l, const struct stream *stream, const struct normalisation *n, const char *run_id,
                     struct err *e);

uint64_t learner_steps(const struct learner *l); /* done */

/* Does one step on x [batch_size, n_inputs] and writes its line of metrics if one is due. ERR_OVERFLOW: the loss or the gradient norm is not
 * finite, and nothing has changed. */
int learner_step(struct learner *l, const float *x, struct err *e);

/* After that error: passes the batch over, as a step that changes no weight and of which metrics know no figure, and returns 0; a resampling
 * that was due is left out. Or returns the error that e holds, if skip_bad_batches have been passed over already. */
int learner_pass_over(struct learner *l, struct err *e);

/* Returns whether an evaluation or a checkpoint is due after the step just done. */
bool learner_wants_evaluation(const struct learner *l);
bool learner_wants_save(const struct learner *l);

/* Feeds one piece of the held-out rows, x [n, n_inputs], n at most batch_size: first all of them to measure, if l->measured is not set;
 * then learner_evaluation_begin, all of them to evaluate, learner_evaluation_end. */
void learner_measure(struct learner *l, const float *x, size_t n);
void learner_evaluation_begin(struct learner *l);
int learner_evaluate(struct learner *l, const float *x, size_t n, struct err *e);
int learner_evaluation_end(struct learner *l, struct err *e);

/* Returns ERR_INPUT if the last evaluation found that the run has collapsed and fail_on_collapse is set, else 0. */
int learner_check_health(const struct learner *l, struct err *e);

/* Fills l->step with what is known of a step of whose batch there is nothing to say: the last one of a finished learner that is resumed, or one
 * that was passed over. */
void learner_step_unknown(struct learner *l);

/* Writes a checkpoint, unless the newest is of this step. next: the place of the row after the last batch. ERR_SYSTEM: it was not written, and
 * a later try may succeed. */
int learner_save(struct learner *l, const struct normalisation *n, const struct plan_place *next, struct err *e);

/* Writes crosscoder.safetensors and cfg.json at the end, and the manifest.json of both. */
int learner_write_weights(struct learner *l, const struct normalisation *n, struct err *e);

/* Measures the share of the ground truth that was recovered; o->truth is given. */
int learner_measure_recovery(struct learner *l, const float *scale, struct recovery_result *result, struct err *e);

/* Closes metrics.jsonl; it may fail to be written. A learner that has neither done a step nor saved leaves none: the folder holds no run. */
int learner_close_metrics(struct learner *l, struct err *e);
void learner_release(struct learner *l); /* safe on a zeroed struct whose lock is -1 */

#endif
