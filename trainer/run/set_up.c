/* set_up.c - a run from its flags to its first step; see trainer.h.
 *
 * In this order: take the folder, read flags and checkpoint (a finished run ends here), bind, wait for the first producer (its stream says
 * how large all is), print the memory budget, allocate, load or initialise, start the ingest thread. Nothing large is allocated before
 * the budget is printed. */
#include "trainer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "credit.h"
#include "gemm.h"
#include "json_file.h"
#include "log.h"
#include "mem.h"
#include "overwrite.h"
#include "row_store.h"
#include "scale_list.h"
#include "stream_json.h"
#include "weights_file.h"

/* Takes a number a site, x [n_sites], from a checkpoint's cfg.json; above 0, unless 0 may be. */
static int read_sites(const json_t *saved, const char *key, const char *checkpoint, uint32_t n_sites, bool may_be_0,
                      float *x, struct err *e)
{
    const json_t *list = json_object_get(saved, key);
    if (json_array_size(list) != n_sites)
        return err_set(e, ERR_INPUT, "%s/cfg.json: %s has %zu values, must be %u, one a site", checkpoint, key,
                       json_array_size(list), n_sites);
    for (uint32_t site = 0; site < n_sites; site++) {
        const json_t *value = json_array_get(list, site);
        x[site] = (float)json_number_value(value);
        if (!json_is_number(value))
            return err_set(e, ERR_INPUT, "%s/cfg.json: %s[%u] is not a number", checkpoint, key, site);
        if (!(x[site] > 0 || (may_be_0 && x[site] >= 0)) || !isfinite(x[site]))
            return err_set(e, ERR_INPUT, "%s/cfg.json: %s[%u] is %g, must be %s and finite in fp32", checkpoint, key,
                           site, json_number_value(value), may_be_0 ? "0 or more" : "positive");
    }
    return 0;
}

/* Takes the stream from a run's cfg.json or a recording's manifest.json. */
static int read_expected(const char *path, struct stream *expected, struct err *e)
{
    json_t *saved;
    if (json_read_object(path, &saved, e))
        return e->code;
    int rc = stream_from_json(expected, json_object_get(saved, "stream"), path, e);
    json_decref(saved);
    return rc;
}

/* Takes what the run knows of its rows. A scale that is not positive would have every producer reject its WELCOME and join again for ever.
 * Runs older than the median norms go on without them. */
static int read_normalisation(const json_t *saved, const char *checkpoint, uint32_t n_sites, struct normalisation *n,
                              struct err *e)
{
    if (read_sites(saved, "run_scale", checkpoint, n_sites, false, n->scale, e))
        return e->code;
    n->has_median_norm = json_object_get(saved, "median_norm");
    return n->has_median_norm ? read_sites(saved, "median_norm", checkpoint, n_sites, true, n->median_norm, e) : 0;
}

/* Takes from the first learner's checkpoint what the run needs before the first producer is heard: its stream, the scale, the run's id.
 * Every other learner's checkpoint must be of the same run. */
static int read_checkpoints(struct trainer *t, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < t->n_learners; i++) {
        struct learner *l = &t->learners[i];
        json_t *saved = NULL;
        if (learner_find_checkpoint(l, &saved, e))
            return e->code;
        const char *run_id = json_string_value(json_object_get(saved, "run"));
        if (i > 0) {
            if (!run_id || strcmp(run_id, t->run_id) != 0)
                rc = err_set(e, ERR_MISMATCH, "%s is of run %s, %s of run %s", l->checkpoint, run_id ? run_id : "?",
                             t->learners[0].checkpoint, t->run_id);
            json_decref(saved);
            continue;
        }
        rc = stream_from_json(&t->stream, json_object_get(saved, "stream"), l->checkpoint, e);
        if (rc == 0 && run_id)
            snprintf(t->run_id, sizeof t->run_id, "%s", run_id);
        if (rc == 0)
            rc = read_normalisation(saved, l->checkpoint, t->stream.n_sites, &t->normalisation, e);
        t->has_scale = rc == 0;
        json_decref(saved);
    }
    return rc;
}

