/* cache.c - one way to read recordings and imports; see cache.h. */
#include "cache.h"

#include <string.h>
#include <sys/stat.h>

#include "bf16.h"
#include "file.h"
#include "mem.h"

static bool ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n > m && strcmp(path + n - m, end) == 0;
}

int cache_open(struct cache *c, const struct import_options *o, struct err *e)
{
    struct stat st;
    *c = (struct cache){0};
    if (stat(o->files[0], &st) == 0 && S_ISDIR(st.st_mode)) {
        if (o->n_files > 1)
            return err_set(e, ERR_INPUT, "%s is a folder: a recording is looked at alone", o->files[0]);
        if (o->seq_len || o->npy_bf16)
            return err_set(e, ERR_INPUT, "%s is a recording, which says itself what --seq-len and --npy-dtype say",
                           o->files[0]);
        if (recording_open(&c->recording, o->files[0], e))
            return e->code;
        c->is_recording = true;
        c->stream = &c->recording.stream;
    } else {
        struct import_options import = *o;
        import.safetensors = ends_with(o->files[0], ".safetensors");
        for (size_t i = 0; i < o->n_files; i++)
            if (!ends_with(o->files[i], import.safetensors ? ".safetensors" : ".npy"))
                return err_set(e, ERR_INPUT, "%s: must be a recording's folder, or all files .npy or all .safetensors",
                               o->files[i]);
        if (import.safetensors && o->npy_bf16)
            return err_set(e, ERR_INPUT, "%s: --npy-dtype belongs to .npy", o->files[0]);
        if (source_import_open(&c->import, &import, e))
            return e->code;
        c->stream = &c->import.stream;
    }
    c->n_rows = stream_block_rows(c->stream, c->stream->n_seq);
    return 0;
}

void cache_close(struct cache *c)
{
    recording_close(&c->recording);
    if (c->import.close)
        c->import.close(c->import.self);
    *c = (struct cache){0};
}

/* Reads rows of a shard from row `first` on. */
static int read_recorded(struct recording *r, size_t first, size_t n, float *values, struct row_origin *origins,
                         size_t *got, size_t *skip, struct err *e)
{
    const struct stream *s = &r->stream;
    uint32_t sequence = (uint32_t)(first / s->rows_per_seq), shard = sequence / r->shard_seqs;
    size_t inside = first % s->rows_per_seq, width = (size_t)s->n_sites * s->d_model,
           row_bytes = stream_row_bytes(s, r->dtype);
    size_t shard_end = stream_block_rows(s, recording_shard_first(r, shard) + recording_shard_count(r, shard));
    struct recording_rows rows;
    if (!recording_has(r, shard)) {
        *got = 0;
        *skip = shard_end - first;
        return 0;
    }
    if (recording_read(r, sequence, 1, &rows, e))
        return e->code;
    *got = n < shard_end - first ? n : shard_end - first;
    if (recording_verify_rows(r, sequence, (uint32_t)((first + *got - 1) / s->rows_per_seq) - sequence + 1, e))
        return e->code;
    for (size_t i = 0; i < *got; i++) {
        const unsigned char *acts = rows.acts + (inside + i) * row_bytes;
        if (r->dtype == ROW_BF16)
            bf16_to_f32_n(values + i * width, acts, width);
        else
            memcpy(values + i * width, acts, row_bytes);
        origins[i] = recording_origin(&rows, inside + i);
    }
    file_map_passed(rows.acts + inside * row_bytes, *got * row_bytes);
    return 0;
}

int cache_read(struct cache *c, size_t first, size_t n, float *values, struct row_origin *origins, size_t *got,
               size_t *skip, struct err *e)
{
    const struct stream *s = c->stream;
    n = n < CACHE_PIECE_ROWS ? n : CACHE_PIECE_ROWS;
    *skip = 0;
    if (c->is_recording)
        return read_recorded(&c->recording, first, n, values, origins, got, skip, e);
    *got = n < c->n_rows - first ? n : c->n_rows - first;
    source_import_read(&c->import, first, *got, values);
    for (size_t i = 0; i < *got; i++)
        origins[i] = (struct row_origin){(uint32_t)((first + i) / s->rows_per_seq),
                                         (uint32_t)((first + i) % s->rows_per_seq), 0};
    return 0;
}
