/* learner.c - see learner.h. */
#include "learner.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "cpu_backend.h"
#include "file.h"
#include "initial_weights.h"
#include "json_file.h"
#include "log.h"
#include "mem.h"
#include "overwrite.h"
#include "recipe.h"
#include "report.h"
#include "resample.h"
#include "run_identity.h"
#include "safetensors.h"
#include "stream_json.h"
#include "version.h"
#include "weights_file.h"

/* ---- the folder ---- */

/* Refuses to resume what cannot be, and to begin where a run is; each with what can be done. */
static int check_run(const struct learner_options *o, struct err *e)
{
    char path[PATH_SIZE];
    int found = checkpoint_latest(o->out, path, e);
    if ((found && found != ERR_ABSENT) || file_join(path, sizeof path, o->out, "metrics.jsonl", e))
        return e->code;
    bool begun = access(path, F_OK) == 0;
    if (o->resume && found && begun)
        return err_set(e, ERR_INPUT,
                       "%s: no checkpoint to resume from: the run ended before its first. Remove the folder and start "
                       "the run again without --resume",
                       o->out);
    if (o->resume && found)
        return err_set(e, ERR_INPUT, "%s: no checkpoint to resume from, nor a run: start one without --resume", o->out);
    if (!o->resume && found && begun)
        return err_set(e, ERR_INPUT,
                       "%s holds a run that ended before its first checkpoint, so that it cannot be resumed: remove "
                       "the folder, or choose another --out",
                       o->out);
    if (!o->resume && !found)
        return err_set(e, ERR_INPUT, "%s holds a run already: --resume goes on with it, or choose another --out",
                       o->out);
    return 0;
}

/* Refuses a folder in which something else has the name of a result. Of a run that goes on they are its own. */
static int check_results(const struct learner_options *o, struct err *e)
{
    static const struct {
        const char *name;
        struct file_kind kind;
    } results[] = {{"crosscoder.safetensors", {"weights of a crosscoder", safetensors_file_has, "W_dec"}},
                   {"cfg.json", {"a run's configuration", json_file_has, "run"}},
                   {"manifest.json", {"checksums of a run's results", json_file_has, "files"}},
                   {"run.json", {"a run's name", json_file_has, "run"}},
                   {"status.json", {"a run's status", json_file_has, "run"}},
                   {"summary.json", {"a run's summary", json_file_has, "ledger"}}};
    char path[PATH_SIZE];
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (file_join(path, sizeof path, o->out, results[i].name, e) ||
            (o->resume ? overwrite_check_input(path, e) : overwrite_check(path, &results[i].kind, e)))
            return e->code;
    return 0;
}

static int check_out(const struct learner_options *o, struct err *e)
{
    char path[PATH_SIZE];
    struct file_out probe;
    if ((!o->resume && file_make_folder(o->out, e)) || check_run(o, e))
        return e->code;
    if (check_results(o, e) || file_join(path, sizeof path, o->out, ".writable", e) || file_out_open(&probe, path, e))
        return e->code;
    file_out_abandon(&probe);
    return 0;
}

