/* source_import.h - activations from somebody else's cache: .npy or safetensors files, memory-mapped.
 *
 * From .npy it reads one file [rows, n_sites, d_model] (its sites are site.0, site.1, ...), or one file [rows, d_model]
 * per site, named after its file. From safetensors it reads one tensor a hook point, [rows, d_model] or [n_seq, seq_len,
 * d_model]. Sites are stacked in the order of a live run, whatever the order of files and tensors (site_order.h). Values are F32, F16, or BF16 (in
 * .npy stored as uint16 or int16, which the user has to say). The rows are taken as they are: nothing is dropped, and
 * the scale is the run's. Masked rows are not looked at: zeros stand in their place. With a seq_len, every seq_len rows are a sequence; without, each row stands alone.
 *
 * The fingerprint covers shapes, dtypes and the data: all of it up to 64 MB a tensor, else 1024 pieces of 64 KB spread
 * evenly over it, since caches can be larger than what one wants to read before starting. */
#ifndef CROSSFEED_SOURCE_IMPORT_H
#define CROSSFEED_SOURCE_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "source.h"

struct import_options {
    const char *const *files; /* [n_files] */
    size_t n_files;
    bool safetensors;    /* else npy */
    bool npy_bf16;       /* 16-bit integers in .npy are bfloat16 */
    uint32_t seq_len;    /* rows a sequence; 0: as the tensors say ([n_seq, seq_len, d_model]), else 1 */
    const char *lengths; /* of each sequence (lengths.h), in rows: those behind them are masked; NULL: all are valid */
};

/* Opens all files. Refuses, naming both: files of different shapes, rows that are not a multiple of seq_len, other
 * dtypes, a site twice. A NaN or infinity fails the compute that meets it, with its row and site. Close with
 * s->close(s->self). */
int source_import_open(struct source *s, const struct import_options *o, struct err *e);

/* Copies the rows [first, first + n) to dst [n, n_sites, d_model] as they are, NaN and all: for programs that look at a
 * cache. s: opened by source_import_open. */
void source_import_read(const struct source *s, size_t first, size_t n, float *dst);

#endif
