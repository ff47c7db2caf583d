/* leases.pml - a model of the lease protocol (PROTOCOL.md) for the model checker spin: two producers, connections that
 * are cut with what is on them lost or sent again, chunks sent twice, producers and the trainer that die, the trainer
 * coming back from its checkpoint, and producers taken for silent that are not.
 *
 * Checked over all interleavings, with so many faults as FAULTS says, whenever and in whatever mix:
 *   - every block is trained exactly once (a trainer that comes back has trained what its checkpoint says);
 *   - the rows of a block are all there and of one lease, also when two producers are at it;
 *   - no deadlock, and nothing that goes round for ever: once the faults stop, all blocks get trained, and trainer
 *     and producers end.
 * The commands (spin and gcc; tests/model.sh runs them):
 *
 *   spin -DFAULTS=1 -a proto/leases.pml
 *   gcc -O2 -w -DSAFETY -DCOLLAPSE -o pan pan.c && ./pan -m100000             # assertions and deadlocks
 *   gcc -O2 -w -DNP -DNOFAIR -DCOLLAPSE -o pan pan.c && ./pan -l -m100000     # cycles
 *
 * Each must say "errors: 0". A finding is replayed with `spin -DFAULTS=1 -k leases.pml.trail -p -g proto/leases.pml`.
 *
 * Left out: what does not decide who trains what. Heartbeats are not messages here: silence is noticed some time after
 * it is real, or, as a fault, when it is not; and a producer that the trainer does not know is told so some time. The
 * scale, held-out blocks and audits are leases like others; but a late one of the first two is taken away from its producer,
 * which could go round for ever (LATE_TAKEN_AWAY) if the trainer did not wait twice as long each time: there is no time here.
 *
 * Two faults can be checked because a state holds nothing that no longer matters. Connections have ages instead of
 * numbers, leases low ids that are used again; of a block's answers the first is the one that is there; what nobody
 * would read is not sent; what a step needs only while it runs is hidden, that is, not of the state. */

#ifndef FAULTS
#define FAULTS 1
#endif
#ifndef BLOCKS
#define BLOCKS 3
#endif
#define PRODUCERS 2
#define WINDOW 2 /* blocks that may be leased ahead of the one to be trained next */
#define CHUNKS 2 /* of a block */
#define ANSWERS 4 /* two for each block of the window */
#define AGES 3 /* of a producer's connections: 0 is the present one, the trainer may still know the two before it */
#define ENTRIES 6 /* of the trainer's table: one for each of these connections */

/* Mistakes in the protocol that the check must find (tests/model.sh mutants): -DBUG=LEASES_KEPT makes the first one. */
#ifndef BUG
#define BUG 0
#endif
#define LEASES_KEPT 1     /* a producer that is gone keeps its leases */
#define VOID_TAKEN 2      /* a chunk goes by its block, whatever its lease */
#define REPEAT_TAKEN 3    /* a chunk that comes twice counts twice */
#define SECOND_KEPT 4     /* the other lease of a block that is complete goes on */
#define WRONG_PLACE 5     /* the trainer comes back a block too early */
#define STRANGER_LEFT 6   /* a producer that the trainer does not know is not told so when its heartbeat comes */
#define LATE_TAKEN_AWAY 7 /* a late block is not leased twice but taken away from who is at it, again and again */

mtype = { HELLO, WELCOME, LEASE, BATCH, UNKNOWN, BYE, END };

chan up[PRODUCERS] = [3] of { mtype, byte, byte, byte, byte }; /* type, age of its connection, lease, block, chunk */
chan down[PRODUCERS] = [5] of { mtype, byte, byte };           /* type, lease, block; on the present connection */

byte faults = FAULTS;
bool left[PRODUCERS]; /* the producer has ended */
bool trainer_ended;

/* The trainer. What is of block b of the window is at b % WINDOW. */
byte trained[BLOCKS], next, saved;                  /* times trained; the next block; blocks in the checkpoint */
bool complete[WINDOW];                              /* all rows are there */
byte lease[ANSWERS], holder[ANSWERS], got[ANSWERS]; /* 0: nobody is at it; its entry; chunks taken */
byte rows_of[ANSWERS];                              /* the lease whose rows lie there */
bool here[ENTRIES];
byte owed[ENTRIES]; /* a lease whose answer is not wanted any more and still comes */

