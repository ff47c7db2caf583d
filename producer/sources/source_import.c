/* source_import.c - npy and safetensors caches behind the source interface; see source_import.h. */
#include "source_import.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "file.h"
#include "finite.h"
#include "lengths.h"
#include "mem.h"
#include "npy.h"
#include "safetensors.h"
#include "site_order.h"
#include "site_parts.h"

#define WHOLE_BYTES ((size_t)64 << 20)
#define PIECES 1024
#define PIECE_BYTES ((size_t)64 << 10)

enum element { ELEMENT_F32, ELEMENT_F16, ELEMENT_BF16 };

/* One site's vectors: row i is at data + i * stride. */
struct column {
    const unsigned char *data;
    size_t stride; /* bytes */
    enum element element;
};

struct import {
    struct npy *npy;                 /* [n_files] */
    struct safetensors *safetensors; /* [n_files]; one of the two is NULL */
    size_t n_files;
    struct column columns[STREAM_MAX_SITES];
    size_t n_rows;
    struct lengths lengths; /* in rows, if they are given */
    float *vector;          /* [d_model] */
    struct stream stream;
};

static size_t element_size(enum element element)
{
    return element == ELEMENT_F32 ? 4 : 2;
}

/* ---- what is in the files ---- */

/* A tensor [n_rows, n_sites, d_model] of a file of either kind; a tensor of one hook point has n_sites 1. */
struct found {
    char name[SITE_NAME_SIZE];
    const char *path;
    const unsigned char *data;
    size_t n_rows, n_sites, d_model, seq_len; /* seq_len: 0 = not said */
    enum element element;
};

/* Names what was found by the first `length` characters of name. */
static int set_name(struct found *f, const char *name, size_t length, struct err *e)
{
    if (length >= sizeof f->name)
        return err_set(e, ERR_INPUT, "%s: name %s has %zu characters, at most %zu", f->path, name, length,
                       sizeof f->name - 1);
    snprintf(f->name, sizeof f->name, "%.*s", (int)length, name);
    return 0;
}

/* Adds a tensor's sites; every tensor must have the rows and the d_model of the first. */
static int add(struct import *im, const struct found *f, struct err *e)
{
    struct stream *s = &im->stream;
    if (f->n_rows == 0 || f->n_sites == 0 || f->d_model == 0 || f->d_model > UINT32_MAX || f->seq_len > UINT32_MAX)
        return err_set(e, ERR_INPUT, "%s: %s has %zu rows of %zu sites of %zu, in sequences of %zu", f->path, f->name,
                       f->n_rows, f->n_sites, f->d_model, f->seq_len);
    if (s->n_sites && (f->n_rows != im->n_rows || f->d_model != s->d_model))
        return err_set(e, ERR_MISMATCH, "%s: %s has %zu rows of d_model %zu, the first tensor has %zu of %" PRIu32,
                       f->path, f->name, f->n_rows, f->d_model, im->n_rows, s->d_model);
    if (f->n_sites > STREAM_MAX_SITES - s->n_sites)
        return err_set(e, ERR_INPUT, "%s: %zu sites, at most %d", f->path, s->n_sites + f->n_sites, STREAM_MAX_SITES);
    if (s->seq_len && f->seq_len && f->seq_len != s->seq_len)
        return err_set(e, ERR_MISMATCH, "%s: %s has sequences of %zu, the tensors before of %" PRIu32, f->path, f->name,
                       f->seq_len, s->seq_len);
    for (size_t i = 0; i < f->n_sites; i++)
        if (f->n_sites == 1)
            memcpy(s->sites[s->n_sites], f->name, sizeof f->name);
        else
            snprintf(s->sites[i], SITE_NAME_SIZE, "site.%zu", i);
    for (size_t i = 0; i < f->n_sites; i++)
        im->columns[s->n_sites + i] = (struct column){f->data + i * f->d_model * element_size(f->element),
                                                      f->n_sites * f->d_model * element_size(f->element), f->element};
    s->n_sites += (uint32_t)f->n_sites;
    s->d_model = (uint32_t)f->d_model;
    im->n_rows = f->n_rows;
    if (f->seq_len)
        s->seq_len = (uint32_t)f->seq_len;
    return 0;
}