/* Refuses a learner whose configuration asks for another stream than the first one's. */
static int check_same_stream(const struct trainer *t, struct err *e)
{
    const struct config *a = stream_config(t);
    for (size_t i = 1; i < t->n_learners; i++) {
        const struct config *b = &t->learners[i].config;
        const struct {
            const char *name;
            uint64_t first, other;
        } keys[] = {{"seed", a->seed, b->seed},
                    {"batch_size", a->batch_size, b->batch_size},
                    {"buffer_mult", a->buffer_mult, b->buffer_mult},
                    {"num_tokens", a->num_tokens, b->num_tokens},
                    {"model_batch_size", a->model_batch_size, b->model_batch_size},
                    {"eval_blocks", a->eval_blocks, b->eval_blocks},
                    {"scale_rows", a->scale_rows, b->scale_rows},
                    {"scale_mode", a->scale_mode, b->scale_mode},
                    {"center", a->center, b->center},
                    {"dtype", a->dtype, b->dtype}};
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            if (keys[k].first != keys[k].other)
                return err_set(e, ERR_MISMATCH, "%s: %s is %" PRIu64 ", the stream's is %" PRIu64,
                               t->learners[i].o->out, keys[k].name, keys[k].other, keys[k].first);
        if (a->scale_target != b->scale_target)
            return err_set(e, ERR_MISMATCH, "%s: scale_target is %g, the stream's is %g", t->learners[i].o->out,
                           b->scale_target, a->scale_target);
        if (strcmp(a->scale, b->scale) != 0)
            return err_set(e, ERR_MISMATCH, "%s: scale is '%s', the stream's is '%s'", t->learners[i].o->out, b->scale,
                           a->scale);
    }
    return 0;
}

static int plan_steps(struct trainer *t, struct err *e)
{
    const struct config *c = stream_config(t);
    if (c->timeout_ms < c->heartbeat_ms)
        return err_set(e, ERR_INPUT, "timeout_ms %" PRIu64 " is less than heartbeat_ms %" PRIu64, c->timeout_ms,
                       c->heartbeat_ms);
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_plan_steps(&t->learners[i], e))
            return e->code;
    return check_same_stream(t, e);
}

/* Refuses a scale of somebody's own for a run that says how the scale is to be measured. */
static int check_known_scale(const struct config *c, const char *whose, double first, struct err *e)
{
    if (c->scale_mode == SCALE_MEAN_NORM && !(c->scale_target < 1) && !(c->scale_target > 1))
        return 0;
    return err_set(e, ERR_INPUT,
                   "the scale is %s (%g is its first value) and is not measured: scale_mode %s, scale_target %g", whose,
                   first, scale_mode_names[c->scale_mode], c->scale_target);
}

static int wait_for_stream(struct trainer *t, struct err *e)
{
    int rc;
    waiting_begins(&t->waiting);
    while ((rc = ingest_stream(t->ingest, &t->stream, WAIT_MS, e)) == 1 &&
           (rc = waiting_goes_on(&t->waiting, learner_steps(&t->learners[0]), "a producer", e)) == 0)
        ;
    if (waiting_ends(&t->waiting, rc) == 1)
        return err_set(e, ERR_STOPPED, "stopped while waiting for the first producer");
    return rc;
}

/* Takes the scale of the weights that the run starts from. */
static int read_init_scale(const char *path, struct scale_list *scale, struct err *e)
{
    float values[STREAM_MAX_SITES];
    uint32_t n;
    if (weights_file_scale(path, values, &n, e))
        return e->code;
    if (n == 0)
        return err_set(e, ERR_INPUT, "--scale-from-init: %s has no scale", path);
    scale_list_set(scale, values, n);
    return 0;
}