int learner_claim(struct learner *l, const struct learner_options *o, struct err *e)
{
    *l = (struct learner){.o = o, .config = o->config, .lock = -1, .saved_step = UINT64_MAX};
    if (check_out(o, e))
        return e->code;
    /* One trainer a folder: two would overwrite each other's checkpoints. The kernel drops the lock when we die. What one that was killed
     * left half-written is removed. */
    l->lock = open(o->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (l->lock < 0)
        return err_errno(e, errno, "%s: cannot open", o->out);
    if (flock(l->lock, LOCK_EX | LOCK_NB) != 0)
        return err_set(e, ERR_MISMATCH, "%s: another trainer is writing to this folder", o->out);
    return file_remove_leftovers(o->out, e);
}

int learner_find_checkpoint(struct learner *l, json_t **saved, struct err *e)
{
    struct checkpoint_choice *c = &l->choice;
    char run[FINGERPRINT_SIZE] = "";
    int rc = run_identity_read(l->o->out, run, e);
    if (rc == ERR_DAMAGED)
        log_line("%s; the newest sound checkpoint says which run this is", e->message);
    else if (rc && rc != ERR_ABSENT)
        return rc;
    if (checkpoint_choose(l->o->out, run, l->o->resume_from, c, e) || checkpoint_config(c->path, saved, e))
        return e->code;
    memcpy(l->checkpoint, c->path, sizeof l->checkpoint);
    const char *collapse = json_string_value(json_object_get(*saved, "collapse"));
    const char *init = json_string_value(json_object_get(*saved, "init_fingerprint"));
    snprintf(l->init_fingerprint, sizeof l->init_fingerprint, "%s", init ? init : "");
    rc = config_resume(&l->config, *saved, l->checkpoint, e);
    if (rc == 0 && collapse && l->config.fail_on_collapse)
        rc = err_set(e, ERR_INPUT, "%s: the run has collapsed: %s (--fail-on-collapse=false goes on)", l->checkpoint,
                     collapse);
    if (rc == 0 && collapse)
        snprintf(l->health.collapse, sizeof l->health.collapse, "%s", collapse);
    if (rc) {
        json_decref(*saved);
        *saved = NULL;
    }
    return rc;
}

int learner_is_finished(const struct learner *l, bool *finished, struct err *e)
{
    *finished = *l->checkpoint && checkpoint_step(l->checkpoint) == l->schedule.total_steps;
    return *finished ? report_is_written(l->o->out, l->o->truth != NULL, finished, e) : 0;
}

int learner_put_back(const struct learner *l, struct err *e)
{
    static const char *const results[] = {"crosscoder.safetensors", "cfg.json"};
    char from[PATH_SIZE], to[PATH_SIZE];
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (file_join(from, sizeof from, l->checkpoint, results[i], e) ||
            file_join(to, sizeof to, l->o->out, results[i], e) || (access(to, F_OK) != 0 && file_copy(from, to, e)))
            return e->code;
    return 0;
}

/* ---- setting up ---- */

int learner_plan_steps(struct learner *l, struct err *e)
{
    const struct config *c = &l->config;
    l->schedule = (struct schedule){.total_steps = c->num_tokens / c->batch_size,
                                    .lr = c->lr,
                                    .l1_coeff = c->l1_coeff,
                                    .lr_warmup_fraction = c->lr_warmup,
                                    .lr_decay_fraction = c->lr_decay,
                                    .l1_warmup_fraction = c->l1_warmup,
                                    .lr_warmup_steps = c->lr_warmup_steps,
                                    .lr_from_zero = c->lr_from_zero};
    if (l->schedule.total_steps == 0)
        return err_set(e, ERR_INPUT, "num_tokens %" PRIu64 " is less than one batch of %" PRIu64, c->num_tokens,
                       c->batch_size);
    if (schedule_check(&l->schedule, e))
        return e->code;
    health_init(&l->health, &l->schedule);
    return recipe_check(c, e);
}

int learner_size(struct learner *l, const struct stream *stream, size_t machine_bytes, struct learner_memory *m,
                 struct err *e)
{
    size_t kept, truth = 0;
    if (recipe_settle(&l->config, stream, e))
        return e->code;
    l->setup = recipe_setup(&l->config, stream);
    l->setup.keep_gradients = true;
    if (backend_cpu.memory(&l->setup, &kept, &m->workspace, e))
        return e->code;
    l->setup.keep_gradients = kept / 4 <= machine_bytes / 10; /* the same results, faster */
    if (backend_cpu.memory(&l->setup, &m->parameters, &m->workspace, e) ||
        (l->o->truth && recovery_memory(l->o->truth, l->setup.n_sites, l->setup.d_model, &truth, e)))
        return e->code;
    m->workspace += evaluation_memory(&l->setup) + truth;
    m->rare = checkpoint_memory(&l->setup, l->config.center);
    size_t resampling = *l->config.resample_steps ? resample_memory(&l->setup) : 0;
    m->rare = resampling > m->rare ? resampling : m->rare;
    return 0;
}

bool learner_wants_rows(const struct learner *l)
{
    return !l->o->resume && !l->o->init && (l->config.b_dec_init != B_DEC_ZERO || backend_has_thresholds(&l->setup));
}

int learner_begin(struct learner *l, const struct row_sample *rows, struct err *e)
{
    return learner_wants_rows(l) ? initial_bias(l->backend, l->config.b_dec_init, rows, e) : 0;
}

/* Loads the weights to start from. */
static int open_init(struct learner *l, struct normalisation *n, struct err *e)
{
    const struct learner_options *o = l->o;
    struct file_digest digest;
    float scale[STREAM_MAX_SITES];
    uint32_t n_scale;
    if ((o->scale_from_init ? weights_file_load(o->init, l->backend, n, e)
                            : weights_file_load_weights(o->init, l->backend, n->centred, e)) ||
        weights_file_scale(o->init, scale, &n_scale, e))
        return e->code;
    if (n_scale == 0 && !*l->config.scale)
        return err_set(e, ERR_INPUT, "%s has no scale: --scale says which one its weights are for", o->init);
    if (file_digest_read(o->init, &digest, e))
        return e->code;
    memcpy(l->init_fingerprint, digest.fingerprint, sizeof l->init_fingerprint);
    return 0;
}

int learner_check_init(const struct learner *l, const struct normalisation *n, const struct stream *stream,
                       struct err *e)
{
    const struct learner_options *o = l->o;
    struct err differs;
    if (!o->init || o->resume || o->scale_from_init)
        return 0;
    if (!*l->config.scale)
        return weights_file_compare(o->init, n, stream, "--scale-from-init takes the file's, --scale gives one", e);
    if (weights_file_compare(o->init, n, stream, "as --scale says", &differs))
        log_line("%s", differs.message);
    return 0;
}

int learner_open(struct learner *l, struct normalisation *n, struct plan_place *next, struct err *e)
{
    const struct learner_options *o = l->o;
    const struct config *c = &l->config;
    if (backend_cpu.open(&l->backend, &l->setup, e) || evaluation_init(&l->evaluation, l->backend, e) ||
        (o->truth && recovery_init(&l->recovery, o->truth, l->setup.n_sites, l->setup.d_model, e)))
        return e->code;
    if (o->init && !o->resume)
        return open_init(l, n, e);
    if (!o->resume)
        return initial_weights(l->backend,
                               &(struct initial_weights){.seed = o->seed,
                                                         .dec_init_norm = c->dec_init_norm,
                                                         .log_threshold = c->log_threshold_init,
                                                         .tied_models = c->init_tied_models},
                               e);
    if (checkpoint_load(l->checkpoint, l->backend, n, next, e))
        return e->code;
    if (l->backend->step != l->choice.step)
        return err_set(e, ERR_INPUT, "%s: its state is of step %" PRIu64, l->checkpoint, l->backend->step);
    l->saved_step = l->backend->step;
    if (l->backend->step > 0)
        l->backend->k = recipe_step(c, &l->schedule, l->backend->step - 1).k;
    log_line("resuming from %s, step %" PRIu64 " of %" PRIu64 "%s", l->checkpoint, l->backend->step,
             l->schedule.total_steps, l->choice.verified ? "" : "; it has no manifest, so that it cannot be verified");
    if (checkpoint_set_aside(o->out, &l->choice, e))
        return e->code;
    l->tally = (struct checkpoint_tally){.resumed = true,
                                         .verified = l->choice.verified,
                                         .resumed_from = l->choice.step,
                                         .damaged = l->choice.n_damaged};
    snprintf(l->tally.set_aside, sizeof l->tally.set_aside, "%s", l->choice.damaged);
    return 0;
}

int learner_check_room(struct learner *l, bool centred, struct err *e)
{
    size_t bytes = checkpoint_bytes(l->backend, centred), results = weights_file_bytes(&l->setup, centred), available;
    uint64_t steps = l->schedule.total_steps - l->backend->step, every = l->config.save_every;
    uint64_t to_come = steps / every + (steps % every != 0), most = l->config.keep + 1;
    size_t have = 0;
    if (l->o->resume && checkpoint_count(l->o->out, l->choice.run, &have, e))
        return e->code;
    uint64_t more = most > have ? most - have : 1;
    more = more < to_come ? more : to_come;
    if (file_free_bytes(l->o->out, &available, e))
        return e->code;
    log_line("disk budget: %" PRIu64 " more checkpoints of %.1f MB at a time, results of %.1f MB; %.1f MB are free",
             more, (double)bytes / 1e6, (double)results / 1e6, (double)available / 1e6);
    if ((double)more * (double)bytes + (double)results > (double)available)
        return err_set(e, ERR_SYSTEM,
                       "%s: %" PRIu64 " checkpoints of %.1f MB (--keep %" PRIu64
                       " and one being written) and results of %.1f MB do not fit: %.1f MB are free",
                       l->o->out, more, (double)bytes / 1e6, l->config.keep, (double)results / 1e6,
                       (double)available / 1e6);
    return 0;
}

/* Brings into the status whether the run has collapsed. */
static void tell_collapse(const struct learner *l)
{
    if (l->metrics.status)
        status_collapse(l->metrics.status, l->health.collapse);
}

/* Brings into the status how many batches were passed over. */
static void tell_skipped(const struct learner *l)
{
    if (l->metrics.status)
        status_skipped(l->metrics.status, l->backend->skipped);
}

int learner_open_metrics(struct learner *l, struct status *status, struct err *e)
{
    if (metrics_open(&l->metrics, l->o->out, l->backend->step, l->schedule.total_steps, l->config.batch_size, status,
                     e))
        return e->code;
    tell_collapse(l);
    tell_skipped(l);
    return 0;
}

static json_t *float_list(const float *x, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_real((double)x[i]));
    return list;
}

