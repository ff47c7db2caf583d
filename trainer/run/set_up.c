/* set_up.c - a run from its flags to its first step; see trainer.h.
 *
 * In this order: bind, wait for the first producer (its stream says how large all is), print the memory budget,
 * allocate, load or initialise, start the ingest thread. Nothing large is allocated before the budget is printed. */
#include "trainer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include "checkpoint.h"
#include "file.h"
#include "gemm.h"
#include "link.h"
#include "log.h"
#include "mem.h"
#include "stream_json.h"
#include "weights_file.h"

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

/* One trainer a folder: two would overwrite each other's checkpoints. The kernel drops the lock when we die. What one that
 * was killed left half-written is removed. */
static int lock_out(struct trainer *t, struct err *e)
{
    t->lock = open(t->o->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (t->lock < 0)
        return err_errno(e, errno, "%s: cannot open", t->o->out);
    if (flock(t->lock, LOCK_EX | LOCK_NB) != 0)
        return err_set(e, ERR_MISMATCH, "%s: another trainer is writing to this folder", t->o->out);
    return file_remove_leftovers(t->o->out, e);
}

/* What a resumed run takes from its checkpoint before the first producer is heard. */
static int read_checkpoint_config(struct trainer *t, struct stream *expected, struct err *e)
{
    json_t *saved;
    if (checkpoint_latest(t->o->out, t->checkpoint, e) || checkpoint_config(t->checkpoint, &saved, e))
        return e->code;
    int rc = config_resume(&t->config, saved, t->checkpoint, e);
    if (rc == 0)
        rc = stream_from_json(expected, json_object_get(saved, "stream"), t->checkpoint, e);
    const char *run_id = json_string_value(json_object_get(saved, "run"));
    if (rc == 0 && run_id)
        snprintf(t->run_id, sizeof t->run_id, "%s", run_id);
    const json_t *scale = json_object_get(saved, "run_scale");
    if (rc == 0 && json_array_size(scale) != expected->n_sites)
        rc = err_set(e, ERR_INPUT, "%s: %zu scales for %u sites", t->checkpoint, json_array_size(scale),
                     expected->n_sites);
    for (size_t i = 0; rc == 0 && i < expected->n_sites; i++)
        t->scale[i] = (float)json_number_value(json_array_get(scale, i));
    t->has_scale = rc == 0;
    json_decref(saved);
    return rc;
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
    int rc;
    waiting_begins(&t->waiting);
    while ((rc = ingest_stream(t->ingest, &t->stream, WAIT_MS, e)) == 1 &&
           (rc = waiting_goes_on(&t->waiting, t->state.step, "a producer", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, rc) == 1)
        return err_set(e, ERR_STOPPED, "stopped while waiting for the first producer");
    return rc;
}

/* Settles config, scale and stream: from flags, the checkpoint and the first producer. */
static int meet_first_producer(struct trainer *t, struct err *e)
{
    const struct config *c = &t->config;
    struct stream expected;
    struct ingest_options io = {.endpoints = t->o->endpoints,
                                .n_endpoints = t->o->n_endpoints,
                                .door = t->o->door,
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
    io.audit = c->audit;
    io.audit_tolerance = c->audit_tolerance;
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

static struct row_store_config row_store_config_of(struct trainer *t)
{
    return (struct row_store_config){.stream = &t->stream,
                                     .plan = &t->plan,
                                     .shuffle = t->shuffle,
                                     .dtype = t->config.dtype,
                                     .scale_blocks = t->scale_blocks,
                                     .n_scale_blocks = t->n_scale_blocks};
}

static struct feed_config feed_config_of(const struct trainer *t)
{
    return (struct feed_config){.batch_size = t->config.batch_size,
                                .row_elements = (size_t)t->stream.n_sites * t->stream.d_model,
                                .origins = t->o->provenance != NULL};
}

static int print_budget(struct trainer *t, struct err *e)
{
    struct budget *b = &t->budget;
    const struct config *c = &t->config;
    struct shuffle_config sc = shuffle_config_of(t);
    struct row_store_config ic = row_store_config_of(t);
    struct feed_config fc = feed_config_of(t);
    size_t feed_bytes;
    if (feed_memory(&fc, &feed_bytes, e) || shuffle_memory(&sc, &b->window, &b->window_index, e))
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
    b->workspace += feed_bytes;
    b->program = mem_rss();
    row_store_memory(&ic, &b->evaluation, &b->raw);
    size_t block_bytes = t->plan.max_block_rows * (stream_row_bytes(&t->stream, c->dtype) + sizeof(struct row_origin));
    b->wire = (c->credit < INGEST_FIRST_CREDIT ? c->credit : INGEST_FIRST_CREDIT) * block_bytes;
    return budget_print(b, e);
}

static int allocate(struct trainer *t, struct err *e)
{
    const struct config *c = &t->config;
    size_t d_sae = c->dict_size;
    if (crosscoder_init(&t->crosscoder, t->stream.n_sites, t->stream.d_model, d_sae, e) ||
        train_state_init(&t->state, &t->crosscoder, &t->setup, e) ||
        evaluation_init(&t->evaluation, &t->crosscoder, &t->state.forward, e) ||
        (t->o->truth && recovery_init(&t->recovery, t->o->truth, t->stream.n_sites, t->stream.d_model, e)))
        return e->code;
    struct feed_config fc = feed_config_of(t);
    return feed_new(&t->feed, &fc, e);
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
        (o->metrics_listen && metrics_endpoint_start(&t->endpoint, o->metrics_listen, o->door.insecure, t->status, e)))
        return e->code;
    t->metrics.status = t->status;
    if (t->endpoint)
        log_line("metrics at %s", metrics_endpoint_url(t->endpoint));
    return 0;
}

int set_up(struct trainer *t, struct err *e)
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
    struct row_store_config ic = row_store_config_of(t);
    return ingest_start(t->ingest, &ic, e);
}

void tear_down(struct trainer *t)
{
    feed_free(t->feed);
    ingest_free(t->ingest);
    shuffle_free(t->shuffle);
    recovery_release(&t->recovery);
    evaluation_release(&t->evaluation);
    train_state_release(&t->state);
    crosscoder_release(&t->crosscoder);
    plan_release(&t->plan);
    free(t->scale_blocks);
    json_decref(t->cfg);
    if (t->lock >= 0)
        close(t->lock);
}
