/* fuzz_safetensors.c - a whole file: header, tiling, every tensor converted, metadata; also as rows to import. */
#include "fuzz.h"
#include "mem.h"
#include "rows.h"
#include "safetensors.h"
#include "source_import.h"

static void read_all(const struct safetensors *s)
{
    struct err e = {0};
    size_t sum = 0;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct tensor_view *t = &s->tensors[i];
        MUST(safetensors_find(s, t->name) == t);
        for (size_t k = 0; k < t->bytes; k++)
            sum += t->data[k];
        size_t n = 0;
        MUST(size_product(t->shape, t->n_dims, &n));
        if (t->dtype != TENSOR_OTHER)
            MUST(n * tensor_dtype_size(t->dtype) == t->bytes);
        float *x = mem_alloc(t->dtype == TENSOR_OTHER ? 0 : n, sizeof *x, t->name, &e);
        MUST(x);
        tensor_to_f32(s, t, x, &e);
        mem_free(x);
        tensor_expect_shape(s, t, 2, (size_t[]){3, 4}, &e);
    }
    safetensors_find(s, "acts");
    safetensors_metadata(s, "step");
    MUST(sum <= s->map.size * 255);
}

static void import(const char *path)
{
    struct source source;
    struct err e = {0};
    struct rows rows;
    struct import_options o = {.files = &path, .n_files = 1, .safetensors = true};
    if (source_import_open(&source, &o, &e)) {
        MUST(e.code && e.message[0]);
        return;
    }
    const struct stream *s = &source.stream;
    uint32_t n = s->n_seq < 4 ? s->n_seq : 4;
    if (rows_init(&rows, s, stream_block_rows(s, n), &e) == 0) {
        rows_begin(&rows, s, stream_block_rows(s, n), ROW_F32, NULL);
        source.compute(source.self, s->n_seq - n, n, &rows, &e);
        rows_release(&rows);
    }
    source.close(source.self);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors s;
    struct err e = {0};
    const char *path = fuzz_file(0, data, size);
    if (safetensors_open(&s, path, &e)) {
        MUST(e.code && e.message[0]);
        return 0;
    }
    read_all(&s);
    safetensors_close(&s);
    import(path);
    return 0;
}