/* Settles what flags and checkpoints say: configuration and schedule, and if they know them scale and stream. */
static int settle(struct trainer *t, struct err *e)
{
    const struct config *c = stream_config(t);
    const struct learner_options *o = t->learners[0].o;
    if (o->resume) {
        if (read_checkpoints(t, e))
            return e->code;
        scale_list_set(&t->given_scale, t->normalisation.scale, t->stream.n_sites);
    } else if (t->o->expect && read_expected(t->o->expect, &t->stream, e)) {
        return e->code;
    } else if (*c->scale || o->scale_from_init) {
        t->has_scale = true;
        if (*c->scale ? scale_list_parse(&t->given_scale, c->scale, e) : read_init_scale(o->init, &t->given_scale, e))
            return e->code;
        if (check_known_scale(c, *c->scale ? "given" : "that of --init", (double)t->given_scale.values[0], e))
            return e->code;
    }
    return plan_steps(t, e);
}

/* Returns ERR_STOPPED if a run that is resumed has nothing left to do. */
static int check_unfinished(const struct trainer *t, struct err *e)
{
    for (size_t i = 0; i < t->n_learners; i++) {
        bool finished;
        if (learner_is_finished(&t->learners[i], &finished, e))
            return e->code;
        if (!finished)
            return 0;
    }
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_put_back(&t->learners[i], e))
            return e->code;
    return err_set(e, ERR_STOPPED, "%s: the run is finished, all its %" PRIu64 " steps are done: nothing to do",
                   t->learners[0].o->out, t->learners[0].schedule.total_steps);
}

/* Listens, and settles the stream by what the first producer says. */
static int meet_first_producer(struct trainer *t, struct err *e)
{
    const struct config *c = stream_config(t);
    struct ingest_options io = {.endpoints = t->o->endpoints,
                                .n_endpoints = t->o->n_endpoints,
                                .door = t->o->door,
                                .run_id = t->run_id,
                                .expected = t->learners[0].o->resume || t->o->expect ? &t->stream : NULL,
                                .scale = t->has_scale ? &t->given_scale : NULL};
    t->normalisation.centred = c->center;
    io.dtype = c->dtype;
    io.block_seqs = (uint32_t)c->model_batch_size;
    io.credit = (uint32_t)c->credit;
    io.heartbeat_ms = (uint32_t)c->heartbeat_ms;
    io.timeout_ms = (uint32_t)c->timeout_ms;
    io.max_abs = c->max_abs;
    io.source_retries = (uint32_t)c->source_retries;
    io.ban_ms = (int64_t)c->ban_minutes * 60000;
    io.max_bad = c->max_bad;
    io.audit = c->audit;
    io.audit_tolerance = c->audit_tolerance;
    if (ingest_new(&t->ingest, &io, e))
        return e->code;
    status_writer_watch(t->status_writer, t->ingest);
    t->waiting = (struct waiting){
        .ingest = t->ingest, .metrics = &t->learners[0].metrics, .stop = t->o->stop, .timeout_s = c->wait_timeout};
    for (size_t i = 0; i < t->o->n_endpoints; i++)
        log_line("listening at %s", ingest_endpoint(t->ingest, i));
    if (wait_for_stream(t, e))
        return e->code;
    if (t->has_scale)
        return scale_list_match(&t->given_scale, &t->stream, t->normalisation.scale, e);
    if (t->stream.has_scale) {
        memcpy(t->normalisation.scale, t->stream.scale, sizeof t->normalisation.scale);
        t->has_scale = true;
        return check_known_scale(c, "the producer's", (double)t->stream.scale[0], e);
    }
    return 0;
}

static int make_plan(struct trainer *t, struct err *e)
{
    const struct config *c = stream_config(t);
    return plan_init(&t->plan, &t->stream, c->seed, (uint32_t)c->model_batch_size, (uint32_t)c->eval_blocks,
                     c->batch_size * c->buffer_mult, e);
}