int learner_describe(struct learner *l, const struct stream *stream, const struct normalisation *n, const char *run_id,
                     struct err *e)
{
    char found[FINGERPRINT_SIZE] = "";
    if (run_identity_check(l->o->out, l->lock, NULL, e))
        return e->code;
    int rc = run_identity_read(l->o->out, found, e);
    if (rc == ERR_MEMORY || ((rc || strcmp(found, run_id) != 0) && run_identity_write(l->o->out, run_id, e)))
        return e->code;
    l->rows = n;
    l->cfg = config_to_json(&l->config);
    json_object_set_new(l->cfg, "run_scale", float_list(n->scale, stream->n_sites));
    if (n->has_median_norm)
        json_object_set_new(l->cfg, "median_norm", float_list(n->median_norm, stream->n_sites));
    json_object_set_new(l->cfg, "stream", stream_to_json(stream));
    json_object_set_new(l->cfg, "seq_len", json_integer((json_int_t)stream->seq_len));
    json_object_set_new(l->cfg, "run", json_string(run_id));
    if (*l->init_fingerprint)
        json_object_set_new(l->cfg, "init_fingerprint", json_string(l->init_fingerprint));
    json_object_set_new(l->cfg, "software", json_string(CROSSFEED_SOFTWARE));
    return mem_raw_failed("cfg.json", e);
}

