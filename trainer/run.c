/* run.c - puts the trainer's parts together: set-up, the training loop, evaluation, checkpoints, the last report.
 *
 * Order of set-up: bind, wait for the first producer (its stream says how large all is), print the memory budget,
 * allocate, load or initialise, start the ingest thread, train. Nothing large is allocated before the budget is
 * printed. */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "bf16.h"
#include "budget.h"
#include "checkpoint.h"
#include "crosscoder.h"
#include "evaluation.h"
#include "file.h"
#include "gemm.h"
#include "ingest.h"
#include "json_file.h"
#include "link.h"
#include "log.h"
#include "mem.h"
#include "metrics.h"
#include "metrics_endpoint.h"
#include "plan.h"
#include "recovery.h"
#include "report.h"
#include "schedule.h"
#include "shuffle.h"
#include "status.h"
#include "step.h"
#include "stream_json.h"
#include "version.h"
#include "waiting.h"
#include "weights_file.h"

#define PATH_SIZE 4096
#define WAIT_MS 200

struct trainer {
    const struct run_options *o;
    struct config config;
    char checkpoint[PATH_SIZE]; /* resumed from; "" = none */
    struct schedule schedule;
    struct stream stream;
    struct plan plan;
    struct budget budget;
    struct ingest *ingest;
    struct shuffle *shuffle;
    struct crosscoder crosscoder;
    struct train_setup setup;
    struct train_state state;
    struct evaluation evaluation;
    bool evaluation_measured;
    struct evaluation_report evaluation_report;
    struct recovery recovery; /* if there is a ground truth */
    struct step_report step;
    struct metrics metrics;
    struct waiting waiting;
    struct status *status;
    struct metrics_endpoint *endpoint;
    bool has_scale;
    float scale[STREAM_MAX_SITES];
    uint32_t *scale_blocks; /* [n_scale_blocks] */
    uint32_t n_scale_blocks;
    float *x;                   /* [batch_size, n_inputs] */
    struct row_origin *origins; /* [batch_size] if provenance is wanted */
    struct plan_place next;     /* of the row after the batch in x */
    FILE *provenance;
    json_t *cfg;
    char run_id[FINGERPRINT_SIZE];
    int lock;            /* of the folder; -1: none */
    uint64_t saved_step; /* of the newest checkpoint; 0: none */
};

/* ---- set-up ---- */

static int check_out(const struct run_options *o, struct err *e)
{
    char path[PATH_SIZE];
    struct file_out probe;
    if ((o->resume ? checkpoint_latest(o->out, path, e) : file_make_folder(o->out, e)) ||
        file_join(path, sizeof path, o->out, "metrics.jsonl", e))
        return e->code;
    if (!o->resume && access(path, F_OK) == 0)
        return err_set(e, ERR_INPUT, "%s holds a run already: --resume goes on with it, or choose another --out",
                       o->out);
    if (file_join(path, sizeof path, o->out, ".writable", e) || file_out_open(&probe, path, e))
        return e->code;
    file_out_abandon(&probe);
    return 0;
}

/* One trainer a folder: two would overwrite each other's checkpoints. The kernel drops the lock when we die. */
static int lock_out(struct trainer *t, struct err *e)
{
    t->lock = open(t->o->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->lock < 0)
        return err_errno(e, errno, "%s: cannot open", t->o->out);
    if (flock(t->lock, LOCK_EX | LOCK_NB) != 0)
        return err_set(e, ERR_MISMATCH, "%s: another trainer is writing to this folder", t->o->out);
    return 0;
}

/* What a resumed run takes from its checkpoint before the first producer is heard. */
static int read_checkpoint_config(struct trainer *t, struct stream *expected, struct err *e)
{
    json_t *saved;
    if (checkpoint_latest(t->o->out, t->checkpoint, e) || checkpoint_config(t->checkpoint, &saved, e))
        return e->code;
    int result = config_resume(&t->config, saved, t->checkpoint, e);
    if (result == 0)
        result = stream_from_json(expected, json_object_get(saved, "stream"), t->checkpoint, e);
    const char *run_id = json_string_value(json_object_get(saved, "run"));
    if (result == 0 && run_id)
        snprintf(t->run_id, sizeof t->run_id, "%s", run_id);
    const json_t *scale = json_object_get(saved, "run_scale");
    if (result == 0 && json_array_size(scale) != expected->n_sites)
        result = err_set(e, ERR_INPUT, "%s: %zu scales for %u sites", t->checkpoint, json_array_size(scale),
                         expected->n_sites);
    for (size_t i = 0; result == 0 && i < expected->n_sites; i++)
        t->scale[i] = (float)json_number_value(json_array_get(scale, i));
    t->has_scale = result == 0;
    json_decref(saved);
    return result;
}

