/* pace.c - see pace.h. */
#include "pace.h"

#include <math.h>

#define NEWEST 0.3 /* weight of the newest block in the average */

void pace_leased(struct pace *p, size_t rows, int64_t now_ms)
{
    p->rows = rows;
    if (!p->busy)
        p->since_ms = now_ms;
    p->busy = true;
}

void pace_answered(struct pace *p, size_t rows, bool more, int64_t now_ms)
{
    if (rows && p->busy) {
        double taken = (double)(now_ms - p->since_ms);
        double sample = fmax(taken, 0.1) / (double)rows;
        p->row_ms = p->row_ms > 0 ? p->row_ms + NEWEST * (sample - p->row_ms) : sample;
    }
    p->busy = more;
    p->since_ms = now_ms;
}

double pace_row_ms(const struct pace *p, int64_t now_ms)
{
    double in_hand = p->busy && p->rows ? (double)(now_ms - p->since_ms) / (double)p->rows : 0;
    return p->row_ms > 0 ? fmax(p->row_ms, in_hand) : 0;
}

uint32_t pace_credit(const struct pace *p, double fastest_row_ms, uint32_t most, int64_t now_ms)
{
    double row_ms = pace_row_ms(p, now_ms);
    if (row_ms <= 0)
        return 1;
    double share = ceil((double)most * fastest_row_ms / row_ms);
    return share >= most ? most : share < 1 ? 1 : (uint32_t)share;
}

double pace_remaining_ms(const struct pace *p, size_t rows, double row_ms, int64_t now_ms)
{
    double all = (double)rows * (p->row_ms > 0 ? p->row_ms : row_ms);
    return fabs((double)p->since_ms + all - (double)now_ms);
}
