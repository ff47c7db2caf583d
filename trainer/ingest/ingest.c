/* ingest.c - the ingest thread's turns, and what other threads ask of it; see ingest.h and PROTOCOL.md.
 *
 * ingest_producers.c deals with producers as such, ingest_leases.c gives them blocks, ingest_rows.c takes what they send, ingest_drop.c
 * lets them go. What only the thread uses needs no lock; what it and other threads tell each other goes through ingest_sync.h. */
#include "ingest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "ingest_describe.h"
#include "ingest_drop.h"
#include "ingest_failures.h"
#include "ingest_leases.h"
#include "ingest_producers.h"
#include "ingest_rows.h"
#include "ingest_state.h"
#include "mem.h"
#include "wake.h"

#define POLL_MS 100
#define END_WAIT_MS 3000      /* for the producers' BYEs */
#define SNAPSHOT_WAIT_MS 1000 /* for a snapshot, of a thread that answers within POLL_MS */

/* ---- the thread ---- */

/* Returns whether a producer sends more than it was asked for and its heartbeats: message after message that answers no lease, each of
 * which costs an answer or a line. */
static bool floods(struct ingest *in, int index)
{
    const struct message *m = &in->message;
    int answer;
    uint64_t lease = m->type == MESSAGE_BATCH ? m->batch.lease : m->type == MESSAGE_ERROR ? m->error.lease : 0;
    return !leases_find(&in->leases, lease, index, &answer) && !leases_owes(&in->leases, lease, index) &&
           !allowance_take(&in->producers.list[index].uncalled, clock_ms());
}

static void take_message(struct ingest *in, const struct link_peer *from, const struct link_payload *payload,
                         struct err *e)
{
    int index = producers_find(&in->producers, from);
    enum message_type type = in->message.type;
    if (index >= 0)
        in->producers.list[index].last_heard_ms = clock_ms();
    if (index >= 0 && floods(in, index)) {
        strikes_add(&in->strikes, in->producers.list[index].known_as, clock_ms());
        ingest_put_out(in, from, "it floods: more messages than leases and heartbeats ask for", "floods, dropped");
        return;
    }
    if (type == MESSAGE_HELLO && in->orders.ending) {
        ingest_send_end(in, from);
    } else if (type == MESSAGE_HELLO) {
        ingest_take_hello(in, from, e);
    } else if (type == MESSAGE_BYE) {
        if (index >= 0)
            ingest_drop(in, index, in->orders.ending ? "leaves, the run is over" : "leaves");
        link_send_text(in->link, from, MESSAGE_BYE_ACK, "");
    } else if (index < 0) {
        link_send_error(in->link, from, 0, "unknown-peer", "say HELLO first");
    } else if (type == MESSAGE_BATCH) {
        ingest_take_batch(in, index, payload, e);
    } else if (type == MESSAGE_ERROR) {
        ingest_take_error(in, index);
    } else if (type == MESSAGE_PING) {
        ingest_take_ping(in, index);
        in->message.type = MESSAGE_PONG; /* with the same token */
        link_send(in->link, from, &in->message, NULL);
    } else if (type != MESSAGE_PONG) {
        ingest_lose(in, index, "sent a message that only a trainer sends, dropped");
    }
}

/* Takes what is waiting on the socket, up to a bound, so that the other duties get their turn. */
static void receive_all(struct ingest *in, struct err *e)
{
    struct link_peer from;
    struct link_payload payload;
    for (int turn = 0, got; turn < 64 && (got = listener_receive(in->listener, &from, &in->message, &payload, e)) != 0;
         turn++) {
        if (got == 1) {
            take_message(in, &from, &payload, e);
        } else if (got == ERR_PEER) {
            ingest_refuse(in, &from, e);
        } else if (got == ERR_DAMAGED) {
            ingest_start_anew(in, &from, e);
        } else {
            ingest_fail(in, e);
        }
        link_payload_release(&payload);
    }
}

/* Makes the first blocks wanted, now that the training thread has made what leasing needs. */
static void begin(struct ingest *in)
{
    const struct row_store_config *c = &in->row_store.c;
    if (c->plan->n_eval == 0)
        ingest_sync_evaluation(&in->sync);
    if (in->row_store.scale_blocks_left == 0)
        ingest_announce_measured(in);
    else
        ingest_add_tasks(in, c->scale_blocks, c->n_scale_blocks, FOR_SCALE);
}

/* Tells other threads how things are and takes their orders. */
static void synchronise(struct ingest *in)
{
    bool had_started = in->orders.started;
    in->counters.producers = (uint32_t)in->producers.n;
    in->counters.blocks_leased_again = in->leases.leased_again;
    listener_refusals(in->listener, in->counters.refused);
    log_hidden(&in->comings);
    log_hidden(&in->faults);
    ingest_sync_turn(&in->sync, &in->counters, &in->orders);
    if (in->orders.started && !had_started)
        begin(in);
    if (in->orders.snapshot_wanted)
        ingest_describe(in, false);
}