/* ---- training ---- */

uint64_t learner_steps(const struct learner *l)
{
    return l->backend ? l->backend->step : 0;
}

/* Whether something that comes every so many steps, and at the end, comes after the step just done. */
static bool due(const struct learner *l, uint64_t steps, uint64_t every)
{
    return steps == l->schedule.total_steps || steps % every == 0;
}

/* Resamples latents that were dead for half the time since the last resampling, if this step is one for it. */
static int resample_if_due(struct learner *l, const float *x, struct err *e)
{
    uint64_t steps = l->backend->step, before, n_rows;
    size_t n;
    if (!recipe_resamples(&l->config, steps, &before))
        return 0;
    n_rows = (steps - before) * l->config.batch_size / 2;
    if (resample(l->backend, x, n_rows, l->config.seed, &n, e))
        return e->code;
    log_line("step %" PRIu64 ": %zu latents that had not fired for %" PRIu64 " rows start anew", steps, n, n_rows);
    return 0;
}

int learner_step(struct learner *l, const float *x, struct err *e)
{
    uint64_t step = l->backend->step;
    struct step_options o = recipe_step(&l->config, &l->schedule, step);
    o.want_metrics = due(l, step + 1, l->config.log_every);
    o.rows = l->rows;
    int rc = l->backend->ops->step(l->backend, x, &o, &l->step, e);
    if (rc == 0)
        rc = resample_if_due(l, x, e);
    if (rc)
        return rc;
    health_step(&l->health, &l->step, learner_wants_evaluation(l), l->config.max_grad_norm);
    return o.want_metrics ? metrics_step(&l->metrics, l->backend, &l->step, e) : 0;
}

