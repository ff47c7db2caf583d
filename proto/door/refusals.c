/* refusals.c - see refusals.h. Lines are remembered by their hashes, the newest REFUSALS_REMEMBERED of them. */
#include "refusals.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "clock.h"

#define BURST 64        /* lines before the limit of one a second holds */
#define SILENT_MS 60000 /* for which the same line is not logged again */

const char *refusal_name(enum refusal kind)
{
    static const char *const names[REFUSAL_KINDS] = {"key", "handshake", "message", "idle", "crowd", "memory"};
    return names[kind];
}

void refusals_init(struct refusals *r)
{
    *r = (struct refusals){.limit.lines = {.burst = BURST, .per_s = 1}};
    pthread_mutex_init(&r->lock, NULL);
}

void refusals_release(struct refusals *r)
{
    pthread_mutex_destroy(&r->lock);
}

/* Returns whether the line was logged lately; if not, remembers that it is logged now. */
static bool said_lately(struct refusals *r, const char *line)
{
    int64_t now = clock_ms();
    uint64_t hash = XXH3_64bits(line, strlen(line));
    for (unsigned i = 0; i < REFUSALS_REMEMBERED; i++)
        if (r->said[i].hash == hash && r->said[i].until_ms > now)
            return true;
    unsigned i = r->next++ % REFUSALS_REMEMBERED;
    r->said[i].hash = hash;
    r->said[i].until_ms = now + SILENT_MS;
    return false;
}

void refusals_note(struct refusals *r, enum refusal kind, const char *format, ...)
{
    char line[800];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    pthread_mutex_lock(&r->lock);
    r->counts[kind]++;
    if (!said_lately(r, line))
        log_limited(&r->limit, "%s", line);
    pthread_mutex_unlock(&r->lock);
}

void refusals_counts(struct refusals *r, uint64_t counts[REFUSAL_KINDS])
{
    pthread_mutex_lock(&r->lock);
    log_hidden(&r->limit);
    memcpy(counts, r->counts, sizeof r->counts);
    pthread_mutex_unlock(&r->lock);
}
