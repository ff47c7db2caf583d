/* metrics.c - metrics.jsonl and the progress line; see metrics.h. */
#include "metrics.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "clock.h"
#include "file.h"
#include "json_file.h"
#include "log.h"
#include "mem.h"

#define UNWRITTEN_MAX ((size_t)16 << 20)

static json_t *real_list(const double *x, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++)
        json_array_append_new(list, json_real_or_null(x[i]));
    return list;
}

/* Replaces the file by a new one that has only its lines of steps up to first_step. */
static int cut_lines(const char *path, uint64_t first_step, struct err *e)
{
    FILE *old = fopen(path, "re");
    struct file_out o;
    char *line = NULL;
    size_t capacity = 0;
    if (!old)
        return errno == ENOENT ? 0 : err_errno(e, errno, "%s: cannot open", path);
    int rc = file_out_open(&o, path, e);
    for (ssize_t n; rc == 0 && (n = getline(&line, &capacity, old)) > 0;) {
        json_t *value = json_loads(line, 0, NULL);
        const json_t *step = json_object_get(value, "step");
        rc = mem_raw_failed(path, e); /* a line must not be dropped for that */
        if (rc == 0 && json_is_integer(step) && (uint64_t)json_integer_value(step) <= first_step)
            rc = file_out_write(&o, line, (size_t)n, e);
        json_decref(value);
    }
    free(line);
    fclose(old);
    if (rc == 0)
        return file_out_commit(&o, e);
    file_out_abandon(&o);
    return rc;
}

int metrics_open(struct metrics *m, const char *out, uint64_t first_step, uint64_t total_steps, uint64_t batch_size,
                 struct status *status, struct err *e)
{
    *m = (struct metrics){.status = status,
                          .total_steps = total_steps,
                          .batch_size = batch_size,
                          .first_step = first_step,
                          .fvu = NAN,
                          .threshold_l0 = NAN};
    m->step_at_line = m->step_at_progress = first_step;
    if (file_join(m->path, sizeof m->path, out, "metrics.jsonl", e) || cut_lines(m->path, first_step, e))
        return e->code;
    m->f = fopen(m->path, "ae");
    if (!m->f)
        return err_errno(e, errno, "%s: cannot open", m->path);
    m->started = m->last_line = m->last_progress = clock_s();
    return 0;
}

/* Writes what is unwritten; all of it, or nothing. Returns 0 or an errno. */
static int write_out(struct metrics *m)
{
    int fd = fileno(m->f);
    off_t end = lseek(fd, 0, SEEK_END);
    for (size_t done = 0; done < m->unwritten_size;) {
        ssize_t n = write(fd, m->unwritten + done, m->unwritten_size - done);
        if (n < 0) {
            int failed = errno;
            return ftruncate(fd, end) == 0 ? failed : errno;
        }
        done += (size_t)n;
    }
    m->unwritten_size = 0;
    return 0;
}

int metrics_close(struct metrics *m, bool begun, struct err *e)
{
    FILE *f = m->f;
    int failed = f ? write_out(m) : 0;
    m->f = NULL;
    mem_free(m->unwritten);
    m->unwritten = NULL;
    if (f && fclose(f) != 0 && !failed)
        failed = errno;
    if (f && !begun && unlink(m->path) != 0)
        return err_errno(e, errno, "%s: cannot remove", m->path);
    return failed ? err_errno(e, failed, "%s: cannot write its last %zu bytes", m->path, m->unwritten_size) : 0;
}

/* Returns the seconds spent waiting so far. */
static double waited(const struct metrics *m)
{
    return m->waits ? m->waits->waited : m->waited;
}

void metrics_wait_begins(struct metrics *m)
{
    m->wait_began = clock_s();
}

void metrics_wait_ends(struct metrics *m)
{
    double now = clock_s();
    m->waited += now - m->wait_began;
    if (m->status)
        status_waited(m->status, now - m->wait_began);
    m->wait_began = now;
}

