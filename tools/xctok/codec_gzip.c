/* codec_gzip.c - gzip by zlib; its checksums are compared. */
#include <zlib.h>

#include "codec.h"
#include "mem.h"

struct gzip {
    z_stream z;
    const char *path;
};

static void *allocate(void *context, unsigned items, unsigned size)
{
    (void)context;
    return mem_raw_alloc((size_t)items * size);
}

static void release(void *context, void *p)
{
    (void)context;
    mem_raw_free(p);
}

static void *open_gzip(const char *path, struct err *e)
{
    enum { GZIP_ONLY = 16 };
    struct gzip *g = mem_alloc(1, sizeof *g, path, e);
    if (!g)
        return NULL;
    *g = (struct gzip){.z = {.zalloc = allocate, .zfree = release}, .path = path};
    int rc = inflateInit2(&g->z, GZIP_ONLY + MAX_WBITS);
    if (rc == Z_OK)
        return g;
    if (!mem_raw_failed(path, e))
        err_fill(e, ERR_SYSTEM, "%s: zlib: error %d", path, rc);
    mem_free(g);
    return NULL;
}

static int run_gzip(void *self, struct codec_bytes *in, struct codec_bytes *out, bool *ended, struct err *e)
{
    struct gzip *g = self;
    enum { MOST = 1 << 30 }; /* zlib counts in unsigned */
    unsigned n_in = (unsigned)(in->n < MOST ? in->n : MOST), n_out = (unsigned)(out->n < MOST ? out->n : MOST);
    if (*ended)
        inflateReset(&g->z);
    g->z.next_in = in->p;
    g->z.avail_in = n_in;
    g->z.next_out = out->p;
    g->z.avail_out = n_out;
    int rc = inflate(&g->z, Z_NO_FLUSH);
    *in = (struct codec_bytes){g->z.next_in, in->n - (n_in - g->z.avail_in)};
    *out = (struct codec_bytes){g->z.next_out, out->n - (n_out - g->z.avail_out)};
    *ended = rc == Z_STREAM_END;
    if (rc == Z_OK || rc == Z_STREAM_END || rc == Z_BUF_ERROR) /* the last: it wants more input, or room */
        return 0;
    if (mem_raw_failed(g->path, e))
        return ERR_MEMORY;
    return err_set(e, ERR_INPUT, "%s: damaged gzip: %s", g->path, g->z.msg ? g->z.msg : "no more is known");
}

static void close_gzip(void *self)
{
    struct gzip *g = self;
    inflateEnd(&g->z);
    mem_free(g);
}

const struct codec codec_gzip = {"gzip", open_gzip, run_gzip, close_gzip};
