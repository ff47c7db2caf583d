/* ingest.c - the ingest thread: answers messages, leases blocks, stores rows; see ingest.h and PROTOCOL.md.
 *
 * All that the thread alone uses is free of locks; what the two threads tell each other goes through handover.h. A
 * producer is told REJECT and forgotten for what can only be wrong again; a bad chunk costs it the lease, and three of
 * them its place. */
#include "ingest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "admission.h"
#include "clock.h"
#include "leases.h"
#include "link.h"
#include "log.h"
#include "peers.h"
#include "wake.h"

#define POLL_MS 100
#define MAX_FAILURES 3   /* of one block, by whatever producers, before the run fails */
#define MAX_FAULTS 3     /* bad chunks of one producer before it is dropped */
#define END_WAIT_MS 3000 /* for the producers' BYEs */

_Static_assert(PEERS_MAX <= LEASES_HOLDERS, "a producer's index is a holder");

struct ingest {
    struct ingest_options options;
    struct link *link;
    int wake;
    pthread_t thread;
    bool running;
    struct peers peers;
    struct leases leases;
    struct ingest_run run;
    char run_id[FINGERPRINT_SIZE];
    struct ingest_wanted wanted;
    struct stream stream; /* of the run, once fixed */
    bool stream_known;
    bool has_scale; /* as handed over */
    float scale[STREAM_MAX_SITES];
    struct intake intake;
    int64_t nobodys_since_ms; /* since when a block waits that every producer here has refused; 0: none does */
    bool ending;              /* as handover_turn said last */
    struct message_end end;
    struct ingest_counters counters; /* published at every turn */
    struct message message;          /* the one being handled or sent: 40 KB */
    struct handover handover;
};

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

/* ---- sending ---- */

static void send_welcome(struct ingest *in, const struct peer *p)
{
    struct message *m = &in->message;
    m->type = MESSAGE_WELCOME;
    m->welcome = (struct message_welcome){.dtype = in->run.intake.dtype,
                                          .has_scale = in->has_scale,
                                          .n_scale = in->stream.n_sites,
                                          .block_seqs = in->run.intake.plan->block_seqs,
                                          .credit = in->options.credit,
                                          .heartbeat_ms = in->options.heartbeat_ms,
                                          .timeout_ms = in->options.timeout_ms};
    memcpy(m->welcome.run, in->run_id, sizeof m->welcome.run);
    memcpy(m->welcome.scale, in->scale, sizeof m->welcome.scale);
    link_send(in->link, &p->address, m, NULL);
}

static void send_end(struct ingest *in, const struct link_peer *to)
{
    struct message *m = &in->message;
    m->type = MESSAGE_END;
    m->end = in->end;
    link_send(in->link, to, m, NULL);
}

/* ---- producers ---- */

static void fail_run(struct ingest *in, const struct err *why)
{
    handover_fail(&in->handover, why);
    if (in->run.intake.shuffle) /* not yet there if set-up failed */
        shuffle_fail(in->run.intake.shuffle, why);
}

static void drop_peer(struct ingest *in, int index, const char *why)
{
    struct peer *p = &in->peers.peers[index];
    size_t n = leases_forget(&in->leases, index);
    if (n)
        log_line("producer %s %s; %zu blocks leased again", p->name, why, n);
    else
        log_line("producer %s %s", p->name, why);
    peers_remove(&in->peers, index);
}

