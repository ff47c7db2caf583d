/* codec_xz.c - xz by liblzma; its checksums are compared. */
#include <lzma.h>

#include "codec.h"
#include "mem.h"

struct xz {
    lzma_stream x;
    lzma_allocator allocator;
    const char *path;
};

static void *allocate(void *context, size_t items, size_t size)
{
    (void)context;
    return mem_raw_alloc(items * size); /* liblzma multiplies nothing: items is 1 */
}

static void release(void *context, void *p)
{
    (void)context;
    mem_raw_free(p);
}

static int failed(const struct xz *x, lzma_ret rc, struct err *e)
{
    if (mem_raw_failed(x->path, e))
        return ERR_MEMORY;
    const char *why = rc == LZMA_FORMAT_ERROR     ? "no xz begins there"
                      : rc == LZMA_MEMLIMIT_ERROR ? "it needs too much memory"
                      : rc == LZMA_OPTIONS_ERROR  ? "it has options that liblzma does not know"
                                                  : "its data is corrupt";
    return err_set(e, ERR_INPUT, "%s: damaged xz: %s", x->path, why);
}

static void *open_xz(const char *path, struct err *e)
{
    struct xz *x = mem_alloc(1, sizeof *x, path, e);
    if (!x)
        return NULL;
    *x = (struct xz){.x = LZMA_STREAM_INIT, .allocator = {allocate, release, NULL}, .path = path};
    x->x.allocator = &x->allocator;
    lzma_ret rc = lzma_stream_decoder(&x->x, codec_memory, 0);
    if (rc == LZMA_OK)
        return x;
    failed(x, rc, e);
    lzma_end(&x->x);
    mem_free(x);
    return NULL;
}

static int run_xz(void *self, struct codec_bytes *in, struct codec_bytes *out, bool *ended, struct err *e)
{
    struct xz *x = self;
    if (*ended) {
        lzma_ret rc = lzma_stream_decoder(&x->x, codec_memory, 0);
        if (rc != LZMA_OK)
            return failed(x, rc, e);
    }
    x->x.next_in = in->p;
    x->x.avail_in = in->n;
    x->x.next_out = out->p;
    x->x.avail_out = out->n;
    lzma_ret rc = lzma_code(&x->x, LZMA_RUN);
    *in = (struct codec_bytes){in->p + (in->n - x->x.avail_in), x->x.avail_in};
    *out = (struct codec_bytes){x->x.next_out, x->x.avail_out};
    *ended = rc == LZMA_STREAM_END;
    return rc == LZMA_OK || rc == LZMA_STREAM_END || rc == LZMA_BUF_ERROR ? 0 : failed(x, rc, e);
}

static void close_xz(void *self)
{
    struct xz *x = self;
    lzma_end(&x->x);
    mem_free(x);
}

const struct codec codec_xz = {"xz", open_xz, run_xz, close_xz};
