/* pace.h - how fast a producer answers, and what follows from it: its credit, and when an answer is late.
 *
 * A producer computes its leases one after another, so a block's time runs from when it was leased or, if the one
 * before was still being computed, from when that was answered. Times are clock_ms; one thread. */
#ifndef CROSSFEED_PACE_H
#define CROSSFEED_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pace {      /* zeroed: nothing known */
    double row_ms; /* time a row takes, recent blocks counting most; 0: not yet known */
    bool busy;
    int64_t since_ms; /* while busy: when the block in hand was begun */
    size_t rows;      /* of the block leased last: they are about equal */
};

void pace_leased(struct pace *p, size_t rows, int64_t now_ms);
/* A block of so many rows is answered; 0 rows: a lease came to nothing and tells nothing. more: another is in hand. */
void pace_answered(struct pace *p, size_t rows, bool more, int64_t now_ms);

/* Time a row takes, at least as long as the block in hand has taken; 0: not known. */
double pace_row_ms(const struct pace *p, int64_t now_ms);

/* Leases that it may hold, 1 to `most`: in proportion to its speed, so that the blocks in the hands of a slow producer
 * take no longer than those of the fastest. 1 as long as its pace is not known: a chance, not more. */
uint32_t pace_credit(const struct pace *p, double fastest_row_ms, uint32_t most, int64_t now_ms);

/* Time until it has answered `rows` rows, counted from the block in hand on. Of one that is overdue it is expected that
 * it takes as long again as it is late. row_ms: assumed if nothing is known of it. */
double pace_remaining_ms(const struct pace *p, size_t rows, double row_ms, int64_t now_ms);

#endif
