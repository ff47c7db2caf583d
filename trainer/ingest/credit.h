/* credit.h - how many leases a producer may hold.
 *
 * A producer that has answered a block is proven. Its credit follows the way to it (a long way needs more leases to be under way) and its
 * speed (a slow one gets fewer). Producers that have answered nothing hold one lease each, and all of them together hold as many as there
 * are proven ones, so that few blocks are in the hands of those who only say that they compute. Each time that such a lease comes to
 * nothing, none of them gets one for a while: that is probation.
 *
 * What is leased may arrive before it can be stored, and then takes memory beside the window's: so all leases together are bounded. Each
 * producer may have its first ones (INGEST_FIRST_CREDIT) all the same. */
#ifndef CROSSFEED_CREDIT_H
#define CROSSFEED_CREDIT_H

#include <stddef.h>
#include <stdint.h>

#include "leases.h"
#include "producers.h"

#define CREDIT_PRODUCERS 8                         /* for whose first leases the memory budget has room */
#define CREDIT_BYTES_ON_THE_WAY ((size_t)32 << 20) /* for more leases than the first ones, as a long way needs */

struct probation {    /* zeroed to start */
    int64_t pause_ms; /* how long the last pause was, or 0 */
    int64_t until_ms;
};

/* Ends the pause: an unproven producer has answered its first block. */
void probation_passed(struct probation *p);

/* Starts a pause, twice as long as the one before and at most most_ms: the lease of an unproven producer came to nothing. */
void probation_failed(struct probation *p, int64_t most_ms, int64_t now_ms);

/* Sets the credit of a producer that has just joined. most: the most leases that any may hold. */
void credit_begin(struct producer *p, uint32_t most);

/* Adjusts the credit of a producer that holds `held` leases, after it has said how it spends its time. */
void credit_adjust(struct producer *p, size_t held, uint32_t most);

/* Returns how many leases the producer may hold now. fastest_row_ms: time that a row takes the fastest producer; unproven: what
 * credit_unproven returned, less the leases given since. */
uint32_t credit_now(const struct producer *p, double fastest_row_ms, size_t unproven, int64_t now_ms);

/* Returns the bytes of leased rows beyond which a producer gets no more leases than the first ones. block_bytes: rows and origins of a block;
 * most: the most leases that a producer may hold. */
size_t credit_bytes(size_t block_bytes, uint32_t most);

/* Returns how many more leases there are for all unproven producers together. */
size_t credit_unproven(const struct producers *producers, const struct leases *l, const struct probation *probation,
                       int64_t now_ms);

#endif