/* Settles the learners' sizes. They save one after another, and have the products' memory in turns. */
static int size_learners(struct trainer *t, struct err *e)
{
    struct budget *b = &t->budget;
    for (size_t i = 0; i < t->n_learners; i++) {
        struct learner *l = &t->learners[i];
        struct learner_memory m;
        if (learner_size(l, &t->stream, budget_machine(), &m, e))
            return e->code;
        b->parameters += m.parameters;
        b->workspace += m.workspace;
        b->rare = m.rare > b->rare ? m.rare : b->rare;
    }
    return 0;
}

/* Chooses the blocks over which is measured what is not known yet: the first ones of the first window, as many as it takes. Where only
 * their norms are wanted, so many as can be leased at once do. */
static int choose_scale_blocks(struct trainer *t, struct err *e)
{
    const struct config *c = stream_config(t);
    const struct learner_options *o = t->learners[0].o;
    t->wants_rows = t->normalisation.centred && !o->resume && !o->scale_from_init;
    for (size_t i = 0; i < t->n_learners; i++)
        t->wants_rows |= learner_wants_rows(&t->learners[i]);
    if (o->resume)
        return 0;
    t->scale_blocks = mem_alloc(t->plan.window_blocks, sizeof *t->scale_blocks, "block list", e);
    if (!t->scale_blocks)
        return ERR_MEMORY;
    uint32_t most = LEASES_MAX / 2 - t->plan.n_eval;
    t->n_scale_blocks = plan_measured_blocks(&t->plan, c->scale_rows, t->scale_blocks);
    if (t->has_scale && !t->wants_rows && t->n_scale_blocks > most)
        t->n_scale_blocks = most;
    return 0;
}

static struct shuffle_config shuffle_config_of(struct trainer *t)
{
    const struct config *c = stream_config(t);
    return (struct shuffle_config){.plan = &t->plan,
                                   .row_elements = (size_t)t->stream.n_sites * t->stream.d_model,
                                   .dtype = c->dtype,
                                   .lookahead_rows = c->lookahead_blocks * t->plan.max_block_rows,
                                   .total_rows = t->learners[0].schedule.total_steps * c->batch_size,
                                   .wake = ingest_wake_fd(t->ingest)};
}

static struct row_store_config row_store_config_of(struct trainer *t)
{
    return (struct row_store_config){.stream = &t->stream,
                                     .plan = &t->plan,
                                     .shuffle = t->shuffle,
                                     .dtype = stream_config(t)->dtype,
                                     .scale_blocks = t->scale_blocks,
                                     .n_scale_blocks = t->n_scale_blocks,
                                     .scaled = t->has_scale,
                                     .scale_mode = stream_config(t)->scale_mode,
                                     .scale_target = stream_config(t)->scale_target,
                                     .keep = t->wants_rows};
}

static struct feed_config feed_config_of(const struct trainer *t)
{
    return (struct feed_config){.batch_size = stream_config(t)->batch_size,
                                .row_elements = (size_t)t->stream.n_sites * t->stream.d_model};
}

/* Returns the greatest dimension of a matrix product. */
static size_t greatest_dimension(const struct trainer *t)
{
    const struct config *c = stream_config(t);
    size_t most = (size_t)t->stream.n_sites * t->stream.d_model;
    if (c->batch_size > most)
        most = c->batch_size;
    if (t->wants_rows && c->scale_rows > most)
        most = c->scale_rows;
    for (size_t i = 0; i < t->n_learners; i++) {
        if (t->learners[i].config.dict_size > most)
            most = t->learners[i].config.dict_size;
        if (t->learners[i].o->truth)
            return SIZE_MAX / 2; /* planted latents, of any number */
    }
    return most;
}

