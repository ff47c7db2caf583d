/* ledger.h - the ingest's counters under their public names: one table for summary.json, status.json and the metrics endpoint. */
#ifndef CROSSFEED_LEDGER_H
#define CROSSFEED_LEDGER_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "ingest_snapshot.h"

struct ledger_entry {
    const char *name, *help;
    size_t offset; /* of a uint64_t in struct ingest_counters */
};

extern const struct ledger_entry ledger_entries[];
extern const size_t ledger_n_entries;

/* Returns the counter of the i-th entry. */
static inline uint64_t ledger_value(const struct ingest_counters *c, size_t i)
{
    return *(const uint64_t *)(const void *)((const unsigned char *)c + ledger_entries[i].offset);
}

/* Returns a new object with every entry; NULL if there is no memory for it. */
json_t *ledger_to_json(const struct ingest_counters *c);

#endif
