/* recording.h - activations on disk: shards of safetensors and a manifest, complete or not there at all.
 *
 *   DIR/manifest.json                what is recorded: stream (sites, geometry, fingerprints), dtype, scale, sequences a
 *                                    shard, XXH3-128 of each finished shard, and one of the manifest itself
 *   DIR/shard_00000017.safetensors   sequences 17 * shard_seqs onwards: acts [rows, n_sites, d_model] (BF16 or F32,
 *                                    scaled), tokens [rows] I32, positions [rows] I32, sequence [rows] I64;
 *                                    chunk_checksums I64: of the chunks that the shard is sent in as one block
 *                                    (PROTOCOL.md), so that a replay need not read what it sends, and what is read
 *                                    otherwise is verified in pieces
 *
 * Each shard is written to a temporary name, synced and renamed, then named in the manifest (itself replaced atomically,
 * at once while that costs little, else now and then). A kill at any moment leaves a recording that can be continued, or
 * replayed as far as it goes: a shard that the manifest does not name is not there. One process writes at a time: the
 * folder is locked (flock). */
#ifndef CROSSFEED_RECORDING_H
#define CROSSFEED_RECORDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "rows.h"
#include "stream.h"

#define RECORDING_MAX_SHARDS ((uint32_t)1 << 20) /* so that the manifest stays readable in one piece */
#define RECORDING_MAX_OPEN 64                    /* shards mapped at a time */

struct recording {
    char folder[4096];
    struct stream stream; /* has_scale, scale: of the rows */
    enum row_dtype dtype;
    uint32_t shard_seqs, n_shards;       /* n_shards: of a whole recording */
    char (*checksums)[FINGERPRINT_SIZE]; /* [n_shards]; "" = not recorded */
    uint32_t n_recorded;
    struct recording_shard *open; /* [RECORDING_MAX_OPEN] maps, the one longest unused replaced (reading) */
    struct row_origin *origins;   /* [rows of a chunk], while one is verified */
    uint64_t uses;
    bool sealed;           /* its manifest has a checksum of itself: not those of older recordings */
    bool writing, unnamed; /* unnamed: shards are finished that the manifest does not name yet */
    int lock;              /* the folder, locked; if writing */
    double next_manifest;  /* seconds of clock_s */
};

/* Starts a recording in folder (made if missing). stream->scale must be set. Refuses a folder that holds one already,
 * or in which another process is recording. */
int recording_create(struct recording *r, const char *folder, const struct stream *stream, enum row_dtype dtype,
                     uint32_t shard_seqs, struct err *e);

/* Opens a recording for reading. */
int recording_open(struct recording *r, const char *folder, struct err *e);
/* Opens a recording to go on with it: locks it and removes what an interrupted writer left half-written. */
int recording_continue(struct recording *r, const char *folder, struct err *e);
/* Closes a recording; a writer calls recording_flush first. Safe on a zeroed struct. */
void recording_close(struct recording *r);

/* Return a shard's first sequence, its number of sequences, whether it is recorded, and its bytes on disk without the
 * header. */
uint32_t recording_shard_first(const struct recording *r, uint32_t shard);
uint32_t recording_shard_count(const struct recording *r, uint32_t shard);
bool recording_has(const struct recording *r, uint32_t shard);
size_t recording_shard_bytes(const struct recording *r, uint32_t shard);

/* Writes one shard from the rows of exactly its sequences, of the recording's dtype, scaled. */
int recording_write(struct recording *r, uint32_t shard, struct rows *rows, struct err *e);
/* Writes the manifest, if there are finished shards that it does not name yet. */
int recording_flush(struct recording *r, struct err *e);

/* Finds the rows of sequences first .. first + n - 1, up to the end of first's shard: acts [n * rows_per_seq,
 * n_sites, d_model] in the map, valid until RECORDING_MAX_OPEN - 1 other shards have been read; origins likewise as
 * three tensors' data. Checks the shard's layout when it opens it. ERR_ABSENT naming the sequences if they are not
 * recorded. */
struct recording_rows {
    const unsigned char *acts;
    const unsigned char *tokens, *positions, *sequence; /* I32, I32, I64; unaligned */
    const unsigned char *checksums; /* of the chunks that these rows are sent in as a block, u64; NULL: not known */
    uint32_t n;                     /* sequences, at most what was asked for */
};
int recording_read(struct recording *r, uint32_t first, uint32_t n, struct recording_rows *rows, struct err *e);

/* Compares the rows of sequences first .. first + n - 1, which recording_read gave, with the checksums of the chunks in which they lie, each chunk
 * once while its shard is mapped: ERR_DAMAGED. Not needed for who sends a whole shard with the checksums of its chunks: they are compared
 * where it arrives. */
int recording_verify_rows(struct recording *r, uint32_t first, uint32_t n, struct err *e);

/* Returns where the i-th of such rows comes from. */
struct row_origin recording_origin(const struct recording_rows *rows, size_t i);

/* Compares a recorded shard with its checksum: ERR_INPUT if they differ. */
int recording_verify_shard(const struct recording *r, uint32_t shard, struct err *e);

#endif
