/* npy.c - the .npy header, parsed by a bounded cursor; see npy.h for what is refused.
 *
 * The header is a Python dict literal. Only what NumPy writes is understood: string keys, a string, True or False, and
 * a tuple of integers; keys in any order, each once. */
#include "npy.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "file_format.h"
#include "mem.h"

#define HEADER_MAX 65536 /* NumPy itself refuses more than 10 000 by default */

static const struct {
    const char *descr, *name;
    size_t size; /* bytes */
} dtypes[] = {
    [NPY_U8] = {"|u1", "uint8", 1},    [NPY_U16] = {"<u2", "uint16", 2},  [NPY_I16] = {"<i2", "int16", 2},
    [NPY_U32] = {"<u4", "uint32", 4},  [NPY_I32] = {"<i4", "int32", 4},   [NPY_U64] = {"<u8", "uint64", 8},
    [NPY_I64] = {"<i8", "int64", 8},   [NPY_F16] = {"<f2", "float16", 2}, [NPY_F32] = {"<f4", "float32", 4},
    [NPY_F64] = {"<f8", "float64", 8},
};

const char *npy_dtype_name(enum npy_dtype dtype)
{
    return dtypes[dtype].name;
}

struct cursor {
    const char *at, *end;
};

static void skip_space(struct cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

/* Takes `text` if it comes next, after white space; whether it did. */
static bool take(struct cursor *c, const char *text)
{
    skip_space(c);
    size_t n = strlen(text);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, text, n) != 0)
        return false;
    c->at += n;
    return true;
}

/* Takes a quoted string without escapes to dst [size]. */
static bool take_string(struct cursor *c, char *dst, size_t size)
{
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
        return false;
    char quote = *c->at++;
    size_t n = 0;
    for (; c->at < c->end && *c->at != quote; c->at++) {
        if (n + 1 == size || *c->at == '\\' || *c->at < ' ')
            return false;
        dst[n++] = *c->at;
    }
    dst[n] = '\0';
    return c->at < c->end && *c->at++ == quote;
}

/* Takes a whole number. */
static bool take_size(struct cursor *c, size_t *out)
{
    skip_space(c);
    const char *first = c->at;
    for (*out = 0; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++)
        if (!size_mul(*out, 10, out) || __builtin_add_overflow(*out, (size_t)(*c->at - '0'), out))
            return false;
    return c->at > first;
}

/* Takes a tuple of sizes: (), (3,), (3, 4), (3, 4,); a tuple of one needs its comma. */
static bool take_shape(struct cursor *c, struct npy *n)
{
    if (!take(c, "("))
        return false;
    bool comma = true;
    n->n_dims = 0;
    while (!take(c, ")")) {
        if (!comma || n->n_dims == NPY_MAX_DIMS || !take_size(c, &n->shape[n->n_dims]))
            return false;
        n->n_dims++;
        comma = take(c, ",");
    }
    return comma || n->n_dims > 1;
}

static int bad_header(const struct npy *n, const struct cursor *c, const char *start, const char *what, struct err *e)
{
    return err_set(e, ERR_INPUT, "%s: header, byte %zu: %s", n->path, (size_t)(c->at - start), what);
}

static int parse_dict(struct npy *n, struct cursor c, struct err *e)
{
    enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
    unsigned seen = 0;
    const char *start = c.at;
    char key[32], descr[32] = "";
    bool fortran = false;
    if (!take(&c, "{"))
        return bad_header(n, &c, start, "expected '{'", e);
    for (bool comma = true; !take(&c, "}"); comma = take(&c, ",")) {
        if (!comma || !take_string(&c, key, sizeof key) || !take(&c, ":"))
            return bad_header(n, &c, start, "expected a key and ':', or '}'", e);
        unsigned which = strcmp(key, "descr") == 0           ? DESCR
                         : strcmp(key, "fortran_order") == 0 ? ORDER
                         : strcmp(key, "shape") == 0         ? SHAPE
                                                             : 0;
        if (!which || (seen & which))
            return err_set(e, ERR_INPUT, "%s: header: key '%s' %s", n->path, key, which ? "twice" : "is not known");
        seen |= which;
        if (which == DESCR && !take_string(&c, descr, sizeof descr))
            return bad_header(n, &c, start, "descr is not a plain dtype such as '<i4'", e);
        if (which == ORDER && !(fortran = take(&c, "True")) && !take(&c, "False"))
            return bad_header(n, &c, start, "fortran_order is neither True nor False", e);
        if (which == SHAPE && !take_shape(&c, n))
            return bad_header(n, &c, start, "shape is not a tuple of at most 8 sizes", e);
    }
    skip_space(&c);
    if (c.at != c.end)
        return bad_header(n, &c, start, "something after the dict", e);
    if (seen != (DESCR | ORDER | SHAPE))
        return err_set(e, ERR_INPUT, "%s: header lacks %s", n->path,
                       !(seen & DESCR)   ? "descr"
                       : !(seen & ORDER) ? "fortran_order"
                                         : "shape");
    if (fortran)
        return err_set(e, ERR_INPUT, "%s: Fortran order, expected C order (numpy.ascontiguousarray)", n->path);
    size_t i = 0, n_dtypes = sizeof dtypes / sizeof *dtypes;
    while (i < n_dtypes && strcmp(descr, dtypes[i].descr) != 0)
        i++;
    if (i == n_dtypes)
        return err_set(e, ERR_INPUT, "%s: dtype '%s'%s, expected little-endian integers or floats", n->path, descr,
                       descr[0] == '>' ? " (big-endian)" : "");
    n->dtype = (enum npy_dtype)i;
    n->item_size = dtypes[i].size;
    return 0;
}

