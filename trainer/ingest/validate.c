/* validate.c - see validate.h. */
#include "validate.h"

#include <string.h>

#include "row_bound.h"

int validate_hello(const struct validate_terms *a, const struct message_hello *h, struct err *e)
{
    const struct stream *theirs = &h->stream;
    float scale[STREAM_MAX_SITES];
    if (h->version != PROTOCOL_VERSION)
        return err_set(e, ERR_MISMATCH, "protocol version %u, run speaks %d", h->version, PROTOCOL_VERSION);
    if (stream_check(theirs, e) || (a->ours && stream_compare(a->ours, theirs, e)))
        return e->code;
    bool need_f32 =
        a->need_f32 && !(a->need_bf16 && theirs->has_scale); /* a producer with a scale computes no raw rows */
    if ((a->need_bf16 && !theirs->can_bf16) || (need_f32 && !theirs->can_f32))
        return err_set(e, ERR_MISMATCH, "dtypes offered:%s%s, run needs%s%s", theirs->can_bf16 ? " bf16" : "",
                       theirs->can_f32 ? " fp32" : "", a->need_bf16 ? " bf16" : "", need_f32 ? " fp32" : "");
    if (a->scale && scale_list_match(a->scale, theirs, scale, e))
        return e->code;
    if (!theirs->has_scale)
        return 0;
    if (!a->scale && a->stream_fixed)
        return err_set(e, ERR_MISMATCH, "rows come with a scale of their own (%g at site 0), run measures its scale",
                       (double)theirs->scale[0]);
    for (uint32_t i = 0; a->scale && i < theirs->n_sites; i++)
        if (scale[i] != theirs->scale[i])
            return err_set(e, ERR_MISMATCH, "scale of site %u (%s) is %.9g, run has %.9g", i, theirs->sites[i],
                           (double)theirs->scale[i], (double)scale[i]);
    return 0;
}

int validate_chunk(const struct stream *s, const struct chunk_place *place, const struct message_batch *b,
                   const unsigned char *payload, size_t payload_size, struct err *e)
{
    size_t chunks = stream_chunk_count(s, place->dtype, place->n_rows), per_chunk = stream_chunk_rows(s, place->dtype);
    size_t left = place->n_rows - place->rows_taken, rows = left < per_chunk ? left : per_chunk;
    size_t bytes = rows * stream_row_bytes(s, place->dtype);
    if (b->block != place->block)
        return err_set(e, ERR_PEER, "chunk of block %u, lease is for block %u", b->block, place->block);
    if (b->chunks != chunks || b->chunk != place->chunks_taken)
        return err_set(e, ERR_PEER, "block %u: chunk %u of %u, expected %u of %zu", b->block, b->chunk, b->chunks,
                       place->chunks_taken, chunks);
    if (b->rows != rows || payload_size != bytes)
        return err_set(e, ERR_PEER, "block %u chunk %u: %u rows in %zu bytes, expected %zu in %zu", b->block, b->chunk,
                       b->rows, payload_size, rows, bytes);
    uint64_t checksum = fingerprint_checksum(payload, payload_size, b->origins, rows * sizeof *b->origins);
    if (checksum != b->checksum)
        return err_set(e, ERR_PEER, "block %u chunk %u: checksum %016llx, payload has %016llx", b->block, b->chunk,
                       (unsigned long long)b->checksum, (unsigned long long)checksum);
    for (size_t i = 0; i < rows; i++) {
        struct row_origin o = b->origins[i];
        size_t row = place->rows_taken + i;
        size_t sequence = place->first_sequence + row / s->rows_per_seq;
        size_t position = s->seq_len - s->rows_per_seq + row % s->rows_per_seq;
        if (o.sequence != sequence || o.position != position)
            return err_set(e, ERR_PEER, "block %u row %zu: is sequence %u position %u, expected %zu and %zu", b->block,
                           row, o.sequence, o.position, sequence, position);
    }
    if (row_bound_check(s, payload, b->origins, rows, place->dtype, place->max_abs, e))
        return err_prefix(e, "block %u chunk %u", b->block, b->chunk);
    return 0;
}
