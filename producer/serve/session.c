/* session.c - see session.h. */
#include "session.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "allowance.h"
#include "clock.h"
#include "link.h"
#include "log.h"
#include "log_limit.h"
#include "mem.h"
#include "version.h"

#define HELLO_TIMEOUT_MS 3000
#define BYE_TIMEOUT_MS 3000
#define POLL_MS 20 /* between looks at what the trainer makes us hold: what arrives within that time comes on top */
#define AWAY_MS 1000
#define REFUSED_MS 5000              /* until the next try after a "not-now" */
#define MAX_HELD ((uint64_t)1 << 20) /* bytes that ZeroMQ may hold of a trainer's messages, which are short */
#define MAX_TURN 64                  /* messages that are taken before the other duties get their turn */
#define MAX_AWAY ((uint32_t)1 << 20) /* heartbeats that may have queued up */
#define LINGER_MS 500 /* BYE and the answer to END get a moment to leave; a hanging trainer does not hold us */

struct session {
    struct compute *compute;
    const struct session_options *options;
    struct link *link;
    struct message message; /* received last; 40 KB */

    bool welcome;                 /* in this session */
    struct message_welcome terms; /* of this session */
    bool ever_welcome;
    int64_t last_heard, last_ping, connected, bye_sent;
    int64_t last_turn;         /* when keep_alive last looked */
    const char *trouble;       /* why there is no trainer, as far as known */
    int64_t not_before;        /* when the next session may begin, */
    struct allowance sessions; /* and how many there may be */
    struct allowance uncalled; /* messages of the trainer's that are no leases for us */
    struct log_limit said;     /* lines that the trainer can cause */
    int64_t refused_since;     /* when it said "not-now" first, and nothing else since; 0: it did not */
    char refusal[MESSAGE_TEXT_SIZE];

    struct session_report report;
    int64_t last_progress;
    uint64_t progress_rows;
    double progress_seconds[COMPUTE_ACTIVITIES], ping_seconds[COMPUTE_ACTIVITIES]; /* as they were then */

    bool finished;
    struct err end; /* why: code 0 if all is well */
};

static void finish(struct session *s, int code, const struct err *e)
{
    s->finished = true;
    s->end = code ? *e : (struct err){0};
    compute_finish(s->compute);
}

/* ---- beginning ---- */

/* Closes the connection. What it had queued is dropped. */
static void end_session(struct session *s)
{
    link_close(s->link, 0);
    s->link = NULL;
    s->welcome = false;
    compute_begin_session(s->compute);
}

/* Opens a fresh connection and says HELLO. */
static int begin(struct session *s, struct err *e)
{
    const struct session_options *o = s->options;
    s->uncalled = (struct allowance){.burst = 100, .per_s = 10};
    if (link_connect(&s->link, o->endpoint, o->keys, e))
        return e->code;
    struct message m = {.type = MESSAGE_HELLO};
    m.hello.version = PROTOCOL_VERSION;
    snprintf(m.hello.software, sizeof m.hello.software, "%s", CROSSFEED_SOFTWARE);
    snprintf(m.hello.producer, sizeof m.hello.producer, "%s", o->producer);
    m.hello.stream = *o->stream;
    s->connected = s->last_ping = clock_ms();
    return link_send(s->link, NULL, &m, e);
}

/* Refuses terms that make no sense, or that this source cannot meet. */
static int check_terms(const struct stream *stream, const struct message_welcome *w, struct err *e)
{
    if (w->has_scale && w->n_scale != stream->n_sites)
        return err_set(e, ERR_PEER, "WELCOME: %u scales, we have %u sites", w->n_scale, stream->n_sites);
    if (w->dtype == ROW_BF16 ? !stream->can_bf16 : !stream->can_f32)
        return err_set(e, ERR_PEER, "WELCOME: rows in %s, which this source does not offer", row_dtype_name(w->dtype));
    if (w->block_seqs == 0 || w->heartbeat_ms == 0 || w->timeout_ms < w->heartbeat_ms || w->credit > COMPUTE_MAX_LEASES)
        return err_set(e, ERR_PEER, "WELCOME: %u sequences per block, heartbeat %u ms, timeout %u ms, credit %u",
                       w->block_seqs, w->heartbeat_ms, w->timeout_ms, w->credit);
    return 0;
}

