/* run.c - a run from its first step to its end: the training loop, evaluation, checkpoints, the last report. */
#include "run.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "mem.h"
#include "outliers.h"
#include "report.h"
#include "trainer.h"

#define MANY_EPOCHS 10

/* Steps done; all learners are at the same. */
static uint64_t steps_done(const struct trainer *t)
{
    return learner_steps(&t->learners[0]);
}

/* ---- training ---- */

/* Returns the rows as training sees them. */
static struct row_sample sample_of(const struct trainer *t, const unsigned char *rows, size_t n_rows)
{
    return (struct row_sample){.rows = rows,
                               .n_rows = n_rows,
                               .n_sites = t->stream.n_sites,
                               .d_model = t->stream.d_model,
                               .dtype = stream_config(t)->dtype,
                               .mean = t->normalisation.mean};
}

/* Computes what the run and its learners want of the rows that were measured: the mean, initial weights. */
static int begin(struct trainer *t, const struct ingest_measured *m, struct err *e)
{
    if (m->n_rows == 0)
        return err_set(e, ERR_INPUT, "all rows of the %u blocks to be measured are masked", t->n_scale_blocks);
    struct row_sample sample = sample_of(t, m->rows, m->n_rows);
    if (t->normalisation.centred) {
        size_t n_inputs = sample.n_sites * sample.d_model;
        double *sums = mem_alloc(n_inputs, sizeof *sums, "mean of the rows", e);
        if (!sums)
            return ERR_MEMORY;
        sample.mean = NULL;
        row_sample_mean(&sample, sums, t->normalisation.mean);
        sample.mean = t->normalisation.mean;
        mem_free(sums);
    }
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_begin(&t->learners[i], &sample, e))
            return e->code;
    return 0;
}

/* Warns of sites at which a few rows outweigh all others. */
static void warn_of_long_rows(const struct trainer *t, const struct row_norms *n)
{
    for (size_t i = 0; n->n_rows > 0 && i < t->stream.n_sites; i++) {
        const struct site_norms *s = &n->site[i];
        if (s->n_long > 0)
            log_line(
                "site %zu (%s): the largest norm of %zu rows is %.3g times their median; the %zu over %d times it "
                "have %.1f %% of the sum of squares (fvu_typical is without them; actgen's --lengths masks those that "
                "are padding)",
                i, t->stream.sites[i], n->n_rows, (double)s->largest / (double)s->median, s->n_long, ROW_NORMS_LONG,
                100 * s->long_share);
    }
}

/* Waits for the scale, and does what follows from the rows that it was measured over. 0, 1 = stopped by a signal, or an error. */
static int wait_for_scale(struct trainer *t, struct err *e)
{
    int rc;
    struct ingest_measured m;
    status_phase(t->status, STATUS_SCALE);
    waiting_begins(&t->waiting);
    while ((rc = ingest_measured(t->ingest, &m, WAIT_MS, e)) == 1 &&
           (rc = waiting_goes_on(&t->waiting, steps_done(t), "activations", e)) == 0)
        ;
    rc = waiting_ends(&t->waiting, rc);
    if (rc == 0) {
        memcpy(t->normalisation.scale, m.scale, sizeof m.scale);
        t->normalisation.has_median_norm |= m.norms.n_rows > 0;
        for (size_t i = 0; m.norms.n_rows > 0 && i < t->stream.n_sites; i++)
            t->normalisation.median_norm[i] = m.norms.site[i].median;
        warn_of_long_rows(t, &m.norms);
        rc = t->wants_rows ? begin(t, &m, e) : 0;
        ingest_forget(t->ingest);
    }
    status_phase(t->status, STATUS_TRAINING);
    return rc;
}

