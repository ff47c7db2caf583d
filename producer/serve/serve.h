/* serve.h - a producer at work: answers the trainer's leases with the rows of a source.
 *
 * Two threads, so that PING and PONG flow during a forward pass: the calling one computes (compute.h), another one owns the
 * link and talks to the trainer (session.h). */
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

struct serve_report {
    uint64_t blocks, rows; /* sent */
    uint64_t absent;       /* leases refused because their rows are not recorded; the first is logged */
    /* What the calling thread did: it computed, idled while what it computed was still on its way out, or idled. */
    double computing_s, sending_s, waiting_s;
    char end_reason[512]; /* what END said; empty if we left first */
};

/* Serves until END (0 if the run ended well, ERR_PEER if it failed), a REJECT (ERR_MISMATCH), a signal (0) or an error.
 * The report is filled unless serving could not begin. */
int serve(struct source *source, const struct serve_options *options, struct serve_report *report, struct err *e);

#endif
