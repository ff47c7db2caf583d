/* lengths.c - see lengths.h. */
#include "lengths.h"

#include <inttypes.h>
#include <stdio.h>

static int check(const struct npy *file, const struct lengths_of *of, struct err *e)
{
    if (file->n_dims != 1 || file->shape[0] != of->n_seq)
        return err_set(e, ERR_MISMATCH, "%s: %zu lengths in %zu dimensions, %s has %" PRIu32 " sequences", file->path,
                       file->n_dims ? file->shape[0] : 0, file->n_dims, of->path, of->n_seq);
    if (!npy_is_integer(file->dtype))
        return err_set(e, ERR_INPUT, "%s: lengths are %s, expected integers", file->path, npy_dtype_name(file->dtype));
    return 0;
}

/* Checks each length, and makes all of them part of the fingerprint. */
static int check_each(const struct npy *file, const struct lengths_of *of, struct err *e)
{
    struct fingerprint f;
    int rc = fingerprint_init(&f, e);
    if (rc)
        return rc;
    fingerprint_add_text(&f, of->fingerprint);
    for (uint32_t s = 0; s < of->n_seq && rc == 0; s++) {
        uint64_t length;
        npy_integers(file, s, 1, &length);
        if (length > of->in_file)
            rc =
                err_set(e, ERR_INPUT, "%s: length of sequence %" PRIu32 " is %" PRId64 ", the sequences of %s have %zu",
                        file->path, s, (int64_t)length, of->path, of->in_file);
        uint32_t used = length < of->seq_len ? (uint32_t)length : of->seq_len;
        fingerprint_add(&f, &used, sizeof used);
    }
    fingerprint_finish(&f, of->fingerprint);
    return rc;
}

int lengths_open(struct lengths *l, const char *path, const struct lengths_of *of, struct err *e)
{
    *l = (struct lengths){.seq_len = of->seq_len};
    int rc = npy_open(&l->file, path, e);
    if (rc == 0)
        rc = check(&l->file, of, e);
    if (rc == 0)
        rc = check_each(&l->file, of, e);
    if (rc)
        lengths_close(l);
    return rc;
}

uint32_t lengths_get(const struct lengths *l, uint32_t sequence)
{
    uint64_t length = l->seq_len;
    if (l->file.data)
        npy_integers(&l->file, sequence, 1, &length);
    return length < l->seq_len ? (uint32_t)length : l->seq_len;
}

void lengths_close(struct lengths *l)
{
    npy_close(&l->file);
    *l = (struct lengths){0};
}
