/* serve.h - a producer at work: answers the trainer's leases with the rows of a source.
 *
 * Two threads. The communication thread owns the link: HELLO, heartbeats, leases in, chunks out. The calling thread
 * computes, so that PING and PONG flow during a forward pass. Between them stand the queue of leases and two outgoing
 * blocks (one computed while the other is sent); that and the trainer's credit bound the memory. */
#ifndef CROSSFEED_SERVE_H
#define CROSSFEED_SERVE_H

#include <signal.h>
#include <stdint.h>

#include "curve_keys.h"
#include "err.h"
#include "message.h"
#include "source.h"

struct serve_options {
    const char *endpoint;            /* of the trainer */
    const struct curve_client *keys; /* NULL: without CURVE */
    const char *producer;            /* this producer's name in the trainer's logs */
    int give_up_after_ms;            /* without contact for so long: ERR_PEER */
    volatile sig_atomic_t *stop;     /* set by a signal handler: leave politely (BYE) and return 0 */
    /* Called on the computing thread with each block once it is computed (NULL: not). block_seqs: of the run. An error
     * makes us leave politely and is what serve returns. */
    int (*keep)(void *context, const struct message_lease *lease, uint32_t block_seqs, struct rows *rows,
                struct err *e);
    void *keep_context;
};

/* What the computing thread does: it computes, idles while what it computed is still on its way out, or idles. */
enum serve_activity { SERVE_WAITING, SERVE_COMPUTING, SERVE_SENDING, SERVE_ACTIVITIES };

struct serve_report {
    uint64_t blocks, rows; /* sent */
    uint64_t absent;       /* leases refused because their rows are not recorded; the first is logged */
    double seconds[SERVE_ACTIVITIES];
    char end_reason[512]; /* what END said; empty if we left first */
};

/* Serves until END (0 if the run ended well, ERR_PEER if it failed), a REJECT (ERR_MISMATCH), a signal (0) or an error.
 */
int serve(struct source *source, const struct serve_options *options, struct serve_report *report, struct err *e);

#endif
