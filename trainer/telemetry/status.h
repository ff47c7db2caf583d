/* status.h - what the run is doing now: status.json in its folder, and the snapshot that the metrics endpoint shows.
 *
 * The training thread says its part after each step and each wait, a copy under a lock. The ingest thread says who is
 * here, and every STATUS_EVERY_MS it writes status.json, so that the step never waits for a disk. The file is replaced
 * by a rename, so that readers see a whole one at any moment; it is not synced to disk, because after a crash of the
 * machine nobody wants to know what was so before it, and a sync waits for the checkpoint that is being written. A
 * folder that cannot be written is said once and does not end the run.
 *
 * Rates and shares are of the last half minute or so: older time counts less and less. */
#ifndef CROSSFEED_STATUS_H
#define CROSSFEED_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "err.h"
#include "ingest_sync.h"
#include "message.h"
#include "producers.h"
#include "backend.h"

#define STATUS_EVERY_MS 2000

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

/* An amount over time in which the past fades. */
struct rate {
    double amount, seconds;
};
void rate_add(struct rate *r, double amount, double seconds);
double rate_value(const struct rate *r); /* a second; NaN before the first */

struct status_producer {
    uint64_t number; /* of the joining, from 1: tells apart producers of one name */
    char name[MESSAGE_NAME_SIZE];
    char address[64], key[64]; /* "": not known, none */
    double here_s;
    uint64_t rows, blocks_done, errors;
    uint32_t leases;
    bool reports; /* it has said how it spends its time: */
    float computing, sending;
    struct rate rows_rate; /* filled by status_ingest */
};

struct status_snapshot {
    char run[FINGERPRINT_SIZE];
    enum status_phase phase;
    char reason[MESSAGE_TEXT_SIZE]; /* of the end; "" while it runs */
    double up_s;
    /* training */
    uint64_t step, total_steps, batch_size;
    bool has_step; /* since this start: */
    enum step_path path;
    double loss, l0, fvu; /* fvu: of the last line of metrics.jsonl */
    struct rate rows_rate, waiting_rate;
    /* ingest */
    size_t window_rows, window_slots;
    uint64_t rows_masked;
    struct ingest_counters counters;
    size_t n_producers;
    struct status_producer producers[PRODUCERS_MAX];
};

struct status;

/* Writes to FOLDER/status.json. */
int status_new(struct status **s, const char *folder, struct err *e);
void status_free(struct status *s); /* NULL is fine */

/* ---- training thread ---- */
/* What is known once the run is set up; step: steps done already. */
void status_run(struct status *s, const char *run, uint64_t step, uint64_t total_steps, uint64_t batch_size);
void status_phase(struct status *s, enum status_phase phase);
void status_step(struct status *s, const struct step_report *r, double fvu);
void status_waited(struct status *s, double seconds); /* the training thread waited so long for rows since last said */
/* The last word, when no other thread is left; writes the file. */
void status_finish(struct status *s, enum status_phase phase, const char *reason);

/* ---- ingest thread (before it is started: whoever waits for the first producer) ---- */
bool status_due(struct status *s);
struct status_ingest {
    struct ingest_counters counters;
    size_t window_rows, window_slots;
    uint64_t rows_masked;
    size_t n_producers;
    struct status_producer producers[PRODUCERS_MAX];
};
void status_ingest(struct status *s, const struct status_ingest *in); /* writes the file */

/* ---- any thread ---- */
void status_snapshot(struct status *s, struct status_snapshot *out);

/* For a progress line: "window 97 %, 3 producers (waiting 20 %, sending 0 %)". */
void status_sides(struct status *s, char *text, size_t size);

/* ---- of a snapshot ---- */
double status_rows_per_s(const struct status_snapshot *s);
double status_eta_s(const struct status_snapshot *s);   /* NaN: not known */
double status_waiting(const struct status_snapshot *s); /* share of its time that training waited for rows */
/* Shares of a producer's time, as it says; NaN: it does not say. Their means: NaN if none says. */
enum status_share { STATUS_COMPUTING, STATUS_SENDING, STATUS_WAITING };
double status_share(const struct status_producer *p, enum status_share which);
double status_mean_share(const struct status_snapshot *s, enum status_share which);
json_t *status_to_json(const struct status_snapshot *s); /* new; NULL: out of memory */

#endif
