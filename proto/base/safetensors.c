/* safetensors.c - reads by memory map, writes through file_out; see safetensors.h for the format and what is refused.
 *
 * The whole header is checked once, at open: after that every view lies inside the map and holds exactly its shape, so
 * readers need no bounds of their own. Numbers in the data are judged where they are used (tensor_to_f32). */
#include "safetensors.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "file_format.h"
#include "json_file.h"
#include "mem.h"

#define HEADER_MAX ((size_t)100000000) /* the limit of the reference implementation */

static const struct {
    const char *name;
    size_t size; /* bytes an element */
} dtypes[] = {
    [TENSOR_F32] = {"F32", 4},   [TENSOR_F16] = {"F16", 2},     [TENSOR_BF16] = {"BF16", 2}, [TENSOR_F64] = {"F64", 8},
    [TENSOR_I64] = {"I64", 8},   [TENSOR_I32] = {"I32", 4},     [TENSOR_I16] = {"I16", 2},   [TENSOR_I8] = {"I8", 1},
    [TENSOR_U64] = {"U64", 8},   [TENSOR_U32] = {"U32", 4},     [TENSOR_U16] = {"U16", 2},   [TENSOR_U8] = {"U8", 1},
    [TENSOR_BOOL] = {"BOOL", 1}, [TENSOR_OTHER] = {"other", 0},
};

size_t tensor_dtype_size(enum tensor_dtype dtype)
{
    return dtypes[dtype].size;
}

const char *tensor_dtype_name(enum tensor_dtype dtype)
{
    return dtypes[dtype].name;
}

static enum tensor_dtype dtype_parse(const char *name)
{
    enum tensor_dtype dtype = TENSOR_F32;
    while (dtype < TENSOR_OTHER && strcmp(dtypes[dtype].name, name) != 0)
        dtype++;
    return dtype;
}

/* Reads a JSON integer >= 0 as a size; false if it is none. */
static bool json_size(const json_t *j, size_t *out)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return false;
    *out = (size_t)json_integer_value(j);
    return true;
}

/* Writes "[3, 4]", for messages, to dst, which it returns; cut if it does not fit. */
static const char *shape_text(char *dst, size_t size, size_t n_dims, const size_t *shape)
{
    size_t used = (size_t)snprintf(dst, size, "[");
    for (size_t i = 0; i < n_dims && used < size; i++)
        used += (size_t)snprintf(dst + used, size - used, "%s%zu", i ? ", " : "", shape[i]);
    if (used < size)
        snprintf(dst + used, size - used, "]");
    return dst;
}

static int parse_tensor(struct tensor_view *t, const struct safetensors *s, const char *name, const json_t *j,
                        const unsigned char *data, size_t data_size, struct err *e)
{
    const json_t *dtype = json_object_get(j, "dtype"), *shape = json_object_get(j, "shape"),
                 *offsets = json_object_get(j, "data_offsets");
    size_t begin, end;
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !json_size(json_array_get(offsets, 0), &begin) || !json_size(json_array_get(offsets, 1), &end))
        return err_set(e, ERR_INPUT,
                       "%s: tensor %s: needs dtype (a string), shape (an array) and data_offsets (two sizes)", s->path,
                       name);
    *t = (struct tensor_view){.name = name, .dtype_name = json_string_value(dtype), .n_dims = json_array_size(shape)};
    t->dtype = dtype_parse(t->dtype_name);
    if (t->n_dims > TENSOR_MAX_DIMS)
        return err_set(e, ERR_INPUT, "%s: tensor %s: %zu dimensions, at most %d", s->path, name, t->n_dims,
                       TENSOR_MAX_DIMS);
    for (size_t i = 0; i < t->n_dims; i++)
        if (!json_size(json_array_get(shape, i), &t->shape[i]))
            return err_set(e, ERR_INPUT, "%s: tensor %s: dimension %zu of its shape is not a size", s->path, name, i);
    if (begin > end || end > data_size)
        return err_set(e, ERR_INPUT, "%s: tensor %s: data_offsets [%zu, %zu] outside the %zu bytes of data", s->path,
                       name, begin, end, data_size);
    t->data = data + begin;
    t->bytes = end - begin;
    size_t bytes;
    if (!size_product(t->shape, t->n_dims, &bytes) || !size_mul(bytes, tensor_dtype_size(t->dtype), &bytes))
        return err_set(e, ERR_INPUT, "%s: tensor %s: its shape overflows a size", s->path, name);
    if (t->dtype != TENSOR_OTHER && bytes != t->bytes) {
        char text[128];
        return err_set(e, ERR_INPUT, "%s: tensor %s: %s %s takes %zu bytes, data_offsets [%zu, %zu] hold %zu", s->path,
                       name, t->dtype_name, shape_text(text, sizeof text, t->n_dims, t->shape), bytes, begin, end,
                       t->bytes);
    }
    return 0;
}

