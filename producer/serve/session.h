/* session.h - a producer's conversation with a trainer: HELLO, WELCOME, leases in, chunks out, PING and PONG, END or BYE.
 *
 * A session is one connection: it begins with HELLO and keeps nothing of the one before. When the trainer is silent, the
 * connection ends or the trainer does not know us, another one begins. PROTOCOL.md has the messages. */
#ifndef CROSSFEED_SESSION_H
#define CROSSFEED_SESSION_H

#include <signal.h>
#include <stdint.h>

#include "compute.h"
#include "curve_keys.h"
#include "err.h"
#include "stream.h"

struct session_options {
    const char *endpoint;            /* of the trainer */
    const struct curve_client *keys; /* NULL: without CURVE */
    const char *producer;            /* this producer's name in the trainer's logs */
    const struct stream *stream;     /* what HELLO says */
    int give_up_after_ms;            /* without contact for so long: ERR_PEER */
    volatile sig_atomic_t *stop;     /* set by a signal handler: leave politely (BYE) and return 0 */
};

struct session_report {
    uint64_t blocks, rows; /* sent */
    uint64_t absent;       /* leases refused because their rows are not recorded; the first is logged */
    char end_reason[512];  /* what END said; empty if we left first */
};

/* Converses, one session after the other, until END (returns 0 if the run ended well, ERR_PEER if it failed), REJECT
 * (ERR_MISMATCH), a signal (0) or an error, among them compute_failure. What c computes is sent; compute_finish(c) is called
 * before this returns, and no block is held then. */
int session_run(struct compute *c, const struct session_options *o, struct session_report *report, struct err *e);

#endif