/* Waits for the next batch; what it returns is as above. */
static int take_batch(struct trainer *t, struct feed_batch *b, struct err *e)
{
    size_t batch_size = stream_config(t)->batch_size;
    int rc;
    waiting_begins(&t->waiting);
    while ((rc = feed_take(t->feed, b, WAIT_MS, e)) == 1 &&
           (rc = waiting_goes_on(&t->waiting, steps_done(t), "activations", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, rc) == 0 && t->provenance &&
        fwrite(b->origins, sizeof *b->origins, batch_size, t->provenance) != batch_size)
        return err_errno(e, errno, "%s: cannot write", t->o->provenance);
    return rc;
}

/* Calls visit for the held-out rows in pieces of a batch, as training would see them. */
static int for_each_piece(struct trainer *t, const unsigned char *rows, size_t n_rows,
                          int (*visit)(struct trainer *, const float *, size_t, struct err *), struct err *e)
{
    const struct row_sample sample = sample_of(t, rows, n_rows);
    size_t batch_size = stream_config(t)->batch_size;
    float *x = feed_buffer(t->feed); /* the batch in it has been trained on */
    for (size_t i = 0; i < n_rows; i += batch_size) {
        size_t n = n_rows - i < batch_size ? n_rows - i : batch_size;
        row_sample_get(&sample, i, n, x);
        int rc = visit(t, x, n, e);
        if (rc)
            return rc;
    }
    return 0;
}

static int measure(struct trainer *t, const float *x, size_t n, struct err *e)
{
    (void)e;
    for (size_t i = 0; i < t->n_learners; i++)
        if (!t->learners[i].measured)
            learner_measure(&t->learners[i], x, n);
    return 0;
}

static int evaluate_piece(struct trainer *t, const float *x, size_t n, struct err *e)
{
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_wants_evaluation(&t->learners[i]) && learner_evaluate(&t->learners[i], x, n, e))
            return e->code;
    return 0;
}

/* Evaluates the learners that want it on the held-out rows. Stopped while waiting for these: nothing is evaluated, the run saves and ends. */
static int evaluate(struct trainer *t, struct err *e)
{
    const unsigned char *rows;
    size_t n_rows;
    bool wanted = false, measured = true;
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_wants_evaluation(&t->learners[i])) {
            wanted = true;
            measured = measured && t->learners[i].measured;
        }
    if (!wanted)
        return 0;
    int rc;
    waiting_begins(&t->waiting);
    while ((rc = ingest_evaluation_rows(t->ingest, &rows, &n_rows, WAIT_MS, e)) == 1 &&
           (rc = waiting_goes_on(&t->waiting, steps_done(t), "the held-out rows", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, rc) || n_rows == 0)
        return rc == 1 ? 0 : rc;
    if (!measured)
        for_each_piece(t, rows, n_rows, measure, e);
    for (size_t i = 0; i < t->n_learners; i++)
        learner_evaluation_begin(&t->learners[i]);
    if (for_each_piece(t, rows, n_rows, evaluate_piece, e))
        return e->code;
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_wants_evaluation(&t->learners[i]) && learner_evaluation_end(&t->learners[i], e))
            return e->code;
    return 0;
}

/* Tries to save the learners that want it, or all of them. */
static int try_to_save(struct trainer *t, bool all, struct err *e)
{
    if (t->provenance && (fflush(t->provenance) != 0 || fsync(fileno(t->provenance)) != 0))
        return err_errno(e, errno, "%s: cannot write", t->o->provenance);
    for (size_t i = 0; i < t->n_learners; i++)
        if ((all || learner_wants_save(&t->learners[i])) &&
            learner_save(&t->learners[i], &t->normalisation, &t->next, e))
            return e->code;
    return 0;
}

/* Saves the learners that want it, or all of them, or what could not be saved before. A save that fails does not end the run while a later one
 * may succeed: it is tried again after some steps, at the end after a pause. */
static int save(struct trainer *t, bool all, struct err *e)
{
    bool last = all || steps_done(t) == t->learners[0].schedule.total_steps, again = saving_is_due(&t->saving),
         wanted = all || again;
    for (size_t i = 0; i < t->n_learners; i++)
        wanted = wanted || learner_wants_save(&t->learners[i]);
    if (t->saving.failures && !again && !last)
        return 0; /* it is not time yet */
    while (wanted) {
        int rc = try_to_save(t, all || again, e);
        status_checkpoints(t->status, &t->learners[0].tally);
        if (rc == 0)
            t->saving = (struct saving){0};
        else if (!saving_failed(&t->saving, steps_done(t), stream_config(t)->save_retries, *t->o->stop, e))
            return rc;
        wanted = rc != 0 && last;
        if (wanted)
            saving_pause(&t->saving);
    }
    return 0;
}

/* Checks the weights that each learner started from, and makes what its cfg.json holds, now that the scale is known. */
static int describe(struct trainer *t, struct err *e)
{
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_check_init(&t->learners[i], &t->normalisation, &t->stream, e) ||
            learner_describe(&t->learners[i], &t->stream, &t->normalisation, t->run_id, e))
            return e->code;
    return 0;
}

/* A run is resumed that did all its steps but did not come to say how it went: only that is missing, which comes from the held-out rows. */
static int finish_again(struct trainer *t, struct err *e)
{
    for (size_t i = 0; i < t->n_learners; i++)
        learner_step_unknown(&t->learners[i]);
    return evaluate(t, e);
}

