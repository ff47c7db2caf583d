/* serve.c - the producer's side of the protocol; see serve.h and PROTOCOL.md.
 *
 * State is only what a connection needs: a new connection (a "session") starts from HELLO, and leases and answers of an
 * older session are dropped, because the trainer has leased them again. */
#include "serve.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "clock.h"
#include "link.h"
#include "log.h"
#include "mem.h"
#include "version.h"
#include "wake.h"

#define MAX_LEASES 64 /* queued; the trainer's credit is smaller */
#define N_OUTGOING 2  /* blocks: one computed, one being sent */
#define HELLO_TIMEOUT_MS 3000
#define BYE_TIMEOUT_MS 3000
#define POLL_MS 200
#define AWAY_MS (5 * POLL_MS)

enum block_state { BLOCK_FREE, BLOCK_COMPUTING, BLOCK_READY, BLOCK_SENDING };

struct server;

struct outgoing {
    struct server *server;
    enum block_state state;
    unsigned session;
    struct message_lease lease;
    struct rows rows;
    size_t chunks_in_flight; /* still held by ZeroMQ */
    int failed;              /* the source could not do it: error is sent instead */
    struct err error;
};

struct server {
    struct source *source;
    const struct serve_options *options;
    int wake; /* eventfd: tells the communication thread to look */

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    unsigned session;
    bool welcome; /* in this session */
    struct message_welcome terms;
    struct message_lease leases[MAX_LEASES]; /* of this session, oldest first */
    size_t n_leases;
    struct outgoing outgoing[N_OUTGOING];
    size_t block_rows;  /* that outgoing has room for; 0: not yet allocated */
    struct err leaving; /* code != 0: why we leave before the end */
    bool finished;
    int result;
    struct err error;
    struct serve_report report;
    enum serve_activity activity; /* since then: */
    double since;                 /* clock_s */
};

/* The time up to now is counted; the lock is held. */
static void turn_to(struct server *s, enum serve_activity next)
{
    double now = clock_s();
    s->report.seconds[s->activity] += now - s->since;
    s->since = now;
    s->activity = next;
}

/* ---- the computing thread ---- */

static struct outgoing *find_outgoing(struct server *s, enum block_state state)
{
    for (size_t i = 0; i < N_OUTGOING; i++)
        if (s->outgoing[i].state == state)
            return &s->outgoing[i];
    return NULL;
}

static void compute_block(struct server *s, struct outgoing *o, enum row_dtype dtype, const float *scale)
{
    const struct stream *stream = &s->source->stream;
    size_t n_rows = stream_block_rows(stream, o->lease.count);
    rows_begin(&o->rows, stream, n_rows, o->lease.scaled ? dtype : ROW_F32, o->lease.scaled ? scale : NULL);
    o->failed = s->source->compute(s->source->self, o->lease.first, o->lease.count, &o->rows, &o->error);
    if (!o->failed)
        rows_checksums(&o->rows); /* here, not where they are sent: there it would hold up the sending */
}