/* Whether a later WELCOME of a session brings the scale, once, and nothing else that is new. */
static bool goes_on(const struct message_welcome *old, const struct message_welcome *new, uint32_t n_sites)
{
    return strcmp(old->run, new->run) == 0 && old->dtype == new->dtype && old->block_seqs == new->block_seqs &&
           (!old->has_scale || (new->has_scale &&memcmp(old->scale, new->scale, n_sites * sizeof *old->scale) == 0));
}

static int take_welcome(struct session *s, const struct message_welcome *w, struct err *e)
{
    const struct stream *stream = s->options->stream;
    bool first = !s->welcome;
    if (check_terms(stream, w, e))
        return e->code;
    if (!first && !goes_on(&s->terms, w, stream->n_sites))
        return err_set(e, ERR_PEER, "WELCOME: changes more than the scale of what this connection was welcomed to");
    if (compute_set_terms(s->compute, w, e))
        return e->code;
    s->terms = *w;
    s->welcome = true;
    if (first) {
        uint32_t away = w->timeout_ms / w->heartbeat_ms;
        s->uncalled = (struct allowance){.burst = 1000 + 4 * (away < MAX_AWAY ? away : MAX_AWAY),
                                         .per_s = 50 + 4000 / w->heartbeat_ms};
        s->refused_since = 0;
        log_limited(&s->said, "%s to run %.8s: blocks of %u sequences, rows in %s%s",
                    s->ever_welcome ? "joined again" : "joined", w->run, w->block_seqs, row_dtype_name(w->dtype),
                    w->has_scale ? "" : ", raw until the scale is measured");
    }
    s->ever_welcome = true;
    s->trouble = NULL;
    return 0;
}

/* ---- messages ---- */

/* Returns why we cannot take a lease; NULL: we can. */
static const char *refuse_lease(const struct session *s, const struct message_lease *lease)
{
    const struct stream *stream = s->options->stream;
    if (!s->welcome)
        return "LEASE before WELCOME";
    if (lease->count == 0 || lease->count > s->terms.block_seqs || lease->first >= stream->n_seq ||
        lease->count > stream->n_seq - lease->first)
        return "sequences outside the token tensor or more than a block";
    if (lease->scaled && !s->terms.has_scale)
        return "scaled rows wanted before a scale was given";
    if (!lease->scaled && stream->has_scale)
        return "raw rows wanted of a source with a scale";
    return NULL;
}

/* A lease that we cannot take is answered with ERROR; the trainer gives it to somebody else. Returns whether we can. */
static bool take_lease(struct session *s, const struct message_lease *lease)
{
    const char *refusal = refuse_lease(s, lease);
    if (!refusal && !compute_queue(s->compute, lease))
        refusal = "more leases than credit";
    if (refusal)
        link_send_error(s->link, NULL, lease->lease, "lease", refusal);
    return !refusal;
}

/* Takes an ERROR. Returns 1 if the session must begin anew. */
static int take_error(struct session *s, const struct message_error *m)
{
    bool not_now = strcmp(m->code, "not-now") == 0;
    if (!not_now || !s->refused_since || strcmp(m->text, s->refusal) != 0) /* said once, not at every try */
        log_limited(&s->said, "trainer: %s: %s%s", m->code, m->text, not_now ? "; trying again" : "");
    if (not_now) {
        int64_t now = clock_ms();
        s->refused_since = s->refused_since ? s->refused_since : now;
        snprintf(s->refusal, sizeof s->refusal, "%s", m->text);
        s->not_before = now + REFUSED_MS;
    }
    return (not_now || strcmp(m->code, "unknown-peer") == 0) && !s->bye_sent;
}