static int make_schedule(struct trainer *t, struct err *e)
{
    const struct config *c = &t->config;
    t->schedule = (struct schedule){.total_steps = c->num_tokens / c->batch_size,
                                    .lr = c->lr,
                                    .l1_coeff = c->l1_coeff,
                                    .lr_warmup_fraction = c->lr_warmup,
                                    .lr_decay_fraction = c->lr_decay,
                                    .l1_warmup_fraction = c->l1_warmup};
    if (c->timeout_ms < c->heartbeat_ms)
        return err_set(e, ERR_INPUT, "timeout_ms %" PRIu64 " is less than heartbeat_ms %" PRIu64, c->timeout_ms,
                       c->heartbeat_ms);
    if (t->schedule.total_steps == 0)
        return err_set(e, ERR_INPUT, "num_tokens %" PRIu64 " is less than one batch of %" PRIu64, c->num_tokens,
                       c->batch_size);
    return schedule_check(&t->schedule, e);
}

static int wait_for_stream(struct trainer *t, struct err *e)
{
    int result;
    waiting_begins(&t->waiting);
    while ((result = ingest_stream(t->ingest, &t->stream, WAIT_MS, e)) == 1 &&
           (result = waiting_goes_on(&t->waiting, t->state.step, "a producer", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, result) == 1)
        return err_set(e, ERR_STOPPED, "stopped while waiting for the first producer");
    return result;
}

/* Settles config, scale and stream: from flags, the checkpoint and the first producer. */
static int meet_first_producer(struct trainer *t, struct err *e)
{
    const struct config *c = &t->config;
    struct stream expected;
    struct ingest_options io = {.endpoints = t->o->endpoints,
                                .n_endpoints = t->o->n_endpoints,
                                .insecure = t->o->insecure,
                                .run_id = t->run_id,
                                .status = t->status};
    if (t->o->resume) {
        if (read_checkpoint_config(t, &expected, e))
            return e->code;
        io.expected = &expected;
        io.n_scale = expected.n_sites;
    } else if (*c->scale) {
        if (stream_parse_scale(c->scale, t->scale, &io.n_scale, e))
            return e->code;
        t->has_scale = true;
    }
    io.dtype = c->dtype;
    io.scale = t->has_scale ? t->scale : NULL;
    io.block_seqs = (uint32_t)c->model_batch_size;
    io.credit = (uint32_t)c->credit;
    io.heartbeat_ms = (uint32_t)c->heartbeat_ms;
    io.timeout_ms = (uint32_t)c->timeout_ms;
    if (make_schedule(t, e) || ingest_new(&t->ingest, &io, e))
        return e->code;
    t->waiting = (struct waiting){
        .ingest = t->ingest, .metrics = &t->metrics, .stop = t->o->stop, .timeout_s = t->config.wait_timeout};
    for (size_t i = 0; i < t->o->n_endpoints; i++)
        log_line("listening at %s", ingest_endpoint(t->ingest, i));
    if (wait_for_stream(t, e))
        return e->code;
    if (!t->has_scale && t->stream.has_scale) {
        memcpy(t->scale, t->stream.scale, sizeof t->scale);
        t->has_scale = true;
    }
    return 0;
}

static int make_plan(struct trainer *t, struct err *e)
{
    const struct config *c = &t->config;
    if (plan_init(&t->plan, &t->stream, c->seed, (uint32_t)c->model_batch_size, (uint32_t)c->eval_blocks,
                  c->batch_size * c->buffer_mult, e))
        return e->code;
    if (t->has_scale)
        return 0;
    /* Measured on the first blocks of the first window, as many as it takes. */
    t->scale_blocks = calloc(t->plan.window_blocks, sizeof *t->scale_blocks);
    if (!t->scale_blocks)
        return err_set(e, ERR_MEMORY, "block list: out of memory");
    uint32_t n;
    plan_window(&t->plan, 0, t->scale_blocks, &n);
    for (size_t rows = 0; t->n_scale_blocks < n && rows < c->scale_rows; t->n_scale_blocks++)
        rows += plan_block_rows(&t->plan, t->scale_blocks[t->n_scale_blocks]);
    return 0;
}

static struct shuffle_config shuffle_config_of(struct trainer *t)
{
    const struct config *c = &t->config;
    return (struct shuffle_config){.plan = &t->plan,
                                   .row_elements = (size_t)t->stream.n_sites * t->stream.d_model,
                                   .dtype = c->dtype,
                                   .lookahead_rows = c->lookahead_blocks * t->plan.max_block_rows,
                                   .total_rows = t->schedule.total_steps * c->batch_size,
                                   .wake = ingest_wake_fd(t->ingest)};
}

static struct intake_config intake_config_of(struct trainer *t)
{
    return (struct intake_config){.stream = &t->stream,
                                  .plan = &t->plan,
                                  .shuffle = t->shuffle,
                                  .dtype = t->config.dtype,
                                  .scale_blocks = t->scale_blocks,
                                  .n_scale_blocks = t->n_scale_blocks};
}

static int print_budget(struct trainer *t, struct err *e)
{
    struct budget *b = &t->budget;
    const struct config *c = &t->config;
    struct shuffle_config sc = shuffle_config_of(t);
    struct intake_config ic = intake_config_of(t);
    size_t row_elements = sc.row_elements, batch_bytes;
    if (!size_mul(c->batch_size * sizeof(float), row_elements, &batch_bytes))
        return err_set(e, ERR_MEMORY, "batch of %" PRIu64 " rows does not fit in memory", c->batch_size);
    if (shuffle_memory(&sc, &b->window, &b->window_index, e))
        return e->code;
    /* The gradients of dense steps are kept where they take at most a tenth of the machine: the same results, faster.
     */
    t->setup = (struct train_setup){.batch_size = c->batch_size, .path = STEP_AUTO, .keep_gradients = true};
    size_t kept;
    if (train_step_memory(t->stream.n_sites, t->stream.d_model, c->dict_size, &t->setup, &kept, &b->workspace, e))
        return e->code;
    t->setup.keep_gradients = kept / 4 <= budget_machine() / 10;
    if (train_step_memory(t->stream.n_sites, t->stream.d_model, c->dict_size, &t->setup, &b->parameters, &b->workspace,
                          e))
        return e->code;
    b->workspace += batch_bytes;
    b->program = mem_rss();
    intake_memory(&ic, &b->evaluation, &b->raw);
    size_t block_bytes = t->plan.max_block_rows * (stream_row_bytes(&t->stream, c->dtype) + sizeof(struct row_origin));
    size_t chunk_bytes = stream_chunk_rows(&t->stream, c->dtype) * stream_row_bytes(&t->stream, c->dtype);
    b->wire = c->credit * block_bytes < LINK_RECEIVE_HWM * chunk_bytes ? c->credit * block_bytes
                                                                       : LINK_RECEIVE_HWM * chunk_bytes;
    return budget_print(b, e);
}

static int allocate(struct trainer *t, struct err *e)
{
    const struct config *c = &t->config;
    size_t d_sae = c->dict_size, batch = c->batch_size;
    if (crosscoder_init(&t->crosscoder, t->stream.n_sites, t->stream.d_model, d_sae, e) ||
        train_state_init(&t->state, &t->crosscoder, &t->setup, e) ||
        evaluation_init(&t->evaluation, &t->crosscoder, &t->state.forward, e) ||
        (t->o->truth && recovery_init(&t->recovery, t->o->truth, t->stream.n_sites, t->stream.d_model, e)))
        return e->code;
    t->x = mem_alloc(batch, t->crosscoder.n_inputs * sizeof *t->x, "batch", e);
    t->origins = t->o->provenance ? mem_alloc(batch, sizeof *t->origins, "batch origins", e) : NULL;
    return t->x && (t->origins || !t->o->provenance) ? 0 : ERR_MEMORY;
}

static int set_weights(struct trainer *t, struct err *e)
{
    float scale[STREAM_MAX_SITES];
    if (t->o->resume) {
        if (checkpoint_load(t->checkpoint, &t->crosscoder, scale, &t->state, &t->next, e))
            return e->code;
        t->saved_step = t->state.step;
        log_line("resuming from %s, step %" PRIu64 " of %" PRIu64, t->checkpoint, t->state.step,
                 t->schedule.total_steps);
    } else if (t->o->init) {
        return weights_file_load(t->o->init, &t->crosscoder, scale, e);
    } else {
        crosscoder_init_weights(&t->crosscoder, t->config.dec_init_norm, t->config.seed);
    }
    return 0;
}

static int open_provenance(struct trainer *t, struct err *e)
{
    const char *path = t->o->provenance;
    if (!path)
        return 0;
    /* A resumed run goes on from its checkpoint; a file that ends before that is not the run's. */
    long bytes = (long)(t->state.step * t->config.batch_size * sizeof(struct row_origin)), had;
    t->provenance = fopen(path, bytes ? "r+be" : "wbe");
    if (!t->provenance || fseek(t->provenance, 0, SEEK_END) != 0 || (had = ftell(t->provenance)) < 0)
        return err_errno(e, errno, "%s: cannot open", path);
    if (had < bytes)
        return err_set(e, ERR_MISMATCH, "%s: %ld bytes, the checkpoint at step %" PRIu64 " has %ld", path, had,
                       t->state.step, bytes);
    if (ftruncate(fileno(t->provenance), bytes) != 0 || fseek(t->provenance, bytes, SEEK_SET) != 0)
        return err_errno(e, errno, "%s: cannot cut to %ld bytes", path, bytes);
    return 0;
}

static int open_status(struct trainer *t, struct err *e)
{
    const struct run_options *o = t->o;
    if (status_new(&t->status, o->out, e) ||
        (o->metrics_listen && metrics_endpoint_start(&t->endpoint, o->metrics_listen, o->insecure, t->status, e)))
        return e->code;
    t->metrics.status = t->status;
    if (t->endpoint)
        log_line("metrics at %s", metrics_endpoint_url(t->endpoint));
    return 0;
}

static int set_up(struct trainer *t, struct err *e)
{
    unsigned char random[16];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return err_errno(e, errno, "cannot get random bytes");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(t->run_id + 2 * i, 3, "%02x", random[i]);
    if (check_out(t->o, e) || lock_out(t, e) || open_status(t, e) || meet_first_producer(t, e))
        return e->code;
    int threads = t->config.threads ? (int)t->config.threads : omp_get_num_procs();
    omp_set_num_threads(threads);
    gemm_set_threads(threads);
    if (make_plan(t, e) || print_budget(t, e) || allocate(t, e) || set_weights(t, e) || open_provenance(t, e) ||
        metrics_open(&t->metrics, t->o->out, t->state.step, t->schedule.total_steps, t->config.batch_size, t->status,
                     e))
        return e->code;
    status_run(t->status, t->run_id, t->state.step, t->schedule.total_steps, t->config.batch_size);
    struct shuffle_config sc = shuffle_config_of(t);
    sc.start_row = t->state.step * t->config.batch_size;
    sc.start = t->next;
    if (shuffle_new(&t->shuffle, &sc, e))
        return e->code;
    struct intake_config ic = intake_config_of(t);
    return ingest_start(t->ingest, &ic, e);
}

/* ---- training ---- */

/* 0, 1 = stopped by a signal, or an error. */
static int wait_for_scale(struct trainer *t, struct err *e)
{
    int result;
    status_phase(t->status, STATUS_SCALE);
    waiting_begins(&t->waiting);
    while ((result = ingest_scale(t->ingest, t->scale, WAIT_MS, e)) == 1 &&
           (result = waiting_goes_on(&t->waiting, t->state.step, "activations", e)) == 0)
        ;
    result = waiting_ends(&t->waiting, result);
    status_phase(t->status, STATUS_TRAINING);
    return result;
}

static int take_batch(struct trainer *t, struct err *e)
{
    int result;
    waiting_begins(&t->waiting);
    while ((result = shuffle_take(t->shuffle, t->x, t->origins, t->config.batch_size, WAIT_MS, e)) == 1 &&
           (result = waiting_goes_on(&t->waiting, t->state.step, "activations", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, result) == 0) {
        struct shuffle_state state;
        shuffle_state(t->shuffle, &state);
        t->next = state.next;
    }
    if (result == 0 && t->provenance &&
        fwrite(t->origins, sizeof *t->origins, t->config.batch_size, t->provenance) != t->config.batch_size)
        return err_errno(e, errno, "%s: cannot write", t->o->provenance);
    return result;
}

/* Feeds the held-out rows in pieces of a batch through visit. */
static void for_each_piece(struct trainer *t, const unsigned char *rows, size_t n_rows,
                           void (*visit)(struct evaluation *, const float *, size_t))
{
    size_t n_inputs = t->crosscoder.n_inputs, row_bytes = stream_row_bytes(&t->stream, t->config.dtype);
    for (size_t i = 0; i < n_rows; i += t->config.batch_size) {
        size_t n = n_rows - i < t->config.batch_size ? n_rows - i : t->config.batch_size;
        if (t->config.dtype == ROW_BF16)
            bf16_to_f32_n(t->x, rows + i * row_bytes, n * n_inputs);
        else
            memcpy(t->x, rows + i * row_bytes, n * row_bytes);
        visit(&t->evaluation, t->x, n);
    }
}

static int evaluate(struct trainer *t, struct err *e)
{
    const unsigned char *rows;
    size_t n_rows;
    int result;
    waiting_begins(&t->waiting);
    while ((result = ingest_evaluation_rows(t->ingest, &rows, &n_rows, WAIT_MS, e)) == 1 &&
           (result = waiting_goes_on(&t->waiting, t->state.step, "the held-out rows", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, result) || n_rows == 0)
        return result == 1 ? 0 : result; /* stopped: no evaluation, the run saves and ends */
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
    int result = wait_for_scale(t, e);
    if (result == 0)
        result = make_cfg(t, e);
    if (result == 0 && t->state.step == t->schedule.total_steps)
        result = finish_again(t, e);
    while (result == 0 && t->state.step < t->schedule.total_steps && !*t->o->stop && (result = take_batch(t, e)) == 0) {
        uint64_t next = t->state.step + 1; /* steps done after this one */
        bool last = next == t->schedule.total_steps;
        so.lr = schedule_lr(&t->schedule, t->state.step);
        so.l1_coeff = schedule_l1_coeff(&t->schedule, t->state.step);
        so.want_metrics = last || next % c->log_every == 0;
        if ((result = train_step(&t->state, t->x, &so, &t->step, e)) != 0)
            break;
        if (so.want_metrics)
            result = metrics_step(&t->metrics, &t->step, t->stream.n_sites, e);
        if (result == 0 && (last || next % c->eval_every == 0))
            result = evaluate(t, e);
        if (result == 0 && (last || next % c->save_every == 0))
            result = save(t, e);
        metrics_progress(&t->metrics, &t->step);
    }
    *stopped = t->state.step < t->schedule.total_steps;
    if (result < 0 && t->waiting.failed && t->cfg) {
        /* the weights are as good as ever: --resume goes on when there are rows */
        struct err saving;
        if (save(t, &saving))
            log_line("cannot save: %s", saving.message);
    } else if (result >= 0 && *stopped && t->cfg) {
        return save(t, e);
    }
    return result < 0 ? result : 0;
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
    int result = set_up(t, e);
    if (result == ERR_STOPPED) {
        log_line("%s", e->message);
        result = 0;
        stopped = true;
    } else {
        if (result == 0)
            result = train(t, &stopped, e);
        char reason[512];
        snprintf(reason, sizeof reason, "%s",
                 result    ? e->message
                 : stopped ? "trainer stopped by a signal, its state is saved"
                           : "training is done");
        if (t->ingest)
            ingest_finish(t->ingest, result == 0, reason);
        if (result == 0 && !stopped)
            result = write_results(t, e);
        if (result == 0 && stopped && !t->cfg)
            log_line("stopped before the first step");
        else if (stopped && t->saved_step == t->state.step)
            log_line("stopped at step %" PRIu64 " of %" PRIu64 "; --resume goes on", t->state.step,
                     t->schedule.total_steps);
    }
    metrics_endpoint_stop(t->endpoint);
    struct err close_error;
    if (metrics_close(&t->metrics, result ? &close_error : e) && result == 0)
        result = e->code;
    if (t->provenance && fclose(t->provenance) != 0 && result == 0)
        result = err_errno(e, errno, "%s: cannot write", o->provenance);
    ingest_free(t->ingest);
    if (t->status)
        status_finish(t->status,
                      result    ? STATUS_FAILED
                      : stopped ? STATUS_STOPPED
                                : STATUS_DONE,
                      result ? e->message : "");
    status_free(t->status);
    shuffle_free(t->shuffle);
    recovery_release(&t->recovery);
    evaluation_release(&t->evaluation);
    train_state_release(&t->state);
    crosscoder_release(&t->crosscoder);
    plan_release(&t->plan);
    free(t->scale_blocks);
    mem_free(t->x);
    mem_free(t->origins);
    json_decref(t->cfg);
    if (t->lock >= 0)
        close(t->lock);
    free(t);
    return result;
}