/* Fails if a learner has collapsed and shall not go on. */
static int check_health(const struct trainer *t, struct err *e)
{
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_check_health(&t->learners[i], e))
            return e->code;
    return 0;
}

/* Does a learner's step, or passes the batch over if it gives no finite loss or gradient and that is allowed. Either way the rows that stand
 * out are named. */
static int step_or_pass_over(const struct trainer *t, struct learner *l, const struct feed_batch *b, struct err *e)
{
    char rows[400];
    struct err why;
    int rc = learner_step(l, b->x, &why);
    if (rc != ERR_OVERFLOW) {
        *e = why;
        return rc;
    }
    outliers_describe(b->x, b->origins, l->setup.batch_size, &t->stream, rows, sizeof rows);
    err_set(e, rc, "%s; %s; skip_bad_batches is %" PRIu64, why.message, rows, l->config.skip_bad_batches);
    rc = learner_pass_over(l, e);
    if (rc == 0)
        log_line("%s: passed over, number %" PRIu64, e->message, l->backend->skipped);
    return rc;
}

/* Trains on one batch: every learner's step, then what is due after it. */
static int train_batch(struct trainer *t, const struct feed_batch *b, struct err *e)
{
    uint64_t done = steps_done(t);
    int rc = 0;
    for (size_t i = 0; i < t->n_learners && rc == 0; i++)
        rc = step_or_pass_over(t, &t->learners[i], b, e);
    if (steps_done(t) > done)
        t->next = b->next;
    if (rc)
        return rc;
    if (evaluate(t, e) || save(t, false, e))
        return e->code;
    for (size_t i = 0; i < t->n_learners; i++)
        metrics_progress(&t->learners[i].metrics, &t->learners[i].step);
    if (steps_done(t) == t->learners[0].schedule.total_steps || check_health(t, e) == 0)
        return 0; /* at the end the results are written first */
    struct err collapsed = *e;
    if (save(t, true, e))
        return e->code;
    *e = collapsed;
    return e->code;
}

/* Whether all learners have done the same steps, and so can be saved together. */
static bool in_step(const struct trainer *t)
{
    for (size_t i = 1; i < t->n_learners; i++)
        if (learner_steps(&t->learners[i]) != steps_done(t))
            return false;
    return true;
}

/* Says that a run goes over its rows many times, which is rarely meant: before the first window from what the plan knows, after it from
 * what is not masked. Returns whether it did. */
static bool say_many_epochs(const struct trainer *t)
{
    struct shuffle_state s;
    shuffle_state(t->shuffle, &s);
    double epochs = (double)(t->learners[0].schedule.total_steps * stream_config(t)->batch_size) / (double)s.epoch_rows;
    if (epochs < MANY_EPOCHS)
        return false;
    log_line("num_tokens %" PRIu64 " goes over the same %" PRIu64 " rows %.1f times", stream_config(t)->num_tokens,
             s.epoch_rows, epochs);
    return true;
}

/* Trains until the end or until stopped. 0, or an error; *stopped tells which. */
static int train(struct trainer *t, bool *stopped, struct err *e)
{
    uint64_t total_steps = t->learners[0].schedule.total_steps;
    struct feed_batch batch;
    bool described = false, first = !say_many_epochs(t);
    int rc = wait_for_scale(t, e);
    if (rc == 0)
        described = (rc = describe(t, e)) == 0;
    if (rc == 0 && steps_done(t) == total_steps)
        rc = finish_again(t, e);
    else if (rc == 0)
        rc = feed_start(t->feed, t->shuffle, total_steps - steps_done(t), t->normalisation.mean, e);
    while (rc == 0 && steps_done(t) < total_steps && !*t->o->stop && (rc = take_batch(t, &batch, e)) == 0) {
        if (first)
            say_many_epochs(t);
        first = false;
        rc = train_batch(t, &batch, e);
    }
    *stopped = steps_done(t) < total_steps;
    if (rc < 0 && (t->waiting.failed || rc == ERR_MEMORY || rc == ERR_OVERFLOW) && described && in_step(t)) {
        /* A step allocates nothing, and one that fails changes nothing: the weights are as good as ever, and --resume goes on when there are
         * rows, or memory, or the batch may be passed over. */
        struct err saving;
        if (save(t, true, &saving))
            log_line("cannot save: %s", saving.message);
    } else if (rc >= 0 && *stopped && described) {
        return save(t, true, e);
    }
    return rc < 0 ? rc : 0;
}

