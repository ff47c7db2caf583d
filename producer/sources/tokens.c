/* tokens.c - reads, checks and fingerprints the token tensor; see tokens.h. */
#include "tokens.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

enum { PIECE = 1024 }; /* tokens that are loaded at a time, to the stack */

static bool is_unsigned(enum npy_dtype dtype)
{
    return dtype == NPY_U8 || dtype == NPY_U16 || dtype == NPY_U32 || dtype == NPY_U64;
}

/* Checks every id against the vocabulary and takes the fingerprint, in one pass. */
static int check_ids(struct tokens *t, uint32_t vocab_size, struct err *e)
{
    struct fingerprint f;
    uint64_t ids[PIECE];
    uint32_t out[PIECE], sizes[2] = {t->n_seq, t->seq_len};
    int rc = fingerprint_init(&f, e);
    if (rc)
        return rc;
    fingerprint_add(&f, sizes, sizeof sizes);
    for (size_t s = 0; !rc && s < t->n_seq; s++)
        for (size_t p = 0; !rc && p < t->seq_len; p += PIECE) {
            size_t n = t->seq_len - p < PIECE ? t->seq_len - p : PIECE;
            npy_integers(&t->file, s * t->file.shape[1] + p, n, ids);
            for (size_t i = 0; !rc && i < n; i++) {
                out[i] = (uint32_t)ids[i];
                if (ids[i] < vocab_size)
                    continue;
                rc = err_set(e, ERR_INPUT,
                             "%s: sequence %zu, position %zu: token id %s%" PRIu64 ", the vocabulary has %" PRIu32,
                             t->file.path, s, p + i, !is_unsigned(t->file.dtype) && ids[i] >> 63 ? "-" : "",
                             !is_unsigned(t->file.dtype) && ids[i] >> 63 ? 0 - ids[i] : ids[i], vocab_size);
            }
            fingerprint_add(&f, out, n * sizeof *out);
        }
    fingerprint_finish(&f, t->fingerprint);
    return rc;
}

int tokens_open(struct tokens *t, const char *path, uint32_t seq_len, uint32_t vocab_size, struct err *e)
{
    *t = (struct tokens){0};
    int rc = npy_open(&t->file, path, e);
    if (rc)
        return rc;
    const struct npy *f = &t->file;
    if (!npy_is_integer(f->dtype))
        rc = err_set(e, ERR_INPUT, "%s: tokens are %s, expected integers (uint16, int32, int64)", path,
                     npy_dtype_name(f->dtype));
    else if (f->n_dims != 2)
        rc = err_set(e, ERR_INPUT, "%s: %zu dimensions, expected 2: [n_seq, seq_len]", path, f->n_dims);
    else if (f->shape[0] == 0 || f->shape[0] > UINT32_MAX || f->shape[1] == 0 || f->shape[1] > UINT32_MAX)
        rc = err_set(e, ERR_INPUT, "%s: %zu sequences of %zu tokens, each must be 1 to %" PRIu32, path, f->shape[0],
                     f->shape[1], UINT32_MAX);
    else if (seq_len > f->shape[1])
        rc = err_set(e, ERR_INPUT, "%s: sequences of %" PRIu32 " tokens wanted, the file has %zu", path, seq_len,
                     f->shape[1]);
    if (!rc) {
        t->n_seq = (uint32_t)f->shape[0];
        t->seq_len = seq_len ? seq_len : (uint32_t)f->shape[1];
        rc = check_ids(t, vocab_size, e);
    }
    if (rc)
        tokens_close(t);
    return rc;
}

int tokens_open_lengths(struct tokens *t, const char *path, struct err *e)
{
    const struct lengths_of of = {t->file.path, t->n_seq, t->seq_len, t->file.shape[1], t->fingerprint};
    return lengths_open(&t->lengths, path, &of, e);
}

uint32_t tokens_length(const struct tokens *t, uint32_t sequence)
{
    return t->lengths.file.data ? lengths_get(&t->lengths, sequence) : t->seq_len;
}

void tokens_close(struct tokens *t)
{
    npy_close(&t->file);
    lengths_close(&t->lengths);
    *t = (struct tokens){0};
}

void tokens_get(const struct tokens *t, uint32_t sequence, uint32_t *dst)
{
    assert(sequence < t->n_seq);
    uint64_t ids[PIECE];
    for (size_t p = 0; p < t->seq_len; p += PIECE) {
        size_t n = t->seq_len - p < PIECE ? t->seq_len - p : PIECE;
        npy_integers(&t->file, sequence * t->file.shape[1] + p, n, ids);
        for (size_t i = 0; i < n; i++)
            dst[p + i] = (uint32_t)ids[i];
    }
}