static const char *base_name(const char *path)
{
    assert(path); /* npy_open and safetensors_open set it */
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int look_at_npy(struct found *f, const struct npy *n, const struct import_options *o, struct err *e)
{
    *f = (struct found){.path = n->path, .data = n->data};
    const char *name = base_name(n->path);
    size_t stem = strlen(name);
    stem -= stem > 4 && strcmp(name + stem - 4, ".npy") == 0 ? 4 : 0;
    bool stacked = o->n_files == 1 && n->n_dims == 3;
    if (!stacked && n->n_dims != 2)
        return err_set(e, ERR_INPUT,
                       "%s: %zu dimensions, must be [rows, d_model] for one site or, alone, [rows, n_sites, d_model]",
                       n->path, n->n_dims);
    f->n_rows = n->shape[0];
    f->n_sites = stacked ? n->shape[1] : 1;
    f->d_model = n->shape[n->n_dims - 1];
    if (n->dtype == NPY_F32)
        f->element = ELEMENT_F32;
    else if (n->dtype == NPY_F16)
        f->element = ELEMENT_F16;
    else if (o->npy_bf16 && (n->dtype == NPY_U16 || n->dtype == NPY_I16))
        f->element = ELEMENT_BF16;
    else
        return err_set(e, ERR_INPUT, "%s: dtype %s, must be float32, float16, or 16-bit integers with --npy-dtype bf16",
                       n->path, npy_dtype_name(n->dtype));
    return set_name(f, name, stem, e);
}

static int look_at_tensor(struct found *f, const struct safetensors *file, const struct tensor_view *t, struct err *e)
{
    *f = (struct found){.path = file->path, .data = t->data, .n_sites = 1};
    if (t->n_dims != 2 && t->n_dims != 3)
        return err_set(e, ERR_INPUT, "%s: %s has %zu dimensions, must be [rows, d_model] or [n_seq, seq_len, d_model]",
                       file->path, t->name, t->n_dims);
    f->n_rows = t->n_dims == 3 ? t->shape[0] * t->shape[1] : t->shape[0];
    f->seq_len = t->n_dims == 3 ? t->shape[1] : 0;
    f->d_model = t->shape[t->n_dims - 1];
    if (t->dtype != TENSOR_F32 && t->dtype != TENSOR_F16 && t->dtype != TENSOR_BF16)
        return err_set(e, ERR_INPUT, "%s: %s is %s, must be F32, F16 or BF16", file->path, t->name, t->dtype_name);
    f->element = t->dtype == TENSOR_F32 ? ELEMENT_F32 : t->dtype == TENSOR_F16 ? ELEMENT_F16 : ELEMENT_BF16;
    return set_name(f, t->name, strlen(t->name), e);
}

static int open_files(struct import *im, const struct import_options *o, size_t *n_tensors, struct err *e)
{
    *n_tensors = 0;
    if (o->n_files == 0)
        return err_set(e, ERR_INPUT, "no file to import");
    if (o->safetensors)
        im->safetensors = mem_alloc(o->n_files, sizeof *im->safetensors, "files", e);
    else
        im->npy = mem_alloc(o->n_files, sizeof *im->npy, "files", e);
    if (!im->safetensors && !im->npy)
        return ERR_MEMORY;
    im->n_files = o->n_files;
    for (size_t i = 0; i < o->n_files; i++) {
        if (im->safetensors ? safetensors_open(&im->safetensors[i], o->files[i], e)
                            : npy_open(&im->npy[i], o->files[i], e))
            return e->code;
        *n_tensors += im->safetensors ? im->safetensors[i].n_tensors : 1;
    }
    return 0;
}

/* Fills found with the tensors of all files. */
static int look_at_files(const struct import *im, const struct import_options *o, struct found *found, struct err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < im->n_files; i++) {
        if (im->npy && look_at_npy(&found[n++], &im->npy[i], o, e))
            return e->code;
        for (size_t k = 0; im->safetensors && k < im->safetensors[i].n_tensors; k++)
            if (look_at_tensor(&found[n++], &im->safetensors[i], &im->safetensors[i].tensors[k], e))
                return e->code;
    }
    return 0;
}

