/* run.c - a run from its first step to its end: the training loop, evaluation, checkpoints, the last report. */
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bf16.h"
#include "checkpoint.h"
#include "file.h"
#include "json_file.h"
#include "log.h"
#include "report.h"
#include "stream_json.h"
#include "trainer.h"
#include "version.h"
#include "weights_file.h"

/* ---- training ---- */

/* 0, 1 = stopped by a signal, or an error. */
static int wait_for_scale(struct trainer *t, struct err *e)
{
    int rc;
    status_phase(t->status, STATUS_SCALE);
    waiting_begins(&t->waiting);
    while ((rc = ingest_scale(t->ingest, t->scale, WAIT_MS, e)) == 1 &&
           (rc = waiting_goes_on(&t->waiting, t->state.step, "activations", e)) == 0)
        ;
    rc = waiting_ends(&t->waiting, rc);
    status_phase(t->status, STATUS_TRAINING);
    return rc;
}

static int take_batch(struct trainer *t, struct feed_batch *b, struct err *e)
{
    int rc;
    waiting_begins(&t->waiting);
    while ((rc = feed_take(t->feed, b, WAIT_MS, e)) == 1 &&
           (rc = waiting_goes_on(&t->waiting, t->state.step, "activations", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, rc) == 0)
        t->next = b->next;
    if (rc == 0 && t->provenance &&
        fwrite(b->origins, sizeof *b->origins, t->config.batch_size, t->provenance) != t->config.batch_size)
        return err_errno(e, errno, "%s: cannot write", t->o->provenance);
    return rc;
}

/* Feeds the held-out rows in pieces of a batch through visit. */
static void for_each_piece(struct trainer *t, const unsigned char *rows, size_t n_rows,
                           void (*visit)(struct evaluation *, const float *, size_t))
{
    size_t n_inputs = t->crosscoder.n_inputs, row_bytes = stream_row_bytes(&t->stream, t->config.dtype);
    float *x = feed_buffer(t->feed); /* the batch in it has been trained on */
    for (size_t i = 0; i < n_rows; i += t->config.batch_size) {
        size_t n = n_rows - i < t->config.batch_size ? n_rows - i : t->config.batch_size;
        if (t->config.dtype == ROW_BF16)
            bf16_to_f32_n(x, rows + i * row_bytes, n * n_inputs);
        else
            memcpy(x, rows + i * row_bytes, n * row_bytes);
        visit(&t->evaluation, x, n);
    }
}

static int evaluate(struct trainer *t, struct err *e)
{
    const unsigned char *rows;
    size_t n_rows;
    int rc;
    waiting_begins(&t->waiting);
    while ((rc = ingest_evaluation_rows(t->ingest, &rows, &n_rows, WAIT_MS, e)) == 1 &&
           (rc = waiting_goes_on(&t->waiting, t->state.step, "the held-out rows", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, rc) || n_rows == 0)
        return rc == 1 ? 0 : rc; /* stopped: no evaluation, the run saves and ends */
    if (!t->evaluation_measured)
        for_each_piece(t, rows, n_rows, evaluation_measure);
    t->evaluation_measured = true;
    evaluation_begin(&t->evaluation);
    for_each_piece(t, rows, n_rows, evaluation_add);
    if (evaluation_finish(&t->evaluation, t->step.l1_coeff, &t->evaluation_report, e) ||
        metrics_evaluation(&t->metrics, t->state.step, &t->evaluation_report, t->stream.n_sites, e))
        return e->code;
    const struct evaluation_report *r = &t->evaluation_report;
    log_line("step %" PRIu64 ": held-out loss %.4g, L0 %.1f, FVU %.4f", t->state.step, r->loss, r->l0, r->fvu.fvu);
    return 0;
}

static int make_cfg(struct trainer *t, struct err *e)
{
    json_t *scale = json_array();
    for (uint32_t i = 0; i < t->stream.n_sites; i++)
        json_array_append_new(scale, json_real((double)t->scale[i]));
    t->cfg = config_to_json(&t->config);
    if (!t->cfg || json_object_set_new(t->cfg, "run_scale", scale) ||
        json_object_set_new(t->cfg, "stream", stream_to_json(&t->stream)) ||
        json_object_set_new(t->cfg, "seq_len", json_integer((json_int_t)t->stream.seq_len)) ||
        json_object_set_new(t->cfg, "run", json_string(t->run_id)) ||
        json_object_set_new(t->cfg, "software", json_string(CROSSFEED_SOFTWARE)))
        return err_set(e, ERR_MEMORY, "cfg.json: out of memory");
    return 0;
}

static int save(struct trainer *t, struct err *e)
{
    char path[PATH_SIZE];
    if (t->state.step && t->saved_step == t->state.step)
        return 0; /* it is there already: a run stopped just after it was saved, or resumed and stopped at once */
    if (t->provenance && (fflush(t->provenance) != 0 || fsync(fileno(t->provenance)) != 0))
        return err_errno(e, errno, "%s: cannot write", t->o->provenance);
    if (checkpoint_save(t->o->out, &t->crosscoder, t->scale, &t->state, &t->next, t->cfg, t->config.keep, path, e))
        return e->code;
    t->saved_step = t->state.step;
    log_line("step %" PRIu64 ": saved %s", t->state.step, path);
    return 0;
}

/* A finished run is resumed: only its results may be missing. They come from the held-out rows; of a last batch there
 * is nothing to say. */
static int finish_again(struct trainer *t, struct err *e)
{
    struct step_report *r = &t->step;
    *r = (struct step_report){.loss = NAN, .l0 = NAN, .fvu = {.fvu = NAN, .fvu_token = NAN}};
    r->l1_coeff = schedule_l1_coeff(&t->schedule, t->state.step - 1);
    for (uint32_t i = 0; i < t->stream.n_sites; i++)
        r->fvu.fvu_site[i] = r->fvu.fvu_token_site[i] = NAN;
    for (size_t j = 0; j < t->crosscoder.d_sae; j++)
        r->dead += t->state.rows_since_fired[j] >= t->config.dead_rows;
    return evaluate(t, e);
}

/* Trains until the end or until stopped. 0, or an error; *stopped tells which. */
static int train(struct trainer *t, bool *stopped, struct err *e)
{
    const struct config *c = &t->config;
    struct step_options so = {.adam = {.beta1 = c->beta1, .beta2 = c->beta2, .eps = c->eps},
                              .max_norm = c->max_grad_norm,
                              .dead_rows = c->dead_rows};
    struct feed_batch batch;
    int rc = wait_for_scale(t, e);
    if (rc == 0)
        rc = make_cfg(t, e);
    if (rc == 0 && t->state.step == t->schedule.total_steps)
        rc = finish_again(t, e);
    else if (rc == 0)
        rc = feed_start(t->feed, t->shuffle, t->schedule.total_steps - t->state.step, e);
    while (rc == 0 && t->state.step < t->schedule.total_steps && !*t->o->stop && (rc = take_batch(t, &batch, e)) == 0) {
        uint64_t next = t->state.step + 1; /* steps done after this one */
        bool last = next == t->schedule.total_steps;
        so.lr = schedule_lr(&t->schedule, t->state.step);
        so.l1_coeff = schedule_l1_coeff(&t->schedule, t->state.step);
        so.want_metrics = last || next % c->log_every == 0;
        if ((rc = train_step(&t->state, batch.x, &so, &t->step, e)) != 0)
            break;
        if (so.want_metrics)
            rc = metrics_step(&t->metrics, &t->step, t->stream.n_sites, e);
        if (rc == 0 && (last || next % c->eval_every == 0))
            rc = evaluate(t, e);
        if (rc == 0 && (last || next % c->save_every == 0))
            rc = save(t, e);
        metrics_progress(&t->metrics, &t->step);
    }
    *stopped = t->state.step < t->schedule.total_steps;
    if (rc < 0 && t->waiting.failed && t->cfg) {
        /* the weights are as good as ever: --resume goes on when there are rows */
        struct err saving;
        if (save(t, &saving))
            log_line("cannot save: %s", saving.message);
    } else if (rc >= 0 && *stopped && t->cfg) {
        return save(t, e);
    }
    return rc < 0 ? rc : 0;
}

/* ---- the end ---- */

static int write_results(struct trainer *t, struct err *e)
{
    char path[PATH_SIZE];
    if (file_join(path, sizeof path, t->o->out, "crosscoder.safetensors", e) ||
        weights_file_write(path, &t->crosscoder, t->scale, e) ||
        file_join(path, sizeof path, t->o->out, "cfg.json", e) || json_write(path, t->cfg, e))
        return e->code;
    struct shuffle_state served;
    shuffle_state(t->shuffle, &served);
    struct report r = {.out = t->o->out,
                       .stream = &t->stream,
                       .steps = t->state.step,
                       .rows_expected = t->schedule.total_steps * t->config.batch_size,
                       .rows_resumed = t->metrics.first_step * t->config.batch_size,
                       .rows_trained = served.rows_served,
                       .rows_masked = served.rows_masked,
                       .epoch_rows = t->plan.epoch_rows,
                       .step = &t->step,
                       .evaluation = t->evaluation_measured ? &t->evaluation_report : NULL,
                       .d_sae = t->crosscoder.d_sae,
                       .rows_per_s = metrics_rows_per_s(&t->metrics, t->state.step),
                       .waiting_share = metrics_waiting_share(&t->metrics),
                       .budget_bytes = budget_total(&t->budget)};
    ingest_counters(t->ingest, &r.ingest);
    struct recovery_result recovered;
    if (t->o->truth) {
        recovery_measure(&t->recovery, t->crosscoder.w_dec, t->crosscoder.d_sae, t->scale, RECOVERY_THRESHOLD,
                         &recovered);
        r.recovered = &recovered;
    }
    return report_write(&r, e);
}

int run(const struct run_options *o, struct err *e)
{
    struct trainer *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, ERR_MEMORY, "trainer: out of memory");
    t->o = o;
    t->config = o->config;
    t->lock = -1;
    bool stopped = false;
    int rc = set_up(t, e);
    if (rc == ERR_STOPPED) {
        log_line("%s", e->message);
        rc = 0;
        stopped = true;
    } else {
        if (rc == 0)
            rc = train(t, &stopped, e);
        char reason[512];
        snprintf(reason, sizeof reason, "%s",
                 rc        ? e->message
                 : stopped ? "trainer stopped by a signal, its state is saved"
                           : "training is done");
        if (t->ingest)
            ingest_finish(t->ingest, rc == 0, reason);
        if (rc == 0 && !stopped)
            rc = write_results(t, e);
        if (rc == 0 && stopped && !t->cfg)
            log_line("stopped before the first step");
        else if (stopped && t->saved_step == t->state.step)
            log_line("stopped at step %" PRIu64 " of %" PRIu64 "; --resume goes on", t->state.step,
                     t->schedule.total_steps);
    }
    metrics_endpoint_stop(t->endpoint);
    struct err close_error;
    if (metrics_close(&t->metrics, rc ? &close_error : e) && rc == 0)
        rc = e->code;
    if (t->provenance && fclose(t->provenance) != 0 && rc == 0)
        rc = err_errno(e, errno, "%s: cannot write", o->provenance);
    tear_down(t); /* the ingest thread, too, tells the status */
    if (t->status)
        status_finish(t->status, rc ? STATUS_FAILED : stopped ? STATUS_STOPPED : STATUS_DONE, rc ? e->message : "");
    status_free(t->status);
    free(t);
    return rc;
}
