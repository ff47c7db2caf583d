/* decode.c - looks each id up and writes its bytes; see decode.h. */
#include "decode.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "npy.h"
#include "utf8.h"

/* Returns element i; a negative one becomes huge, beyond any vocabulary. */
static uint64_t load(const struct npy *n, size_t i)
{
    const unsigned char *p = n->data + i * n->item_size;
    int16_t i16;
    int32_t i32;
    uint64_t u64 = 0;
    memcpy(&u64, p, n->item_size); /* little-endian */
    switch (n->dtype) {
    case NPY_I16:
        memcpy(&i16, p, sizeof i16);
        return (uint64_t)i16;
    case NPY_I32:
        memcpy(&i32, p, sizeof i32);
        return (uint64_t)i32;
    default:
        return u64;
    }
}

static int put(FILE *out, struct utf8 *utf8, const char *bytes, size_t n, struct err *e)
{
    char text[UTF8_CLEAN_MAX(1024)];
    while (n) {
        size_t m = n < 1024 ? n : 1024, written = utf8_clean(utf8, bytes, m, text);
        if (fwrite(text, 1, written, out) != written)
            return err_errno(e, errno, "cannot write the text");
        bytes += m;
        n -= m;
    }
    return 0;
}

static int finish(FILE *out, struct utf8 *utf8, const char *end, struct err *e)
{
    char text[UTF8_CLEAN_MAX(0)];
    size_t n = utf8_finish(utf8, text);
    if (fwrite(text, 1, n, out) != n || fputs(end, out) < 0)
        return err_errno(e, errno, "cannot write the text");
    return 0;
}

static int put_rows(const struct decode_options *o, const struct npy *n, size_t stop, const struct vocabulary *v,
                    FILE *out, struct err *e)
{
    struct utf8 utf8 = {0};
    for (size_t row = o->first; row < stop; row++) {
        for (size_t i = 0; i < n->shape[1]; i++) {
            uint64_t id = load(n, row * n->shape[1] + i);
            if (id >= v->n_tokens || !v->tokens[id].bytes)
                return err_set(e, ERR_INPUT,
                               "%s: row %zu, position %zu: id %" PRId64 ", the vocabulary of %zu lacks it", n->path,
                               row, i, (int64_t)id, v->n_tokens);
            const struct token *t = v->tokens + id;
            if (!(o->skip_special && t->special) && put(out, &utf8, t->bytes, t->size, e))
                return e->code;
        }
        if (o->separate && finish(out, &utf8, "\n", e))
            return e->code;
    }
    return finish(out, &utf8, "", e);
}

int decode(const struct decode_options *o, const struct vocabulary *v, FILE *out, struct err *e)
{
    struct npy n;
    int rc = npy_open(&n, o->path, e);
    if (rc)
        return rc;
    if (n.dtype == NPY_F16 || n.dtype == NPY_F32 || n.dtype == NPY_F64 || n.n_dims != 2) {
        rc = err_set(e, ERR_INPUT, "%s: %s of %zu dimensions, expected integers [n_seq, seq_len]", o->path,
                     npy_dtype_name(n.dtype), n.n_dims);
        goto out;
    }
    if (n.shape[1] == 0) { /* of those there may be 2^60 in an empty file */
        rc = err_set(e, ERR_INPUT, "%s: %zu rows of no ids", o->path, n.shape[0]);
        goto out;
    }
    size_t stop = o->stop == SIZE_MAX ? n.shape[0] : o->stop;
    if (stop > n.shape[0] || o->first > stop) {
        rc = err_set(e, ERR_INPUT, "%s: rows %zu:%zu, there are %zu", o->path, o->first, stop, n.shape[0]);
        goto out;
    }
    rc = put_rows(o, &n, stop, v, out, e);
    if (!rc && fflush(out) != 0)
        rc = err_errno(e, errno, "cannot write the text");
out:
    npy_close(&n);
    return rc;
}