static int parse(struct npy *n, struct err *e)
{
    const unsigned char *p = n->map.data;
    size_t size = n->map.size;
    if (size < 10 || memcmp(p, "\x93NUMPY", 6) != 0) {
        const char *format = file_format(p, size);
        if (format)
            return err_set(e, ERR_INPUT, "%s: not a .npy file but %s", n->path, format);
        return err_set(e, ERR_INPUT, "%s: not a .npy file (%zu bytes, no \\x93NUMPY at its start)", n->path, size);
    }
    if (p[6] < 1 || p[6] > 3 || p[7] != 0)
        return err_set(e, ERR_INPUT, "%s: .npy version %d.%d, expected 1.0, 2.0 or 3.0", n->path, p[6], p[7]);
    size_t start = p[6] == 1 ? 10 : 12;
    if (size < start)
        return err_set(e, ERR_INPUT, "%s: %zu bytes, the header needs more", n->path, size);
    size_t header = (size_t)p[8] | (size_t)p[9] << 8;
    if (p[6] > 1)
        header |= (size_t)p[10] << 16 | (size_t)p[11] << 24;
    if (header > HEADER_MAX || header > size - start)
        return err_set(e, ERR_INPUT, "%s: header of %zu bytes, at most %d and the %zu that follow", n->path, header,
                       HEADER_MAX, size - start);
    struct cursor c = {(const char *)p + start, (const char *)p + start + header};
    int rc = parse_dict(n, c, e);
    if (rc)
        return rc;
    size_t bytes;
    if (!size_product(n->shape, n->n_dims, &bytes) || !size_mul(bytes, n->item_size, &bytes))
        return err_set(e, ERR_INPUT, "%s: its shape overflows a size", n->path);
    if (bytes != size - start - header)
        return err_set(e, ERR_INPUT, "%s: shape and %s take %zu bytes of data, the file has %zu", n->path,
                       npy_dtype_name(n->dtype), bytes, size - start - header);
    n->data = p + start + header;
    return 0;
}

int npy_open(struct npy *n, const char *path, struct err *e)
{
    *n = (struct npy){0};
    if (strlen(path) >= sizeof n->path)
        return err_set(e, ERR_INPUT, "%.80s...: path of %zu bytes, at most %zu", path, strlen(path),
                       sizeof n->path - 1);
    strcpy(n->path, path);
    int rc = file_map(&n->map, path, e);
    if (!rc)
        rc = parse(n, e);
    if (rc)
        npy_close(n);
    return rc;
}

void npy_close(struct npy *n)
{
    file_unmap(&n->map);
    *n = (struct npy){0};
}

bool npy_is_integer(enum npy_dtype dtype)
{
    return dtype != NPY_F16 && dtype != NPY_F32 && dtype != NPY_F64;
}

void npy_integers(const struct npy *file, size_t first, size_t n, uint64_t *dst)
{
    const unsigned char *src = file->data + first * file->item_size;
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

int npy_lengths_path(char *path, size_t size, const char *tokens, struct err *e)
{
    size_t n = strlen(tokens);
    if (n >= 4 && strcmp(tokens + n - 4, ".npy") == 0)
        n -= 4;
    if ((size_t)snprintf(path, size, "%.*s.lengths.npy", (int)n, tokens) >= size)
        return err_set(e, ERR_INPUT, "%.80s...: path of %zu bytes, with .lengths.npy at most %zu", tokens, n, size - 1);
    return 0;
}
