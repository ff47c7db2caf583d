/* checkpoint_tally.h - what has become of a run's checkpoints in this session: for status.json, summary.json and the metrics endpoint. */
#ifndef CROSSFEED_CHECKPOINT_TALLY_H
#define CROSSFEED_CHECKPOINT_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

struct checkpoint_tally {
    bool resumed;
    bool verified;         /* what was resumed from had a manifest, which held */
    uint64_t resumed_from; /* its step */
    uint64_t damaged;      /* newer ones that were not sound */
    char set_aside[128];   /* the newest of these, by its name now; "": none */
    uint64_t saved;        /* saves that succeeded, */
    uint64_t failed;       /* and that did not */
    char failure[512];     /* of the last save; "" if it succeeded */
};

/* Returns a new object, in which null is what there is not; NULL if there is no memory for it. */
json_t *checkpoint_tally_to_json(const struct checkpoint_tally *t);

#endif
