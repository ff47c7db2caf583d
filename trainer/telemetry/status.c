/* status.c - the snapshot, its rates, status.json; see status.h. */
#include "status.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "file.h"
#include "json_file.h"
#include "ledger.h"
#include "log.h"
#include "version.h"

#define MEMORY_S 30.0 /* after so long a time counts for 1/e */

const char *const status_phase_names[STATUS_PHASES] = {"starting", "measuring the scale", "training", "done", "stopped",
                                                       "failed"};

struct status {
    char path[4096], temporary[4096];
    bool write_failed; /* said already */
    int64_t next_write_ms;
    pthread_mutex_t lock; /* guards all below */
    double started;       /* clock_s */
    double waited;        /* of training since the start, s */
    double at, waited_at; /* up to when the rates have counted, */
    uint64_t rows_at;     /* and what there was then */
    struct status_snapshot now;
    struct status_snapshot written; /* whoever writes the file; without the lock */
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

double status_share(const struct status_producer *p, enum status_share which)
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
    for (size_t i = 0; i < s->n_producers; i++) {
        if (!s->producers[i].reports)
            continue;
        sum += status_share(&s->producers[i], which);
        n++;
    }
    return n ? sum / (double)n : NAN;
}

/* ---- life ---- */

int status_new(struct status **out, const char *folder, struct err *e)
{
    struct status *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return err_set(e, ERR_MEMORY, "status: out of memory");
    pthread_mutex_init(&s->lock, NULL);
    s->started = s->at = clock_s();
    s->now.loss = s->now.l0 = s->now.fvu = NAN;
    /* One name, unlike other outputs: one trainer has the folder, and a killed one leaves nothing that would stay. */
    if (file_join(s->path, sizeof s->path, folder, "status.json", e) ||
        file_join(s->temporary, sizeof s->temporary, folder, ".status.json.tmp", e)) {
        status_free(s);
        return e->code;
    }
    *out = s;
    return 0;
}

