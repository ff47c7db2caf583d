/* saving.c - see saving.h. */
#include "saving.h"

#include <inttypes.h>
#include <time.h>

#include "clock.h"
#include "log.h"

#define LONGEST_PAUSE 60.0

bool saving_is_due(const struct saving *s)
{
    return s->failures > 0 && clock_s() >= s->next_try;
}

bool saving_failed(struct saving *s, uint64_t step, uint64_t retries, bool soon, const struct err *e)
{
    if (e->code != ERR_SYSTEM)
        return false;
    double pause = 1;
    for (uint64_t i = 0; i < s->failures && pause < LONGEST_PAUSE && !soon; i++)
        pause *= 2;
    pause = pause < LONGEST_PAUSE ? pause : LONGEST_PAUSE;
    s->failures++;
    s->next_try = clock_s() + pause;
    bool again = s->failures <= retries;
    log_line("step %" PRIu64 ": cannot save: %s; %s (%" PRIu64 " of %" PRIu64 " retries done)", step, e->message,
             again ? "it is tried again" : "that was the last try", s->failures - 1, retries);
    return again;
}

void saving_pause(const struct saving *s)
{
    double left = s->next_try - clock_s();
    if (left > 0) {
        struct timespec pause = {(time_t)left, (long)((left - (double)(time_t)left) * 1e9)};
        nanosleep(&pause, NULL);
    }
}
