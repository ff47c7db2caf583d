/* ingest.c - the ingest thread's turns, and what the training thread asks of it; see ingest.h and PROTOCOL.md.
 *
 * ingest_peers.c deals with producers, ingest_leases.c gives them blocks, ingest_rows.c takes what they send. All that
 * the thread alone uses is free of locks; what the two threads tell each other goes through handover.h. */
#include "ingest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "ingest_leases.h"
#include "ingest_peers.h"
#include "ingest_rows.h"
#include "ingest_state.h"
#include "log.h"
#include "wake.h"

#define POLL_MS 100
#define END_WAIT_MS 3000 /* for the producers' BYEs */

/* ---- life ---- */

int ingest_new(struct ingest **out, const struct ingest_options *o, struct err *e)
{
    struct ingest *in = calloc(1, sizeof *in);
    *out = NULL;
    if (!in)
        return err_set(e, ERR_MEMORY, "ingest: out of memory");
    in->options = *o;
    handover_init(&in->handover);
    in->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int result = in->wake < 0 ? err_errno(e, errno, "eventfd")
                              : link_listen(&in->link, o->endpoints, o->n_endpoints, o->insecure, e);
    if (result) {
        ingest_free(in);
        return result;
    }
    *out = in;
    return 0;
}

void ingest_free(struct ingest *in)
{
    if (!in)
        return;
    if (in->running)
        ingest_finish(in, false, "trainer stopped");
    link_close(in->link, 0);
    if (in->wake >= 0)
        close(in->wake);
    intake_release(&in->intake);
    handover_release(&in->handover);
    free(in);
}

const char *ingest_endpoint(const struct ingest *in, size_t i)
{
    return link_endpoint(in->link, i);
}

int ingest_wake_fd(const struct ingest *in)
{
    return in->wake;
}

void ingest_fail(struct ingest *in, const struct err *why)
{
    handover_fail(&in->handover, why);
    if (in->run.intake.shuffle) /* not yet there if set-up failed */
        shuffle_fail(in->run.intake.shuffle, why);
}

int ingest_await_stream(struct ingest *in, const struct ingest_wanted *wanted, struct stream *out,
                        volatile sig_atomic_t *stop, struct err *e)
{
    struct link_peer from;
    struct link_payload payload;
    int64_t last_line = clock_ms();
    in->wanted = *wanted;
    for (;;) {
        if (*stop)
            return err_set(e, ERR_STOPPED, "stopped while waiting for the first producer");
        if (clock_ms() - last_line > 10000) {
            log_progress("waiting for a producer at %s", ingest_endpoint(in, 0));
            last_line = clock_ms();
        }
        link_poll(in->link, -1, POLL_MS);
        int got = link_receive(in->link, &from, &in->message, &payload, e);
        link_payload_release(&payload);
        if (got < 0 && got != ERR_PEER)
            return got;
        if (got == ERR_PEER)
            ingest_refuse(in, &from, e);
        if (got != 1)
            continue;
        if (in->message.type != MESSAGE_HELLO) {
            if (in->message.type == MESSAGE_BYE)
                link_send_text(in->link, &from, MESSAGE_BYE_ACK, "");
            else
                link_send_error(in->link, &from, 0, "unknown-peer", "say HELLO first");
            continue;
        }
        struct stream stream = in->message.hello.stream;
        if (ingest_take_hello(in, &from, e) >= 0) {
            in->stream = *out = stream;
            in->stream_known = true;
            return 0;
        }
    }
}

/* ---- the thread ---- */

static void take_message(struct ingest *in, const struct link_peer *from, const struct link_payload *payload,
                         struct err *e)
{
    int index = peers_find(&in->peers, from);
    enum message_type type = in->message.type;
    if (index >= 0)
        in->peers.peers[index].last_heard_ms = clock_ms();
    if (type == MESSAGE_HELLO && in->ending) {
        ingest_send_end(in, from);
    } else if (type == MESSAGE_HELLO) {
        index = ingest_take_hello(in, from, e);
        if (index >= 0 && in->ending)
            ingest_send_end(in, from);
        else if (index >= 0)
            ingest_welcome(in, index);
    } else if (type == MESSAGE_BYE) {
        if (index >= 0)
            ingest_drop(in, index, in->ending ? "leaves, the run is over" : "leaves");
        link_send_text(in->link, from, MESSAGE_BYE_ACK, "");
    } else if (index < 0) {
        link_send_error(in->link, from, 0, "unknown-peer", "say HELLO first");
    } else if (type == MESSAGE_BATCH) {
        ingest_take_batch(in, index, payload, e);
    } else if (type == MESSAGE_ERROR) {
        ingest_take_error(in, index, e);
    } else if (type == MESSAGE_PING) {
        in->message.type = MESSAGE_PONG; /* with the same token */
        link_send(in->link, from, &in->message, NULL);
    } else if (type != MESSAGE_PONG) {
        in->counters.producers_lost++;
        ingest_drop(in, index, "sent a message that only a trainer sends, dropped");
    }
}