static void compute_loop(struct server *s)
{
    float scale[STREAM_MAX_SITES];
    pthread_mutex_lock(&s->lock);
    for (;;) {
        struct outgoing *o = NULL;
        while (!s->finished && !(s->n_leases && (o = find_outgoing(s, BLOCK_FREE)))) {
            bool sending = find_outgoing(s, BLOCK_SENDING) || find_outgoing(s, BLOCK_READY);
            turn_to(s, sending ? SERVE_SENDING : SERVE_WAITING);
            pthread_cond_wait(&s->changed, &s->lock);
        }
        turn_to(s, SERVE_COMPUTING);
        if (s->finished)
            break;
        o->state = BLOCK_COMPUTING;
        o->session = s->session;
        o->lease = s->leases[0];
        memmove(s->leases, s->leases + 1, --s->n_leases * sizeof s->leases[0]);
        enum row_dtype dtype = s->terms.dtype;
        uint32_t block_seqs = s->terms.block_seqs;
        memcpy(scale, s->terms.scale, sizeof scale);
        pthread_mutex_unlock(&s->lock);

        compute_block(s, o, dtype, scale);
        struct err kept = {0};
        if (s->options->keep && !o->failed)
            s->options->keep(s->options->keep_context, &o->lease, block_seqs, &o->rows, &kept);

        pthread_mutex_lock(&s->lock);
        turn_to(s, SERVE_WAITING);
        if (kept.code && !s->leaving.code)
            s->leaving = kept;
        o->state = BLOCK_READY;
        wake(s->wake);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- the communication thread ---- */

struct conversation {
    struct server *s;
    struct link *link;
    int64_t last_heard, last_ping, connected, bye_sent;
    int64_t last_turn;   /* when keep_alive last looked */
    const char *trouble; /* why there is no trainer, as far as known */
    bool ever_welcome;
    int64_t last_progress;
    uint64_t progress_rows;
    double progress_seconds[SERVE_ACTIVITIES], ping_seconds[SERVE_ACTIVITIES]; /* as they were then */
};

/* The share of each activity in the time since `before`, which becomes now. */
static void shares_since(struct server *s, double before[SERVE_ACTIVITIES], float share[SERVE_ACTIVITIES])
{
    double total = 0, passed[SERVE_ACTIVITIES];
    pthread_mutex_lock(&s->lock);
    turn_to(s, s->activity);
    for (int i = 0; i < SERVE_ACTIVITIES; i++) {
        passed[i] = s->report.seconds[i] - before[i];
        before[i] = s->report.seconds[i];
        total += passed[i];
    }
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < SERVE_ACTIVITIES; i++)
        share[i] = total > 0 ? (float)(passed[i] / total) : 0;
}

static void finish(struct server *s, int result, const struct err *e)
{
    pthread_mutex_lock(&s->lock);
    s->finished = true;
    s->result = result;
    if (result && e)
        s->error = *e;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* A fresh socket, a fresh session, HELLO. What the old session had queued is dropped. */
static int start_session(struct conversation *c, struct err *e)
{
    struct server *s = c->s;
    link_close(c->link, 0);
    c->link = NULL;
    pthread_mutex_lock(&s->lock);
    s->session++;
    s->welcome = false;
    s->n_leases = 0;
    pthread_mutex_unlock(&s->lock);
    if (link_connect(&c->link, s->options->endpoint, s->options->keys, e))
        return e->code;
    struct message m = {.type = MESSAGE_HELLO};
    m.hello.version = PROTOCOL_VERSION;
    snprintf(m.hello.software, sizeof m.hello.software, "%s", CROSSFEED_SOFTWARE);
    snprintf(m.hello.producer, sizeof m.hello.producer, "%s", s->options->producer);
    m.hello.stream = s->source->stream;
    c->connected = c->last_ping = clock_ms();
    return link_send(c->link, NULL, &m, e);
}

/* A later WELCOME of a session brings the scale, once, and nothing else that is new. */
static bool goes_on(const struct message_welcome *old, const struct message_welcome *new, uint32_t n_sites)
{
    return strcmp(old->run, new->run) == 0 && old->dtype == new->dtype && old->block_seqs == new->block_seqs &&
           (!old->has_scale || (new->has_scale &&memcmp(old->scale, new->scale, n_sites * sizeof *old->scale) == 0));
}

static int take_welcome(struct conversation *c, const struct message_welcome *w, struct err *e)
{
    struct server *s = c->s;
    const struct stream *stream = &s->source->stream;
    if (w->has_scale && w->n_scale != stream->n_sites)
        return err_set(e, ERR_PEER, "WELCOME: %u scales, we have %u sites", w->n_scale, stream->n_sites);
    if (w->dtype == ROW_BF16 ? !stream->can_bf16 : !stream->can_f32)
        return err_set(e, ERR_PEER, "WELCOME: rows in %s, which this source does not offer", row_dtype_name(w->dtype));
    if (w->block_seqs == 0 || w->heartbeat_ms == 0 || w->timeout_ms < w->heartbeat_ms || w->credit > MAX_LEASES)
        return err_set(e, ERR_PEER, "WELCOME: %u sequences per block, heartbeat %u ms, timeout %u ms, credit %u",
                       w->block_seqs, w->heartbeat_ms, w->timeout_ms, w->credit);
    size_t block_rows = stream_block_rows(stream, w->block_seqs < stream->n_seq ? w->block_seqs : stream->n_seq);
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    bool first = !s->welcome;
    if (first || goes_on(&s->terms, w, stream->n_sites))
        s->terms = *w;
    else
        rc = err_set(e, ERR_PEER, "WELCOME: changes more than the scale of what this connection was welcomed to");
    s->welcome = true;
    for (size_t i = 0; i < N_OUTGOING && rc == 0; i++)
        if (!s->outgoing[i].rows.data)
            rc = rows_init(&s->outgoing[i].rows, stream, block_rows, e);
    if (rc == 0 && block_rows > s->block_rows && s->block_rows)
        rc = err_set(e, ERR_MISMATCH,
                     "WELCOME: blocks of %zu rows, this producer joined for blocks of %zu; start it anew", block_rows,
                     s->block_rows);
    else if (rc == 0 && !s->block_rows)
        s->block_rows = block_rows;
    pthread_mutex_unlock(&s->lock);
    if (first && rc == 0)
        log_line("%s to run %.8s: blocks of %u sequences, rows in %s%s", c->ever_welcome ? "joined again" : "joined",
                 w->run, w->block_seqs, row_dtype_name(w->dtype),
                 w->has_scale ? "" : ", raw until the scale is measured");
    c->ever_welcome = true;
    c->trouble = NULL;
    return rc;
}

/* A lease that we cannot take is answered with ERROR; the trainer gives it to somebody else. */
static void take_lease(struct conversation *c, const struct message_lease *lease)
{
    struct server *s = c->s;
    const struct stream *stream = &s->source->stream;
    const char *refusal = NULL;
    pthread_mutex_lock(&s->lock);
    if (!s->welcome)
        refusal = "LEASE before WELCOME";
    else if (s->n_leases == MAX_LEASES)
        refusal = "more leases than credit";
    else if (lease->count == 0 || lease->count > s->terms.block_seqs || lease->first >= stream->n_seq ||
             lease->count > stream->n_seq - lease->first)
        refusal = "sequences outside the token tensor or more than a block";
    else if (lease->scaled ? !s->terms.has_scale : stream->has_scale)
        refusal =
            lease->scaled ? "scaled rows wanted before a scale was given" : "raw rows wanted of a source with a scale";
    else
        s->leases[s->n_leases++] = *lease;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (refusal)
        link_send_error(c->link, NULL, lease->lease, "lease", refusal);
}

/* Returns 1 if the session must start anew, 0 to go on; may finish the server. */
static int take_message(struct conversation *c, const struct message *m, struct err *e)
{
    struct server *s = c->s;
    struct message reply = {.type = MESSAGE_PONG};
    switch (m->type) {
    case MESSAGE_WELCOME:
        if (take_welcome(c, &m->welcome, e))
            finish(s, e->code, e);
        break;
    case MESSAGE_LEASE:
        take_lease(c, &m->lease);
        break;
    case MESSAGE_PING:
        reply.ping = m->ping;
        link_send(c->link, NULL, &reply, NULL);
        break;
    case MESSAGE_PONG:
        break;
    case MESSAGE_REJECT:
        err_set(e, ERR_MISMATCH, "%s refused this producer: %s", s->options->endpoint, m->text.reason);
        finish(s, ERR_MISMATCH, e);
        break;
    case MESSAGE_ERROR:
        log_line("trainer: %s: %s", m->error.code, m->error.text);
        return strcmp(m->error.code, "unknown-peer") == 0 && !c->bye_sent;
    case MESSAGE_END: {
        pthread_mutex_lock(&s->lock);
        snprintf(s->report.end_reason, sizeof s->report.end_reason, "%s", m->end.reason);
        pthread_mutex_unlock(&s->lock);
        link_send_text(c->link, NULL, MESSAGE_BYE, "end");
        if (!m->end.ok)
            err_set(e, ERR_PEER, "the run failed: %s", m->end.reason);
        finish(s, m->end.ok ? 0 : ERR_PEER, e);
        break;
    }
    case MESSAGE_BYE_ACK:
        if (c->bye_sent)
            finish(s, s->leaving.code, &s->leaving);
        break;
    default:
        log_line("trainer sent %s, which only producers send; ignored", message_type_name(m->type));
    }
    return 0;
}

static void chunk_sent(void *context)
{
    struct outgoing *o = context;
    pthread_mutex_lock(&o->server->lock);
    if (--o->chunks_in_flight == 0) {
        o->state = BLOCK_FREE;
        pthread_cond_broadcast(&o->server->changed);
    }
    pthread_mutex_unlock(&o->server->lock);
}

/* Called without the lock; o is BLOCK_READY and of this session. */
static int send_block(struct conversation *c, struct outgoing *o, struct err *e)
{
    struct server *s = c->s;
    const struct stream *stream = &s->source->stream;
    size_t n_chunks = stream_chunk_count(stream, o->rows.dtype, o->rows.n_rows);
    pthread_mutex_lock(&s->lock);
    o->state = BLOCK_SENDING;
    o->chunks_in_flight = n_chunks + 1; /* one of our own, so that it cannot be reused before the loop ends */
    s->report.blocks++;
    s->report.rows += o->rows.n_rows;
    pthread_mutex_unlock(&s->lock);
    const uint64_t *checksums = rows_checksums(&o->rows);
    int rc = 0;
    for (size_t i = 0; i < n_chunks; i++) {
        size_t bytes, n_rows;
        const struct row_origin *origins;
        const unsigned char *data = rows_chunk(&o->rows, i, &bytes, &n_rows, &origins);
        struct message m = {.type = MESSAGE_BATCH};
        m.batch = (struct message_batch){.lease = o->lease.lease,
                                         .block = o->lease.block,
                                         .chunk = (uint32_t)i,
                                         .chunks = (uint32_t)n_chunks,
                                         .rows = (uint32_t)n_rows,
                                         .checksum = checksums[i]};
        memcpy(m.batch.origins, origins, n_rows * sizeof *origins);
        if (rc)
            chunk_sent(o);
        else
            rc = link_send_payload(c->link, &m, data, bytes, chunk_sent, o, e);
    }
    chunk_sent(o);
    return rc;
}

static void give_back(struct server *s, struct outgoing *o)
{
    pthread_mutex_lock(&s->lock);
    o->state = BLOCK_FREE;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static int send_ready(struct conversation *c, struct err *e)
{
    struct server *s = c->s;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        struct outgoing *o = find_outgoing(s, BLOCK_READY);
        bool stale = o && o->session != s->session;
        pthread_mutex_unlock(&s->lock);
        if (!o)
            return 0;
        if (stale || o->failed) {
            if (!stale) {
                bool absent = o->error.code == ERR_ABSENT;
                if (!absent || s->report.absent++ == 0)
                    log_line("block %u: %s", o->lease.block, o->error.message);
                link_send_error(c->link, NULL, o->lease.lease, absent ? "not-recorded" : "source", o->error.message);
            }
            give_back(s, o);
        } else if (send_block(c, o, e)) {
            return e->code;
        }
    }
}

static void show_progress(struct conversation *c, int64_t now)
{
    struct server *s = c->s;
    int64_t interval = log_is_terminal() ? 1000 : 10000;
    if (now - c->last_progress < interval)
        return;
    if (!s->welcome) {
        log_progress("waiting for a trainer at %s, none heard for %lld s", s->options->endpoint,
                     (long long)(now - c->last_heard) / 1000);
        c->last_progress = now;
        return;
    }
    pthread_mutex_lock(&s->lock);
    struct serve_report r = s->report;
    pthread_mutex_unlock(&s->lock);
    float share[SERVE_ACTIVITIES];
    shares_since(s, c->progress_seconds, share);
    log_progress(
        "%llu rows sent, %.0f rows/s, computing %.0f %%, sending %.0f %%, waiting for leases %.0f %% of the time",
        (unsigned long long)r.rows, 1e3 * (double)(r.rows - c->progress_rows) / (double)(now - c->last_progress),
        100 * (double)share[SERVE_COMPUTING], 100 * (double)share[SERVE_SENDING], 100 * (double)share[SERVE_WAITING]);
    c->last_progress = now;
    c->progress_rows = r.rows;
}

/* Says once why the trainer is not reached. */
static void watch_trouble(struct conversation *c)
{
    const char *trouble = link_trouble(c->link);
    if (trouble && trouble != c->trouble)
        log_line("%s: %s; trying again", c->s->options->endpoint, trouble);
    if (trouble)
        c->trouble = trouble;
}

/* Pings, detects silence, says BYE when asked to stop. Returns 1 if the session must start anew. */
static int keep_alive(struct conversation *c, struct err *e)
{
    struct server *s = c->s;
    int64_t now = clock_ms(), away = now - c->last_turn;
    c->last_turn = now;
    if (away > AWAY_MS) /* we were stopped, or swapped out, and did not listen: that is not the trainer's silence */
        c->last_heard += away;
    pthread_mutex_lock(&s->lock);
    struct err leaving = s->leaving;
    pthread_mutex_unlock(&s->lock);
    if ((*s->options->stop || leaving.code) && !c->bye_sent) {
        link_send_text(c->link, NULL, MESSAGE_BYE, leaving.code ? leaving.message : "stopped by a signal");
        c->bye_sent = now;
    }
    if (c->bye_sent && (!s->welcome || now - c->bye_sent > BYE_TIMEOUT_MS)) {
        finish(s, leaving.code, &leaving);
        return 0;
    }
    watch_trouble(c);
    if (now - c->last_heard > s->options->give_up_after_ms) {
        err_set(e, ERR_PEER, "%s: no trainer heard for %d s, giving up%s%s", s->options->endpoint,
                s->options->give_up_after_ms / 1000, c->trouble ? ": " : "", c->trouble ? c->trouble : "");
        finish(s, ERR_PEER, e);
        return 0;
    }
    show_progress(c, now);
    if (!s->welcome)
        return now - c->connected > HELLO_TIMEOUT_MS;
    if (link_lost(c->link) && !c->bye_sent) /* at once: ZeroMQ may have begun a connection of its own, or none at all */
        return 1;
    if (now - c->last_ping >= (int64_t)s->terms.heartbeat_ms) {
        struct message m = {.type = MESSAGE_PING};
        m.ping.token = (uint64_t)now;
        float share[SERVE_ACTIVITIES];
        shares_since(s, c->ping_seconds, share);
        m.ping.computing = share[SERVE_COMPUTING];
        m.ping.sending = share[SERVE_SENDING];
        link_send(c->link, NULL, &m, NULL);
        c->last_ping = now;
    }
    if (now - c->last_heard > (int64_t)s->terms.timeout_ms) {
        log_line("trainer silent for %lld ms, connecting again", (long long)(now - c->last_heard));
        return 1;
    }
    return 0;
}

static void *communicate(void *argument)
{
    struct server *s = argument;
    struct conversation c = {.s = s, .last_heard = clock_ms(), .last_progress = clock_ms(), .last_turn = clock_ms()};
    struct err e = {0};
    struct link_peer peer;
    struct link_payload payload;
    static struct message m; /* 40 KB, used by this thread only */
    bool again = true;
    while (!s->finished) {
        if (again && start_session(&c, &e)) {
            finish(s, e.code, &e);
            break;
        }
        again = false;
        link_poll(c.link, s->wake, POLL_MS);
        uint64_t count;
        if (read(s->wake, &count, sizeof count) < 0 && errno != EAGAIN)
            finish(s, err_errno(&e, errno, "eventfd"), &e);
        for (int got; !again && !s->finished && (got = link_receive(c.link, &peer, &m, &payload, &e)) != 0;) {
            link_payload_release(&payload);
            if (got == ERR_PEER || got == ERR_DAMAGED) { /* from a trainer of our version: spoilt on the way */
                log_line("trainer: %s; connecting again", e.message);
                usleep(POLL_MS * 1000);
                again = true;
                break;
            }
            if (got < 0) {
                finish(s, got, &e);
                break;
            }
            c.last_heard = clock_ms();
            again = take_message(&c, &m, &e);
        }
        if (!again && !s->finished)
            again = send_ready(&c, &e) || keep_alive(&c, &e);
    }
    /* BYE and END's answer get a moment to leave; a hanging peer does not hold us. */
    link_close(c.link, 500);
    return NULL;
}

int serve(struct source *source, const struct serve_options *options, struct serve_report *report, struct err *e)
{
    struct server *s = calloc(1, sizeof *s);
    pthread_t thread;
    if (!s)
        return err_set(e, ERR_MEMORY, "server: out of memory");
    s->source = source;
    s->options = options;
    s->since = clock_s();
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    for (size_t i = 0; i < N_OUTGOING; i++)
        s->outgoing[i].server = s;
    int rc = 0;
    s->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->wake < 0)
        rc = err_errno(e, errno, "eventfd");
    if (rc == 0 && (rc = pthread_create(&thread, NULL, communicate, s)) != 0)
        rc = err_errno(e, rc, "cannot start a thread");
    if (rc == 0) {
        compute_loop(s);
        pthread_join(thread, NULL); /* its link_close returns every chunk */
        rc = s->result;
        *e = s->error;
        *report = s->report;
    }
    if (s->wake >= 0)
        close(s->wake);
    for (size_t i = 0; i < N_OUTGOING; i++) {
        rows_release(&s->outgoing[i].rows);
    }
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
    return rc;
}