static int by_place(const void *a, const void *b)
{
    const struct tensor_view *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* an empty tensor goes before the one that starts there */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tensor_view *)a)->name, ((const struct tensor_view *)b)->name);
}

/* Refuses tensors that do not tile the data: an overlap, a gap, something behind the last. */
static int check_tiling(struct safetensors *s, const unsigned char *data, size_t data_size, struct err *e)
{
    qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_place);
    size_t end = 0;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct tensor_view *t = &s->tensors[i];
        size_t begin = (size_t)(t->data - data);
        if (begin != end)
            return err_set(e, ERR_INPUT, "%s: tensor %s begins at byte %zu of the data, but %s%s ends at %zu (%s)",
                           s->path, t->name, begin, i ? "tensor " : "the header", i ? t[-1].name : "", end,
                           begin < end ? "they overlap" : "a gap");
        end = begin + t->bytes;
    }
    if (end != data_size)
        return err_set(e, ERR_INPUT, "%s: tensors end at byte %zu of the data, the file has %zu", s->path, end,
                       data_size);
    return 0;
}

static int parse_header(struct safetensors *s, struct err *e)
{
    uint64_t header = 0;
    if (s->map.size < 8)
        return err_set(e, ERR_INPUT, "%s: %zu bytes, too short for a safetensors file", s->path, s->map.size);
    for (int i = 7; i >= 0; i--)
        header = header << 8 | s->map.data[i];
    if (header > HEADER_MAX)
        return err_set(e, ERR_INPUT, "%s: header of %llu bytes, at most %zu (is this a safetensors file?)", s->path,
                       (unsigned long long)header, HEADER_MAX);
    if (header > s->map.size - 8)
        return err_set(e, ERR_INPUT, "%s: header of %zu bytes, but only %zu follow: the file is cut short", s->path,
                       (size_t)header, s->map.size - 8);
    json_t *root;
    int rc = json_parse((const char *)s->map.data + 8, (size_t)header, JSON_REJECT_DUPLICATES, &root, s->path, e);
    if (rc)
        return rc;
    s->root = root;
    if (!json_is_object((json_t *)s->root))
        return err_set(e, ERR_INPUT, "%s: header is JSON but not an object", s->path);

    const unsigned char *data = s->map.data + 8 + header;
    size_t data_size = s->map.size - 8 - (size_t)header;
    s->tensors = mem_alloc(json_object_size(s->root), sizeof *s->tensors, s->path, e);
    if (!s->tensors)
        return ERR_MEMORY;
    const char *name;
    json_t *value;
    json_object_foreach(s->root, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            const char *key;
            json_t *text;
            if (!json_is_object(value))
                return err_set(e, ERR_INPUT, "%s: __metadata__ is not an object", s->path);
            json_object_foreach(value, key, text)
            {
                if (!json_is_string(text))
                    return err_set(e, ERR_INPUT, "%s: __metadata__ %s is not a string", s->path, key);
            }
            s->metadata = value;
        } else {
            rc = parse_tensor(&s->tensors[s->n_tensors], s, name, value, data, data_size, e);
            if (rc)
                return rc;
            s->n_tensors++;
        }
    }
    rc = check_tiling(s, data, data_size, e);
    if (!rc)
        qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_name);
    return rc;
}

int safetensors_open(struct safetensors *s, const char *path, struct err *e)
{
    *s = (struct safetensors){0};
    int rc = 0;
    if (strlen(path) >= sizeof s->path)
        return err_set(e, ERR_INPUT, "%.80s...: path of %zu bytes, at most %zu", path, strlen(path),
                       sizeof s->path - 1);
    strcpy(s->path, path);
    rc = file_map(&s->map, path, e);
    const char *format =
        rc || (s->map.size > 8 && s->map.data[8] == '{') ? NULL : file_format(s->map.data, s->map.size);
    if (format)
        rc = err_set(e, ERR_INPUT, "%s: not a safetensors file but %s", path, format);
    if (!rc)
        rc = parse_header(s, e);
    if (rc)
        safetensors_close(s);
    return rc;
}

