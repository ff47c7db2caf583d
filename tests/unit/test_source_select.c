/* test_source_select.c - some sites of another source, and differences of them: values by hand from imports, recordings
 * and a planted dictionary, and of a source that only this test has. */
#include "source_select.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "bf16.h"
#include "recording.h"
#include "safetensors.h"
#include "scratch.h"
#include "source_import.h"
#include "source_recording.h"
#include "source_synthetic.h"

enum { SITES = 4, PER_SEQ = 3 };

static struct err e;

/* ---- a source of any numbers ---- */

static float value(size_t row, size_t site, size_t k)
{
    return (float)((row * 31 + site * 17 + k * 5) % 97) / 2 - 20;
}

struct made {
    struct stream stream;
    size_t most;                   /* sequences that were asked for at once */
    size_t bad_row, bad_k;         /* there sites 0 and 2 have what overflows when it is subtracted */
    bool closed, asked_for_scaled; /* asked_for_scaled: or for another dtype than fp32 */
};

static int made_compute(void *self, uint32_t first, uint32_t n, struct rows *r, struct err *error)
{
    struct made *m = self;
    float *x = calloc(m->stream.d_model, sizeof *x);
    assert_non_null(x);
    m->most = n > m->most ? n : m->most;
    m->asked_for_scaled = m->asked_for_scaled || r->scale || r->dtype != ROW_F32;
    for (size_t i = 0; i < (size_t)n * PER_SEQ; i++) {
        size_t row = first * PER_SEQ + i;
        for (size_t site = 0; site < SITES; site++) {
            for (size_t k = 0; k < m->stream.d_model; k++)
                x[k] = row == m->bad_row && k == m->bad_k ? (site < 2 ? 3e38f : -3e38f) : value(row, site, k);
            rows_put(r, i, site, x);
        }
        rows_put_origin(
            r, i, (struct row_origin){(uint32_t)(row / PER_SEQ), (uint32_t)(1 + row % PER_SEQ), (uint32_t)(7 * row)});
    }
    free(x);
    return first + n > m->stream.n_seq ? err_set(error, ERR_ABSENT, "behind the end") : 0;
}

static void made_close(void *self)
{
    ((struct made *)self)->closed = true;
}

static struct source make(struct made *m, uint32_t d_model, uint32_t n_seq)
{
    *m = (struct made){.bad_row = SIZE_MAX};
    m->stream = (struct stream){.n_sites = SITES,
                                .d_model = d_model,
                                .seq_len = PER_SEQ + 1,
                                .rows_per_seq = PER_SEQ,
                                .n_seq = n_seq,
                                .n_models = 2,
                                .can_bf16 = true,
                                .can_f32 = true,
                                .sites = {"0:a", "0:b", "1:a", "1:b"},
                                .tokens_fingerprint = "tokens",
                                .model_fingerprints = {"base", "chat"}};
    return (struct source){.stream = m->stream, .self = m, .compute = made_compute, .close = made_close};
}

static void select_sites(struct source *s, const char *sites)
{
    if (source_select(s, sites, &e))
        fail_msg("%s", e.message);
}

static void compute(struct source *s, struct rows *r, uint32_t first, uint32_t n, enum row_dtype dtype,
                    const float *scale)
{
    assert_int_equal(rows_init(r, &s->stream, stream_block_rows(&s->stream, n), &e), 0);
    rows_begin(r, &s->stream, stream_block_rows(&s->stream, n), dtype, scale);
    if (s->compute(s->self, first, n, r, &e))
        fail_msg("%s", e.message);
}

static float got(const struct rows *r, size_t row, size_t site, size_t k)
{
    size_t at = (row * r->n_sites + site) * r->d_model + k;
    float x;
    uint16_t h;
    memcpy(&x, r->acts + 4 * at * (r->dtype == ROW_F32), 4);
    memcpy(&h, r->acts + 2 * at * (r->dtype == ROW_BF16), 2);
    return r->dtype == ROW_F32 ? x : bf16_to_f32(h);
}

