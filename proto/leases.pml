/* leases.pml - a model of the lease protocol (PROTOCOL.md) for the model checker spin: two producers, connections that
 * are cut with what is on them lost or sent again, chunks sent twice, producers and the trainer that die, the trainer
 * coming back from its checkpoint, and producers taken for silent that are not.
 *
 * Checked over all interleavings, with so many faults as FAULTS says, whenever and in whatever mix:
 *   - every block is trained exactly once (a trainer that comes back has trained what its checkpoint says);
 *   - the rows of a block are of one lease, also when two producers are at it;
 *   - no deadlock, and nothing that goes round for ever: once the faults stop, all blocks get trained, and trainer and
 *     producers end.
 * The command (spin and gcc; tests/model.sh runs it with what the ordinary tests have time for):
 *
 *   spin -DFAULTS=1 -a proto/leases.pml
 *   gcc -O2 -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m100000             # assertions and deadlocks
 *   gcc -O2 -DNP -DNOFAIR -DCOLLAPSE -o pan pan.c && ./pan -l -m100000     # cycles
 *
 * Each must say "errors: 0". A finding is replayed with `spin -DFAULTS=1 -t -p -g proto/leases.pml`.
 *
 * Left out: what does not decide who trains what. Heartbeats are not messages here: silence is noticed some time after it
 * is real, or, as a fault, when it is not. The scale, held-out blocks and audits are leases like others. */

#ifndef FAULTS
#define FAULTS 1
#endif
#define PRODUCERS 2
#ifndef BLOCKS
#define BLOCKS 3
#endif
#define WINDOW 2 /* blocks that may be leased ahead of the one to be trained next */
#define CHUNKS 2 /* of a block */
#define ENTRIES 4 /* of the trainer's table of producers: two of a producer's connections, the old one not yet missed */
#define ANSWERS 4 /* two for each block of the window */

mtype = { HELLO, WELCOME, LEASE, BATCH, UNKNOWN, BYE, END };

/* A message bears the number of the connection that it is on. */
chan up[PRODUCERS] = [3] of { mtype, byte, byte, byte, byte };  /* type, connection, lease, block, chunk */
chan down[PRODUCERS] = [3] of { mtype, byte, byte, byte };      /* type, connection, lease, block */

byte faults = FAULTS;
byte connection[PRODUCERS]; /* the present one's number; another one after a cut, and when the trainer or the producer died */
byte greeted[PRODUCERS];    /* the connection on which HELLO was said last */
bool left[PRODUCERS];       /* the producer has ended */
bool trainer_ended;

/* The trainer. What is of block b of the window is at b % WINDOW. */
byte trained[BLOCKS], next, saved;                 /* times trained; the next block; blocks in the checkpoint */
bool complete[WINDOW];                             /* all rows are there */
byte lease[ANSWERS], holder[ANSWERS], got[ANSWERS]; /* 0: nobody is at it; its entry; chunks taken */
byte rows_of[ANSWERS];                             /* the lease whose rows lie there */
byte last_lease;
bool here[ENTRIES];
byte on[ENTRIES];   /* the connection */
byte owed[ENTRIES]; /* a lease whose answer is not wanted any more and still comes */

/* Producers. */
bool welcome[PRODUCERS];
byte held[PRODUCERS], held_block[PRODUCERS], sent[PRODUCERS]; /* the lease in hand, 0: none; chunks of it sent */

#define ENTRY(p, c) ((p) * 2 + (c) % 2)
#define ANSWER(b, a) (((b) % WINDOW) * 2 + (a))

/* ---- what goes wrong ---- */

/* What is on the way is lost, or what the producer had not got rid of is sent on the new connection. */
inline cut(p)
{
    connection[p]++;
    if
    :: do
       :: nempty(up[p]) -> up[p]?_, _, _, _, _
       :: empty(up[p]) -> break
       od
    :: n = len(up[p]);
       do
       :: n > 0 -> up[p]?type, c, l, b, k; up[p]!type, connection[p], l, b, k; n--
       :: n == 0 -> break
       od
    fi;
    do
    :: nempty(down[p]) -> down[p]?_, _, _, _
    :: empty(down[p]) -> break
    od
}

/* ---- the trainer ---- */

inline give_back(x)
{
    lease[x] = 0; got[x] = 0; rows_of[x] = 0
}

inline forget(e)
{
    here[e] = false; owed[e] = 0;
    i = 0;
    do
    :: i < ANSWERS ->
       if
       :: lease[i] && holder[i] == e -> give_back(i)
       :: else
       fi;
       i++
    :: i == ANSWERS -> break
    od
}

/* e has no lease, not even one that it owes. */
#define IDLE(e) (here[e] && !owed[e] && \
    !(lease[0] && holder[0] == e) && !(lease[1] && holder[1] == e) && !(lease[2] && holder[2] == e) && !(lease[3] && holder[3] == e))
