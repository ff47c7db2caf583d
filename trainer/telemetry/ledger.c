/* ledger.c - the table of counters; see ledger.h. */
#include "ledger.h"

#define ENTRY(name, member, help)                            \
    {                                                        \
        name, help, offsetof(struct ingest_counters, member) \
    }

const struct ledger_entry ledger_entries[] = {
    ENTRY("rows_received", rows_received, "rows put in their places: in the window, held out, or to measure the scale"),
    ENTRY("duplicates_dropped", duplicates_dropped,
          "rows of a block that somebody else had answered, or had been given"),
    ENTRY("blocks_leased", blocks_leased, "leases given"),
    ENTRY("blocks_done", blocks_done, "blocks of which every row is there"),
    ENTRY("blocks_leased_again", blocks_leased_again, "leases that came to nothing: the block went to somebody else"),
    ENTRY("blocks_duplicated", blocks_duplicated, "blocks leased to a second producer, as the first one was late"),
    ENTRY("audits", audits, "blocks computed twice and compared"),
    ENTRY("audits_different", audits_different, "of those, blocks that were not the same to the bit"),
    ENTRY("bad_chunks", bad_chunks, "chunks and messages refused: checksum, order, size, values, protocol"),
    ENTRY("producers_seen", producers_seen, "producers that ever joined"),
    ENTRY("producers_lost", producers_lost, "producers that fell silent or were dropped for what they sent"),
    ENTRY("producers_rejected", rejected, "HELLOs refused"),
    ENTRY("refused_key", refused[REFUSAL_KEY], "connections with a key that is not allowed"),
    ENTRY("refused_handshake", refused[REFUSAL_HANDSHAKE], "connections that failed in ZeroMQ's handshake: strangers"),
    ENTRY("refused_message", refused[REFUSAL_MESSAGE],
          "faults in what messages said, HELLO included, or in how many there were"),
    ENTRY("refused_idle", refused[REFUSAL_IDLE], "connections closed because they did not become producers in time"),
    ENTRY("refused_crowd", refused[REFUSAL_TOO_MANY], "connections closed because too many did not become producers"),
    ENTRY("refused_memory", refused[REFUSAL_MEMORY], "connections closed because they sent more than is held for one"),
};
const size_t ledger_n_entries = sizeof ledger_entries / sizeof ledger_entries[0];

json_t *ledger_to_json(const struct ingest_counters *c)
{
    json_t *object = json_object();
    for (size_t i = 0; i < ledger_n_entries; i++)
        if (json_object_set_new(object, ledger_entries[i].name, json_integer((json_int_t)ledger_value(c, i)))) {
            json_decref(object);
            return NULL;
        }
    return object;
}