/* Producers. */
bool greeted[PRODUCERS]; /* HELLO was said on the present connection */
bool welcome[PRODUCERS];
byte held[PRODUCERS], held_block[PRODUCERS], sent[PRODUCERS]; /* the lease in hand, 0: none; chunks of it sent */

/* What a step has in hand. Steps are atomic and set it before they use it, so between them it means nothing. */
hidden mtype type;
hidden byte c, l, b, k; /* of a message: age of its connection, lease, block, chunk */
hidden byte p_, e, x;   /* producer, entry, answer */
hidden byte i, n;

#define ENTRY(p, age) ((p) * AGES + (age))
#define OWNER(e) ((e) / AGES)
#define ANSWER(b, a) (((b) % WINDOW) * 2 + (a))

/* Who has read UNKNOWN or END reads nothing after it on that connection. */
#define LISTENS(p) (!left[p] && !down[p]??[UNKNOWN, _, _] && !down[p]??[END, _, _])

inline fault()
{
    faults--;
    if
    :: !faults -> saved = next /* nobody comes back to the checkpoint any more, so it shall make no difference */
    :: else
    fi
}

/* ---- leases and connections, which the trainer may know or not ---- */

inline clear_answer(y)
{
    lease[y] = 0; holder[y] = 0; got[y] = 0; rows_of[y] = 0
}

inline give_back(x_)
{
    if
    :: x_ % 2 == 0 -> /* the second answer becomes the first */
       lease[x_] = lease[x_ + 1]; holder[x_] = holder[x_ + 1]; got[x_] = got[x_ + 1]; rows_of[x_] = rows_of[x_ + 1];
       clear_answer(x_ + 1)
    :: else -> clear_answer(x_)
    fi
}

inline forget(e_)
{
    here[e_] = false; owed[e_] = 0;
    i = ANSWERS;
    do
    :: i > 0 ->
       i--;
       if
       :: lease[i] && holder[i] == e_ && BUG != LEASES_KEPT -> give_back(i)
       :: else
       fi
    :: i == 0 -> break
    od
}

inline move_entry(from, to)
{
    here[to] = here[from]; owed[to] = owed[from];
    here[from] = false; owed[from] = 0;
    i = 0;
    do
    :: i < ANSWERS ->
       if
       :: lease[i] && holder[i] == from -> holder[i] = to
       :: else
       fi;
       i++
    :: i == ANSWERS -> break
    od
}

/* Another connection is the present one from now on; what was on the way down is lost. Those before it age, unless
 * nothing is left of the last one. One that gets too old must be missed by now. */
inline renew(p)
{
    if
    :: here[ENTRY(p, 0)] || up[p]??[_, 0, _, _, _] ->
       forget(ENTRY(p, 2));
       move_entry(ENTRY(p, 1), ENTRY(p, 2));
       move_entry(ENTRY(p, 0), ENTRY(p, 1));
       n = len(up[p]);
       do
       :: n > 0 ->
          n--;
          up[p]?type, c, l, b, k;
          if
          :: c + 1 < AGES -> up[p]!type, c + 1, l, b, k
          :: else
          fi
       :: n == 0 -> break
       od
    :: else
    fi;
    do
    :: nempty(down[p]) -> down[p]?_, _, _
    :: empty(down[p]) -> break
    od
}

/* What is on the way is lost, or what the producer had not got rid of is sent on the new connection. */
inline cut(p)
{
    if
    :: do
       :: nempty(up[p]) -> up[p]?_, _, _, _, _
       :: empty(up[p]) -> break
       od
    :: nempty(up[p])
    fi;
    renew(p);
    greeted[p] = false;
    n = len(up[p]);
    do
    :: n > 0 -> up[p]?type, c, l, b, k; up[p]!type, 0, l, b, k; n--
    :: n == 0 -> break
    od
}

/* ---- the trainer ---- */

#define HOLDS(e, x) (lease[x] && holder[x] == e)
/* e has no lease, not even one that it owes. */
#define IDLE(e) (here[e] && !owed[e] && !HOLDS(e, 0) && !HOLDS(e, 1) && !HOLDS(e, 2) && !HOLDS(e, 3))
#define WANTED(b) ((b) < BLOCKS && (b) >= next && (b) < next + WINDOW && !complete[(b) % WINDOW])
#define WAITING(b) (WANTED(b) && !lease[ANSWER(b, 0)])
#define LATE(b, e) (WANTED(b) && lease[ANSWER(b, 0)] && !lease[ANSWER(b, 1)] && !HOLDS(e, ANSWER(b, 0)))
#define LEASABLE(e) (IDLE(e) && (WAITING(next) || WAITING(next + 1) || LATE(next, e)))