/* Adds the producer or rejects it; returns its index or -1. */
static int take_hello(struct ingest *in, const struct link_peer *from, struct err *e)
{
    struct message_hello *h = &in->message.hello;
    char name[MESSAGE_NAME_SIZE];
    memcpy(name, h->producer, sizeof name);
    int index = peers_find(&in->peers, from);
    if (index >= 0)
        drop_peer(in, index, "says HELLO again");
    index = -1;
    struct admission terms = {.ours = in->stream_known ? &in->stream : in->wanted.expected,
                              .need_bf16 = in->wanted.want_bf16,
                              .need_f32 = in->wanted.want_f32,
                              .stream_fixed = in->stream_known,
                              .scale = in->has_scale ? in->scale : in->wanted.scale,
                              .n_scale = in->has_scale ? in->stream.n_sites : in->wanted.n_scale};
    if (admit_producer(&terms, h, e) == 0) {
        index = peers_add(&in->peers, from, name, clock_ms());
        if (index < 0)
            err_set(e, ERR_PEER, "run has %d producers already", PEERS_MAX);
    }
    if (index < 0) {
        in->counters.rejected++;
        log_line("producer %s rejected: %s", name, e->message);
        link_send_text(in->link, from, MESSAGE_REJECT, e->message);
    }
    return index;
}

/* What broke the rules of messages would only do so again. */
static void refuse_message(struct ingest *in, const struct link_peer *from, const struct err *e)
{
    int index = peers_find(&in->peers, from);
    log_line("producer %s: %s", index >= 0 ? in->peers.peers[index].name : "unknown", e->message);
    in->counters.bad_chunks++;
    if (index >= 0) {
        in->counters.producers_lost++;
        drop_peer(in, index, "broke the protocol, dropped");
    }
    if (from->size)
        link_send_text(in->link, from, MESSAGE_REJECT, e->message);
}

static void welcome(struct ingest *in, int index)
{
    in->counters.producers_seen++;
    log_line("producer %s joins", in->peers.peers[index].name);
    send_welcome(in, &in->peers.peers[index]);
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
            refuse_message(in, &from, e);
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
        if (take_hello(in, &from, e) >= 0) {
            in->stream = *out = stream;
            in->stream_known = true;
            return 0;
        }
    }
}

/* ---- leases ---- */

static void add_tasks(struct ingest *in, const uint32_t *blocks, uint32_t n, enum lease_purpose purpose)
{
    size_t row = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct lease_task *t = leases_add(&in->leases); /* ingest_start checked that they fit */
        t->block = blocks[i];
        t->purpose = purpose;
        t->n_rows = plan_block_rows(in->run.intake.plan, blocks[i]);
        t->first_row = row;
        row += t->n_rows;
    }
}

/* The next block to lease to this producer; reserves a window block only now that somebody can compute it. */
static struct lease_task *next_task(struct ingest *in, int holder)
{
    struct lease_task *t = leases_waiting(&in->leases, holder);
    struct shuffle_ticket ticket;
    if (t || !in->has_scale || in->leases.n == LEASES_MAX || !shuffle_reserve(in->run.intake.shuffle, &ticket))
        return t;
    t = leases_add(&in->leases);
    t->block = ticket.block;
    t->purpose = FOR_WINDOW;
    t->n_rows = ticket.n_rows;
    t->ticket = ticket;
    return t;
}

/* One lease to each producer with credit, in turns, until there is no block for them or no credit left. */
static void lease_blocks(struct ingest *in)
{
    struct peers *peers = &in->peers;
    size_t idle = 0; /* producers passed in a row that could take nothing */
    while (peers->n && idle < PEERS_MAX) {
        size_t i = peers->next;
        peers->next = (i + 1) % PEERS_MAX;
        struct peer *p = &peers->peers[i];
        if (!p->here || leases_held(&in->leases, (int)i) >= in->options.credit) {
            idle++;
            continue;
        }
        struct lease_task *t = next_task(in, (int)i);
        if (!t) {
            idle++;
            continue;
        }
        leases_grant(&in->leases, t, (int)i);
        struct message *m = &in->message;
        m->type = MESSAGE_LEASE;
        m->lease = (struct message_lease){.lease = t->lease,
                                          .block = t->block,
                                          .first = plan_block_first(in->run.intake.plan, t->block),
                                          .count = plan_block_seqs(in->run.intake.plan, t->block),
                                          .scaled = t->purpose != FOR_SCALE};
        if (link_send(in->link, &p->address, m, NULL)) {
            in->counters.producers_lost++;
            drop_peer(in, (int)i, "is gone");
            continue;
        }
        in->counters.blocks_leased++;
        idle = 0;
    }
}

