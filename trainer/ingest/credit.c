/* credit.c - see credit.h. */
#include "credit.h"

#include "ingest_options.h"

#define MUCH_WAITING 0.1f /* shares of a producer's time */
#define LITTLE_WAITING 0.02f
#define FIRST_PAUSE_MS 1000

void probation_passed(struct probation *p)
{
    *p = (struct probation){0};
}

void probation_failed(struct probation *p, int64_t most_ms, int64_t now_ms)
{
    int64_t longer = p->pause_ms ? 2 * p->pause_ms : FIRST_PAUSE_MS;
    p->pause_ms = longer < most_ms ? longer : most_ms;
    p->until_ms = now_ms + p->pause_ms;
}

void credit_begin(struct producer *p, uint32_t most)
{
    p->credit = most < INGEST_FIRST_CREDIT ? most : INGEST_FIRST_CREDIT;
}

static float waiting_share(const struct producer *p)
{
    return 1 - p->computing - p->sending;
}

/* A producer that has all the leases it may hold and yet waits, does so because of the way: more must be under way. One that never waits
 * needs no more than the first ones, and what is queued there could be done elsewhere. */
void credit_adjust(struct producer *p, size_t held, uint32_t most)
{
    float waiting = waiting_share(p);
    bool counts = p->computing > 0 || p->sending > 0; /* else it did nothing at all, or does not say */
    if (counts && waiting > MUCH_WAITING && held >= p->credit)
        p->credit = p->credit < most / 2 ? 2 * p->credit : most;
    else if (waiting < LITTLE_WAITING && p->credit > INGEST_FIRST_CREDIT)
        p->credit--;
}

uint32_t credit_now(const struct producer *p, double fastest_row_ms, size_t unproven, int64_t now_ms)
{
    if (!p->here || !p->blocks)
        return p->here && unproven ? 1 : 0;
    if (p->reports && waiting_share(p) > MUCH_WAITING) /* it is not slow */
        return p->credit;
    return speed_credit(&p->speed, fastest_row_ms, p->credit, now_ms);
}

size_t credit_bytes(size_t block_bytes, uint32_t most)
{
    size_t first = (most < INGEST_FIRST_CREDIT ? most : INGEST_FIRST_CREDIT) * CREDIT_PRODUCERS * block_bytes;
    size_t all = most * CREDIT_PRODUCERS * block_bytes;
    if (all > CREDIT_BYTES_ON_THE_WAY)
        all = CREDIT_BYTES_ON_THE_WAY;
    return first > all ? first : all;
}

size_t credit_unproven(const struct producers *producers, const struct leases *l, const struct probation *probation,
                       int64_t now_ms)
{
    size_t proven = 0, held = 0;
    for (int i = 0; i < PRODUCERS_MAX; i++) {
        const struct producer *p = &producers->list[i];
        proven += p->here && p->blocks;
        held += p->here && !p->blocks ? leases_held(l, i) : 0;
    }
    if (proven == 0)
        return LEASES_MAX;
    return proven > held && now_ms >= probation->until_ms ? proven - held : 0;
}