/* An id is taken while it is in the trainer's tables or something on a connection that the trainer knows bears it. What
 * is left elsewhere of older leases, or of those from before the trainer died, may come under the id of a new one. */
#define SENT(e, l) (here[e] && up[OWNER(e)]??[BATCH, eval((e) % AGES), eval(l), _, _])
#define HAS(p, l) (here[ENTRY(p, 0)] && (held[p] == l || down[p]??[LEASE, eval(l), _]) || \
    SENT(ENTRY(p, 0), l) || SENT(ENTRY(p, 1), l) || SENT(ENTRY(p, 2), l))
#define OWED(l) (owed[0] == l || owed[1] == l || owed[2] == l || owed[3] == l || owed[4] == l || owed[5] == l)
#define TAKEN(l) (lease[0] == l || lease[1] == l || lease[2] == l || lease[3] == l || OWED(l) || HAS(0, l) || HAS(1, l))

/* To a connection that is no more: lost. */
inline send_down(e_, what, l_, b_)
{
    if
    :: (e_) % AGES == 0 && LISTENS(OWNER(e_)) ->
       assert(nfull(down[OWNER(e_)])); /* this model's matter, not the protocol's */
       down[OWNER(e_)]!what, l_, b_
    :: else
    fi
}

inline lease_block()
{
    b = (!WAITING(next) && WAITING(next + 1) -> next + 1 : next);
    x = ANSWER(b, 0);
    if
    :: lease[x] && BUG != LATE_TAKEN_AWAY -> x = ANSWER(b, 1)
    :: lease[x] && BUG == LATE_TAKEN_AWAY -> owed[holder[x]] = lease[x]; give_back(x)
    :: else
    fi;
    l = 1;
    do
    :: TAKEN(l) -> l++
    :: else -> break
    od;
    lease[x] = l; holder[x] = e;
    send_down(e, LEASE, l, b)
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
       :: faults && next < BLOCKS
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
inline take_answer()
{
    assert(WANTED(b) && rows_of[x] == lease[x] && k == CHUNKS - 1);
    complete[b % WINDOW] = true;
    give_back(x);
    x = ANSWER(b, 0); /* the other one */
    if
    :: lease[x] && BUG != SECOND_KEPT -> owed[holder[x]] = lease[x]; give_back(x)
    :: else
    fi;
    train()
}

inline take_chunk()
{
    x = 0;
    do
    :: x < ANSWERS && !(HOLDS(e, x) && (lease[x] == l || BUG == VOID_TAKEN && x / 2 == b % WINDOW)) -> x++
    :: else -> break
    od;
    if
    :: x == ANSWERS -> /* void, or owed: dropped */
       if
       :: owed[e] == l && k == CHUNKS - 1 -> owed[e] = 0
       :: else
       fi
    :: x < ANSWERS && k != got[x] && BUG != REPEAT_TAKEN -> give_back(x) /* not the one that was due: a void lease */
    :: else ->
       if
       :: k == 0 -> rows_of[x] = l
       :: else -> assert(rows_of[x] == l)
       fi;
       got[x]++;
       if
       :: got[x] == CHUNKS -> take_answer()
       :: else
       fi
    fi
}

inline take_message(p)
{
    up[p]?type, c, l, b, k;
    e = ENTRY(p, c);
    if
    :: type == HELLO || type == BYE && here[e] ->
       forget(e);
       here[e] = (type == HELLO);
       if
       :: type == HELLO && saved < BLOCKS -> send_down(e, WELCOME, 0, 0)
       :: type == HELLO && saved == BLOCKS -> send_down(e, END, 0, 0)
       :: else
       fi
    :: type == BATCH && here[e] -> take_chunk()
    :: type != HELLO && !here[e] -> send_down(e, UNKNOWN, 0, 0) /* say HELLO first */
    fi
}

/* It comes back with what the checkpoint says; ids start anew, and every connection is another one. */
inline die_and_come_back()
{
    next = (BUG == WRONG_PLACE && saved > 0 -> saved - 1 : saved);
    i = 0;
    do
    :: i < BLOCKS -> trained[i] = (i < saved -> 1 : 0); i++
    :: i == BLOCKS -> break
    od;
    i = 0;
    do
    :: i < ANSWERS -> clear_answer(i); i++
    :: i == ANSWERS -> break
    od;
    i = 0;
    do
    :: i < ENTRIES -> here[i] = false; owed[i] = 0; i++
    :: i == ENTRIES -> break
    od;
    complete[0] = false; complete[1] = false;
    p_ = 0;
    do
    :: p_ < PRODUCERS -> cut(p_); p_++
    :: p_ == PRODUCERS -> break
    od
}

#define PRESENT(e) ((e) % AGES == 0 && !left[OWNER(e)])
#define MISSED(e) (here[e] && (faults || !PRESENT(e)))
#define NOBODY (!here[0] && !here[1] && !here[2] && !here[3] && !here[4] && !here[5])
#define EITHER(what) if :: what(0) -> p_ = 0 :: what(1) -> p_ = 1 fi
#define SOME(what) if :: what(0) -> e = 0 :: what(1) -> e = 1 :: what(2) -> e = 2 \
    :: what(3) -> e = 3 :: what(4) -> e = 4 :: what(5) -> e = 5 fi
#define ANY(p) true
#define SENDS(p) nempty(up[p])
/* A heartbeat comes from a producer that the trainer does not know and that does not know so. */
#define STRANGER(p) (greeted[p] && !here[ENTRY(p, 0)] && !up[p]??[HELLO, 0, _, _, _] && LISTENS(p) && \
    BUG != STRANGER_LEFT)