/* Blocks larger and smaller than a piece; raw, scaled, in both dtypes. */
static void values(void **state)
{
    (void)state;
    enum { D = 9000, N = 70 }; /* 9 sequences are 4 MB */
    struct made m;
    struct source s = make(&m, D, N);
    struct rows r;
    const float scale[] = {0.37f, 1.9f, 0.61f};
    select_sites(&s, "1-0:*,1:b");
    assert_int_equal(s.stream.n_sites, 3);
    assert_string_equal(s.stream.sites[0], "1:b");
    assert_string_equal(s.stream.sites[1], "1-0:a");
    assert_string_equal(s.stream.sites[2], "1-0:b");
    assert_true(!s.stream.has_scale && s.stream.can_bf16 && s.stream.can_f32 && s.stream.n_models == 2);
    assert_string_equal(s.stream.model_fingerprints[1], "chat");
    for (int mode = 0; mode < 3; mode++) {
        uint32_t first = mode == 1 ? 0 : 3, n = mode == 1 ? N : 5;
        enum row_dtype dtype = mode == 2 ? ROW_BF16 : ROW_F32;
        compute(&s, &r, first, n, dtype, mode ? scale : NULL);
        for (size_t i = 0; i < r.n_rows; i++) {
            size_t row = first * PER_SEQ + i;
            for (size_t k = 0; k < D; k++)
                for (size_t site = 0; site < 3; site++) {
                    float x = site == 0 ? value(row, 3, k) : value(row, 1 + site, k) - value(row, site - 1, k);
                    x = mode ? x * scale[site] : x;
                    if (got(&r, i, site, k) != (dtype == ROW_BF16 ? bf16_to_f32(bf16_from_f32(x)) : x))
                        fail_msg("row %zu, site %zu, %zu: %g, not %g", row, site, k, (double)got(&r, i, site, k),
                                 (double)x);
                }
            assert_true(r.origins[i].sequence == row / PER_SEQ && r.origins[i].position == 1 + row % PER_SEQ &&
                        r.origins[i].token == 7 * row);
        }
        rows_release(&r);
    }
    assert_false(m.asked_for_scaled);
    assert_int_equal(m.most, 9);
    s.close(s.self);
    assert_true(m.closed);
}

/* What the other source cannot compute, and a difference that overflows. */
static void failures(void **state)
{
    (void)state;
    struct made m;
    struct source s = make(&m, 5, 20);
    struct rows r;
    m.bad_row = 4 * PER_SEQ + 1;
    m.bad_k = 3;
    select_sites(&s, "1-0:b,1-0:a");
    assert_int_equal(rows_init(&r, &s.stream, 20 * PER_SEQ, &e), 0);
    rows_begin(&r, &s.stream, 5 * PER_SEQ, ROW_F32, NULL);
    assert_int_equal(s.compute(s.self, 2, 5, &r, &e), ERR_INPUT);
    assert_string_equal(e.message, "1-0:a, sequence 4, position 2: activation 3 is not finite");
    rows_begin(&r, &s.stream, 5 * PER_SEQ, ROW_F32, NULL);
    assert_int_equal(s.compute(s.self, 17, 5, &r, &e), ERR_ABSENT);
    assert_string_equal(e.message, "behind the end");
    rows_begin(&r, &s.stream, 2 * PER_SEQ, ROW_F32, NULL);
    assert_int_equal(s.compute(s.self, 5, 2, &r, &e), 0);
    rows_release(&r);
    s.close(s.self);
}