/* Answers s->message. Returns 1 if the session must begin anew, 0 to go on; may finish. */
static int take_message(struct session *s, struct err *e)
{
    const struct message *m = &s->message;
    struct message reply = {.type = MESSAGE_PONG};
    bool lease = m->type == MESSAGE_LEASE && take_lease(s, &m->lease);
    if (!lease && !allowance_take(&s->uncalled, clock_ms())) {
        log_limited(&s->said, "the trainer sends message after message; connecting again");
        return 1;
    }
    switch (m->type) {
    case MESSAGE_WELCOME:
        if (take_welcome(s, &m->welcome, e))
            finish(s, e->code, e);
        break;
    case MESSAGE_LEASE:
        break;
    case MESSAGE_PING:
        reply.ping = m->ping;
        link_send(s->link, NULL, &reply, NULL);
        break;
    case MESSAGE_PONG:
        break;
    case MESSAGE_REJECT:
        err_set(e, ERR_MISMATCH, "%s refused this producer: %s", s->options->endpoint, m->text.reason);
        finish(s, ERR_MISMATCH, e);
        break;
    case MESSAGE_ERROR:
        return take_error(s, &m->error);
    case MESSAGE_END:
        snprintf(s->report.end_reason, sizeof s->report.end_reason, "%s", m->end.reason);
        link_send_text(s->link, NULL, MESSAGE_BYE, "end");
        if (!m->end.ok)
            err_set(e, ERR_PEER, "the run failed: %s", m->end.reason);
        finish(s, m->end.ok ? 0 : ERR_PEER, e);
        break;
    case MESSAGE_BYE_ACK:
        if (s->bye_sent) {
            int code = compute_failure(s->compute, e);
            finish(s, code, e);
        }
        break;
    default:
        log_limited(&s->said, "trainer sent %s, which only producers send; ignored", message_type_name(m->type));
    }
    return 0;
}

/* Takes the messages that are there, up to a bound. Returns 1 if the session must begin anew. */
static int receive(struct session *s, struct err *e)
{
    struct link_peer peer;
    struct link_payload payload;
    int got, again = 0;
    for (int turn = 0; turn < MAX_TURN && !again && !s->finished &&
                       (got = link_receive(s->link, &peer, &s->message, &payload, e)) != 0;
         turn++) {
        link_payload_release(&payload);
        if (got == ERR_PEER || got == ERR_DAMAGED) { /* from a trainer of our version: spoilt on the way */
            log_limited(&s->said, "trainer: %s; connecting again", e->message);
            return 1;
        }
        if (got < 0) {
            finish(s, got, e);
            return 0;
        }
        s->last_heard = clock_ms();
        again = take_message(s, e);
    }
    if (!again && !s->finished && link_held(s->link) > MAX_HELD) {
        log_limited(&s->said, "the trainer sends more at a time than the protocol allows; connecting again");
        again = 1;
    }
    return again;
}

/* ---- blocks ---- */

static int send_block(struct session *s, struct block *b, struct err *e)
{
    int rc = 0;
    s->report.blocks++;
    s->report.rows += b->rows.n_rows;
    for (size_t i = 0; i < b->n_chunks && rc == 0; i++) {
        struct message m;
        size_t bytes;
        const void *data = block_chunk(b, i, &m, &bytes);
        block_hold(b);
        rc = link_send_payload(s->link, &m, data, bytes, block_release, b, e);
    }
    return rc;
}

/* Says that the rows of a lease cannot be had. */
static void send_failure(struct session *s, const struct block *b)
{
    bool absent = b->error.code == ERR_ABSENT;
    if (!absent || s->report.absent++ == 0)
        log_limited(&s->said, "block %u: %s", b->lease.block, b->error.message);
    link_send_error(s->link, NULL, b->lease.lease, absent ? "not-recorded" : "source", b->error.message);
}

