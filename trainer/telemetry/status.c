/* status.c - keeps the status and its rates; see status.h. */
#include "status.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "clock.h"
#include "mem.h"

#define MEMORY_S 30.0 /* after so long, time counts for 1/e */

const char *const status_phase_names[STATUS_PHASES] = {"starting", "measuring the scale", "training", "done", "stopped",
                                                       "failed"};

struct status {
    pthread_mutex_t lock; /* guards all below */
    double started;       /* clock_s */
    double waited;        /* of training since the start, s */
    double at, waited_at; /* up to when the rates have counted, */
    uint64_t rows_at;     /* and what there was then */
    struct status_snapshot now;
};

/* ---- rates ---- */

void rate_add(struct rate *r, double amount, double seconds)
{
    double kept = exp(-seconds / MEMORY_S);
    r->amount = r->amount * kept + amount;
    r->seconds = r->seconds * kept + seconds;
}

double rate_value(const struct rate *r)
{
    return r->seconds > 0 ? r->amount / r->seconds : NAN;
}

double status_rows_per_s(const struct status_snapshot *s)
{
    return rate_value(&s->rows_rate);
}

double status_eta_s(const struct status_snapshot *s)
{
    double rows_per_s = status_rows_per_s(s);
    return rows_per_s > 0 ? (double)((s->total_steps - s->step) * s->batch_size) / rows_per_s : NAN;
}

double status_waiting(const struct status_snapshot *s)
{
    return fmin(rate_value(&s->waiting_rate), 1); /* a wait is counted when it ends */
}

double status_share(const struct ingest_producer *p, enum status_share which)
{
    double computing = (double)p->computing, sending = (double)p->sending;
    if (!p->reports)
        return NAN;
    return which == STATUS_COMPUTING ? computing : which == STATUS_SENDING ? sending : fmax(1 - computing - sending, 0);
}

double status_mean_share(const struct status_snapshot *s, enum status_share which)
{
    double sum = 0;
    size_t n = 0;
    for (size_t i = 0; i < s->ingest.n_producers; i++) {
        if (!s->ingest.producers[i].reports)
            continue;
        sum += status_share(&s->ingest.producers[i], which);
        n++;
    }
    return n ? sum / (double)n : NAN;
}

/* ---- life ---- */

int status_new(struct status **out, struct err *e)
{
    struct status *s = mem_alloc(1, sizeof *s, "status", e);
    *out = s;
    if (!s)
        return ERR_MEMORY;
    pthread_mutex_init(&s->lock, NULL);
    s->started = s->at = clock_s();
    s->now.loss = s->now.l0 = s->now.dead = s->now.fvu = s->now.fvu_typical = s->now.clipped = s->now.silent = NAN;
    return 0;
}