int learner_pass_over(struct learner *l, struct err *e)
{
    struct backend *b = l->backend;
    if (b->skipped >= l->config.skip_bad_batches)
        return e->code;
    b->k = recipe_step(&l->config, &l->schedule, b->step).k;
    b->step++;
    b->skipped++;
    tell_skipped(l);
    learner_step_unknown(l);
    return due(l, b->step, l->config.log_every) ? metrics_step(&l->metrics, b, &l->step, e) : 0;
}

bool learner_wants_evaluation(const struct learner *l)
{
    return due(l, l->backend->step, l->config.eval_every);
}

bool learner_wants_save(const struct learner *l)
{
    return due(l, l->backend->step, l->config.save_every);
}

void learner_measure(struct learner *l, const float *x, size_t n)
{
    evaluation_measure(&l->evaluation, l->rows, x, n);
}

void learner_evaluation_begin(struct learner *l)
{
    l->measured = true;
    evaluation_begin(&l->evaluation);
}

int learner_evaluate(struct learner *l, const float *x, size_t n, struct err *e)
{
    return evaluation_add(&l->evaluation, l->rows, x, n, e);
}

/* Says what an evaluation found. */
static void say_evaluation(const struct learner *l)
{
    const struct evaluation_report *r = &l->evaluation_report;
    char typical[40] = "", by_threshold[80] = "";
    if (l->rows->has_median_norm)
        snprintf(typical, sizeof typical, " (typical rows %.4f)", r->fvu.fvu_typical);
    if (r->has_threshold)
        snprintf(by_threshold, sizeof by_threshold, "; by threshold L0 %.1f, FVU %.4f", r->threshold_l0,
                 r->threshold_fvu.fvu);
    log_line("step %" PRIu64 ": held-out loss %.4g, L0 %.1f, FVU %.4f%s, %zu of %zu latents silent%s", l->backend->step,
             r->loss, r->l0, r->fvu.fvu, typical, r->silent, l->setup.d_sae, by_threshold);
}

int learner_evaluation_end(struct learner *l, struct err *e)
{
    struct evaluation_report *r = &l->evaluation_report;
    if (evaluation_finish(&l->evaluation, l->step.weight, r, e))
        return e->code;
    l->evaluated = true;
    say_evaluation(l);
    health_evaluation(&l->health, l->backend->step, r, &l->config);
    tell_collapse(l);
    return metrics_evaluation(&l->metrics, l->backend->step, &l->setup, r, e);
}

int learner_check_health(const struct learner *l, struct err *e)
{
    if (!l->config.fail_on_collapse || !*l->health.collapse)
        return 0;
    return err_set(e, ERR_INPUT, "the run has collapsed: %s (--fail-on-collapse)", l->health.collapse);
}