static int send_ready(struct session *s, struct err *e)
{
    struct block *b;
    int rc = 0;
    while (rc == 0 && (b = compute_next(s->compute)) != NULL) {
        if (b->failed)
            send_failure(s, b);
        else
            rc = send_block(s, b, e);
        block_release(b);
    }
    return rc;
}

/* ---- staying in touch ---- */

/* Fills in the share of each activity in the time since `before`, which becomes now. */
static void shares_since(struct session *s, double before[COMPUTE_ACTIVITIES], float share[COMPUTE_ACTIVITIES])
{
    double total = 0, now[COMPUTE_ACTIVITIES];
    compute_seconds(s->compute, now);
    for (int i = 0; i < COMPUTE_ACTIVITIES; i++)
        total += now[i] - before[i];
    for (int i = 0; i < COMPUTE_ACTIVITIES; i++) {
        share[i] = total > 0 ? (float)((now[i] - before[i]) / total) : 0;
        before[i] = now[i];
    }
}

static void show_progress(struct session *s, int64_t now)
{
    int64_t interval = log_is_terminal() ? 1000 : 10000;
    if (now - s->last_progress < interval)
        return;
    if (!s->welcome) {
        if (s->refused_since)
            log_progress("waiting for the trainer at %s, which refuses this producer for now", s->options->endpoint);
        else
            log_progress("waiting for a trainer at %s, none heard for %lld s", s->options->endpoint,
                         (long long)(now - s->last_heard) / 1000);
        s->last_progress = now;
        return;
    }
    float share[COMPUTE_ACTIVITIES];
    shares_since(s, s->progress_seconds, share);
    log_progress(
        "%llu rows sent, %.0f rows/s, computing %.0f %%, sending %.0f %%, waiting for leases %.0f %% of the time",
        (unsigned long long)s->report.rows,
        1e3 * (double)(s->report.rows - s->progress_rows) / (double)(now - s->last_progress),
        100 * (double)share[COMPUTE_COMPUTING], 100 * (double)share[COMPUTE_SENDING],
        100 * (double)share[COMPUTE_WAITING]);
    s->last_progress = now;
    s->progress_rows = s->report.rows;
}

/* Says once why the trainer is not reached. */
static void watch_trouble(struct session *s)
{
    const char *trouble = link_trouble(s->link);
    if (trouble && trouble != s->trouble)
        log_limited(&s->said, "%s: %s; trying again", s->options->endpoint, trouble);
    if (trouble)
        s->trouble = trouble;
}

static void ping(struct session *s, int64_t now)
{
    struct message m = {.type = MESSAGE_PING};
    float share[COMPUTE_ACTIVITIES];
    shares_since(s, s->ping_seconds, share);
    m.ping.token = (uint64_t)now;
    m.ping.computing = share[COMPUTE_COMPUTING];
    m.ping.sending = share[COMPUTE_SENDING];
    link_send(s->link, NULL, &m, NULL);
    s->last_ping = now;
}

/* Says BYE when asked to stop, or when blocks can no longer be kept. Finishes when it was heard, or was said to nobody. */
static void leave(struct session *s, int64_t now)
{
    struct err failure;
    int code = compute_failure(s->compute, &failure);
    if ((*s->options->stop || code) && !s->bye_sent) {
        link_send_text(s->link, NULL, MESSAGE_BYE, code ? failure.message : "stopped by a signal");
        s->bye_sent = now;
    }
    if (s->bye_sent && (!s->welcome || now - s->bye_sent > BYE_TIMEOUT_MS))
        finish(s, code, &failure);
}