void safetensors_close(struct safetensors *s)
{
    mem_free(s->tensors);
    json_decref(s->root);
    file_unmap(&s->map);
    *s = (struct safetensors){0};
}

const struct tensor_view *safetensors_find(const struct safetensors *s, const char *name)
{
    struct tensor_view key = {.name = name};
    return s->n_tensors ? bsearch(&key, s->tensors, s->n_tensors, sizeof key, by_name) : NULL;
}

const char *safetensors_metadata(const struct safetensors *s, const char *key)
{
    return json_string_value(json_object_get(s->metadata, key));
}

bool safetensors_file_has(const char *path, const char *name)
{
    struct safetensors s;
    struct err e;
    if (safetensors_open(&s, path, &e))
        return false;
    bool has = safetensors_find(&s, name) != NULL;
    safetensors_close(&s);
    return has;
}

int tensor_expect_shape(const struct safetensors *s, const struct tensor_view *t, size_t n_dims, const size_t *shape,
                        struct err *e)
{
    if (t->n_dims == n_dims && (n_dims == 0 || memcmp(t->shape, shape, n_dims * sizeof *shape) == 0))
        return 0;
    char has[128], expected[128];
    return err_set(e, ERR_INPUT, "%s: tensor %s has shape %s, expected %s", s->path, t->name,
                   shape_text(has, sizeof has, t->n_dims, t->shape),
                   shape_text(expected, sizeof expected, n_dims, shape));
}

const struct tensor_view *safetensors_require(const struct safetensors *s, const char *name, size_t n_dims,
                                              const size_t *shape, struct err *e)
{
    const struct tensor_view *t = safetensors_find(s, name);
    if (!t)
        err_set(e, ERR_INPUT, "%s: no tensor %s", s->path, name);
    else if (tensor_expect_shape(s, t, n_dims, shape, e))
        t = NULL;
    return t;
}

/* Converts elements begin..end of t to float32; one loop a dtype, so that each vectorises. */
static void convert(const struct tensor_view *t, size_t begin, size_t end, float *dst)
{
    const unsigned char *src = t->data;
    if (t->dtype == TENSOR_F32) {
        memcpy(dst + begin, src + begin * 4, (end - begin) * 4);
    } else if (t->dtype == TENSOR_F64) {
        for (size_t i = begin; i < end; i++) {
            double x;
            memcpy(&x, src + i * 8, 8);
            dst[i] = (float)x; /* too large becomes Inf, which is refused */
        }
    } else {
        for (size_t i = begin; i < end; i++) {
            uint16_t h;
            memcpy(&h, src + i * 2, 2);
            dst[i] = t->dtype == TENSOR_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
        }
    }
}

/* Returns the first element of begin..end that is NaN or infinite; end if there is none. */
static size_t first_bad(const float *x, size_t begin, size_t end)
{
    unsigned bad = 0;
    for (size_t i = begin; i < end; i++)
        bad |= !(fabsf(x[i]) < INFINITY);
    if (!bad)
        return end;
    while (fabsf(x[begin]) < INFINITY)
        begin++;
    return begin;
}

int tensor_to_f32(const struct safetensors *s, const struct tensor_view *t, float *dst, struct err *e)
{
    if (t->dtype != TENSOR_F32 && t->dtype != TENSOR_F16 && t->dtype != TENSOR_BF16 && t->dtype != TENSOR_F64)
        return err_set(e, ERR_INPUT, "%s: tensor %s is %s, expected F32, F16, BF16 or F64", s->path, t->name,
                       t->dtype_name);
    size_t n = t->bytes / tensor_dtype_size(t->dtype), piece = 65536, bad = n;
#pragma omp parallel for reduction(min : bad)
    for (size_t begin = 0; begin < n; begin += piece) {
        size_t end = n - begin < piece ? n : begin + piece;
        convert(t, begin, end, dst);
        size_t found = first_bad(dst, begin, end);
        if (found < end && found < bad)
            bad = found;
    }
    if (bad < n)
        return err_set(e, ERR_INPUT, "%s: tensor %s: element %zu is %g in float32, must be finite", s->path, t->name,
                       bad, (double)dst[bad]);
    return 0;
}

