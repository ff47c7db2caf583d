/* codec.h - a format that unpack.c unpacks: one file each, codec_gzip.c, codec_zstd.c, codec_xz.c, beside its library. */
#ifndef CROSSFEED_CODEC_H
#define CROSSFEED_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

struct codec_bytes { /* what is left to read, or to fill */
    unsigned char *p;
    size_t n;
};

struct codec {
    const char *format; /* as file_format.h calls it */
    /* Returns a state, or NULL with e filled. path is for messages, also of `run`, and must stay. */
    void *(*open)(const char *path, struct err *e);
    /* Takes from in and fills out, moving both on. *ended: the packed file ends with what was taken, and another may begin. Neither is
     * empty when it is called. */
    int (*run)(void *self, struct codec_bytes *in, struct codec_bytes *out, bool *ended, struct err *e);
    void (*close)(void *self);
};

/* The most memory that a stream may take, which depends on how its file was packed: 2 GB are enough for `zstd --long=31` and any xz. A file
 * that asks for more is refused. Fuzzing lowers it. */
extern size_t codec_memory;

extern const struct codec codec_gzip, codec_zstd, codec_xz;

#endif
