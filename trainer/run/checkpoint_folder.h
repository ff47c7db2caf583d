/* checkpoint_folder.h - OUT/checkpoints: which of the checkpoints in it a run resumes from, and which it keeps.
 *
 * A new one is written to a folder of another name, synced and renamed: it is there complete or not at all.
 * A run resumes from the newest one that is sound. Newer ones that are not are set aside, which is a rename and never a removal:
 * damaged_step_0000000240; those beyond --resume-from as later_step_0000000240. A checkpoint of another run is nobody's here: it is named,
 * ignored, not counted and not removed. */
#ifndef CROSSFEED_CHECKPOINT_FOLDER_H
#define CROSSFEED_CHECKPOINT_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "checkpoint.h"
#include "err.h"

#define CHECKPOINT_ASIDE_SIZE (CHECKPOINT_NAME_SIZE + 32)

/* Saves the weights and state of b, and then removes all of this run but the newest `keep`; that it cannot remove one is said, no more. next:
 * the place of the row after the last batch; cfg is borrowed and has the run's id. path [4096] (may be NULL) is told. ERR_SYSTEM if it does
 * not fit, or cannot be written; what was there stays. out must exist. */
int checkpoint_save(const char *out, const struct backend *b, const struct normalisation *n,
                    const struct plan_place *next, const json_t *cfg, size_t keep, char *path, struct err *e);

/* Finds the newest checkpoint below out, sound or not, path [4096]; ERR_ABSENT if there is none. */
int checkpoint_latest(const char *out, char *path, struct err *e);

/* Calls visit with the path of each checkpoint below out, ascending, until one does not return 0, which is then returned. There may be
 * none. */
int checkpoint_for_each(const char *out, int (*visit)(void *context, const char *path, struct err *e), void *context,
                        struct err *e);

struct checkpoint_choice {
    char path[4096];
    uint64_t step;
    char run[FINGERPRINT_SIZE];          /* its run; "": an old one does not say */
    bool verified;                       /* it has a manifest */
    bool asked;                          /* for this step */
    uint64_t n_damaged;                  /* newer ones of the run that are not sound */
    char damaged[CHECKPOINT_ASIDE_SIZE]; /* the newest of them, by the name under which it was set aside; "": none */
};

/* Chooses the newest sound checkpoint of the run (its id; "": that of the newest sound one), or that of step `from` if it is not 0. What is
 * damaged or another run's is said. ERR_INPUT if there is none, or the one asked for is damaged. Nothing is changed. */
int checkpoint_choose(const char *out, const char *run, uint64_t from, struct checkpoint_choice *c, struct err *e);

/* Sets aside what is newer than the choice, now that the run goes on from there. */
int checkpoint_set_aside(const char *out, struct checkpoint_choice *c, struct err *e);

/* Counts the checkpoints of the run below out. */
int checkpoint_count(const char *out, const char *run, size_t *n, struct err *e);

#endif
