/* strikes.h - counts the wrong answers of each peer, across its connections, and says who is out, and until when.
 *
 * Three wrong chunks in a row put a peer out; a whole block that is right wipes them out, so that bits that flip on a long way now and then
 * cost no more than their leases. So does a larger share of wrong answers than a peer may have, if that is limited. A peer is known here by
 * what it cannot choose: its CURVE key, or without keys the address that it comes from (link_identity). The name that it gives itself
 * counts for nothing, or anyone could have another one put out. */
#ifndef CROSSFEED_STRIKES_H
#define CROSSFEED_STRIKES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "link.h"

#define STRIKES_OUT 3
#define STRIKES_SHARE_OF 10    /* answers of a peer before its share of wrong ones counts */
#define STRIKES_REMEMBERED 256 /* peers; with more, the one that came first is forgotten, and last those that are out */
#define STRIKES_FOR_EVER INT64_MAX

struct strikes {
    int64_t ban_ms; /* how long a peer is out; 0: for the rest of the run */
    double max_bad; /* share of its answers that may be wrong; 1: any */
    struct strikes_peer {
        char who[LINK_IDENTITY_SIZE];
        unsigned n;             /* wrong ones in a row */
        unsigned good, bad;     /* answers, older ones count less */
        int64_t until_ms;       /* when its ban ends; 0: it is not out */
    } list[STRIKES_REMEMBERED]; /* [n], oldest first; starts zeroed */
    size_t n;
};

/* Counts a wrong answer. Returns whether that puts the peer out. "" is a peer of whom nothing is known: it is not remembered. */
bool strikes_add(struct strikes *s, const char *who, int64_t now_ms);

/* Counts a whole block that is right. */
void strikes_clear(struct strikes *s, const char *who);

/* Returns for how long the peer is still out: 0 ms if it is not, STRIKES_FOR_EVER if that does not end. */
int64_t strikes_out(const struct strikes *s, const char *who, int64_t now_ms);

#endif
