/* ingest.h - the trainer's side of the protocol: producers come, leases go out, rows get to their places.
 *
 * A thread of its own owns the socket from the moment it is bound, so that producers are answered while the run is still being set up.
 * Once the run is started, the thread decides which block is leased to whom, checks what comes back and stores the rows: those of the
 * first blocks, if they are measured (row_store.h), then the held-out rows, then those of the shuffle's windows. All other threads talk to
 * it only through the functions below, which copy under a lock. */
#ifndef CROSSFEED_INGEST_H
#define CROSSFEED_INGEST_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"
#include "ingest_measured.h"
#include "ingest_options.h"
#include "ingest_snapshot.h"

struct ingest;
struct row_store_config;

/* Binds the endpoints and starts the thread, which welcomes producers from now on. It copies what it needs of o. */
int ingest_new(struct ingest **in, const struct ingest_options *o, struct err *e);

/* Frees the ingest, after ingest_finish if it was not finished. in may be NULL. */
void ingest_free(struct ingest *in);

/* Returns the i-th endpoint as it was bound. */
const char *ingest_endpoint(const struct ingest *in, size_t i);

/* Returns the eventfd by which the shuffle tells the ingest thread that there is room (shuffle_config.wake). */
int ingest_wake_fd(const struct ingest *in);

/* Waits for at most timeout_ms for the first producer. Returns 0 and its stream, which is the run's; 1 if none has come yet; or the
 * error that ended the ingest. */
int ingest_stream(struct ingest *in, struct stream *out, int timeout_ms, struct err *e);

/* Starts leasing. It copies what it needs of c, but not what its pointers stream, plan and shuffle point at, which must outlive the
 * ingest. c->scaled says whether the scale was given or is the first producer's; only then may c->n_scale_blocks be 0. */
int ingest_start(struct ingest *in, const struct row_store_config *c, struct err *e);

/* Waits for at most timeout_ms for the scale and the first blocks' rows, if they are kept. Returns 0 and m, whose rows are valid until
 * ingest_forget or ingest_free; 1 if not all is known yet; or the error that ended the ingest. */
int ingest_measured(struct ingest *in, struct ingest_measured *m, int timeout_ms, struct err *e);

/* Frees the kept rows. Only after ingest_measured has returned 0, and by the same thread. */
void ingest_forget(struct ingest *in);

/* Waits for at most timeout_ms for the held-out rows. Returns 0 and rows [*n_rows, n_sites, d_model] of the dtype, valid until
 * ingest_free (*n_rows is 0 if there are no held-out blocks); 1 if they are not all there yet; or the error that ended the ingest. If it
 * does not return 0, *rows is NULL and *n_rows 0. */
int ingest_evaluation_rows(struct ingest *in, const unsigned char **rows, size_t *n_rows, int timeout_ms,
                           struct err *e);

/* Copies the counters as they were at the thread's last turn, a tenth of a second ago at most. */
void ingest_counters(struct ingest *in, struct ingest_counters *c);

/* Asks the thread to describe its state, waits for that (about as long as a message takes; a second at most, after which s is what was
 * described last) and copies it. After ingest_finish, s is the state at the end. Any one thread may call this. */
void ingest_snapshot(struct ingest *in, struct ingest_snapshot *s);

/* Tells every producer END, waits a moment for their BYEs, stops the thread and closes the socket. */
void ingest_finish(struct ingest *in, bool ok, const char *reason);

#endif
