/* speed.h - how fast a producer answers, and what follows from it: its credit, and when an answer is late.
 *
 * A producer computes its leases one after another, so with more than one in hand the time from answer to answer is what
 * a block takes it. With only one, the way there and back and the wait for the lease are in it as well: such a time is a
 * bound, which makes it look slower than it is, and the fewer leases it then got, the longer that would stay so. It
 * counts only until there is something better, or if it is shorter. Times are clock_ms; one thread. */
#ifndef CROSSFEED_SPEED_H
#define CROSSFEED_SPEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct speed {           /* zeroed: nothing known */
    double row_ms;       /* time a row takes, recent blocks counting most; 0: not yet known */
    bool settled;        /* from answer to answer, not a bound */
    bool busy, in_a_row; /* a block is in hand; it was begun when the one before was answered */
    int64_t since_ms;    /* while busy: when it was begun */
    size_t rows;         /* of the block leased last: they are about equal */
};

void speed_leased(struct speed *p, size_t rows, int64_t now_ms);
/* A block of so many rows is answered; 0 rows: a lease came to nothing and tells nothing. more: another is in hand. */
void speed_answered(struct speed *p, size_t rows, bool more, int64_t now_ms);

/* Time a row takes, at least as long as the block in hand has taken; 0: not known. */
double speed_row_ms(const struct speed *p, int64_t now_ms);

/* Leases that it may hold, 1 to `most`: in proportion to its speed, so that the blocks in the hands of a slow producer
 * take no longer than those of the fastest. Two, to find it out, as long as its pace is not settled. */
uint32_t speed_credit(const struct speed *p, double fastest_row_ms, uint32_t most, int64_t now_ms);

/* Time until it has answered `rows` rows, counted from the block in hand on. Of one that is overdue it is expected that
 * it takes as long again as it is late. row_ms: assumed if nothing is known of it. */
double speed_remaining_ms(const struct speed *p, size_t rows, double row_ms, int64_t now_ms);

#endif
