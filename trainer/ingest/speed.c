/* speed.c - see speed.h. The time of a row is an average in which recent blocks count most. */
#include "speed.h"

#include <math.h>

#define NEWEST 0.3 /* weight of the newest block in the average */

void speed_leased(struct speed *p, size_t rows, int64_t now_ms)
{
    p->rows = rows;
    if (p->busy)
        return;
    p->busy = true;
    p->in_a_row = false;
    p->since_ms = now_ms;
}

/* Takes a time that a row took into the average. */
static void learn(struct speed *p, double sample)
{
    if (p->row_ms <= 0 || (p->in_a_row && !p->settled))
        p->row_ms = sample;
    else if (p->in_a_row || sample < p->row_ms)
        p->row_ms += NEWEST * (sample - p->row_ms);
    p->settled |= p->in_a_row;
}

void speed_answered(struct speed *p, size_t rows, bool more, int64_t now_ms)
{
    if (rows && p->busy)
        learn(p, fmax((double)(now_ms - p->since_ms), 0.1) / (double)rows);
    p->busy = p->in_a_row = more;
    p->since_ms = now_ms;
}

double speed_row_ms(const struct speed *p, int64_t now_ms)
{
    double in_hand = p->busy && p->rows ? (double)(now_ms - p->since_ms) / (double)p->rows : 0;
    return p->row_ms > 0 ? fmax(p->row_ms, in_hand) : 0;
}

uint32_t speed_credit(const struct speed *p, double fastest_row_ms, uint32_t most, int64_t now_ms)
{
    if (!p->settled)
        return most < 2 ? most : 2;
    double share = ceil((double)most * fastest_row_ms / speed_row_ms(p, now_ms));
    return share >= most ? most : share < 1 ? 1 : (uint32_t)share;
}

double speed_remaining_ms(const struct speed *p, size_t rows, double row_ms, int64_t now_ms)
{
    double all = (double)rows * (p->row_ms > 0 ? p->row_ms : row_ms);
    return fabs((double)p->since_ms + all - (double)now_ms);
}