/* Refuses to be told of bfloat16 where there is none. */
static int check_dtypes(const struct import_options *o, const struct found *found, size_t n, struct err *e)
{
    bool any = !o->npy_bf16;
    for (size_t i = 0; i < n; i++)
        any = any || found[i].element == ELEMENT_BF16;
    return any ? 0
               : err_set(e, ERR_INPUT, "%s: --npy-dtype bf16 is for 16-bit integers, it has none%s", found[0].path,
                         n > 1 ? ", nor has any other" : "");
}

static int by_site(const void *a, const void *b)
{
    return site_order(((const struct found *)a)->name, ((const struct found *)b)->name);
}

/* Adds all tensors of all files, in the order of sites. */
static int add_files(struct import *im, const struct import_options *o, struct err *e)
{
    size_t n;
    if (open_files(im, o, &n, e))
        return e->code;
    struct found *found = mem_alloc(n, sizeof *found, "tensor list", e);
    if (!found)
        return ERR_MEMORY;
    int rc = look_at_files(im, o, found, e);
    if (rc == 0)
        rc = check_dtypes(o, found, n, e);
    if (rc == 0)
        qsort(found, n, sizeof *found, by_site);
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (i && strcmp(found[i].name, found[i - 1].name) == 0)
            rc = err_set(e, ERR_INPUT, "site %s is in %s and in %s", found[i].name, found[i - 1].path, found[i].path);
        else
            rc = add(im, &found[i], e);
    }
    mem_free(found);
    return rc;
}

/* ---- the stream ---- */

static void fingerprint_column(struct fingerprint *f, const struct import *im, const struct column *c, uint32_t d_model)
{
    size_t width = d_model * element_size(c->element), total = im->n_rows * width;
    size_t rows_a_piece = PIECE_BYTES / width ? PIECE_BYTES / width : 1;
    fingerprint_add(f, &c->element, sizeof c->element);
    bool whole = total <= WHOLE_BYTES;
    size_t pieces = whole ? 1 : PIECES, rows = whole ? im->n_rows : rows_a_piece;
    for (size_t p = 0; p < pieces; p++) {
        size_t first = whole ? 0 : p * (im->n_rows - rows) / (pieces - 1);
        for (size_t i = first; i < first + rows && i < im->n_rows; i++)
            fingerprint_add(f, c->data + i * c->stride, width);
    }
}

/* Returns how many models the sites' names speak of. A name that says of which it is, even if all say 0, is one of two models or more. */
static uint32_t count_models(const struct stream *s)
{
    uint32_t n = 1;
    for (uint32_t i = 0; i < s->n_sites; i++) {
        struct site_parts p = site_parts(s->sites[i]);
        uint32_t greatest = p.less > p.model ? p.less : p.model;
        if (p.n_models && n < 2)
            n = 2;
        if (p.n_models && n <= greatest)
            n = greatest + 1;
    }
    return n;
}

static int describe(struct import *im, const struct import_options *o, struct err *e)
{
    struct stream *s = &im->stream;
    struct fingerprint f;
    if (o->seq_len && s->seq_len && o->seq_len != s->seq_len)
        return err_set(e, ERR_MISMATCH, "--seq-len %" PRIu32 ", the tensors have sequences of %" PRIu32, o->seq_len,
                       s->seq_len);
    s->seq_len = o->seq_len ? o->seq_len : s->seq_len ? s->seq_len : 1;
    if (im->n_rows % s->seq_len || im->n_rows / s->seq_len > UINT32_MAX)
        return err_set(e, ERR_INPUT, "%s: %zu rows are not a multiple of seq_len %" PRIu32, o->files[0], im->n_rows,
                       s->seq_len);
    s->rows_per_seq = s->seq_len;
    s->n_seq = (uint32_t)(im->n_rows / s->seq_len);
    s->n_models = count_models(s);
    s->can_bf16 = s->can_f32 = true;
    if (fingerprint_init(&f, e))
        return e->code;
    fingerprint_add(&f, &im->n_rows, sizeof im->n_rows);
    for (uint32_t i = 0; i < s->n_sites; i++)
        fingerprint_column(&f, im, &im->columns[i], s->d_model);
    fingerprint_finish(&f, s->model_fingerprints[0]);
    if (o->lengths &&
        lengths_open(&im->lengths, o->lengths,
                     &(struct lengths_of){o->files[0], s->n_seq, s->seq_len, s->seq_len, s->model_fingerprints[0]}, e))
        return e->code;
    for (uint32_t m = 1; m < s->n_models && m < STREAM_MAX_MODELS; m++) /* the cache of all of them is one */
        memcpy(s->model_fingerprints[m], s->model_fingerprints[0], FINGERPRINT_SIZE);
    im->vector = mem_alloc(s->d_model, sizeof *im->vector, "vector", e);
    return im->vector ? stream_check(s, e) : ERR_MEMORY;
}