/* What is waiting on the socket, up to a bound so that the other duties get their turn. */
static void receive_all(struct ingest *in, struct err *e)
{
    struct link_peer from;
    struct link_payload payload;
    for (int turn = 0, got; turn < 64 && (got = link_receive(in->link, &from, &in->message, &payload, e)) != 0;
         turn++) {
        if (got == 1) {
            take_message(in, &from, &payload, e);
        } else if (got == ERR_PEER) {
            ingest_refuse(in, &from, e);
        } else {
            ingest_fail(in, e);
        }
        link_payload_release(&payload);
    }
}

static void publish(struct ingest *in)
{
    in->counters.producers = (uint32_t)in->peers.n;
    in->counters.blocks_leased_again = in->leases.leased_again;
    in->ending = handover_turn(&in->handover, &in->counters, &in->end);
}

/* Everybody hears it, and we stay until they have said BYE, so that nothing is lost in a closing socket. */
static void say_end(struct ingest *in)
{
    struct err e = {0};
    for (int i = 0; i < PEERS_MAX; i++)
        if (in->peers.peers[i].here)
            ingest_send_end(in, &in->peers.peers[i].address);
    for (int64_t until = clock_ms() + END_WAIT_MS; in->peers.n && clock_ms() < until;) {
        link_poll(in->link, -1, POLL_MS);
        receive_all(in, &e);
    }
    publish(in);
    link_close(in->link, 1000);
    in->link = NULL;
}

static void *ingest_thread(void *argument)
{
    struct ingest *in = argument;
    struct err e = {0};
    for (int i = 0; i < PEERS_MAX; i++) /* whoever said HELLO while the run was being set up */
        if (in->peers.peers[i].here) {
            in->peers.peers[i].last_heard_ms = clock_ms();
            ingest_welcome(in, i);
        }
    while (!in->ending) {
        ingest_lease_blocks(in);
        link_poll(in->link, in->wake, POLL_MS);
        uint64_t count;
        if (read(in->wake, &count, sizeof count) < 0 && errno != EAGAIN)
            ingest_fail(in, (err_errno(&e, errno, "eventfd"), &e));
        receive_all(in, &e);
        ingest_drop_silent(in);
        ingest_check_refusals(in, &e);
        publish(in);
    }
    say_end(in);
    return NULL;
}

/* ---- for the training thread ---- */

int ingest_start(struct ingest *in, const struct ingest_run *r, struct err *e)
{
    in->run = *r;
    in->stream = *r->intake.stream;
    snprintf(in->run_id, sizeof in->run_id, "%s", r->run_id);
    if (r->intake.plan->n_eval + r->intake.n_scale_blocks > LEASES_MAX / 2)
        return err_set(
            e, ERR_INPUT,
            "%u held-out blocks (--eval-blocks) and %u to measure the scale (--scale-rows), at most %d in all",
            r->intake.plan->n_eval, r->intake.n_scale_blocks, LEASES_MAX / 2);
    if (intake_init(&in->intake, &r->intake, e))
        return e->code;
    if (r->intake.plan->n_eval == 0)
        handover_evaluation(&in->handover);
    if (r->scale) {
        memcpy(in->scale, r->scale, in->stream.n_sites * sizeof *in->scale);
        ingest_announce_scale(in);
    } else {
        ingest_add_tasks(in, r->intake.scale_blocks, r->intake.n_scale_blocks, FOR_SCALE);
    }
    int failed = pthread_create(&in->thread, NULL, ingest_thread, in);
    if (failed)
        return err_errno(e, failed, "cannot start the ingest thread");
    in->running = true;
    return 0;
}

int ingest_scale(struct ingest *in, float *scale, int timeout_ms, struct err *e)
{
    return handover_wait_scale(&in->handover, scale, in->stream.n_sites, timeout_ms, e);
}

int ingest_evaluation_rows(struct ingest *in, const unsigned char **rows, size_t *n_rows, int timeout_ms, struct err *e)
{
    int result = handover_wait_evaluation(&in->handover, timeout_ms, e);
    *rows = in->intake.evaluation;
    *n_rows = in->intake.evaluation_rows;
    return result;
}

void ingest_counters(struct ingest *in, struct ingest_counters *c)
{
    handover_counters(&in->handover, c);
}

void ingest_finish(struct ingest *in, bool ok, const char *reason)
{
    if (!in->link)
        return;
    handover_end(&in->handover, ok, reason);
    if (!in->running) { /* set-up failed: whoever said HELLO meanwhile must not wait for a WELCOME */
        publish(in);
        say_end(in);
        return;
    }
    wake(in->wake);
    pthread_join(in->thread, NULL);
    in->running = false;
}