static void refused(void **state)
{
    (void)state;
    struct made m;
    struct source s = make(&m, 5, 20), before = s;
    static const char *const wrong[][2] = {{"c", "--sites: 'c' matches no site; names go from 0:a to 1:b"},
                                           {"2-0:a", "--sites: '2-0:a': model 2 less model 0, but there are 2 models"}};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(source_select(&s, wrong[i][0], &e), ERR_INPUT);
        assert_string_equal(e.message, wrong[i][1]);
        assert_memory_equal(&s, &before, sizeof s);
    }
    /* All sites as they are: nothing stands between. */
    select_sites(&s, "[01]:*");
    assert_memory_equal(&s, &before, sizeof s);
    assert_false(m.closed);
}

/* ---- imports ---- */

/* A safetensors file of a tensor [6, 2] a site, "1:..." before "0:...". */
static void imports(void **state)
{
    (void)state;
    static const char *const names[] = {"1:b", "0:b", "1:a", "0:a"};
    struct tensor_spec specs[4];
    struct safetensors_writer w;
    float data[6 * 2];
    for (size_t i = 0; i < 4; i++)
        specs[i] = (struct tensor_spec){names[i], TENSOR_F32, 2, {6, 2}};
    assert_int_equal(safetensors_write_begin(&w, scratch_path("acts.safetensors"), specs, 4, NULL, 0, &e), 0);
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 12; k++)
            data[k] = (float)(100 * i + k * k) + (i == 3 && k == 7 ? NAN : 0);
        assert_int_equal(safetensors_write_data(&w, data, sizeof data, &e), 0);
    }
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
    const char *file = scratch_path("acts.safetensors");
    struct import_options o = {.files = &file, .n_files = 1, .safetensors = true, .seq_len = 2};
    struct source s;
    struct rows r;
    assert_int_equal(source_import_open(&s, &o, &e), 0);
    select_sites(&s, "1-0:b,1:a");
    assert_true(s.stream.n_sites == 2 && s.stream.n_seq == 3);
    assert_string_equal(s.stream.sites[0], "1:a");
    assert_string_equal(s.stream.sites[1], "1-0:b");
    compute(&s, &r, 1, 2, ROW_F32, NULL);
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 2; k++) {
            size_t at = (2 + i) * 2 + k;
            assert_true(got(&r, i, 0, k) == (float)(200 + at * at)); /* "0:a", which nobody wants, has a NaN */
            assert_true(got(&r, i, 1, k) == -100);
        }
    rows_release(&r);
    s.close(s.self);
    assert_int_equal(source_import_open(&s, &o, &e), 0);
    select_sites(&s, "1-0:a");
    assert_int_equal(rows_init(&r, &s.stream, 6, &e), 0);
    rows_begin(&r, &s.stream, 6, ROW_F32, NULL);
    assert_int_equal(s.compute(s.self, 0, 3, &r, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "row 3, 0:a: value 1 is nan"));
    rows_release(&r);
    s.close(s.self);
}

/* ---- a planted dictionary ---- */

static void synthetic(void **state)
{
    (void)state;
    struct synthetic_options o = synthetic_defaults();
    struct source whole, s;
    struct rows a, b;
    o.n_models = 2;
    assert_int_equal(source_synthetic_open(&whole, &o, &e), 0);
    assert_int_equal(source_synthetic_open(&s, &o, &e), 0);
    select_sites(&s, "1-0:blocks.1.*,0:blocks.0.*");
    assert_string_equal(s.stream.sites[0], "0:blocks.0.hook_resid_post");
    assert_string_equal(s.stream.sites[1], "1-0:blocks.1.hook_resid_post");
    compute(&whole, &a, 7, 3, ROW_F32, NULL);
    compute(&s, &b, 7, 3, ROW_F32, NULL);
    for (size_t i = 0; i < a.n_rows; i++)
        for (size_t k = 0; k < a.d_model; k++) {
            assert_true(got(&b, i, 0, k) == got(&a, i, 0, k));
            assert_true(got(&b, i, 1, k) == got(&a, i, 3, k) - got(&a, i, 1, k));
        }
    rows_release(&a);
    rows_release(&b);
    whole.close(whole.self);
    s.close(s.self);
}

/* ---- recordings ---- */

