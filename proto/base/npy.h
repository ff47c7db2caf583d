/* npy.h - NumPy's .npy files (format 1.0 to 3.0, numpy/lib/format.py), memory-mapped, C order only.
 *
 * Refused: wrong magic or version, a header that is not the dict of descr/fortran_order/shape, Fortran order,
 * big-endian or object dtypes, and a file whose size is not header + product(shape) * itemsize (both numbers named). */
#ifndef CROSSFEED_NPY_H
#define CROSSFEED_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "file.h"

enum npy_dtype { NPY_U8, NPY_U16, NPY_I16, NPY_U32, NPY_I32, NPY_U64, NPY_I64, NPY_F16, NPY_F32, NPY_F64 };
#define NPY_MAX_DIMS 8

struct npy {
    struct file_map map;
    char path[4096];
    enum npy_dtype dtype;
    size_t n_dims;
    size_t shape[NPY_MAX_DIMS];
    const unsigned char *data; /* into the map; may be unaligned */
    size_t item_size;          /* bytes */
};

/* Maps the file and parses its header. */
int npy_open(struct npy *n, const char *path, struct err *e);
/* Unmaps it; safe on a zeroed struct. */
void npy_close(struct npy *n);
/* Returns NumPy's name of it: "uint16", ... */
const char *npy_dtype_name(enum npy_dtype dtype);
bool npy_is_integer(enum npy_dtype dtype);
/* Copies the elements [first, first + n) of an integer array, counted in C order, to dst [n], sign-extended: a negative
 * number becomes a huge one. Several threads may do so at once. */
void npy_integers(const struct npy *file, size_t first, size_t n, uint64_t *dst);

/* Writes to path [size] where the lengths of the sequences in a token tensor are looked for: its name with .lengths.npy in
 * the place of .npy. Refuses a name that does not fit. */
int npy_lengths_path(char *path, size_t size, const char *tokens, struct err *e);

#endif
