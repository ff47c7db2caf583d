/* codec_zstd.c - zstd by libzstd, which takes its memory from libc. */
#include <zstd.h>

#include "codec.h"
#include "mem.h"

struct zstd {
    ZSTD_DStream *stream;
    const char *path;
};

static void *open_zstd(const char *path, struct err *e)
{
    int window = 10; /* its logarithm */
    while (window < 31 && (size_t)2 << window <= codec_memory)
        window++;
    struct zstd *z = mem_alloc(1, sizeof *z, path, e);
    if (!z)
        return NULL;
    *z = (struct zstd){ZSTD_createDStream(), path};
    if (z->stream && !ZSTD_isError(ZSTD_DCtx_setParameter(z->stream, ZSTD_d_windowLogMax, window)))
        return z;
    err_fill(e, ERR_MEMORY, "%s: libzstd has no memory for a stream", path);
    ZSTD_freeDStream(z->stream);
    mem_free(z);
    return NULL;
}

static int run_zstd(void *self, struct codec_bytes *in, struct codec_bytes *out, bool *ended, struct err *e)
{
    struct zstd *z = self;
    ZSTD_inBuffer from = {in->p, in->n, 0};
    ZSTD_outBuffer to = {out->p, out->n, 0};
    size_t left = ZSTD_decompressStream(z->stream, &to, &from);
    if (ZSTD_isError(left))
        return err_set(e, ERR_INPUT, "%s: damaged zstd: %s", z->path, ZSTD_getErrorName(left));
    *in = (struct codec_bytes){in->p + from.pos, in->n - from.pos};
    *out = (struct codec_bytes){out->p + to.pos, out->n - to.pos};
    *ended = left == 0;
    return 0;
}

static void close_zstd(void *self)
{
    struct zstd *z = self;
    ZSTD_freeDStream(z->stream);
    mem_free(z);
}

const struct codec codec_zstd = {"zstd", open_zstd, run_zstd, close_zstd};