/* ---- the end ---- */

static int write_results(struct trainer *t, struct learner *l, struct err *e)
{
    if (learner_write_weights(l, &t->normalisation, e))
        return e->code;
    uint64_t batch_size = l->config.batch_size;
    struct shuffle_state served;
    shuffle_state(t->shuffle, &served);
    struct report r = {.out = l->o->out,
                       .init_fingerprint = l->init_fingerprint,
                       .stream = &t->stream,
                       .steps = learner_steps(l),
                       .rows_expected = l->schedule.total_steps * batch_size,
                       .rows_resumed = l->metrics.first_step * batch_size,
                       .rows_trained = served.rows_served,
                       .rows_masked = served.rows_masked,
                       .batches_skipped = l->backend->skipped,
                       .epoch_rows = served.epoch_rows,
                       .epoch_estimated = served.epoch_estimated,
                       .step = &l->step,
                       .evaluation = l->evaluated ? &l->evaluation_report : NULL,
                       .collapse = l->health.collapse,
                       .clipped = backend_clipped_share(l->backend),
                       .d_sae = l->setup.d_sae,
                       .dead_rows = l->config.dead_rows,
                       .has_k = backend_has_k(&l->setup),
                       .rows_per_s = metrics_rows_per_s(&l->metrics, learner_steps(l)),
                       .waiting_share = metrics_waiting_share(&l->metrics, learner_steps(l)),
                       .checkpoints = &l->tally,
                       .budget_bytes = budget_total(&t->budget)};
    ingest_counters(t->ingest, &r.ingest);
    struct recovery_result recovered;
    if (l->o->truth) {
        if (learner_measure_recovery(l, t->normalisation.scale, &recovered, e))
            return e->code;
        r.recovered = &recovered;
    }
    return report_write(&r, e);
}

/* Tells the producers that it is over, and writes the results of a run that is done. */
static int finish(struct trainer *t, int rc, bool stopped, struct err *e)
{
    char reason[512];
    snprintf(reason, sizeof reason, "%s",
             rc        ? e->message
             : stopped ? "trainer stopped by a signal, its state is saved"
                       : "training is done");
    if (t->ingest)
        ingest_finish(t->ingest, rc == 0, reason);
    for (size_t i = 0; rc == 0 && !stopped && i < t->n_learners; i++)
        rc = write_results(t, &t->learners[i], e);
    if (rc == 0 && !stopped)
        rc = check_health(t, e);
    if (rc == 0 && stopped && !t->learners[0].cfg)
        log_line("stopped before the first step");
    else if (stopped && t->learners[0].saved_step == steps_done(t))
        log_line("stopped at step %" PRIu64 " of %" PRIu64 "; --resume goes on", steps_done(t),
                 t->learners[0].schedule.total_steps);
    return rc;
}

int run(const struct run_options *o, const struct learner_options *learners, size_t n, struct err *e)
{
    struct trainer *t = mem_alloc(1, sizeof *t, "trainer", e);
    if (!t)
        return ERR_MEMORY;
    if (!(t->learners = mem_alloc(n, sizeof *t->learners, "learners", e))) {
        mem_free(t);
        return ERR_MEMORY;
    }
    t->o = o;
    t->n_learners = n;
    for (size_t i = 0; i < n; i++)
        t->learners[i].lock = -1;
    bool stopped = false;
    int rc = set_up(t, learners, e);
    if (rc == ERR_STOPPED) {
        log_line("%s", e->message);
        rc = 0;
        stopped = true;
    } else {
        if (rc == 0)
            rc = train(t, &stopped, e);
        rc = finish(t, rc, stopped, e);
    }
    metrics_endpoint_stop(t->endpoint);
    for (size_t i = 0; i < n; i++) {
        struct err close_error;
        if (learner_close_metrics(&t->learners[i], rc ? &close_error : e) && rc == 0)
            rc = e->code;
    }
    if (t->provenance && fclose(t->provenance) != 0 && rc == 0)
        rc = err_errno(e, errno, "%s: cannot write", o->provenance);
    if (t->status)
        status_end(t->status, rc ? STATUS_FAILED : stopped ? STATUS_STOPPED : STATUS_DONE, rc ? e->message : "");
    status_writer_stop(t->status_writer); /* it looks at the ingest, which tear_down frees */
    tear_down(t);
    status_free(t->status);
    mem_free(t->learners);
    mem_free(t);
    return rc;
}
