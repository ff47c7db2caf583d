/* allowance.c - see allowance.h. */
#include "allowance.h"

bool allowance_pass(struct allowance *a, int64_t now_ms)
{
    int64_t seconds = (now_ms - a->since_ms) / 1000;
    if (seconds <= 0)
        return false;
    uint64_t more = (uint64_t)seconds * a->per_s;
    a->used -= more < a->used ? (unsigned)more : a->used;
    a->since_ms = a->used ? a->since_ms + seconds * 1000 : now_ms;
    return true;
}

bool allowance_take(struct allowance *a, int64_t now_ms)
{
    allowance_pass(a, now_ms);
    if (a->used >= a->burst)
        return false;
    a->used++;
    return true;
}