void learner_step_unknown(struct learner *l)
{
    struct step_report *r = &l->step;
    const struct step_options o = recipe_step(&l->config, &l->schedule, l->backend->step - 1);
    *r = (struct step_report){.step = l->backend->step - 1,
                              .loss = NAN,
                              .l0 = NAN,
                              .k = o.k,
                              .lr = o.lr,
                              .grad_norm = NAN,
                              .norm_sum = NAN,
                              .threshold = -1,
                              .share = {NAN, NAN},
                              .dead_measurable = l->backend->step * l->config.batch_size >= l->config.dead_rows};
    fvu_unknown(&r->fvu);
    for (size_t i = 0; i < l->setup.n_terms; i++)
        r->term[i] = NAN;
    memcpy(r->weight, o.weight, sizeof r->weight);
    for (size_t j = 0; j < l->setup.d_sae; j++) {
        uint64_t age;
        if (l->backend->ops->get(l->backend, "rows_since_fired", &(struct backend_range){j, 1, 0, 1, false}, &age,
                                 NULL) == 0)
            r->dead += age >= l->config.dead_rows;
    }
}

/* ---- saving ---- */

/* Brings into cfg what has come of the run. */
static int settle_cfg(struct learner *l, struct err *e)
{
    if (*l->health.collapse)
        json_object_set_new(l->cfg, "collapse", json_string(l->health.collapse));
    else
        json_object_del(l->cfg, "collapse");
    return mem_raw_failed("cfg.json", e);
}

int learner_save(struct learner *l, const struct normalisation *n, const struct plan_place *next, struct err *e)
{
    char path[PATH_SIZE];
    if (l->saved_step == l->backend->step)
        return 0; /* it is there already: a run stopped just after it was saved, or resumed and stopped at once */
    const char *run = json_string_value(json_object_get(l->cfg, "run"));
    int rc = run_identity_check(l->o->out, l->lock, run, e);
    if (rc == 0)
        rc = settle_cfg(l, e);
    if (rc == 0)
        rc = checkpoint_save(l->o->out, l->backend, n, next, l->cfg, l->config.keep, path, e);
    snprintf(l->tally.failure, sizeof l->tally.failure, "%s", rc ? e->message : "");
    l->tally.failed += rc != 0;
    l->tally.saved += rc == 0;
    if (rc)
        return rc;
    l->saved_step = l->backend->step;
    log_line("step %" PRIu64 ": saved %s", l->backend->step, path);
    return 0;
}

int learner_write_weights(struct learner *l, const struct normalisation *n, struct err *e)
{
    static const char weights[] = "crosscoder.safetensors", config[] = "cfg.json";
    char path[PATH_SIZE];
    struct checkpoint_manifest m = {.step = l->backend->step};
    snprintf(m.run, sizeof m.run, "%s", json_string_value(json_object_get(l->cfg, "run")));
    if (settle_cfg(l, e) || run_identity_check(l->o->out, l->lock, m.run, e) ||
        file_join(path, sizeof path, l->o->out, weights, e) ||
        weights_file_write(path, l->backend, n, checkpoint_manifest_add(&m, weights), e) ||
        file_join(path, sizeof path, l->o->out, config, e) ||
        json_write_digest(path, l->cfg, checkpoint_manifest_add(&m, config), e))
        return e->code;
    return checkpoint_manifest_write(l->o->out, &m, e);
}

int learner_measure_recovery(struct learner *l, const float *scale, struct recovery_result *result, struct err *e)
{
    return recovery_measure(&l->recovery, l->backend, scale, RECOVERY_THRESHOLD, l->config.dead_rows, result, e);
}

int learner_close_metrics(struct learner *l, struct err *e)
{
    bool begun = learner_steps(l) > 0 || l->saved_step != UINT64_MAX;
    return metrics_close(&l->metrics, begun, e);
}

void learner_release(struct learner *l)
{
    recovery_release(&l->recovery);
    evaluation_release(&l->evaluation);
    if (l->backend)
        l->backend->ops->close(l->backend);
    l->backend = NULL;
    json_decref(l->cfg);
    l->cfg = NULL;
    if (l->lock >= 0)
        close(l->lock);
    l->lock = -1;
}