/* ---- the source ---- */

static void read_vector(float *dst, const unsigned char *src, enum element element, size_t n)
{
    if (element == ELEMENT_F32) {
        memcpy(dst, src, n * sizeof *dst);
    } else if (element == ELEMENT_BF16) {
        bf16_to_f32_n(dst, src, n);
    } else {
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, src + 2 * i, 2);
            dst[i] = f16_to_f32(h);
        }
    }
}

static int compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *e)
{
    struct import *im = self;
    const struct stream *s = &im->stream;
    size_t first_row = (size_t)first * s->seq_len;
    for (size_t i = 0; i < (size_t)n * s->seq_len; i++) {
        struct row_origin origin = {first + (uint32_t)(i / s->seq_len), (uint32_t)(i % s->seq_len), 0};
        bool masked = im->lengths.file.data && origin.position >= lengths_get(&im->lengths, origin.sequence);
        for (uint32_t site = 0; site < s->n_sites; site++) {
            const struct column *c = &im->columns[site];
            if (r->wanted && !r->wanted[site])
                continue;
            if (masked)
                memset(im->vector, 0, s->d_model * sizeof *im->vector);
            else
                read_vector(im->vector, c->data + (first_row + i) * c->stride, c->element, s->d_model);
            size_t bad = finite_first_bad_f32(im->vector, s->d_model);
            if (bad < s->d_model)
                return err_set(e, ERR_INPUT, "row %zu, %s: value %zu is %g, must be finite", first_row + i,
                               s->sites[site], bad, (double)im->vector[bad]);
            rows_put(r, i, site, im->vector);
        }
        origin.token = masked ? ROW_MASKED : 0;
        rows_put_origin(r, i, origin);
    }
    return 0;
}

void source_import_read(const struct source *s, size_t first, size_t n, float *dst)
{
    const struct import *im = s->self;
    size_t d = s->stream.d_model, n_sites = s->stream.n_sites;
    for (size_t i = 0; i < n; i++)
        for (size_t site = 0; site < n_sites; site++)
            read_vector(dst + (i * n_sites + site) * d, im->columns[site].data + (first + i) * im->columns[site].stride,
                        im->columns[site].element, d);
    for (size_t site = 0; site < n_sites; site++)
        file_map_passed(im->columns[site].data + first * im->columns[site].stride,
                        n * d * element_size(im->columns[site].element));
}

static void close_source(void *self)
{
    struct import *im = self;
    for (size_t i = 0; i < im->n_files; i++) {
        if (im->npy)
            npy_close(&im->npy[i]);
        else
            safetensors_close(&im->safetensors[i]);
    }
    lengths_close(&im->lengths);
    mem_free(im->npy);
    mem_free(im->safetensors);
    mem_free(im->vector);
    mem_free(im);
}

int source_import_open(struct source *s, const struct import_options *o, struct err *e)
{
    *s = (struct source){0};
    struct import *im = mem_alloc(1, sizeof *im, "import", e);
    if (!im)
        return ERR_MEMORY;
    int rc = add_files(im, o, e);
    if (rc == 0)
        rc = describe(im, o, e);
    if (rc) {
        close_source(im);
        return rc;
    }
    *s = (struct source){.stream = im->stream, .self = im, .compute = compute, .close = close_source};
    return 0;
}
