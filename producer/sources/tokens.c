/* tokens.c - reads, checks and fingerprints the token tensor; see tokens.h. */
#include "tokens.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

/* Loads the elements [i, i + n), sign-extended: a negative id becomes a huge one, beyond any vocabulary. */
static void load(const struct npy *file, size_t i, size_t n, uint64_t *dst)
{
    const unsigned char *src = file->data + i * file->item_size;
    for (size_t j = 0; j < n; j++) {
        uint64_t u64 = 0;
        uint32_t u32 = 0;
        uint16_t u16 = 0;
        switch (file->dtype) {
        case NPY_U8:
            dst[j] = src[j];
            break;
        case NPY_U16:
            memcpy(&u16, src + 2 * j, 2);
            dst[j] = u16;
            break;
        case NPY_I16:
            memcpy(&u16, src + 2 * j, 2);
            dst[j] = (uint64_t)(int64_t)(int16_t)u16;
            break;
        case NPY_U32:
            memcpy(&u32, src + 4 * j, 4);
            dst[j] = u32;
            break;
        case NPY_I32:
            memcpy(&u32, src + 4 * j, 4);
            dst[j] = (uint64_t)(int64_t)(int32_t)u32;
            break;
        default:
            memcpy(&u64, src + 8 * j, 8);
            dst[j] = u64;
            break;
        }
    }
}

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
            load(&t->file, s * t->file.shape[1] + p, n, ids);
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
    if (f->dtype == NPY_F16 || f->dtype == NPY_F32 || f->dtype == NPY_F64)
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
    struct npy *l = &t->lengths;
    struct fingerprint f;
    if (npy_open(l, path, e))
        return e->code;
    int rc = 0;
    if (l->n_dims != 1 || l->shape[0] != t->n_seq)
        rc = err_set(e, ERR_MISMATCH, "%s: %zu lengths in %zu dimensions, %s has %" PRIu32 " sequences", path,
                     l->n_dims ? l->shape[0] : 0, l->n_dims, t->file.path, t->n_seq);
    else if (l->dtype == NPY_F16 || l->dtype == NPY_F32 || l->dtype == NPY_F64)
        rc = err_set(e, ERR_INPUT, "%s: lengths are %s, expected integers", path, npy_dtype_name(l->dtype));
    if (rc == 0)
        rc = fingerprint_init(&f, e);
    if (rc == 0) {
        fingerprint_add_text(&f, t->fingerprint);
        for (uint32_t s = 0; s < t->n_seq && rc == 0; s++) {
            uint64_t length;
            load(l, s, 1, &length);
            if (length > t->file.shape[1])
                rc = err_set(e, ERR_INPUT,
                             "%s: length of sequence %" PRIu32 " is %" PRId64 ", the sequences have %zu tokens", path,
                             s, (int64_t)length, t->file.shape[1]);
            uint32_t used = length < t->seq_len ? (uint32_t)length : t->seq_len;
            fingerprint_add(&f, &used, sizeof used);
        }
        fingerprint_finish(&f, t->fingerprint);
    }
    if (rc)
        npy_close(l);
    return rc;
}

uint32_t tokens_length(const struct tokens *t, uint32_t sequence)
{
    uint64_t length = t->seq_len;
    if (t->lengths.data)
        load(&t->lengths, sequence, 1, &length);
    return length < t->seq_len ? (uint32_t)length : t->seq_len;
}

void tokens_close(struct tokens *t)
{
    npy_close(&t->file);
    npy_close(&t->lengths);
    *t = (struct tokens){0};
}

void tokens_get(const struct tokens *t, uint32_t sequence, uint32_t *dst)
{
    assert(sequence < t->n_seq);
    uint64_t ids[PIECE];
    for (size_t p = 0; p < t->seq_len; p += PIECE) {
        size_t n = t->seq_len - p < PIECE ? t->seq_len - p : PIECE;
        load(&t->file, sequence * t->file.shape[1] + p, n, ids);
        for (size_t i = 0; i < n; i++)
            dst[p + i] = (uint32_t)ids[i];
    }
}
