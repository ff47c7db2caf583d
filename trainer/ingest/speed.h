/* speed.h - how fast a producer answers, and what follows from that: its share of the leases, and when an answer is late.
 *
 * A producer computes its leases one after another, so while it has more than one, the time from answer to answer is what a block takes
 * it. While it has only one, the way there and back and the wait for the lease are part of that time: it is a bound, which makes the
 * producer look slower than it is, and the fewer leases it got for that, the longer it would stay so. Such a time counts only until there
 * is a better one, or if it is shorter. Times are those of clock_ms. A speed belongs to one thread. */
#ifndef CROSSFEED_SPEED_H
#define CROSSFEED_SPEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct speed {           /* zeroed: nothing is known */
    double row_ms;       /* time a row takes, recent blocks counting most; 0: not yet known */
    bool settled;        /* row_ms was measured from answer to answer and is not a bound */
    bool busy, in_a_row; /* it has a block to compute; it began that when the one before was answered */
    int64_t since_ms;    /* while busy: when it began the block */
    size_t rows;         /* of the block leased last: blocks are of about equal size */
};

/* Records that a block of so many rows was leased to the producer. */
void speed_leased(struct speed *p, size_t rows, int64_t now_ms);

/* Records that it has answered a block of so many rows; 0 rows: a lease came to nothing, which tells nothing. more: it has another
 * lease. */
void speed_answered(struct speed *p, size_t rows, bool more, int64_t now_ms);

/* Returns the time that a row takes, which is at least what those of the present block have taken so far; 0 if it is not known. */
double speed_row_ms(const struct speed *p, int64_t now_ms);

/* Returns how many leases it may hold, 1 to `most`: in proportion to its speed, so that the leases of a slow producer take no longer than
 * those of the fastest. As long as its speed is not settled these are two, in order to find it out. */
uint32_t speed_credit(const struct speed *p, double fastest_row_ms, uint32_t most, int64_t now_ms);

/* Returns the time until it has answered `rows` rows, counted from the present block on. One that is overdue is expected to take as long
 * again as it is late. row_ms: assumed if nothing is known of it. */
double speed_remaining_ms(const struct speed *p, size_t rows, double row_ms, int64_t now_ms);

#endif
