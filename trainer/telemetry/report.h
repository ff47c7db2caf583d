/* report.h - what a run says when it is finished: a table on stdout, and summary.json in its folder.
 *
 * The ledger says where every row went: how many were expected (steps * batch_size) and how many were trained on (counted where they
 * leave the window), which must be the same number; how many were dropped because their block had been leased to somebody else; how many
 * blocks were leased again. */
#ifndef CROSSFEED_REPORT_H
#define CROSSFEED_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "evaluation.h"
#include "ingest_snapshot.h"
#include "recovery.h"
#include "backend.h"
#include "checkpoint_tally.h"
#include "stream.h"

struct report {
    const char *out;
    const char *init_fingerprint; /* of the file that the run started from; "": none */
    const struct stream *stream;
    uint64_t steps;
    uint64_t epoch_rows;                        /* of a whole epoch, without the masked ones, */
    bool epoch_estimated;                       /* as no epoch has ended in this session */
    uint64_t rows_expected;                     /* steps * batch_size */
    uint64_t rows_trained;                      /* in this session, counted as they left the window, */
    uint64_t batches_skipped;                   /* of the run: passed over, as loss or gradient norm was not finite */
    uint64_t rows_masked;                       /* dropped from the window in this session: padding */
    uint64_t rows_resumed;                      /* and before it, as its checkpoint says */
    const struct step_report *step;             /* the last one, with metrics */
    const struct evaluation_report *evaluation; /* NULL: no held-out blocks */
    const struct recovery_result *recovered;    /* NULL: no ground truth */
    const char *collapse;                       /* why the run counts as collapsed; "" if it does not */
    double clipped;                             /* share of the steps whose gradient was clipped; NaN: not known */
    size_t d_sae;
    uint64_t dead_rows; /* trained on before any latent can be dead */
    bool has_k;         /* topk, batchtopk */
    const struct checkpoint_tally *checkpoints;
    double rows_per_s, waiting_share; /* of this session; NaN if it trained on nothing */
    size_t budget_bytes;
    struct ingest_counters ingest;
};

/* Tells whether a run's folder has a summary.json; recovered: one that says what was recovered. */
int report_is_written(const char *out, bool recovered, bool *written, struct err *e);

/* Prints the table and writes summary.json. It is an error if the ledger does not add up. */
int report_write(const struct report *r, struct err *e);

#endif
