/* status.h - what the run is doing now, kept from what the training thread and the ingest tell, for all who show it.
 *
 * The training thread tells its part after each step and each wait: a copy under a lock. Whoever shows the status (status_writer.h) brings
 * the ingest's part every now and then, and takes a snapshot of the whole. Rates and shares are of the last half minute or so: older time
 * counts less and less. */
#ifndef CROSSFEED_STATUS_H
#define CROSSFEED_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend.h"
#include "checkpoint_tally.h"
#include "err.h"
#include "evaluation.h"
#include "ingest_snapshot.h"
#include "message.h"

enum status_phase {
    STATUS_STARTING, /* until the first producer has come and all is allocated */
    STATUS_SCALE,    /* measuring the scale */
    STATUS_TRAINING,
    STATUS_DONE,
    STATUS_STOPPED,
    STATUS_FAILED,
    STATUS_PHASES
};
extern const char *const status_phase_names[STATUS_PHASES];

/* An amount over time, in which the past fades. */
struct rate {
    double amount, seconds;
};

/* Adds an amount that took so many seconds. */
void rate_add(struct rate *r, double amount, double seconds);

/* Returns the amount a second; NaN before the first. */
double rate_value(const struct rate *r);

struct status_snapshot {
    char run[FINGERPRINT_SIZE]; /* "" until the run is set up */
    enum status_phase phase;
    char reason[MESSAGE_TEXT_SIZE]; /* why the run failed; "" if it did not */
    double up_s;
    /* training */
    uint64_t step, total_steps, batch_size;
    uint64_t batches_skipped; /* passed over since the run began */
    bool has_step;            /* there was a step since this start: */
    enum step_path path;
    double loss, l0, dead;            /* of that step; dead: latents. NaN if they are not known */
    double fvu, fvu_typical, clipped; /* of the last line of metrics.jsonl; */
    double silent;      /* and latents that were active in none of the held-out rows, at the last evaluation */
    char collapse[256]; /* why the run counts as collapsed; "" if it does not */
    struct rate rows_rate, waiting_rate;
    struct checkpoint_tally checkpoints;
    /* ingest */
    struct ingest_snapshot ingest;
    struct rate producer_rates[PRODUCERS_MAX]; /* rows of each of ingest.producers */
};

struct status;

/* Makes a status of a run that is starting. */
int status_new(struct status **s, struct err *e);

/* Frees it. s may be NULL. */
void status_free(struct status *s);

/* ---- for the training thread ---- */

/* Tells what is known once the run is set up. step: how many are done already. */
void status_run(struct status *s, const char *run, uint64_t step, uint64_t total_steps, uint64_t batch_size);

/* Tells that the run is in that phase now. */
void status_phase(struct status *s, enum status_phase phase);

/* Tells a step. */
void status_step(struct status *s, const struct step_report *r);

/* Tells a step that has metrics, and the share of clipped steps up to it. */
void status_line(struct status *s, const struct step_report *r, double clipped);

/* Tells an evaluation. */
void status_evaluation(struct status *s, const struct evaluation_report *r);

/* Tells why the run counts as collapsed; "" if it does not. */
void status_collapse(struct status *s, const char *why);

/* Tells how many batches were passed over since the run began. */
void status_skipped(struct status *s, uint64_t batches);

/* Tells what has become of the first learner's checkpoints. */
void status_checkpoints(struct status *s, const struct checkpoint_tally *t);

/* Tells that the training thread has waited so long for rows since it last told. */
void status_waited(struct status *s, double seconds);

/* Tells how the run ended. reason: "" unless it failed. */
void status_end(struct status *s, enum status_phase phase, const char *reason);

/* Writes for a progress line: "window 97 %, 3 producers (waiting 20 %, sending 0 %)". */
void status_sides(struct status *s, char *text, size_t size);

/* ---- for whoever shows the status, on one thread ---- */

/* Brings the ingest's part, and counts the rates up to now. */
void status_ingest(struct status *s, const struct ingest_snapshot *in);

/* ---- for any thread ---- */

void status_snapshot(struct status *s, struct status_snapshot *out);

/* ---- what follows from a snapshot ---- */

double status_rows_per_s(const struct status_snapshot *s);

/* Returns the seconds until the last step; NaN if they are not known. */
double status_eta_s(const struct status_snapshot *s);

/* Returns the share of its time in which training waited for rows. */
double status_waiting(const struct status_snapshot *s);

/* Returns a share of a producer's time, as it says; NaN if it does not say. */
enum status_share { STATUS_COMPUTING, STATUS_SENDING, STATUS_WAITING };
double status_share(const struct ingest_producer *p, enum status_share which);

/* Returns the mean over the producers that say; NaN if none does. */
double status_mean_share(const struct status_snapshot *s, enum status_share which);

#endif