/* Tells everybody the end, and stays until they have said BYE, so that nothing is lost in a closing socket. */
static void say_end(struct ingest *in)
{
    struct err e = {0};
    for (int i = 0; i < PRODUCERS_MAX; i++)
        if (in->producers.list[i].here && ingest_send_end(in, &in->producers.list[i].address))
            ingest_lose(in, i, "is gone");
    for (int64_t until = clock_ms() + END_WAIT_MS; in->producers.n && clock_ms() < until;) {
        link_poll(in->link, -1, POLL_MS);
        receive_all(in, &e);
    }
    synchronise(in);
    ingest_describe(in, true);
    listener_close(in->listener, 1000);
    in->listener = NULL;
}

static void *ingest_thread(void *argument)
{
    struct ingest *in = argument;
    struct err e = {0};
    in->last_listened_ms = clock_ms();
    while (!in->orders.ending) {
        if (in->orders.started)
            ingest_lease_blocks(in);
        link_poll(in->link, in->wake, POLL_MS);
        uint64_t count;
        if (read(in->wake, &count, sizeof count) < 0 && errno != EAGAIN)
            ingest_fail(in, (err_errno(&e, errno, "eventfd"), &e));
        receive_all(in, &e);
        ingest_ping(in);
        ingest_drop_silent(in);
        ingest_check_refusals(in, &e);
        synchronise(in);
    }
    say_end(in);
    return NULL;
}

/* ---- life ---- */

/* Copies the options and what they point at. */
static void copy_options(struct ingest *in, const struct ingest_options *o)
{
    in->options = *o;
    snprintf(in->run_id, sizeof in->run_id, "%s", o->run_id);
    in->strikes.ban_ms = o->ban_ms;
    in->strikes.max_bad = o->max_bad;
    in->stream_expected = o->expected;
    if (o->expected)
        in->stream = *o->expected;
    if (o->scale)
        in->scale = *o->scale;
}

int ingest_new(struct ingest **out, const struct ingest_options *o, struct err *e)
{
    *out = NULL;
    struct ingest *in = mem_alloc(1, sizeof *in, "ingest", e);
    if (!in)
        return ERR_MEMORY;
    copy_options(in, o);
    in->comings.lines = (struct allowance){.burst = 200, .per_s = 5};
    in->faults.lines = (struct allowance){.burst = 100, .per_s = 2};
    ingest_sync_init(&in->sync);
    in->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int rc = in->wake < 0 ? err_errno(e, errno, "eventfd")
                          : listener_open(&in->listener, o->endpoints, o->n_endpoints, &o->door, e);
    in->link = rc == 0 ? listener_link(in->listener) : NULL;
    if (rc == 0 && (rc = pthread_create(&in->thread, NULL, ingest_thread, in)) != 0)
        rc = err_errno(e, rc, "cannot start the ingest thread");
    in->running = rc == 0;
    if (rc) {
        ingest_free(in);
        return rc;
    }
    *out = in;
    return 0;
}

void ingest_free(struct ingest *in)
{
    if (!in)
        return;
    ingest_finish(in, false, "trainer stopped");
    listener_close(in->listener, 0);
    if (in->wake >= 0)
        close(in->wake);
    row_store_release(&in->row_store);
    ingest_sync_release(&in->sync);
    mem_free(in);
}

const char *ingest_endpoint(const struct ingest *in, size_t i)
{
    return listener_endpoint(in->listener, i);
}

int ingest_wake_fd(const struct ingest *in)
{
    return in->wake;
}

/* ---- for other threads ---- */

int ingest_stream(struct ingest *in, struct stream *out, int timeout_ms, struct err *e)
{
    return ingest_sync_wait_stream(&in->sync, out, timeout_ms, e);
}

int ingest_start(struct ingest *in, const struct row_store_config *c, struct err *e)
{
    if (c->plan->n_eval + c->n_scale_blocks > LEASES_MAX / 2)
        return err_set(e, ERR_INPUT,
                       "%u held-out blocks (--eval-blocks) and %u to be measured (--scale-rows), at most %d in all",
                       c->plan->n_eval, c->n_scale_blocks, LEASES_MAX / 2);
    int rc = row_store_init(&in->row_store, c, e);
    if (rc)
        return rc;
    ingest_sync_start(&in->sync);
    wake(in->wake);
    return 0;
}

int ingest_measured(struct ingest *in, struct ingest_measured *m, int timeout_ms, struct err *e)
{
    return ingest_sync_wait_measured(&in->sync, m, timeout_ms, e);
}

void ingest_forget(struct ingest *in)
{
    row_store_forget(&in->row_store); /* the ingest thread has no more to do with them */
}

int ingest_evaluation_rows(struct ingest *in, const unsigned char **rows, size_t *n_rows, int timeout_ms, struct err *e)
{
    int rc = ingest_sync_wait_evaluation(&in->sync, timeout_ms, e);
    *rows = rc == 0 ? in->row_store.evaluation : NULL; /* until then the ingest thread writes there */
    *n_rows = rc == 0 ? in->row_store.evaluation_rows : 0;
    return rc;
}

void ingest_counters(struct ingest *in, struct ingest_counters *c)
{
    ingest_sync_counters(&in->sync, c);
}

void ingest_snapshot(struct ingest *in, struct ingest_snapshot *s)
{
    ingest_sync_snapshot(&in->sync, s, in->wake, SNAPSHOT_WAIT_MS);
}

void ingest_finish(struct ingest *in, bool ok, const char *reason)
{
    if (!in->running)
        return;
    ingest_sync_end(&in->sync, ok, reason);
    wake(in->wake);
    pthread_join(in->thread, NULL);
    in->running = false;
}