/* ---- rows ---- */

static void announce_scale(struct ingest *in)
{
    in->has_scale = true;
    handover_scale(&in->handover, in->scale, in->stream.n_sites);
    add_tasks(in, in->run.intake.plan->eval_blocks, in->run.intake.plan->n_eval, FOR_EVALUATION);
}

static void complete_task(struct ingest *in, struct lease_task *t, struct err *e)
{
    enum intake_event event;
    int result = intake_complete(&in->intake, t, in->scale, &event, e);
    leases_done(&in->leases, t);
    in->counters.blocks_done++;
    if (result) {
        fail_run(in, e);
    } else if (event == INTAKE_EVALUATION) {
        handover_evaluation(&in->handover);
    } else if (event == INTAKE_SCALE) {
        announce_scale(in);
        for (int i = 0; i < PEERS_MAX; i++)
            if (in->peers.peers[i].here)
                send_welcome(in, &in->peers.peers[i]);
    }
}

static void take_batch(struct ingest *in, int index, const struct link_payload *payload, struct err *e)
{
    const struct message_batch *b = &in->message.batch;
    struct peer *p = &in->peers.peers[index];
    struct lease_task *t = leases_find(&in->leases, b->lease, index);
    if (!t) {
        in->counters.duplicates_dropped += b->rows;
        return;
    }
    struct chunk_place place = {.block = t->block,
                                .first_sequence = plan_block_first(in->run.intake.plan, t->block),
                                .n_rows = t->n_rows,
                                .rows_taken = t->rows_taken,
                                .chunks_taken = t->chunks_taken,
                                .dtype = intake_dtype(&in->intake, t->purpose)};
    if (admit_chunk(&in->stream, &place, b, payload->data, payload->size, e)) {
        in->counters.bad_chunks++;
        leases_give_back(&in->leases, t);
        log_line("producer %s: %s; block leased again", p->name, e->message);
        if (++p->faults >= MAX_FAULTS) {
            in->counters.producers_lost++;
            link_send_text(in->link, &p->address, MESSAGE_REJECT, e->message);
            drop_peer(in, index, "sent too many bad chunks, dropped");
        }
        return;
    }
    intake_store(&in->intake, t, b, payload->data);
    p->rows += b->rows;
    in->counters.rows_received += b->rows;
    if (t->rows_taken == t->n_rows)
        complete_task(in, t, e);
}

/* The producer is not asked for this block again; others may have it. */
static void take_refusal(struct ingest *in, int index, struct lease_task *t, const char *text)
{
    struct peer *p = &in->peers.peers[index];
    if (p->absent++ == 0)
        log_line("producer %s: block %u: %s; it is asked for others", p->name, t->block, text);
    leases_refuse(&in->leases, t);
}

/* A block that every producer here has refused waits timeout_ms for one that has it; then the run fails. */
static void check_refusals(struct ingest *in, struct err *e)
{
    uint64_t here[PEERS_MAX / 64];
    size_t n = 0;
    int64_t now = clock_ms();
    peers_here(&in->peers, here);
    const struct lease_task *t = in->peers.n ? leases_nobodys(&in->leases, here, &n) : NULL;
    if (!t) {
        in->nobodys_since_ms = 0;
        return;
    }
    uint32_t first = plan_block_first(in->run.intake.plan, t->block),
             last = first + plan_block_seqs(in->run.intake.plan, t->block) - 1;
    if (!in->nobodys_since_ms) {
        in->nobodys_since_ms = now;
        log_line("none of the %zu producers has sequences %u to %u; waiting %u s for one that has", in->peers.n, first,
                 last, in->options.timeout_ms / 1000);
    }
    if (now - in->nobodys_since_ms < (int64_t)in->options.timeout_ms)
        return;
    err_set(e, ERR_ABSENT,
            "none of the %zu producers has sequences %u to %u (block %u), recorded nowhere, and %zu more blocks",
            in->peers.n, first, last, t->block, n - 1);
    fail_run(in, e);
}

