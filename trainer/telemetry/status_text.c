/* status_text.c - see status_text.h. What is not known (there was no step yet, a producer does not say) has no sample or is NaN, never 0. */
#include "status_text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "ledger.h"
#include "text.h"
#include "version.h"

static void head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP crossfeed_%s %s\n# TYPE crossfeed_%s %s\n", name, help, name, type);
}

static void number(FILE *f, double x)
{
    if (isfinite(x))
        fprintf(f, " %.17g\n", x);
    else
        fputs(isnan(x) ? " NaN\n" : x > 0 ? " +Inf\n" : " -Inf\n", f);
}

static void gauge(FILE *f, const char *name, const char *help, double x)
{
    head(f, name, "gauge", help);
    fprintf(f, "crossfeed_%s", name);
    number(f, x);
}

static void counter(FILE *f, const char *name, const char *help, uint64_t x)
{
    head(f, name, "counter", help);
    fprintf(f, "crossfeed_%s %" PRIu64 "\n", name, x);
}

/* Writes key="value": what may not be shown is escaped (text.h), and then what would end the value. */
static void label(FILE *f, const char *key, const char *value)
{
    char shown[512];
    text_escape(shown, sizeof shown, value);
    fprintf(f, "%s=\"", key);
    for (const char *c = shown; *c; c++) {
        if (*c == '"' || *c == '\\')
            fputc('\\', f);
        fputc(*c, f);
    }
    fputc('"', f);
}

static void write_ledger(FILE *f, const struct status_snapshot *s)
{
    for (size_t i = 0; i < ledger_n_entries; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s_total", ledger_entries[i].name);
        counter(f, name, ledger_entries[i].help, ledger_value(&s->ingest.counters, i));
    }
    counter(f, "batches_skipped_total", "batches passed over, as loss or gradient norm was not finite",
            s->batches_skipped);
    counter(f, "rows_masked_total", "padding dropped from the window", s->ingest.rows_masked);
}

enum column { ROWS, RATE, BLOCKS, LEASES, ERRORS, HERE, COMPUTING, SENDING, WAITING, COLUMNS };
static const struct {
    const char *name, *type, *help;
} columns[COLUMNS] = {
    [ROWS] = {"producer_rows_total", "counter", "rows taken of it"},
    [RATE] = {"producer_rows_per_second", "gauge", "rows taken of it, lately"},
    [BLOCKS] = {"producer_blocks_done_total", "counter", "blocks that it has finished"},
    [LEASES] = {"producer_leases", "gauge", "leases that it holds"},
    [ERRORS] = {"producer_errors_total", "counter", "bad chunks and leases that it could not do"},
    [HERE] = {"producer_here_seconds", "gauge", "since it joined"},
    [COMPUTING] = {"producer_computing_ratio", "gauge", "share of its time in which it computes, as it says"},
    [SENDING] = {"producer_sending_ratio", "gauge", "share of its time in which the link holds it up, as it says"},
    [WAITING] = {"producer_waiting_ratio", "gauge", "share of its time in which it waits for leases, as it says"},
};

static double value(const struct status_snapshot *s, size_t i, enum column column)
{
    const struct ingest_producer *p = &s->ingest.producers[i];
    switch (column) {
    case ROWS:
        return (double)p->rows;
    case RATE:
        return rate_value(&s->producer_rates[i]);
    case BLOCKS:
        return (double)p->blocks_done;
    case LEASES:
        return p->leases;
    case ERRORS:
        return (double)p->errors;
    case HERE:
        return p->here_s;
    case COMPUTING:
        return status_share(p, STATUS_COMPUTING);
    case SENDING:
        return status_share(p, STATUS_SENDING);
    default:
        return status_share(p, STATUS_WAITING);
    }
}

static void write_producers(FILE *f, const struct status_snapshot *s)
{
    for (enum column column = 0; column < COLUMNS; column++) {
        head(f, columns[column].name, columns[column].type, columns[column].help);
        for (size_t i = 0; i < s->ingest.n_producers; i++) {
            const struct ingest_producer *p = &s->ingest.producers[i];
            fprintf(f, "crossfeed_%s{number=\"%" PRIu64 "\",", columns[column].name, p->number);
            label(f, "name", p->name);
            fputc(',', f);
            label(f, "address", p->address);
            fputc('}', f);
            number(f, value(s, i, column));
        }
    }
}

char *status_to_text(const struct status_snapshot *s, size_t *size)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, size);
    if (!f)
        return NULL;
    head(f, "info", "gauge", "1; the run and the software are its labels");
    fputs("crossfeed_info{", f);
    label(f, "run", s->run);
    fputc(',', f);
    label(f, "software", CROSSFEED_SOFTWARE);
    fputs("} 1\n", f);
    head(f, "phase", "gauge", "1 for what the run is doing");
    for (int i = 0; i < STATUS_PHASES; i++) {
        fputs("crossfeed_phase{", f);
        label(f, "phase", status_phase_names[i]);
        fprintf(f, "} %d\n", s->phase == (enum status_phase)i);
    }
    gauge(f, "up_seconds", "since this trainer started", s->up_s);
    gauge(f, "step", "steps done", (double)s->step);
    gauge(f, "steps", "steps of the whole run", (double)s->total_steps);
    counter(f, "rows_trained_total", "rows trained on, earlier sessions of the run included", s->step * s->batch_size);
    gauge(f, "rows_per_second", "rows trained on, lately", status_rows_per_s(s));
    gauge(f, "eta_seconds", "until the last step, at this rate", status_eta_s(s));
    gauge(f, "loss", "of the last step", s->loss);
    gauge(f, "l0", "active latents a row in the last step", s->l0);
    gauge(f, "fvu", "fraction of variance unexplained, of the last line of metrics.jsonl", s->fvu);
    gauge(f, "fvu_typical", "the same over rows of typical norm", s->fvu_typical);
    gauge(f, "clipped_ratio", "share of the steps whose gradient was clipped, up to that line", s->clipped);
    gauge(f, "dead_latents", "latents that have not fired for dead_rows rows; NaN before so many are trained on",
          s->dead);
    gauge(f, "silent_latents", "latents that fired on none of the held-out rows at the last evaluation", s->silent);
    gauge(f, "collapsed", "1: the last evaluation found L0 0 or FVU above 1 after the warm-up", *s->collapse != 0);
    gauge(f, "sparse_step", "1: the last step took the sparse path, 0: the dense one",
          !s->has_step ? NAN : s->path == STEP_SPARSE);
    counter(f, "checkpoints_saved_total", "checkpoints that were written", s->checkpoints.saved);
    counter(f, "checkpoint_failures_total", "saves that failed", s->checkpoints.failed);
    gauge(f, "checkpoints_damaged", "newer than the one that this session resumed from, and set aside",
          (double)s->checkpoints.damaged);
    gauge(f, "window_rows", "slots of the window that are filled or reserved", (double)s->ingest.window_rows);
    gauge(f, "window_slots", "all slots of the window", (double)s->ingest.window_slots);
    gauge(f, "trainer_waiting_ratio", "share of its time in which training waits for rows", status_waiting(s));
    gauge(f, "producers_waiting_ratio", "share in which producers wait for leases, their mean",
          status_mean_share(s, STATUS_WAITING));
    gauge(f, "producers_sending_ratio", "share in which the link holds producers up, their mean",
          status_mean_share(s, STATUS_SENDING));
    gauge(f, "producers", "producers that are here", (double)s->ingest.n_producers);
    write_ledger(f, s);
    write_producers(f, s);
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}