proctype Trainer()
{
    do
    :: atomic { EITHER(SENDS); take_message(p_) }
    :: atomic { SOME(LEASABLE); lease_block() }
    :: atomic { SOME(MISSED);
                if
                :: PRESENT(e) -> fault() /* taken for silent */
                :: else
                fi;
                forget(e) }
    :: atomic { EITHER(STRANGER); send_down(ENTRY(p_, 0), UNKNOWN, 0, 0) }
    :: atomic { saved == BLOCKS && NOBODY -> break } /* all have said BYE */
    :: atomic { faults -> die_and_come_back(); fault() }
    :: atomic { faults -> EITHER(ANY); cut(p_); fault() }
    od;
    atomic {
        i = 0;
        do
        :: i < BLOCKS -> assert(trained[i] == 1); i++
        :: i == BLOCKS -> break
        od;
        trainer_ended = true
    }
    do /* what still comes goes nowhere */
    :: up[0]?_, _, _, _, _
    :: up[1]?_, _, _, _, _
    :: left[0] && left[1] && empty(up[0]) && empty(up[1]) -> break
    od
}

/* ---- a producer ---- */

inline drop_lease(p)
{
    held[p] = 0; held_block[p] = 0; sent[p] = 0
}

inline say_hello(p)
{
    renew(p); /* a fresh socket */
    welcome[p] = false; drop_lease(p);
    greeted[p] = true;
    up[p]!HELLO, 0, 0, 0, 0
}

proctype Producer(byte p)
{
    do
    :: atomic { nfull(up[p]) && (!greeted[p] && !trainer_ended || down[p]?[UNKNOWN, _, _] || faults) ->
                if
                :: !greeted[p] && !trainer_ended /* at first, and when nothing is heard on a new connection */
                :: down[p]?[UNKNOWN, _, _]
                :: faults -> fault() /* it died and another one comes; or: taken for silent */
                fi;
                say_hello(p) }
    :: atomic { down[p]?[WELCOME, _, _] -> down[p]?_, _, _; welcome[p] = true }
    :: atomic { !held[p] && down[p]?[LEASE, _, _] -> /* one lease after another */
                down[p]?_, held[p], held_block[p];
                assert(welcome[p]) }
    :: atomic { nfull(up[p]) && down[p]?[END, _, _] -> down[p]?_, _, _; up[p]!BYE, 0, 0, 0, 0; break }
    :: atomic { held[p] && nfull(up[p]) ->
                up[p]!BATCH, 0, held[p], held_block[p], sent[p];
                if
                :: sent[p]++
                :: faults -> fault() /* the same again */
                fi;
                if
                :: sent[p] == CHUNKS -> drop_lease(p)
                :: else
                fi }
    :: atomic { trainer_ended && empty(down[p]) -> break } /* nobody there: gives up */
    od;
    atomic { left[p] = true; greeted[p] = false; welcome[p] = false; drop_lease(p) }
}

init
{
    atomic { run Trainer(); run Producer(0); run Producer(1) }
}