/* Returns the header for the tensors, in their order; *data_size = the bytes that will follow. NULL with e filled if it
 * cannot be made. */
static json_t *build_header(const char *path, const struct tensor_spec *tensors, size_t n_tensors,
                            const char *const *metadata, size_t n_metadata, size_t *data_size, struct err *e)
{
    json_t *root = json_object(), *texts = n_metadata ? json_object() : NULL;
    bool ok = root && (!n_metadata || texts);
    for (size_t i = 0; ok && i < n_metadata; i++)
        ok = json_object_set_new(texts, metadata[2 * i], json_string(metadata[2 * i + 1])) == 0;
    if (ok && texts)
        ok = json_object_set(root, "__metadata__", texts) == 0;
    json_decref(texts);
    *data_size = 0;
    for (size_t i = 0; ok && i < n_tensors; i++) {
        const struct tensor_spec *t = &tensors[i];
        size_t bytes, end;
        if (t->n_dims > TENSOR_MAX_DIMS || t->dtype >= TENSOR_OTHER || json_object_get(root, t->name)) {
            err_set(e, ERR_INPUT, "%s: tensor %s: named twice, of more than %d dimensions, or of no known dtype", path,
                    t->name, TENSOR_MAX_DIMS);
            json_decref(root);
            return NULL;
        }
        if (!size_product(t->shape, t->n_dims, &bytes) || !size_mul(bytes, tensor_dtype_size(t->dtype), &bytes) ||
            __builtin_add_overflow(*data_size, bytes, &end) || end > INT64_MAX) {
            err_set(e, ERR_MEMORY, "%s: tensor %s: its shape overflows a size", path, t->name);
            json_decref(root);
            return NULL;
        }
        json_t *shape = json_array();
        for (size_t d = 0; d < t->n_dims; d++)
            json_array_append_new(shape, json_integer((json_int_t)t->shape[d])); /* json_text refuses if one failed */
        ok = json_object_set_new(root, t->name,
                                 json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensor_dtype_name(t->dtype), "shape", shape,
                                           "data_offsets", (json_int_t)*data_size, (json_int_t)end)) == 0;
        *data_size = end;
    }
    if (ok)
        return root;
    json_decref(root);
    if (!mem_raw_failed(path, e))
        err_set(e, ERR_INPUT, "%s: cannot build the header: a name that is not UTF-8", path);
    return NULL;
}

int safetensors_write_begin(struct safetensors_writer *w, const char *path, const struct tensor_spec *tensors,
                            size_t n_tensors, const char *const *metadata, size_t n_metadata, struct err *e)
{
    *w = (struct safetensors_writer){0};
    int rc = 0;
    char *text = NULL;
    size_t data_size;
    json_t *root = build_header(path, tensors, n_tensors, metadata, n_metadata, &data_size, e);
    if (!root)
        return e ? e->code : ERR_INPUT;
    text = json_text(root, JSON_COMPACT, path, e);
    if (!text) {
        rc = ERR_MEMORY;
        goto out;
    }
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char)((uint64_t)padded >> (8 * i));
    w->expected = data_size;
    if ((rc = file_out_open(&w->out, path, e)) || (rc = file_out_write(&w->out, prefix, 8, e)) ||
        (rc = file_out_write(&w->out, text, length, e)) ||
        (rc = file_out_write(&w->out, "       ", padded - length, e)))
        file_out_abandon(&w->out);
out:
    mem_free(text);
    json_decref(root);
    return rc;
}

int safetensors_write_data(struct safetensors_writer *w, const void *data, size_t bytes, struct err *e)
{
    if (bytes > w->expected - w->written)
        return err_set(e, ERR_INPUT, "%s: %zu bytes of tensors declared, %zu more than that given", w->out.path,
                       w->expected, bytes - (w->expected - w->written));
    int rc = file_out_write(&w->out, data, bytes, e);
    if (!rc)
        w->written += bytes;
    return rc;
}

int safetensors_write_commit(struct safetensors_writer *w, struct err *e)
{
    if (w->written != w->expected) {
        file_out_abandon(&w->out);
        return err_set(e, ERR_INPUT, "%s: %zu bytes of tensors declared, %zu written", w->out.path, w->expected,
                       w->written);
    }
    return file_out_commit(&w->out, e);
}

void safetensors_write_abandon(struct safetensors_writer *w)
{
    file_out_abandon(&w->out);
}
