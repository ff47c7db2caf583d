/* overwrite.h - what an output may take the place of: never a file that this process has as an input, and an existing file only if it is
 * empty or of the output's own kind, unless --force was given.
 *
 * A program names its inputs (the flags that have `input` in their row are named by cli_parse). Every output written by file.h is compared
 * with them; whoever writes a file whose name the user chose also checks its kind, when the program starts and not when its work is done. */
#ifndef CROSSFEED_OVERWRITE_H
#define CROSSFEED_OVERWRITE_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

struct file_kind {
    const char *name;                               /* "a token tensor": in messages */
    bool (*is)(const char *path, const char *mark); /* whether the file is one */
    const char *mark;                               /* for `is`; NULL: it needs none */
};

/* Names n more inputs: files, or folders, of which each file counts; what does not exist is none. The paths and the list are not copied and
 * must stay. At most 64 lists; before there are threads. */
void overwrite_inputs(const char *const *paths, size_t n);
/* From now on files of other kinds may be replaced, inputs still not. */
void overwrite_force(void);

/* Refuses to write to a path where an input lies, whatever its name. */
int overwrite_check_input(const char *path, struct err *e);
/* Refuses that, and a path where anything but a regular file of this kind lies. */
int overwrite_check(const char *path, const struct file_kind *kind, struct err *e);

#endif