void status_free(struct status *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

/* ---- what the threads tell ---- */

void status_run(struct status *s, const char *run, uint64_t step, uint64_t total_steps, uint64_t batch_size)
{
    pthread_mutex_lock(&s->lock);
    snprintf(s->now.run, sizeof s->now.run, "%s", run);
    s->now.step = step;
    s->now.total_steps = total_steps;
    s->now.batch_size = batch_size;
    s->rows_at = step * batch_size;
    pthread_mutex_unlock(&s->lock);
}

void status_phase(struct status *s, enum status_phase phase)
{
    pthread_mutex_lock(&s->lock);
    s->now.phase = phase;
    if (phase == STATUS_TRAINING) { /* rates are of the training */
        s->at = clock_s();
        s->waited_at = s->waited;
    }
    pthread_mutex_unlock(&s->lock);
}

void status_step(struct status *s, const struct step_report *r)
{
    pthread_mutex_lock(&s->lock);
    s->now.step = r->step + 1;
    s->now.has_step = true;
    s->now.path = r->path;
    s->now.loss = r->loss;
    s->now.l0 = r->l0;
    s->now.dead = r->dead_measurable ? (double)r->dead : NAN;
    pthread_mutex_unlock(&s->lock);
}

void status_line(struct status *s, const struct step_report *r, double clipped)
{
    pthread_mutex_lock(&s->lock);
    s->now.fvu = r->fvu.fvu;
    s->now.fvu_typical = r->fvu.fvu_typical;
    s->now.clipped = clipped;
    pthread_mutex_unlock(&s->lock);
}

void status_evaluation(struct status *s, const struct evaluation_report *r)
{
    pthread_mutex_lock(&s->lock);
    s->now.silent = (double)r->silent;
    pthread_mutex_unlock(&s->lock);
}

void status_skipped(struct status *s, uint64_t batches)
{
    pthread_mutex_lock(&s->lock);
    s->now.batches_skipped = batches;
    pthread_mutex_unlock(&s->lock);
}

void status_collapse(struct status *s, const char *why)
{
    pthread_mutex_lock(&s->lock);
    snprintf(s->now.collapse, sizeof s->now.collapse, "%s", why);
    pthread_mutex_unlock(&s->lock);
}

void status_checkpoints(struct status *s, const struct checkpoint_tally *t)
{
    pthread_mutex_lock(&s->lock);
    s->now.checkpoints = *t;
    pthread_mutex_unlock(&s->lock);
}

void status_waited(struct status *s, double seconds)
{
    pthread_mutex_lock(&s->lock);
    s->waited += seconds;
    pthread_mutex_unlock(&s->lock);
}

void status_end(struct status *s, enum status_phase phase, const char *reason)
{
    pthread_mutex_lock(&s->lock);
    s->now.phase = phase;
    snprintf(s->now.reason, sizeof s->now.reason, "%s", reason);
    pthread_mutex_unlock(&s->lock);
}

/* Finds the producer's rate of rows until now; one that is new has had all its rows since it joined. */
static struct rate producer_rate(const struct status_snapshot *now, const struct ingest_producer *p, double seconds)
{
    for (size_t k = 0; k < now->ingest.n_producers; k++)
        if (now->ingest.producers[k].number == p->number) {
            struct rate r = now->producer_rates[k];
            rate_add(&r, (double)(p->rows - now->ingest.producers[k].rows), seconds);
            return r;
        }
    struct rate r = {0};
    rate_add(&r, (double)p->rows, p->here_s);
    return r;
}

void status_ingest(struct status *s, const struct ingest_snapshot *in)
{
    struct rate rates[PRODUCERS_MAX]; /* the old ones are needed until all are known: places in the list change */
    pthread_mutex_lock(&s->lock);
    struct status_snapshot *snapshot = &s->now;
    double now = clock_s(), seconds = now - s->at;
    uint64_t rows = snapshot->step * snapshot->batch_size;
    if (snapshot->phase == STATUS_TRAINING) {
        rate_add(&snapshot->rows_rate, (double)(rows - s->rows_at), seconds);
        rate_add(&snapshot->waiting_rate, s->waited - s->waited_at, seconds);
    }
    s->rows_at = rows;
    s->waited_at = s->waited;
    s->at = now;
    for (size_t i = 0; i < in->n_producers; i++)
        rates[i] = producer_rate(snapshot, &in->producers[i], seconds);
    for (size_t i = 0; i < in->n_producers; i++)
        snapshot->producer_rates[i] = rates[i];
    snapshot->ingest = *in;
    pthread_mutex_unlock(&s->lock);
}

void status_snapshot(struct status *s, struct status_snapshot *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->now;
    out->up_s = clock_s() - s->started;
    pthread_mutex_unlock(&s->lock);
}

void status_sides(struct status *s, char *text, size_t size)
{
    pthread_mutex_lock(&s->lock);
    const struct ingest_snapshot *in = &s->now.ingest;
    double waiting = status_mean_share(&s->now, STATUS_WAITING), sending = status_mean_share(&s->now, STATUS_SENDING);
    int n = snprintf(text, size, "window %.0f %%, %zu producer%s",
                     in->window_slots ? 100 * (double)in->window_rows / (double)in->window_slots : 0, in->n_producers,
                     in->n_producers == 1 ? "" : "s");
    pthread_mutex_unlock(&s->lock);
    if (!isnan(waiting))
        snprintf(text + n, size - (size_t)n, " (waiting %.0f %%, sending %.0f %%)", 100 * waiting, 100 * sending);
}