/* Returns the bytes that a run takes over the measured rows before its first step. */
static size_t beginning_bytes(const struct trainer *t, size_t row_bytes)
{
    size_t most = t->normalisation.centred ? (size_t)t->stream.n_sites * t->stream.d_model * sizeof(double) : 0;
    size_t n_rows = row_bytes / stream_row_bytes(&t->stream, stream_config(t)->dtype);
    for (size_t i = 0; i < t->n_learners; i++) {
        const struct learner *l = &t->learners[i];
        size_t bytes = learner_wants_rows(l) ? initial_bias_memory(&l->setup, l->config.b_dec_init, n_rows) : 0;
        most = bytes > most ? bytes : most;
    }
    return row_bytes + most;
}

static int print_budget(struct trainer *t, struct err *e)
{
    struct budget *b = &t->budget;
    const struct config *c = stream_config(t);
    struct shuffle_config sc = shuffle_config_of(t);
    struct row_store_config ic = row_store_config_of(t);
    struct feed_config fc = feed_config_of(t);
    size_t feed_bytes, kept_bytes;
    if (feed_memory(&fc, &feed_bytes, e) || shuffle_memory(&sc, &b->window, &b->window_index, e))
        return e->code;
    b->workspace += feed_bytes + gemm_memory(greatest_dimension(t));
    b->window_index += t->plan.n_train * sizeof *t->plan.order; /* which is filled later */
    b->program = mem_rss() + budget_growth(gemm_threads());
    row_store_memory(&ic, &b->evaluation, &b->raw, &kept_bytes);
    if (t->wants_rows)
        b->beginning = beginning_bytes(t, kept_bytes);
    size_t block_bytes = t->plan.max_block_rows * (stream_row_bytes(&t->stream, c->dtype) + sizeof(struct row_origin));
    b->wire = credit_bytes(block_bytes, (uint32_t)c->credit);
    b->wire += b->wire / 8;                    /* messages in the heap: their frames, and gaps between them */
    if (b->wire > b->window + b->window_index) /* no more is leased than the window has room for */
        b->wire = b->window + b->window_index;
    b->wire_each = (c->credit < INGEST_FIRST_CREDIT ? c->credit : INGEST_FIRST_CREDIT) * block_bytes;
    return budget_print(b, e);
}

/* Allocates the feed, the mean and the learners, with their weights. Those of a resumed run must all be at the same place of the stream. */
static int open_learners(struct trainer *t, struct err *e)
{
    struct feed_config fc = feed_config_of(t);
    struct normalisation *n = &t->normalisation;
    if (n->centred && !(n->mean = mem_alloc(fc.row_elements, sizeof *n->mean, "mean of the rows", e)))
        return ERR_MEMORY;
    for (size_t i = 0; i < t->n_learners; i++) {
        struct learner *l = &t->learners[i];
        struct plan_place next = {0};
        struct normalisation loaded = {.centred = n->centred, .mean = i == 0 ? n->mean : NULL};
        if (learner_open(l, &loaded, &next, e) || learner_check_room(l, n->centred, e))
            return e->code;
        if (i == 0)
            t->next = next;
        else if (learner_steps(l) != learner_steps(&t->learners[0]) || next.window != t->next.window ||
                 next.position != t->next.position)
            return err_set(e, ERR_MISMATCH, "%s is at step %" PRIu64 ", %s at step %" PRIu64, l->checkpoint,
                           learner_steps(l), t->learners[0].checkpoint, learner_steps(&t->learners[0]));
    }
    return feed_new(&t->feed, &fc, e);
}

/* Whether the file begins as rows do. Nothing in it says so, but texts and files with a magic number have no such positions and tokens. */
static bool is_provenance(const char *path, const char *mark)
{
    enum { LOOK_AT = 1000, BELOW = 1 << 28 };
    struct row_origin row;
    bool is = true;
    FILE *f = fopen(path, "re");
    (void)mark;
    for (size_t i = 0; f && is && i < LOOK_AT && fread(&row, sizeof row, 1, f) == 1; i++)
        is = row.position < BELOW && row.token < BELOW;
    if (f)
        fclose(f);
    return f && is;
}