/* Writes the object as a line and frees it; NULL means that it could not be made. */
static int write_line(struct metrics *m, json_t *line, struct err *e)
{
    char *text = json_text(line, JSON_COMPACT | JSON_REAL_PRECISION(9), m->path, e);
    json_decref(line);
    if (!text)
        return ERR_MEMORY;
    size_t n = strlen(text), before = m->unwritten_size;
    char *lines = mem_realloc(m->unwritten, before + n + 1, 1, m->path, e);
    if (lines) {
        memcpy(lines + before, text, n);
        lines[before + n] = '\n';
        m->unwritten = lines;
        m->unwritten_size = before + n + 1;
    }
    mem_free(text);
    if (!lines)
        return ERR_MEMORY;
    int failed = write_out(m);
    if (failed && m->unwritten_size > UNWRITTEN_MAX)
        return err_errno(e, failed, "%s: cannot write, and has %zu bytes to", m->path, m->unwritten_size);
    if (failed && before == 0)
        log_line("%s: cannot write: %s; its lines wait in memory", m->path, strerror(failed));
    return 0;
}

/* Adds a value under a name made of up to three parts; takes the value over. */
static void add(json_t *line, const char *before, const char *name, const char *after, json_t *value)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s%s", before, name, after);
    json_object_set_new(line, key, value);
}

/* Adds the loss and its terms. */
static void add_losses(json_t *line, const char *before, const struct backend_setup *setup, double loss,
                       const double *term, double l0)
{
    add(line, before, "loss", "", json_real_or_null(loss));
    for (size_t i = 0; i < setup->n_terms; i++)
        if (!*before || strcmp(setup->terms[i], "aux") != 0) /* AuxK is for training: an evaluation has none */
            add(line, before, setup->terms[i], "", json_real_or_null(term[i]));
    add(line, before, "l0", "", json_real_or_null(l0));
}

static void add_fvu(json_t *line, const char *before, const struct fvu *fvu, size_t n_sites)
{
    add(line, before, "fvu", "", json_real_or_null(fvu->fvu));
    add(line, before, "fvu_typical", "", json_real_or_null(fvu->fvu_typical));
    add(line, before, "fvu_token", "", json_real_or_null(fvu->fvu_token));
    add(line, before, "fvu_site", "", real_list(fvu->fvu_site, n_sites));
    add(line, before, "fvu_typical_site", "", real_list(fvu->fvu_typical_site, n_sites));
    add(line, before, "fvu_token_site", "", real_list(fvu->fvu_token_site, n_sites));
}

int metrics_step(struct metrics *m, const struct backend *b, const struct step_report *r, struct err *e)
{
    const struct backend_setup *setup = &b->setup;
    double now = clock_s(), elapsed = now - m->last_line, clipped = backend_clipped_share(b);
    uint64_t steps = r->step + 1;
    json_t *line = json_object();
    add(line, "", "step", "", json_integer((json_int_t)steps));
    add(line, "", "rows", "", json_integer((json_int_t)(steps * m->batch_size)));
    add(line, "", "path", "", json_string(r->path == STEP_SPARSE ? "sparse" : "dense"));
    add_losses(line, "", setup, r->loss, r->term, r->l0);
    add(line, "", "lr", "", json_real(r->lr));
    for (size_t i = 1; i < setup->n_terms; i++)
        add(line, "", setup->terms[i], "_coeff", json_real(r->weight[i]));
    add(line, "", "grad_norm", "", json_real_or_null(r->grad_norm));
    add(line, "", "clipped", "", json_real_or_null(clipped));
    add(line, "", "dead", "", r->dead_measurable ? json_integer((json_int_t)r->dead) : json_null());
    if (backend_has_k(setup)) {
        add(line, "", "k", "", json_integer((json_int_t)r->k));
        add(line, "", "threshold", "", r->threshold < 0 ? json_null() : json_real_or_null(r->threshold));
    }
    add(line, "", "norm_sum", "", json_real_or_null(r->norm_sum));
    if (setup->two_models)
        add(line, "", "model_share", "", real_list(r->share, 2));
    add_fvu(line, "", &r->fvu, setup->n_sites);
    add(line, "", "rows_per_s", "", json_real_or_null((double)((steps - m->step_at_line) * m->batch_size) / elapsed));
    add(line, "", "waiting", "", json_real_or_null((waited(m) - m->waited_at_line) / elapsed));
    if (b->skipped)
        add(line, "", "batches_skipped", "", json_integer((json_int_t)b->skipped));
    m->last_line = now;
    m->step_at_line = steps;
    m->waited_at_line = waited(m);
    m->fvu = r->fvu.fvu;
    if (m->status)
        status_line(m->status, r, clipped);
    return write_line(m, line, e);
}