#define WANTED(b) ((b) < BLOCKS && (b) < next + WINDOW && !complete[(b) % WINDOW])
#define WAITING(b) (WANTED(b) && !lease[ANSWER(b, 0)] && !lease[ANSWER(b, 1)])
#define LATE(b, e) (WANTED(b) && (lease[ANSWER(b, 0)] == 0) != (lease[ANSWER(b, 1)] == 0) && \
    !(lease[ANSWER(b, 0)] && holder[ANSWER(b, 0)] == e) && !(lease[ANSWER(b, 1)] && holder[ANSWER(b, 1)] == e))

inline grant(b_, x, e)
{
    last_lease++;
    lease[x] = last_lease; holder[x] = e; got[x] = 0; rows_of[x] = 0;
    send_down(e, LEASE, last_lease, b_)
}

/* To a connection that is no more: lost. */
inline send_down(e, what, l_, b_)
{
    if
    :: on[e] == connection[(e) / 2] && !left[(e) / 2] -> down[(e) / 2]!what, on[e], l_, b_
    :: else
    fi
}

inline lease_blocks(e)
{
    if
    :: WAITING(next) -> grant(next, ANSWER(next, 0), e)
    :: !WAITING(next) && WAITING(next + 1) -> grant((next + 1), ANSWER(next + 1, 0), e)
    :: !WAITING(next) && !WAITING(next + 1) && LATE(next, e) ->
       if
       :: lease[ANSWER(next, 0)] -> grant(next, ANSWER(next, 1), e)
       :: else -> grant(next, ANSWER(next, 0), e)
       fi
    fi
}

/* All blocks that are complete in the order of training; after each there is a checkpoint or not, after the last one
 * there is. Only then END: before it is safe, a trainer that dies might find nobody to come back to. */
inline train()
{
    do
    :: next < BLOCKS && complete[next % WINDOW] ->
       trained[next]++;
       assert(trained[next] == 1);
       complete[next % WINDOW] = false;
       next++;
       if
       :: saved = next
       :: next < BLOCKS
       fi
    :: else -> break
    od;
    if
    :: saved == BLOCKS ->
       i = 0;
       do
       :: i < ENTRIES ->
          if
          :: here[i] -> send_down(i, END, 0, 0)
          :: else
          fi;
          i++
       :: i == ENTRIES -> break
       od
    :: else
    fi
}

/* The first complete answer is the block's; the other one is owed. */
inline take_answer(b_, x)
{
    assert(rows_of[x] == lease[x]);
    complete[b_ % WINDOW] = true;
    n = ANSWER(b_, 0) + ANSWER(b_, 1) - x; /* the other one */
    if
    :: lease[n] -> owed[holder[n]] = lease[n]
    :: else
    fi;
    give_back(x); give_back(n);
    n = 0;
    train()
}

inline take_chunk(e)
{
    i = 0;
    do
    :: i < ANSWERS && !(lease[i] == l && holder[i] == e) -> i++
    :: else -> break
    od;
    if
    :: i == ANSWERS -> /* void, or owed: dropped */
       if
       :: owed[e] == l && k == CHUNKS - 1 -> owed[e] = 0
       :: else
       fi
    :: i < ANSWERS && k != got[i] -> give_back(i) /* not the one that was due: the lease is void */
    :: i < ANSWERS && k == got[i] ->
       if
       :: k == 0 -> rows_of[i] = l
       :: else -> assert(rows_of[i] == l)
       fi;
       got[i]++;
       if
       :: got[i] == CHUNKS -> take_answer(b, i)
       :: else
       fi
    fi
}

inline take_message(p)
{
    up[p]?type, c, l, b, k;
    e_ = ENTRY(p, c);
    if
    :: type == HELLO ->
       if /* two connections are remembered; the one before them must be missed by now */
       :: here[e_] -> forget(e_)
       :: else
       fi;
       here[e_] = true; on[e_] = c;
       if
       :: saved == BLOCKS -> send_down(e_, END, 0, 0)
       :: else -> send_down(e_, WELCOME, 0, 0)
       fi
    :: type == BATCH && here[e_] && on[e_] == c -> take_chunk(e_)
    :: type == BYE && here[e_] && on[e_] == c -> forget(e_)
    :: type != HELLO && !(here[e_] && on[e_] == c) -> /* say HELLO first */
       if
       :: c == connection[p] && !left[p] -> down[p]!UNKNOWN, c, 0, 0
       :: else
       fi
    fi
}

/* It comes back with what the checkpoint says; ids start anew, and every connection is another one. */
inline die_and_come_back()
{
    next = saved;
    i = 0;
    do
    :: i < BLOCKS -> trained[i] = (i < saved -> 1 : 0); i++
    :: i == BLOCKS -> break
    od;
    i = 0;
    do
    :: i < ANSWERS -> give_back(i); holder[i] = 0; here[i] = false; on[i] = 0; owed[i] = 0; i++
    :: i == ANSWERS -> break
    od;
    complete[0] = false; complete[1] = false;
    last_lease = 0;
    cut(0);
    cut(1)
}

