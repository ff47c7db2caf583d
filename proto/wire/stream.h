/* stream.h - what both programs must agree on: which activations, in which geometry and layout.
 *
 * A stream is described once by a producer (HELLO), fixed by the first one that the trainer accepts, and every later
 * producer must describe the same. Words (site, row, block, scale) are those of PROTOCOL.md. */
#ifndef CROSSFEED_STREAM_H
#define CROSSFEED_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "fingerprint.h"

#define STREAM_MAX_SITES 512
#define STREAM_MAX_MODELS 8
#define SITE_NAME_SIZE 64 /* with the NUL */

/* How an activation is stored in a payload, in the window and in recordings. */
enum row_dtype { ROW_BF16, ROW_F32 };
size_t row_dtype_size(enum row_dtype dtype);      /* bytes an element */
const char *row_dtype_name(enum row_dtype dtype); /* "bf16", "fp32" */
extern const char *const row_dtype_names[];       /* in the enum's order, NULL at the end */
int row_dtype_parse(enum row_dtype *dtype, const char *name, struct err *e);

struct stream {
    uint32_t n_sites, d_model;
    uint32_t seq_len;      /* tokens a sequence */
    uint32_t rows_per_seq; /* rows a sequence: seq_len, less 1 where the BOS position is dropped */
    uint32_t n_seq;        /* sequences in the token tensor */
    uint32_t vocab_size;   /* 0 if there is no vocabulary (synthetic) */
    uint32_t n_models;
    bool can_bf16, can_f32; /* dtypes it can send */
    bool has_scale;         /* the producer's rows carry this scale already (scale below); else the trainer's is used */
    float scale[STREAM_MAX_SITES];
    char sites[STREAM_MAX_SITES]
              [SITE_NAME_SIZE]; /* "blocks.5.hook_resid_post"; of a pair: "0:blocks...", "1:blocks..."; site_parts.h */
    char tokens_fingerprint[FINGERPRINT_SIZE];
    char model_fingerprints[STREAM_MAX_MODELS][FINGERPRINT_SIZE]; /* covers how the weights were processed */
};

/* Returns 0 if `theirs` (of a producer) is the stream `ours` of the run; else ERR_MISMATCH, naming the first difference
 * and both values: "site 3: blocks.3.hook_mlp_out, run has blocks.3.hook_resid_post". Scales are not compared here. */
int stream_compare(const struct stream *ours, const struct stream *theirs, struct err *e);

/* Refuses a stream that makes no sense: nothing of it, sizes whose products do not fit, names that are not plain ASCII or there twice, sites
 * of models that do not exist. Names say of which model they are if there are two models or more, and only then. */
int stream_check(const struct stream *s, struct err *e);

/* Returns 0 if the sites pair across two models: the first half of them are model 0's, the second half model 1's at the
 * same hook points in the same order. Else ERR_INPUT, naming the first site that pairs with none. */
int stream_pairs_models(const struct stream *s, struct err *e);

/* Where a row comes from; travels with the row. 12 bytes, little-endian u32s on the wire. */
struct row_origin {
    uint32_t sequence; /* index in the token tensor */
    uint32_t position; /* in the sequence, 0 = BOS */
    uint32_t token;    /* id at that position; 0 without tokens; ROW_MASKED */
};

/* The token of a row that is not to be trained on (padding): it has its place in the block, and is dropped from the
 * window, the held-out rows and the scale. */
#define ROW_MASKED UINT32_MAX

/* The payload of one chunk: activations [rows, n_sites, d_model] of the dtype; its origins stand in the header. A block
 * of n rows is cut into chunks of chunk_rows rows, the last one shorter. */
#define CHUNK_MAX_BYTES ((size_t)4 << 20) /* of a frame */
/* A chunk is as many rows as fit in this, or one row. It must arrive within the trainer's time-out, also where a
 * connection carries little: TCP Reno 0.15 MB/s at a round trip of 100 ms and 1 % loss. Loopback carries 4.2 to 5.0
 * GB/s in chunks of this size, 4.8 to 5.2 in those of 4 MB. */
#define CHUNK_BYTES ((size_t)256 << 10)
#define CHUNK_MAX_ROWS 4096 /* so that their origins fit in a header */
/* Returns the bytes of a row's activations. */
size_t stream_row_bytes(const struct stream *s, enum row_dtype dtype);
/* Returns the rows of a chunk; at least 1 after stream_check. */
size_t stream_chunk_rows(const struct stream *s, enum row_dtype dtype);
/* Returns the rows of a block of so many sequences. */
size_t stream_block_rows(const struct stream *s, uint32_t n_sequences);
/* Returns how many chunks a block of so many rows takes. */
size_t stream_chunk_count(const struct stream *s, enum row_dtype dtype, size_t rows);

#endif