static int check_provenance(const struct trainer *t, struct err *e)
{
    static const struct file_kind kind = {"the provenance of a run", is_provenance, NULL};
    return t->o->provenance ? overwrite_check(t->o->provenance, &kind, e) : 0;
}

static int open_provenance(struct trainer *t, struct err *e)
{
    const char *path = t->o->provenance;
    uint64_t step = learner_steps(&t->learners[0]);
    if (!path)
        return 0;
    /* A resumed run goes on from its checkpoint; a file that ends before that is not the run's. */
    long bytes = (long)(step * stream_config(t)->batch_size * sizeof(struct row_origin)), had;
    t->provenance = fopen(path, bytes ? "r+be" : "wbe");
    if (!t->provenance || fseek(t->provenance, 0, SEEK_END) != 0 || (had = ftell(t->provenance)) < 0)
        return err_errno(e, errno, "%s: cannot open", path);
    if (had < bytes)
        return err_set(e, ERR_MISMATCH, "%s: %ld bytes, the checkpoint at step %" PRIu64 " has %ld", path, had, step,
                       bytes);
    if (ftruncate(fileno(t->provenance), bytes) != 0 || fseek(t->provenance, bytes, SEEK_SET) != 0)
        return err_errno(e, errno, "%s: cannot cut to %ld bytes", path, bytes);
    return 0;
}

static int open_status(struct trainer *t, struct err *e)
{
    const struct run_options *o = t->o;
    if (status_new(&t->status, e) || status_writer_start(&t->status_writer, t->status, t->learners[0].o->out, e) ||
        (o->metrics_listen && metrics_endpoint_start(&t->endpoint, o->metrics_listen, o->door.insecure, t->status, e)))
        return e->code;
    t->learners[0].metrics.status = t->status; /* waits for the first producer are told */
    if (t->endpoint)
        log_line("metrics at %s", metrics_endpoint_url(t->endpoint));
    return 0;
}

static int open_metrics(struct trainer *t, struct err *e)
{
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_open_metrics(&t->learners[i], i ? NULL : t->status, e))
            return e->code;
    for (size_t i = 1; i < t->n_learners; i++)
        t->learners[i].metrics.waits = &t->learners[0].metrics; /* they all wait for the same batches */
    return 0;
}

int set_up(struct trainer *t, const struct learner_options *options, struct err *e)
{
    unsigned char random[16];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return err_errno(e, errno, "cannot get random bytes");
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(t->run_id + 2 * i, 3, "%02x", random[i]);
    for (size_t i = 0; i < t->n_learners; i++)
        if (learner_claim(&t->learners[i], &options[i], e))
            return e->code;
    if (check_provenance(t, e) || settle(t, e) || check_unfinished(t, e) || open_status(t, e) ||
        meet_first_producer(t, e))
        return e->code;
    int threads = stream_config(t)->threads ? (int)stream_config(t)->threads : omp_get_num_procs();
    omp_set_num_threads(threads);
    gemm_set_threads(threads);
    if (make_plan(t, e) || size_learners(t, e) || choose_scale_blocks(t, e) || print_budget(t, e) ||
        open_learners(t, e) || open_provenance(t, e) || open_metrics(t, e))
        return e->code;
    const struct learner *first = &t->learners[0];
    status_run(t->status, t->run_id, learner_steps(first), first->schedule.total_steps, first->config.batch_size);
    status_checkpoints(t->status, &first->tally);
    struct shuffle_config sc = shuffle_config_of(t);
    sc.start_row = learner_steps(first) * first->config.batch_size;
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
    for (size_t i = 0; i < t->n_learners; i++)
        learner_release(&t->learners[i]);
    plan_release(&t->plan);
    mem_free(t->scale_blocks);
    mem_free(t->normalisation.mean);
}
