/* pace.c - see pace.h. */
#include "pace.h"

#include <math.h>

#define NEWEST 0.3 /* weight of the newest block in the average */

void pace_leased(struct pace *p, size_t rows, int64_t now_ms)
{
    p->rows = rows;
    if (p->busy)
        return;
    p->busy = true;
    p->in_a_row = false;
    p->since_ms = now_ms;
}

static void learn(struct pace *p, double sample)
{
    if (p->row_ms <= 0 || (p->in_a_row && !p->settled))
        p->row_ms = sample;
    else if (p->in_a_row || sample < p->row_ms)
        p->row_ms += NEWEST * (sample - p->row_ms);
    p->settled |= p->in_a_row;
}

void pace_answered(struct pace *p, size_t rows, bool more, int64_t now_ms)
{
    if (rows && p->busy)
        learn(p, fmax((double)(now_ms - p->since_ms), 0.1) / (double)rows);
    p->busy = p->in_a_row = more;
    p->since_ms = now_ms;
}

double pace_row_ms(const struct pace *p, int64_t now_ms)
{
    double in_hand = p->busy && p->rows ? (double)(now_ms - p->since_ms) / (double)p->rows : 0;
    return p->row_ms > 0 ? fmax(p->row_ms, in_hand) : 0;
}

uint32_t pace_credit(const struct pace *p, double fastest_row_ms, uint32_t most, int64_t now_ms)
{
    if (!p->settled)
        return most < 2 ? most : 2;
    double share = ceil((double)most * fastest_row_ms / pace_row_ms(p, now_ms));
    return share >= most ? most : share < 1 ? 1 : (uint32_t)share;
}

double pace_remaining_ms(const struct pace *p, size_t rows, double row_ms, int64_t now_ms)
{
    double all = (double)rows * (p->row_ms > 0 ? p->row_ms : row_ms);
    return fabs((double)p->since_ms + all - (double)now_ms);
}
