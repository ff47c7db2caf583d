/* ingest_run.h - a small run's ingest thread, over real sockets: the test is its producers and the training thread. */
#ifndef CROSSFEED_INGEST_RUN_H
#define CROSSFEED_INGEST_RUN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "err.h"
#include "ingest.h"
#include "link.h"
#include "message.h"

#define PATIENCE_MS 10000
#define QUIET_MS 150
#define N_SITES 2
#define SEQ_ROWS 3
#define BLOCK_SEQS 2
#define BLOCK_ROWS (BLOCK_SEQS * SEQ_ROWS)
#define N_BLOCKS 12
#define WINDOW_BLOCKS 3
#define LOOKAHEAD_BLOCKS 2
#define MAX_PRODUCERS 4

extern struct ingest *ingest;
extern struct ingest_options options; /* of the next bind_trainer */
extern uint32_t eval_blocks;          /* 0, unless set before start_run */
extern struct stream stream;          /* of the producers */
extern struct message m;              /* received last, or to be sent */
extern struct err e;

extern struct producer {
    struct link *link;
    struct message_lease lease;      /* the last one */
    const struct curve_client *keys; /* NULL: without */
} producers[MAX_PRODUCERS];

/* Of a group of tests, and of each. */
int run_open(void **state);
int run_close(void **state);
int set_up(void **state);
int tear_down(void **state);

/* A path in the group's folder; valid until the fourth call after this one. */
const char *run_path(const char *name);

void bind_trainer(void);
/* The training thread is done with its set-up. One epoch is wanted. */
void start_run(void);
struct ingest_counters counters(void);

/* Takes a message of producer i that is not a PING; those are answered. */
bool receive(int i, int timeout_ms);
void expect(int i, enum message_type type);
void expect_quiet(int i);
void say_hello(int i, const char *name);
void join(int i, const char *name); /* and is welcomed */
void leave(int i);                  /* without a word */
uint32_t expect_lease(int i);       /* returns its block */

/* Sends one chunk of the lease, all values times `factor`; wrong: with a checksum that is not its own. */
void send_chunk(int i, const struct message_lease *lease, size_t chunk, float factor, bool wrong);
void answer(int i, const struct message_lease *lease, float factor);
/* Answers leases of the given producers as they come, at once, until that many blocks are done in the run. */
void work(int n_producers, const int *who, uint64_t blocks);

/* Takes n rows; all of them must be as they are sent with factor 1. */
void take(size_t n);
/* The same, but returns false if they are not all there in time: call it again with the same n. */
bool take_soon(size_t n, int timeout_ms);
/* The error with which the run ends. */
int take_fails(void);

#endif