int metrics_evaluation(struct metrics *m, uint64_t steps, const struct backend_setup *setup,
                       const struct evaluation_report *r, struct err *e)
{
    m->threshold_l0 = r->has_threshold ? r->threshold_l0 : (double)NAN;
    if (m->status)
        status_evaluation(m->status, r);
    if (steps == m->first_step)
        return 0;
    json_t *line = json_object();
    add(line, "", "step", "", json_integer((json_int_t)steps));
    add(line, "", "rows", "", json_integer((json_int_t)(steps * m->batch_size)));
    add(line, "eval_", "rows", "", json_integer((json_int_t)r->rows));
    add_losses(line, "eval_", setup, r->loss, r->term, r->l0);
    add_fvu(line, "eval_", &r->fvu, setup->n_sites);
    if (r->has_threshold) {
        add(line, "eval_", "threshold_l0", "", json_real_or_null(r->threshold_l0));
        add_fvu(line, "eval_threshold_", &r->threshold_fvu, setup->n_sites);
    }
    add(line, "eval_", "silent", "", json_integer((json_int_t)r->silent));
    return write_line(m, line, e);
}

static bool progress_is_due(const struct metrics *m)
{
    return clock_s() - m->last_progress >= (log_is_terminal() ? 1.0 : 10.0);
}

static void progress_shown(struct metrics *m, uint64_t steps)
{
    m->last_progress = clock_s();
    m->step_at_progress = steps;
    m->waited_at_progress = waited(m);
}

void metrics_waiting(struct metrics *m, uint64_t steps, const char *what)
{
    metrics_wait_ends(m);
    if (!progress_is_due(m))
        return;
    if (!m->f) /* the run is not set up yet */
        log_progress("waiting for %s", what);
    else
        log_progress("step %llu/%llu, waiting for %s", (unsigned long long)steps, (unsigned long long)m->total_steps,
                     what);
    progress_shown(m, steps);
}

void metrics_progress(struct metrics *m, const struct step_report *r)
{
    if (!m->status)
        return; /* another learner of the run shows the progress */
    status_step(m->status, r);
    if (!progress_is_due(m))
        return;
    uint64_t steps = r->step + 1;
    double elapsed = clock_s() - m->last_progress, rate = (double)(steps - m->step_at_progress) / elapsed;
    double eta = rate > 0 ? (double)(m->total_steps - steps) / rate : 0;
    char sides[128];
    status_sides(m->status, sides, sizeof sides);
    char l0[64]; /* of topk and batchtopk it is k: what single rows will have is by the threshold */
    snprintf(l0, sizeof l0, "%.1f", r->l0);
    if (r->k && isnan(m->threshold_l0))
        snprintf(l0, sizeof l0, "k %zu", r->k);
    else if (r->k)
        snprintf(l0, sizeof l0, "k %zu, by threshold %.1f", r->k, m->threshold_l0);
    char fvu[32] = "-"; /* until the first step that is logged */
    if (!isnan(m->fvu))
        snprintf(fvu, sizeof fvu, "%.4f", m->fvu);
    log_progress("step %llu/%llu, %.0f rows/s, ETA %.0f:%02.0f, loss %.4g, L0 %s (%s), FVU %s, waiting %.0f %%; %s",
                 (unsigned long long)steps, (unsigned long long)m->total_steps, rate * (double)m->batch_size,
                 floor(eta / 60), fmod(floor(eta), 60), r->loss, l0, r->path == STEP_SPARSE ? "sparse" : "dense", fvu,
                 100 * (waited(m) - m->waited_at_progress) / elapsed, sides);
    progress_shown(m, steps);
}

double metrics_rows_per_s(const struct metrics *m, uint64_t steps)
{
    return steps == m->first_step ? (double)NAN
                                  : (double)((steps - m->first_step) * m->batch_size) / (clock_s() - m->started);
}

double metrics_waiting_share(const struct metrics *m, uint64_t steps)
{
    return steps == m->first_step ? (double)NAN : waited(m) / (clock_s() - m->started);
}