enum { D = 5, SEQS = 10, SHARD = 4 };

/* Records all but the last shard of the made source. */
static const char *record(const char *name, enum row_dtype dtype, const float scale[SITES])
{
    struct made m;
    struct source s = make(&m, D, SEQS);
    struct recording r;
    struct rows rows;
    const char *folder = scratch_path(name);
    memcpy(s.stream.scale, scale, SITES * sizeof *scale);
    assert_int_equal(recording_create(&r, folder, &s.stream, dtype, SHARD, &e), 0);
    assert_int_equal(rows_init(&rows, &s.stream, SHARD * PER_SEQ, &e), 0);
    for (uint32_t shard = 0; shard < 2; shard++) {
        rows_begin(&rows, &s.stream, SHARD * PER_SEQ, dtype, scale);
        assert_int_equal(made_compute(&m, shard * SHARD, SHARD, &rows, &e), 0);
        assert_int_equal(recording_write(&r, shard, &rows, &e), 0);
    }
    assert_int_equal(recording_flush(&r, &e), 0);
    recording_close(&r);
    rows_release(&rows);
    return folder;
}

static int remove_recordings(void **state)
{
    static const char *const folders[] = {"whole16", "whole32", "bf16", "fp32", "r0", "r1", "r2", "r3", "r4", "r5"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        file_remove_tree(scratch_path(folders[i]), NULL);
    return scratch_close(state);
}

static void open_recording(struct source *s, const char *folder, const char *sites)
{
    if (source_recording_open(s, folder, true, &e))
        fail_msg("%s", e.message);
    select_sites(s, sites);
}

static const float odd[SITES] = {0.3f, 1.7f, 0.9f, 2.3f};

static float stored(enum row_dtype dtype, float x, float scale)
{
    return dtype == ROW_BF16 ? bf16_to_f32(bf16_from_f32(x * scale)) : x * scale;
}

/* Whole sites are the recorded bytes, whatever shards a block comes from; the scale and the fingerprints stay. */
static void recorded_whole(void **state)
{
    (void)state;
    for (enum row_dtype dtype = ROW_BF16; dtype <= ROW_F32; dtype++) {
        struct source s;
        struct rows r;
        open_recording(&s, record(dtype == ROW_BF16 ? "whole16" : "whole32", dtype, odd), "b");
        assert_int_equal(s.stream.n_sites, 2);
        assert_string_equal(s.stream.sites[1], "1:b");
        assert_true(s.stream.has_scale && s.stream.scale[0] == odd[1] && s.stream.scale[1] == odd[3]);
        assert_true(s.stream.can_bf16 == (dtype == ROW_BF16) && s.stream.can_f32 == (dtype == ROW_F32));
        assert_string_equal(s.stream.model_fingerprints[0], "base");
        for (uint32_t first = 0; first < 2 * SHARD; first++)
            for (uint32_t n = 1; n <= 2 * SHARD - first; n++) {
                compute(&s, &r, first, n, dtype, s.stream.scale);
                for (size_t i = 0; i < r.n_rows; i++) {
                    size_t row = first * PER_SEQ + i;
                    for (size_t k = 0; k < D; k++)
                        for (size_t site = 1; site < SITES; site += 2)
                            assert_true(got(&r, i, site / 2, k) == stored(dtype, value(row, site, k), odd[site]));
                    assert_true(r.origins[i].sequence == row / PER_SEQ && r.origins[i].token == 7 * row);
                }
                rows_release(&r);
            }
        assert_int_equal(rows_init(&r, &s.stream, 3 * PER_SEQ, &e), 0);
        rows_begin(&r, &s.stream, 3 * PER_SEQ, dtype, s.stream.scale);
        assert_int_equal(s.compute(s.self, 2 * SHARD - 1, 3, &r, &e), ERR_ABSENT);
        rows_release(&r);
        s.close(s.self);
    }
}

/* Differences are of the recorded rows divided by their scale, fp32; then scaled and rounded like any others. */
static void recorded_differences(void **state)
{
    (void)state;
    const float scale[] = {0.8f, 1.2f};
    for (enum row_dtype dtype = ROW_BF16; dtype <= ROW_F32; dtype++) {
        struct source s;
        struct rows raw, scaled;
        float worst = 0;
        open_recording(&s, record(dtype == ROW_BF16 ? "bf16" : "fp32", dtype, odd), "1-0:b,0:a");
        assert_true(!s.stream.has_scale && s.stream.can_bf16 && s.stream.can_f32);
        compute(&s, &raw, 1, 6, ROW_F32, NULL);
        compute(&s, &scaled, 1, 6, ROW_BF16, scale);
        for (size_t i = 0; i < raw.n_rows; i++)
            for (size_t k = 0; k < D; k++) {
                size_t row = PER_SEQ + i;
                float x[SITES], d;
                for (size_t site = 0; site < SITES; site++)
                    x[site] = stored(dtype, value(row, site, k), odd[site]) / odd[site];
                d = x[3] - x[1];
                assert_true(got(&raw, i, 0, k) == x[0] && got(&raw, i, 1, k) == d);
                assert_true(got(&scaled, i, 0, k) == bf16_to_f32(bf16_from_f32(x[0] * scale[0])));
                assert_true(got(&scaled, i, 1, k) == bf16_to_f32(bf16_from_f32(d * scale[1])));
                worst = fmaxf(worst, fabsf(d - (value(row, 3, k) - value(row, 1, k))));
            }
        /* 0.2 % of each of two values up to 28: */
        assert_true(dtype == ROW_BF16 ? worst > 0.01f && worst < 2 * 28 * 0.002f : worst < 1e-5f);
        rows_release(&raw);
        rows_release(&scaled);
        s.close(s.self);
    }
}

/* Differences of rounded rows are not what a live producer computes, so their stream is another: another for each scale
 * and dtype. Of fp32 with scale 1 nothing is lost, and a live producer may serve the same run. */
static void recorded_fingerprints(void **state)
{
    (void)state;
    static const float ones[SITES] = {1, 1, 1, 1}, ones_at_a[SITES] = {1, 3, 1, 3},
                       other[SITES] = {0.3f, 1.7f, 0.9f, 2.4f};
    struct made m;
    struct source live = make(&m, D, SEQS), s[6];
    select_sites(&live, "1-0:a");
    open_recording(&s[0], record("r0", ROW_F32, ones), "1-0:a");
    open_recording(&s[1], record("r1", ROW_F32, ones_at_a), "1-0:a");
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(stream_compare(&s[i].stream, &live.stream, &e), 0);
    open_recording(&s[2], record("r2", ROW_BF16, ones), "1-0:a");
    open_recording(&s[3], record("r3", ROW_F32, odd), "1-0:a");
    open_recording(&s[4], record("r4", ROW_BF16, odd), "1-0:a");
    open_recording(&s[5], record("r5", ROW_BF16, other), "1-0:a");
    for (size_t i = 2; i < 6; i++)
        for (size_t k = i == 5 ? 5 : 0; k < i; k++)
            assert_int_equal(stream_compare(&s[i].stream, &s[k].stream, &e), ERR_MISMATCH);
    assert_int_equal(stream_compare(&s[4].stream, &s[5].stream, &e), 0); /* the other scale is of another site */
    for (size_t i = 0; i < 6; i++)
        s[i].close(s[i].self);
    live.close(live.self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values),
                                       cmocka_unit_test(failures),
                                       cmocka_unit_test(refused),
                                       cmocka_unit_test(imports),
                                       cmocka_unit_test(synthetic),
                                       cmocka_unit_test(recorded_whole),
                                       cmocka_unit_test(recorded_differences),
                                       cmocka_unit_test(recorded_fingerprints)};
    return cmocka_run_group_tests(tests, scratch_open, remove_recordings);
}