#define DEAD(e) (here[e] && (on[e] != connection[(e) / 2] || left[(e) / 2]))

proctype Trainer()
{
    byte i, n, c, l, b, k, e_;
    mtype type;
    do
    :: atomic { nempty(up[0]) -> take_message(0); c = 0; l = 0; b = 0; k = 0; i = 0; e_ = 0; type = 0 }
    :: atomic { nempty(up[1]) -> take_message(1); c = 0; l = 0; b = 0; k = 0; i = 0; e_ = 0; type = 0 }
    :: atomic { next < BLOCKS && IDLE(0) && (WAITING(next) || WAITING(next + 1) || LATE(next, 0)) -> lease_blocks(0) }
    :: atomic { next < BLOCKS && IDLE(1) && (WAITING(next) || WAITING(next + 1) || LATE(next, 1)) -> lease_blocks(1) }
    :: atomic { next < BLOCKS && IDLE(2) && (WAITING(next) || WAITING(next + 1) || LATE(next, 2)) -> lease_blocks(2) }
    :: atomic { next < BLOCKS && IDLE(3) && (WAITING(next) || WAITING(next + 1) || LATE(next, 3)) -> lease_blocks(3) }
    :: atomic { DEAD(0) -> forget(0); i = 0 }
    :: atomic { DEAD(1) -> forget(1); i = 0 }
    :: atomic { DEAD(2) -> forget(2); i = 0 }
    :: atomic { DEAD(3) -> forget(3); i = 0 }
    :: atomic { saved == BLOCKS && !here[0] && !here[1] && !here[2] && !here[3] -> break } /* all have said BYE */
    :: atomic { faults -> faults--; die_and_come_back(); c = 0; l = 0; b = 0; k = 0; i = 0; n = 0; type = 0 }
    :: atomic { faults && here[0] -> faults--; forget(0); i = 0 } /* taken for silent */
    :: atomic { faults && here[2] -> faults--; forget(2); i = 0 }
    :: atomic { faults -> faults--; cut(0); c = 0; l = 0; b = 0; k = 0; n = 0; type = 0 }
    :: atomic { faults -> faults--; cut(1); c = 0; l = 0; b = 0; k = 0; n = 0; type = 0 }
    od;
    atomic {
        i = 0;
        do
        :: i < BLOCKS -> assert(trained[i] == 1); i++
        :: i == BLOCKS -> break
        od;
        i = 0;
        trainer_ended = true
    }
    do /* what still comes goes nowhere */
    :: up[0]?_, _, _, _, _
    :: up[1]?_, _, _, _, _
    :: left[0] && left[1] && empty(up[0]) && empty(up[1]) -> break
    od
}

/* ---- a producer ---- */

inline say_hello(p)
{
    connection[p]++; /* a fresh socket */
    welcome[p] = false; held[p] = 0; held_block[p] = 0; sent[p] = 0;
    greeted[p] = connection[p];
    up[p]!HELLO, connection[p], 0, 0, 0
}

proctype Producer(byte p)
{
    byte c, l, b, twice;
    mtype type;
    atomic { say_hello(p) }
    do
    :: atomic { nempty(down[p]) && !(held[p] && down[p]?[LEASE, _, _, _]) -> /* one lease after another */
                down[p]?type, c, l, b;
                if
                :: c != connection[p] /* of an older connection */
                :: c == connection[p] && type == WELCOME -> welcome[p] = true
                :: c == connection[p] && type == LEASE ->
                   assert(welcome[p]);
                   held[p] = l; held_block[p] = b; sent[p] = 0
                :: c == connection[p] && type == UNKNOWN -> say_hello(p)
                :: c == connection[p] && type == END -> up[p]!BYE, c, 0, 0, 0; break
                fi;
                c = 0; l = 0; b = 0; type = 0 }
    :: atomic { held[p] && nfull(up[p]) ->
                up[p]!BATCH, connection[p], held[p], held_block[p], sent[p];
                if
                :: twice = 0; sent[p]++
                :: faults && !twice -> faults--; twice = 1 /* the same again */
                fi;
                if
                :: sent[p] == CHUNKS -> held[p] = 0; held_block[p] = 0; sent[p] = 0
                :: else
                fi }
    :: atomic { greeted[p] != connection[p] && !trainer_ended && nfull(up[p]) -> say_hello(p) } /* nothing heard */
    :: atomic { faults && nfull(up[p]) -> faults--; say_hello(p) }     /* it died and another one comes; or: taken for silent */
    :: atomic { trainer_ended && empty(down[p]) -> break }             /* nobody there: gives up */
    od;
    atomic { left[p] = true; c = 0; l = 0; b = 0; twice = 0; type = 0; welcome[p] = false; held[p] = 0; held_block[p] = 0; sent[p] = 0 }
}

init
{
    atomic { run Trainer(); run Producer(0); run Producer(1) }
}