static void take_error(struct ingest *in, int index, struct err *e)
{
    const struct message_error *m = &in->message.error;
    struct lease_task *t = leases_find(&in->leases, m->lease, index);
    if (!t) {
        log_line("producer %s: %s: %s", in->peers.peers[index].name, m->code, m->text);
        return;
    }
    if (strcmp(m->code, "not-recorded") == 0) {
        take_refusal(in, index, t, m->text);
        return;
    }
    log_line("producer %s: block %u: %s: %s; block leased again", in->peers.peers[index].name, t->block, m->code,
             m->text);
    if (in->peers.n > 1) /* others are asked, so that one broken producer does not end the run */
        leases_refuse(&in->leases, t);
    else
        leases_give_back(&in->leases, t);
    if (++t->failures < MAX_FAILURES)
        return;
    err_set(e, ERR_PEER, "block %u (sequences %u to %u) failed %u times, last: producer %s: %s", t->block,
            plan_block_first(in->run.intake.plan, t->block),
            plan_block_first(in->run.intake.plan, t->block) + plan_block_seqs(in->run.intake.plan, t->block) - 1,
            t->failures, in->peers.peers[index].name, m->text);
    fail_run(in, e);
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
        send_end(in, from);
    } else if (type == MESSAGE_HELLO) {
        index = take_hello(in, from, e);
        if (index >= 0 && in->ending)
            send_end(in, from);
        else if (index >= 0)
            welcome(in, index);
    } else if (type == MESSAGE_BYE) {
        if (index >= 0)
            drop_peer(in, index, in->ending ? "leaves, the run is over" : "leaves");
        link_send_text(in->link, from, MESSAGE_BYE_ACK, "");
    } else if (index < 0) {
        link_send_error(in->link, from, 0, "unknown-peer", "say HELLO first");
    } else if (type == MESSAGE_BATCH) {
        take_batch(in, index, payload, e);
    } else if (type == MESSAGE_ERROR) {
        take_error(in, index, e);
    } else if (type == MESSAGE_PING) {
        in->message.type = MESSAGE_PONG; /* with the same token */
        link_send(in->link, from, &in->message, NULL);
    } else if (type != MESSAGE_PONG) {
        in->counters.producers_lost++;
        drop_peer(in, index, "sent a message that only a trainer sends, dropped");
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
            refuse_message(in, &from, e);
        } else {
            fail_run(in, e);
        }
        link_payload_release(&payload);
    }
}

static void drop_silent(struct ingest *in)
{
    int64_t now = clock_ms();
    for (int i = 0; i < PEERS_MAX; i++) {
        const struct peer *p = &in->peers.peers[i];
        if (p->here && now - p->last_heard_ms > (int64_t)in->options.timeout_ms) {
            in->counters.producers_lost++;
            drop_peer(in, i, "fell silent, dropped");
        }
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
            send_end(in, &in->peers.peers[i].address);
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
            welcome(in, i);
        }
    while (!in->ending) {
        lease_blocks(in);
        link_poll(in->link, in->wake, POLL_MS);
        uint64_t count;
        if (read(in->wake, &count, sizeof count) < 0 && errno != EAGAIN)
            fail_run(in, (err_errno(&e, errno, "eventfd"), &e));
        receive_all(in, &e);
        drop_silent(in);
        check_refusals(in, &e);
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
        announce_scale(in);
    } else {
        add_tasks(in, r->intake.scale_blocks, r->intake.n_scale_blocks, FOR_SCALE);
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