/* Finishes if no trainer was heard for too long, or none that takes us. */
static void give_up(struct session *s, int64_t now, struct err *e)
{
    const struct session_options *o = s->options;
    if (s->refused_since && now - s->refused_since > o->give_up_after_ms) {
        err_set(e, ERR_MISMATCH, "%s refused this producer for %d s: %s", o->endpoint, o->give_up_after_ms / 1000,
                s->refusal);
        finish(s, ERR_MISMATCH, e);
    } else if (now - s->last_heard > o->give_up_after_ms) {
        err_set(e, ERR_PEER, "%s: no trainer heard for %d s, giving up%s%s", o->endpoint, o->give_up_after_ms / 1000,
                s->trouble ? ": " : "", s->trouble ? s->trouble : "");
        finish(s, ERR_PEER, e);
    }
}

/* Waits, without a connection, until the next session may begin: at once as a rule, but not hundreds of times a second, whatever a trainer
 * does. Finishes when asked to stop meanwhile, or when it is time to give up. */
static void wait_to_begin(struct session *s, struct err *e)
{
    struct err failure;
    end_session(s);
    while (!s->finished) {
        int64_t now = clock_ms();
        s->last_turn = now;
        int code = compute_failure(s->compute, &failure);
        if (*s->options->stop || code)
            finish(s, code, &failure);
        else
            give_up(s, now, e);
        if (now >= s->not_before && allowance_take(&s->sessions, now))
            return;
        show_progress(s, now);
        usleep(POLL_MS * 1000);
    }
}

/* Pings, detects silence, leaves when asked to. Returns 1 if the session must begin anew. */
static int keep_alive(struct session *s, struct err *e)
{
    int64_t now = clock_ms(), away = now - s->last_turn;
    s->last_turn = now;
    log_hidden(&s->said);
    if (away > AWAY_MS) /* we were stopped, or swapped out, and did not listen: that is not the trainer's silence */
        s->last_heard += away;
    leave(s, now);
    if (s->finished)
        return 0;
    watch_trouble(s);
    give_up(s, now, e);
    if (s->finished)
        return 0;
    show_progress(s, now);
    if (!s->welcome)
        return now - s->connected > HELLO_TIMEOUT_MS;
    if (link_lost(s->link) && !s->bye_sent) /* at once: ZeroMQ may have begun a connection of its own, or none at all */
        return 1;
    if (now - s->last_ping >= (int64_t)s->terms.heartbeat_ms)
        ping(s, now);
    if (now - s->last_heard > (int64_t)s->terms.timeout_ms) {
        log_limited(&s->said, "trainer silent for %lld ms, connecting again", (long long)(now - s->last_heard));
        return 1;
    }
    return 0;
}

int session_run(struct compute *c, const struct session_options *o, struct session_report *report, struct err *e)
{
    struct session *s = mem_alloc(1, sizeof *s, "session", e);
    if (!s) {
        compute_finish(c);
        return ERR_MEMORY;
    }
    s->compute = c;
    s->options = o;
    s->sessions = (struct allowance){.burst = 5, .per_s = 1};
    s->said.lines = (struct allowance){.burst = 100, .per_s = 2};
    s->last_heard = s->last_progress = s->last_turn = clock_ms();
    bool again = true;
    while (!s->finished) {
        if (again)
            wait_to_begin(s, e);
        if (s->finished)
            break;
        if (again && begin(s, e)) {
            finish(s, e->code, e);
            break;
        }
        link_poll(s->link, compute_wake_fd(c), POLL_MS);
        uint64_t count;
        if (read(compute_wake_fd(c), &count, sizeof count) < 0 && errno != EAGAIN)
            finish(s, err_errno(e, errno, "eventfd"), e);
        again = receive(s, e);
        if (!again && !s->finished) {
            int rc = send_ready(s, e);
            if (rc == ERR_MEMORY)
                log_limited(&s->said, "%s; connecting again", e->message);
            again = rc || keep_alive(s, e);
        }
    }
    link_close(s->link, LINGER_MS);
    *report = s->report;
    *e = s->end;
    mem_free(s);
    return e->code;
}