void status_free(struct status *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- what the threads say ---- */

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

void status_step(struct status *s, const struct step_report *r, double fvu)
{
    pthread_mutex_lock(&s->lock);
    s->now.step = r->step + 1;
    s->now.has_step = true;
    s->now.path = r->path;
    s->now.loss = r->loss;
    s->now.l0 = r->l0;
    s->now.fvu = fvu;
    pthread_mutex_unlock(&s->lock);
}

void status_waited(struct status *s, double seconds)
{
    pthread_mutex_lock(&s->lock);
    s->waited += seconds;
    pthread_mutex_unlock(&s->lock);
}

bool status_due(struct status *s)
{
    return clock_ms() >= s->next_write_ms;
}

/* The rates go on to now; the lock is held. */
static void count_rates(struct status *s, const struct status_ingest *in)
{
    double now = clock_s(), seconds = now - s->at;
    uint64_t rows = s->now.step * s->now.batch_size;
    if (s->now.phase == STATUS_TRAINING) {
        rate_add(&s->now.rows_rate, (double)(rows - s->rows_at), seconds);
        rate_add(&s->now.waiting_rate, s->waited - s->waited_at, seconds);
    }
    s->rows_at = rows;
    s->waited_at = s->waited;
    s->at = now;
    struct status_producer *before = s->now.producers;
    for (size_t i = 0; i < in->n_producers; i++) {
        struct status_producer p = in->producers[i];
        size_t k = i; /* those before it may have left: it stands here or further on */
        while (k < s->now.n_producers && before[k].number != p.number)
            k++;
        bool known = k < s->now.n_producers;
        p.rows_rate = known ? before[k].rows_rate : (struct rate){0};
        rate_add(&p.rows_rate, (double)(p.rows - (known ? before[k].rows : 0)), known ? seconds : p.here_s);
        before[i] = p;
    }
    s->now.n_producers = in->n_producers;
}

static void write_file(struct status *s, const struct status_snapshot *snapshot)
{
    json_t *value = status_to_json(snapshot);
    char *text = value ? json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    FILE *f = text ? fopen(s->temporary, "we") : NULL;
    bool written = f && fputs(text, f) >= 0 && fputc('\n', f) >= 0;
    int saved = errno;
    if (f && fclose(f) != 0)
        written = false;
    if (!written || rename(s->temporary, s->path) != 0) {
        saved = written ? errno : saved;
        if (f)
            unlink(s->temporary);
        if (!s->write_failed)
            log_line("%s: cannot write: %s; the run goes on", s->path, text ? strerror(saved) : "out of memory");
        s->write_failed = true;
    }
    free(text);
    json_decref(value);
}

void status_ingest(struct status *s, const struct status_ingest *in)
{
    pthread_mutex_lock(&s->lock);
    count_rates(s, in);
    s->now.counters = in->counters;
    s->now.window_rows = in->window_rows;
    s->now.window_slots = in->window_slots;
    s->now.rows_masked = in->rows_masked;
    pthread_mutex_unlock(&s->lock);
    status_snapshot(s, &s->written);
    write_file(s, &s->written);
    s->next_write_ms = clock_ms() + STATUS_EVERY_MS;
}

void status_finish(struct status *s, enum status_phase phase, const char *reason)
{
    pthread_mutex_lock(&s->lock);
    s->now.phase = phase;
    snprintf(s->now.reason, sizeof s->now.reason, "%s", reason);
    pthread_mutex_unlock(&s->lock);
    status_snapshot(s, &s->written);
    write_file(s, &s->written);
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
    const struct status_snapshot *now = &s->now;
    double waiting = status_mean_share(now, STATUS_WAITING), sending = status_mean_share(now, STATUS_SENDING);
    int n = snprintf(text, size, "window %.0f %%, %zu producer%s",
                     now->window_slots ? 100 * (double)now->window_rows / (double)now->window_slots : 0,
                     now->n_producers, now->n_producers == 1 ? "" : "s");
    pthread_mutex_unlock(&s->lock);
    if (!isnan(waiting))
        snprintf(text + n, size - (size_t)n, " (waiting %.0f %%, sending %.0f %%)", 100 * waiting, 100 * sending);
}

/* ---- JSON ---- */

static json_t *text_or_null(const char *text)
{
    return *text ? json_string(text) : json_null();
}

static json_t *producer_to_json(const struct status_producer *p)
{
    return json_pack("{s:I, s:s, s:o, s:o, s:f, s:I, s:o, s:I, s:I, s:I, s:o, s:o, s:o}", "number",
                     (json_int_t)p->number, "name", p->name, "address", text_or_null(p->address), "key",
                     text_or_null(p->key), "here_s", p->here_s, "rows", (json_int_t)p->rows, "rows_per_s",
                     json_real_or_null(rate_value(&p->rows_rate)), "blocks_done", (json_int_t)p->blocks_done, "leases",
                     (json_int_t)p->leases, "errors", (json_int_t)p->errors, "computing",
                     json_real_or_null(status_share(p, STATUS_COMPUTING)), "sending",
                     json_real_or_null(status_share(p, STATUS_SENDING)), "waiting",
                     json_real_or_null(status_share(p, STATUS_WAITING)));
}

json_t *status_to_json(const struct status_snapshot *s)
{
    json_t *producers = json_array(), *ledger = ledger_to_json(&s->counters);
    for (size_t i = 0; i < s->n_producers; i++)
        json_array_append_new(producers, producer_to_json(&s->producers[i]));
    if (ledger)
        json_object_set_new(ledger, "rows_masked", json_integer((json_int_t)s->rows_masked));
    if (json_array_size(producers) != s->n_producers || !ledger) {
        json_decref(producers);
        json_decref(ledger);
        return NULL;
    }
    const char *path = !s->has_step ? NULL : s->path == STEP_SPARSE ? "sparse" : "dense";
    return json_pack(
        "{s:o, s:s, s:o, s:I, s:s, s:I, s:f, s:I, s:I, s:I, s:o, s:o, s:s?, s:o, s:o, s:o, s:{s:I, s:I}, s:{s:o, s:o, "
        "s:o}, s:o, s:o}",
        "run", text_or_null(s->run), "phase", status_phase_names[s->phase], "reason", text_or_null(s->reason),
        "written_unix", (json_int_t)time(NULL), "software", CROSSFEED_SOFTWARE, "pid", (json_int_t)getpid(), "up_s",
        s->up_s, "step", (json_int_t)s->step, "total_steps", (json_int_t)s->total_steps, "rows",
        (json_int_t)(s->step * s->batch_size), "rows_per_s", json_real_or_null(status_rows_per_s(s)), "eta_s",
        json_real_or_null(status_eta_s(s)), "path", path, "loss", json_real_or_null(s->loss), "l0",
        json_real_or_null(s->l0), "fvu", json_real_or_null(s->fvu), "window", "rows", (json_int_t)s->window_rows,
        "slots", (json_int_t)s->window_slots, "waiting", "trainer", json_real_or_null(status_waiting(s)), "producers",
        json_real_or_null(status_mean_share(s, STATUS_WAITING)), "producers_sending",
        json_real_or_null(status_mean_share(s, STATUS_SENDING)), "ledger", ledger, "producers", producers);
}
