/* settings.h - values that a run keeps with its checkpoints: rows of flags.h that also say what a resumed run may change.
 *
 * A fixed setting changes the result: a resumed run takes it from the checkpoint, and a flag that says otherwise is refused
 * with both values. The rest may change from one session to the next. A checkpoint that was written before a setting
 * existed lacks it; the row then says what such a run did (`absent`), and the run goes on doing it. */
#ifndef CROSSFEED_SETTINGS_H
#define CROSSFEED_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "err.h"
#include "flags.h"

#define SETTING_TEXT_SIZE 4096 /* the most that a FLAG_TEXT's field may have */

struct setting {
    struct flag flag; /* neither FLAG_STRING nor FLAG_LIST: a checkpoint's text is copied */
    bool fixed;
    /* What a run did that is older than this row, as text. NULL: no run is older; a checkpoint without a fixed setting is
     * damaged, and one without another kind of setting is resumed with the flag's value or the default. */
    const char *absent;
};

/* A new object with the value of each row, under its name. NULL: out of memory. */
json_t *settings_to_json(const struct setting *rows, size_t n, const void *fields);

/* Fills the fields of a resumed run from what the run saved, where a flag has not set them (given: [n]). Refuses a fixed
 * row whose flag says otherwise than the run (ERR_MISMATCH, both values named), and a row that is missing without an
 * `absent`, or not of its kind (ERR_INPUT). path names the saved file in errors. */
int settings_resume(const struct setting *rows, size_t n, void *fields, const bool *given, const json_t *saved,
                    const char *path, struct err *e);

#endif
