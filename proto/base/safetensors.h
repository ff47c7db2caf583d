/* safetensors.h - the safetensors file format, read by memory map and written atomically.
 *
 * Format (github.com/huggingface/safetensors, "Format"): u64 little-endian header length N, N bytes of JSON
 * {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..., "__metadata__": {string: string}},
 * then the data. Refused at open, each with the file, the tensor and both values: a header longer than the file or 100
 * MB, bad JSON, offsets outside the data or not equal to shape x dtype, overlapping or gappy tensors. A tensor of a
 * dtype that is not listed here (F8_E4M3, ...) may lie in the file, as real checkpoints carry such; it is refused when
 * asked for. */
#ifndef CROSSFEED_SAFETENSORS_H
#define CROSSFEED_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "file.h"

enum tensor_dtype {
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_F64,
    TENSOR_I64,
    TENSOR_I32,
    TENSOR_I16,
    TENSOR_I8,
    TENSOR_U64,
    TENSOR_U32,
    TENSOR_U16,
    TENSOR_U8,
    TENSOR_BOOL,
    TENSOR_OTHER, /* anything else; its size is not checked against its shape */
};
#define TENSOR_MAX_DIMS 8

/* Returns the bytes of an element; 0 for TENSOR_OTHER. */
size_t tensor_dtype_size(enum tensor_dtype dtype);
/* Returns the name as the format spells it: "F32", ... */
const char *tensor_dtype_name(enum tensor_dtype dtype);

struct tensor_view {
    const char *name; /* valid as long as the file is open */
    enum tensor_dtype dtype;
    const char *dtype_name; /* as the file spells it */
    size_t n_dims;
    size_t shape[TENSOR_MAX_DIMS];
    const unsigned char *data; /* into the map; NOT necessarily aligned: memcpy or unaligned loads */
    size_t bytes;
};

struct safetensors {
    struct file_map map;
    char path[4096];
    struct tensor_view *tensors; /* sorted by name */
    size_t n_tensors;
    void *root;     /* the header, a jansson object; owns all names */
    void *metadata; /* its "__metadata__" (an object of strings), or NULL */
};

/* Maps the file and checks its whole header. */
int safetensors_open(struct safetensors *s, const char *path, struct err *e);
/* Unmaps it; safe on a zeroed struct. */
void safetensors_close(struct safetensors *s);

/* Returns the tensor of that name, or NULL. */
const struct tensor_view *safetensors_find(const struct safetensors *s, const char *name);
/* Returns the metadata of that key, valid as long as the file is open, or NULL. */
const char *safetensors_metadata(const struct safetensors *s, const char *key);

/* Whether the file is sound, and has a tensor of that name. */
bool safetensors_file_has(const char *path, const char *name);

/* Refuses a tensor of another shape, naming both; its dtype does not matter. */
int tensor_expect_shape(const struct safetensors *s, const struct tensor_view *t, size_t n_dims, const size_t *shape,
                        struct err *e);
/* Returns the tensor of that name and shape; NULL with e filled if there is none, or its shape is another. */
const struct tensor_view *safetensors_require(const struct safetensors *s, const char *name, size_t n_dims,
                                              const size_t *shape, struct err *e);
/* Converts F32/F16/BF16 (F64 rounded) to float32, n = product of the shape. Refuses other dtypes. NaN/Inf are refused
 * with the tensor's name and the flat index. */
int tensor_to_f32(const struct safetensors *s, const struct tensor_view *t, float *dst, struct err *e);

/* Writing: declare all tensors, then stream their bytes in the order declared, then commit. */
struct tensor_spec {
    const char *name;
    enum tensor_dtype dtype;
    size_t n_dims;
    size_t shape[TENSOR_MAX_DIMS];
};

struct safetensors_writer {
    struct file_out out;
    size_t expected, written; /* data bytes */
};

/* Opens the output and writes the header. metadata: n_metadata pairs key, value (2 * n_metadata strings), may be NULL.
 * Data starts 8-byte aligned (header padded with spaces). After any failure below, call safetensors_write_abandon. */
int safetensors_write_begin(struct safetensors_writer *w, const char *path, const struct tensor_spec *tensors,
                            size_t n_tensors, const char *const *metadata, size_t n_metadata, struct err *e);
/* Writes the next bytes of the tensors; pieces need not be whole tensors. Refuses more than was declared. */
int safetensors_write_data(struct safetensors_writer *w, const void *data, size_t bytes, struct err *e);
/* Gives the file its name (file.h). Refuses if fewer bytes were written than declared. */
int safetensors_write_commit(struct safetensors_writer *w, struct err *e);
/* Removes what was written; safe on a zeroed struct and after commit. */
void safetensors_write_abandon(struct safetensors_writer *w);

#endif
