/* replay.c - see replay.h. */
#include "replay.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "fingerprint.h"
#include "listener.h"
#include "mem.h"
#include "rng.h"

#define SILENCE_MS 20000

struct receiver {
    const struct replay_options *o;
    struct listener *listener;
    struct link *link; /* the listener's */
    struct link_peer peer;
    struct stream stream;
    enum row_dtype dtype;
    uint32_t n_blocks, next; /* blocks of the recording; how many have been leased */
    uint32_t *order;         /* [n_blocks] */
    uint64_t last_lease;
    struct message m;
    double start;
    struct replay_result *result;
};

static pid_t start_actgen(const struct replay_options *o, const char *endpoint)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (!freopen("/dev/null", "w", stderr))
            _exit(127);
        execlp(o->actgen, o->actgen, "--threads", "1", "--source", "recording", "--input", o->folder, "--connect",
               endpoint, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static int shuffle_blocks(struct receiver *r, struct err *e)
{
    r->n_blocks = (r->stream.n_seq - 1) / r->o->block_seqs + 1;
    r->order = mem_alloc(r->n_blocks, sizeof *r->order, "block order", e);
    if (!r->order)
        return ERR_MEMORY;
    struct rng g;
    rng_init(&g, 0, RNG_TEST, 0);
    rng_permutation(&g, r->order, r->n_blocks);
    return 0;
}

static int lease(struct receiver *r, struct err *e)
{
    uint32_t block = r->order[r->next++ % r->n_blocks], first = block * r->o->block_seqs,
             left = r->stream.n_seq - first;
    struct message *m = &r->m;
    m->type = MESSAGE_LEASE;
    m->lease =
        (struct message_lease){++r->last_lease, block, first, left < r->o->block_seqs ? left : r->o->block_seqs, true};
    return link_send(r->link, &r->peer, m, e);
}

static int welcome(struct receiver *r, struct err *e)
{
    r->stream = r->m.hello.stream;
    r->dtype = r->stream.can_bf16 ? ROW_BF16 : ROW_F32;
    if (!r->stream.has_scale || shuffle_blocks(r, e))
        return r->stream.has_scale ? e->code : err_set(e, ERR_INPUT, "the producer has no scale: not a recording");
    r->m.type = MESSAGE_WELCOME;
    r->m.welcome = (struct message_welcome){.run = "bench",
                                            .dtype = r->dtype,
                                            .has_scale = true,
                                            .n_scale = r->stream.n_sites,
                                            .block_seqs = r->o->block_seqs,
                                            .credit = r->o->credit,
                                            .heartbeat_ms = 1000,
                                            .timeout_ms = SILENCE_MS};
    memcpy(r->m.welcome.scale, r->stream.scale, sizeof r->stream.scale);
    size_t block_rows = (size_t)r->o->block_seqs * r->stream.rows_per_seq;
    listener_vouch(r->listener, &r->peer, listener_answer_bytes(&r->stream, r->dtype, block_rows, r->o->credit));
    int rc = link_send(r->link, &r->peer, &r->m, e);
    for (uint32_t i = 0; i < r->o->credit && rc == 0; i++)
        rc = lease(r, e);
    return rc;
}

static int take_chunk(struct receiver *r, const struct link_payload *payload, struct err *e)
{
    const struct message_batch *b = &r->m.batch;
    if (r->o->verify &&
        fingerprint_checksum(payload->data, payload->size, b->origins, b->rows * sizeof *b->origins) != b->checksum)
        return err_set(e, ERR_PEER, "block %u chunk %u: checksum differs", b->block, b->chunk);
    if (r->result->chunks++ == 0)
        r->start = clock_s();
    else
        r->result->bytes += payload->size; /* after the first: as many as the time is for */
    r->result->seconds = clock_s() - r->start;
    return b->chunk + 1 == b->chunks ? lease(r, e) : 0;
}

static int receive(struct receiver *r, struct err *e)
{
    struct link_payload payload;
    int64_t heard = clock_ms();
    int rc = 0;
    while (rc == 0 && r->result->bytes < r->o->bytes) {
        link_poll(r->link, -1, 100);
        if (clock_ms() - heard > SILENCE_MS)
            return err_set(e, ERR_PEER, "%s says nothing", r->o->actgen);
        for (int got; rc == 0 && (got = listener_receive(r->listener, &r->peer, &r->m, &payload, e)) != 0;) {
            heard = clock_ms();
            if (got < 0)
                rc = got;
            else if (r->m.type == MESSAGE_HELLO)
                rc = welcome(r, e);
            else if (r->m.type == MESSAGE_BATCH)
                rc = take_chunk(r, &payload, e);
            else if (r->m.type == MESSAGE_ERROR)
                rc = err_set(e, ERR_PEER, "%s", r->m.error.text);
            link_payload_release(&payload);
        }
    }
    return rc;
}

int replay(const struct replay_options *o, struct replay_result *result, struct err *e)
{
    const char *endpoint = "tcp://127.0.0.1:*";
    static struct receiver r; /* 40 KB of message */
    *result = (struct replay_result){0};
    r = (struct receiver){.o = o, .result = result};
    if (listener_open(&r.listener, &endpoint, 1, NULL, e))
        return e->code;
    r.link = listener_link(r.listener);
    pid_t actgen = start_actgen(o, listener_endpoint(r.listener, 0));
    int code = actgen < 0 ? err_errno(e, errno, "cannot start %s", o->actgen) : receive(&r, e);
    listener_close(r.listener, 0);
    if (actgen > 0) { /* it has nothing to lose */
        kill(actgen, SIGKILL);
        waitpid(actgen, NULL, 0);
    }
    mem_free(r.order);
    return code;
}
