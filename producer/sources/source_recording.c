/* source_recording.c - a recording behind the source interface; see source_recording.h. */
#include "source_recording.h"

#include <assert.h>
#include <string.h>

#include "log.h"
#include "mem.h"
#include "recording.h"

static int compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    struct recording *recording = self;
    const struct stream *s = &recording->stream;
    size_t row_bytes = stream_row_bytes(s, recording->dtype), row = 0;
    size_t shard_rows = stream_block_rows(s, recording->shard_seqs);
    assert(r->dtype == recording->dtype); /* the only one that the stream offers */
    for (uint32_t done = 0; done < n;) {
        struct recording_rows piece;
        if (recording_read(recording, first + done, n - done, &piece, e))
            return e->code;
        bool whole = piece.n == n && piece.checksums;
        if (!whole && recording_verify_rows(recording, first + done, piece.n, e))
            return e->code;
        size_t n_rows = stream_block_rows(s, piece.n);
        if (piece.n == n &&
            r->max_rows <= shard_rows) /* then no block gathers from so many shards that a map goes away */
            rows_borrow(r, piece.acts);
        else
            memcpy(r->data + row * row_bytes, piece.acts, n_rows * row_bytes);
        for (size_t i = 0; i < n_rows; i++)
            rows_put_origin(r, row + i, recording_origin(&piece, i));
        if (whole)
            rows_known_checksums(r, piece.checksums);
        row += n_rows;
        done += piece.n;
    }
    return 0;
}

static void close_source(void *self)
{
    recording_close(self);
    mem_free(self);
}

int source_recording_open(struct source *s, const char *folder, bool verify, struct err *e)
{
    *s = (struct source){0};
    struct recording *r = mem_alloc(1, sizeof *r, "recording", e);
    if (!r)
        return ERR_MEMORY;
    int rc = recording_open(r, folder, e);
    if (rc == 0 && !r->sealed)
        log_line("%s: its manifest is older than checksums of manifests: scale and geometry are not verified", folder);
    for (uint32_t i = 0; rc == 0 && verify && i < r->n_shards; i++)
        if (recording_has(r, i))
            rc = recording_verify_shard(r, i, e);
    if (rc) {
        close_source(r);
        return rc;
    }
    *s = (struct source){.stream = r->stream, .self = r, .compute = compute, .close = close_source};
    return 0;
}
