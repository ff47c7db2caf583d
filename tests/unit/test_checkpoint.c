/* test_checkpoint.c - what was saved comes back bit for bit; what is half written, cut or of another run does not. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "backend_problem.h"
#include "checkpoint.h"
#include "checkpoint_folder.h"
#include "mem.h"
#include "rng.h"
#include "safetensors.h"
#include "file.h"
#include "scratch.h"

#define N_SITES 3
#define D_MODEL 5
#define D_SAE 17
#define BATCH 8
#define RUN "0123456789abcdef0123456789abcdef"

/* A backend, and what is or shall be in it. */
struct training {
    struct backend *b;
    size_t n_params, d_sae;
    float *params, *m, *v;
    uint64_t *ages;
    struct normalisation normalisation;
};

static void training_open(struct training *x, size_t d_sae, size_t batch)
{
    const struct backend_setup setup = relu_setup(N_SITES, D_MODEL, d_sae, batch, STEP_AUTO, false);
    x->b = open_cpu(&setup);
    x->d_sae = d_sae;
    x->n_params = 2 * d_sae * N_SITES * D_MODEL + d_sae + N_SITES * D_MODEL;
    x->params = calloc(x->n_params, sizeof *x->params);
    x->m = calloc(x->n_params, sizeof *x->m);
    x->v = calloc(x->n_params, sizeof *x->v);
    x->ages = calloc(d_sae, sizeof *x->ages);
}

static void training_close(struct training *x)
{
    backend_cpu.close(x->b);
    free(x->params);
    free(x->m);
    free(x->v);
    free(x->ages);
}

/* Finite floats of all magnitudes, subnormals and -0 among them. */
static void fill(float *x, size_t n, struct rng *r)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t u = rng_u32(r) & 0xbfffffffu; /* exponent below 128: finite */
        memcpy(x + i, &u, 4);
    }
    if (n)
        x[0] = -0.0f;
}

static void training_fill(struct training *x, uint64_t seed, uint64_t step)
{
    struct rng r;
    rng_init(&r, seed, RNG_TEST, 0);
    fill(x->params, x->n_params, &r);
    fill(x->m, x->n_params, &r);
    fill(x->v, x->n_params, &r);
    fill(x->normalisation.scale, N_SITES, &r);
    for (size_t i = 0; i < x->d_sae; i++)
        x->ages[i] = (uint64_t)rng_u32(&r) << (i % 20);
    put_params(x->b, x->params);
    assert_int_equal(backend_put_all(x->b, "adam_m", x->m, NULL), 0);
    assert_int_equal(backend_put_all(x->b, "adam_v", x->v, NULL), 0);
    assert_int_equal(backend_put_all(x->b, "rows_since_fired", x->ages, NULL), 0);
    x->b->step = step;
    x->b->clipped = step / 2;
    x->b->clipped_since = step / 3;
}

/* Gets what is in the backend. */
static void training_get(struct training *x)
{
    get_params(x->b, x->params);
    assert_int_equal(backend_get_all(x->b, "adam_m", x->m, NULL), 0);
    assert_int_equal(backend_get_all(x->b, "adam_v", x->v, NULL), 0);
    assert_int_equal(backend_get_all(x->b, "rows_since_fired", x->ages, NULL), 0);
}

static struct training a, b;
static char out[512], path[4096]; /* out: a run's folder, fresh in each test */
static json_t *cfg;
static const struct plan_place place = {3, 17};
static struct plan_place read_place;

static int open_both(void **state)
{
    (void)state;
    static int run;
    snprintf(out, sizeof out, "%s/run%d", scratch_folder, run++);
    training_open(&a, D_SAE, BATCH);
    training_open(&b, D_SAE, BATCH);
    cfg = json_pack("{s:i, s:f, s:s}", "batch_size", BATCH, "lr", 0.1, "run", RUN);
    return file_make_folder(out, NULL);
}

/* Folders of one level within folders of one level. */
static int close_both(void **state)
{
    (void)state;
    char folder[1024], entry_path[2048];
    training_close(&a);
    training_close(&b);
    json_decref(cfg);
    snprintf(folder, sizeof folder, "%s/checkpoints", out);
    DIR *d = opendir(folder);
    for (struct dirent *entry; d && (entry = readdir(d));)
        if (entry->d_name[0] != '.') {
            snprintf(entry_path, sizeof entry_path, "%s/%s", folder, entry->d_name);
            file_remove_tree(entry_path, NULL);
        }
    if (d)
        closedir(d);
    file_remove_tree(folder, NULL);
    return file_remove_tree(out, NULL);
}

static void save(size_t keep)
{
    struct err e = {0};
    if (checkpoint_save(out, a.b, &a.normalisation, &place, cfg, keep, path, &e))
        fail_msg("%s", e.message);
}

static void load_refuses(const char *folder, int code, const char *why, const char *also)
{
    struct err e = {0};
    int rc = checkpoint_load(folder, b.b, &b.normalisation, &read_place, &e);
    if (rc == 0)
        assert_true(read_place.window == place.window && read_place.position == place.position);
    if (rc != code || e.code != code)
        fail_msg("gives %d, should be %d: %s", rc, code, why);
    if (!strstr(e.message, why) || !strstr(e.message, also))
        fail_msg("'%s' should say '%s' and '%s'", e.message, why, also);
}

static void same_training(void)
{
    training_get(&b);
    assert_memory_equal(a.params, b.params, a.n_params * sizeof *a.params);
    assert_memory_equal(a.m, b.m, a.n_params * sizeof *a.m);
    assert_memory_equal(a.v, b.v, a.n_params * sizeof *a.v);
    assert_memory_equal(a.ages, b.ages, D_SAE * sizeof *a.ages);
    assert_memory_equal(a.normalisation.scale, b.normalisation.scale, sizeof a.normalisation.scale);
    assert_int_equal(a.b->step, b.b->step);
    assert_int_equal(a.b->clipped, b.b->clipped);
    assert_int_equal(a.b->clipped_since, b.b->clipped_since);
}

/* Names below OUT/checkpoints, sorted, separated by spaces. */
static const char *names(void)
{
    static char text[1024];
    char folder[1024];
    struct dirent **list;
    snprintf(folder, sizeof folder, "%s/checkpoints", out);
    int n = scandir(folder, &list, NULL, alphasort);
    text[0] = '\0';
    for (int i = 0; i < n; i++) {
        if (list[i]->d_name[0] != '.')
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", *text ? " " : "", list[i]->d_name);
        free(list[i]);
    }
    if (n >= 0)
        free(list);
    return text;
}

static const char *in_checkpoint(const char *name)
{
    static char file[5000];
    snprintf(file, sizeof file, "%s/%s", path, name);
    return file;
}

/* ---- saving and loading ---- */

static void every_bit_comes_back(void **state)
{
    (void)state;
    struct err e = {0};
    char latest[4096];
    json_t *saved;
    for (uint64_t turn = 0; turn < 3; turn++) {
        training_fill(&a, turn, turn * 70000000);
        training_fill(&b, 100, 1);
        save(3);
        if (checkpoint_latest(out, latest, &e) || checkpoint_load(latest, b.b, &b.normalisation, &read_place, &e))
            fail_msg("%s", e.message);
        assert_string_equal(latest, path);
        same_training();
        assert_int_equal(checkpoint_config(latest, &saved, &e), 0);
        assert_true(json_equal(saved, cfg));
        json_decref(saved);
    }
    assert_string_equal(names(), "step_0000000000 step_0070000000 step_0140000000");
}

static void the_newest_are_kept(void **state)
{
    (void)state;
    training_fill(&a, 1, 0);
    static const uint64_t steps[] = {5, 10, 99, 100, 1000};
    for (size_t i = 0; i < 5; i++) {
        a.b->step = steps[i];
        save(2);
    }
    assert_string_equal(names(), "step_0000000100 step_0000001000");
    a.b->step = 1001;
    save(1);
    assert_string_equal(names(), "step_0000001001");
    assert_int_equal(checkpoint_latest(out, path, NULL), 0);
    assert_non_null(strstr(path, "step_0000001001"));
    assert_int_equal(checkpoint_step(path), 1001);
}

/* The same step again (a resumed run stopped at once) replaces it. */
static void the_same_step_again(void **state)
{
    (void)state;
    training_fill(&a, 1, 5);
    save(1);
    training_fill(&a, 2, 5);
    save(1);
    assert_string_equal(names(), "step_0000000005");
    assert_int_equal(checkpoint_load(path, b.b, &b.normalisation, &read_place, NULL), 0);
    same_training();
}

static void nothing_to_resume_from(void **state)
{
    (void)state;
    struct err e = {0};
    char folder[1024];
    assert_int_equal(checkpoint_latest(out, path, &e), ERR_ABSENT);
    assert_non_null(strstr(e.message, "no checkpoint"));
    snprintf(folder, sizeof folder, "%s/checkpoints", out);
    assert_int_equal(file_make_folder(folder, NULL), 0);
    assert_int_equal(checkpoint_latest(out, path, &e), ERR_ABSENT);
    assert_non_null(strstr(e.message, "no checkpoint"));
}

/* A save that was killed leaves a folder of another name: neither found nor in the way. */
static void half_a_checkpoint(void **state)
{
    (void)state;
    struct err e = {0};
    char folder[1024], file[1200];
    snprintf(folder, sizeof folder, "%s/checkpoints/tmp", out);
    assert_int_equal(file_make_folder(folder, NULL), 0);
    snprintf(file, sizeof file, "%s/crosscoder.safetensors.tmp.123", folder);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs("half", f);
    fclose(f);
    assert_int_equal(checkpoint_latest(out, path, &e), ERR_ABSENT); /* not this one */
    training_fill(&a, 3, 40);
    save(2);
    assert_string_equal(names(), "step_0000000040");
    assert_int_not_equal(access(in_checkpoint("crosscoder.safetensors.tmp.123"), F_OK), 0);
    static const char *const others[] = {"step_", "step_12x", "xstep_0000000099", "step_-1"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(folder, sizeof folder, "%s/checkpoints/%s", out, others[i]);
        assert_int_equal(file_make_folder(folder, NULL), 0);
    }
    char latest[4096];
    assert_int_equal(checkpoint_latest(out, latest, &e), 0);
    assert_string_equal(latest, path);
    a.b->step = 41;
    save(1); /* the others are not ours to remove */
    assert_string_equal(names(), "step_ step_-1 step_0000000041 step_12x xstep_0000000099");
}

/* ---- what is refused ---- */

/* Cuts the file at every length of a checkpoint; the whole of it loads. */
static void cut_files(void **state)
{
    (void)state;
    training_fill(&a, 4, 6);
    save(1);
    static const char *const files[] = {"state.safetensors", "crosscoder.safetensors"};
    for (int i = 0; i < 2; i++) {
        struct stat st;
        struct err e = {0};
        char *whole;
        size_t size;
        const char *file = in_checkpoint(files[i]);
        assert_int_equal(stat(file, &st), 0);
        assert_int_equal(file_read_text(file, (size_t)st.st_size, &whole, &size, &e), 0);
        for (long cut = 0; cut < (long)size; cut += cut < 400 ? 37 : 211) {
            assert_int_equal(truncate(file, cut), 0);
            load_refuses(path, ERR_INPUT, files[i], "");
        }
        FILE *f = fopen(file, "wb");
        assert_true(f && fwrite(whole, 1, size, f) == size && fclose(f) == 0);
        mem_free(whole);
        assert_int_equal(checkpoint_load(path, b.b, &b.normalisation, &read_place, &e), 0);
        same_training();
    }
}

static void missing_files(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *saved;
    training_fill(&a, 4, 6);
    save(1);
    assert_int_equal(unlink(in_checkpoint("state.safetensors")), 0);
    load_refuses(path, ERR_SYSTEM, "state.safetensors", "No such file");
    assert_int_equal(unlink(in_checkpoint("crosscoder.safetensors")), 0);
    load_refuses(path, ERR_SYSTEM, "crosscoder.safetensors", "No such file");
    assert_int_equal(truncate(in_checkpoint("cfg.json"), 10), 0);
    assert_int_equal(checkpoint_config(path, &saved, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "cfg.json"));
    assert_null(saved);
    assert_int_equal(unlink(in_checkpoint("cfg.json")), 0);
    assert_int_equal(checkpoint_config(path, &saved, &e), ERR_SYSTEM);
    assert_null(saved);
}

static void another_shape(void **state)
{
    (void)state;
    training_fill(&a, 4, 6);
    save(1);
    training_close(&b);
    training_open(&b, D_SAE + 1, BATCH);
    load_refuses(path, ERR_INPUT, "17", "18");
    training_close(&b);
    training_open(&b, D_SAE, BATCH + 1);
    load_refuses(path, ERR_INPUT, "48 rows", "6 steps of 9 make 54");
}

static const char *clipped, *since, *skipped; /* of rewrite_state; NULL: as before they were counted */

static void rewrite_state(const char *step, const char *rows, enum tensor_dtype ages, size_t n_ages)
{
    struct safetensors_writer w;
    struct err e = {0};
    const struct tensor_spec specs[] = {
        {"adam_m", TENSOR_F32, 1, {a.n_params}},
        {"adam_v", TENSOR_F32, 1, {a.n_params}},
        {"rows_since_fired", ages, 1, {n_ages}},
    };
    const char *metadata[14] = {"step", step, "rows", rows, "window", "3", "position", "17"};
    size_t n_metadata = step ? 4 : 0;
    const char *const more[][2] = {{"clipped", clipped}, {"clipped_since", since}, {"skipped", skipped}};
    for (size_t i = 0; step && i < 3; i++)
        if (more[i][1]) {
            metadata[2 * n_metadata] = more[i][0];
            metadata[2 * n_metadata++ + 1] = more[i][1];
        }
    static const uint64_t zeros[4096];
    size_t bytes = 2 * a.n_params * 4 + n_ages * tensor_dtype_size(ages);
    assert_true(bytes <= sizeof zeros);
    if (safetensors_write_begin(&w, in_checkpoint("state.safetensors"), specs, 3, metadata, n_metadata, &e) ||
        safetensors_write_data(&w, zeros, bytes, &e) || safetensors_write_commit(&w, &e))
        fail_msg("%s", e.message);
}

/* How many batches were passed over is kept; a checkpoint that does not say had none. */
static void batches_passed_over(void **state)
{
    (void)state;
    training_fill(&a, 4, 6);
    a.b->skipped = 2;
    save(1);
    assert_int_equal(checkpoint_load(path, b.b, &b.normalisation, &read_place, NULL), 0);
    assert_int_equal(b.b->skipped, 2);
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    assert_int_equal(checkpoint_load(path, b.b, &b.normalisation, &read_place, NULL), 0);
    assert_int_equal(b.b->skipped, 0);
    skipped = "7";
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    load_refuses(path, ERR_INPUT, "7 batches", "6 steps");
    skipped = "x";
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    load_refuses(path, ERR_INPUT, "skipped is x", "must be a number");
    skipped = NULL;
}

static void a_state_of_something_else(void **state)
{
    (void)state;
    training_fill(&a, 4, 6);
    save(1);
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    assert_int_equal(checkpoint_load(path, b.b, &b.normalisation, &read_place, NULL),
                     0); /* the helper itself is sound */
    rewrite_state("6", "48", TENSOR_I64, D_SAE + 1);
    load_refuses(path, ERR_INPUT, "rows_since_fired", "17");
    rewrite_state("6", "48", TENSOR_I32, D_SAE);
    load_refuses(path, ERR_INPUT, "rows_since_fired is I32", "expected I64");
    rewrite_state("6x", "48", TENSOR_I64, D_SAE);
    load_refuses(path, ERR_INPUT, "step is 6x", "must be a number");
    rewrite_state(NULL, NULL, TENSOR_I64, D_SAE);
    load_refuses(path, ERR_INPUT, "step is missing", "must be a number");
    rewrite_state("6", "56", TENSOR_I64, D_SAE);
    load_refuses(path, ERR_INPUT, "56 rows", "6 steps of 8 make 48");
}

/* Steps with a clipped gradient are counted on; in a checkpoint that is older than the count they are from its step on. */
static void clipped_steps(void **state)
{
    (void)state;
    training_fill(&a, 4, 6);
    save(1);
    b.b->clipped = b.b->clipped_since = 99;
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    load_refuses(path, 0, "", "");
    assert_int_equal(b.b->clipped, 0);
    assert_int_equal(b.b->clipped_since, 6);
    assert_true(isnan(backend_clipped_share(b.b)));
    clipped = "3", since = "2";
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    load_refuses(path, 0, "", "");
    assert_float_equal(backend_clipped_share(b.b), 0.75, 1e-15);
    clipped = "5";
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    load_refuses(path, ERR_INPUT, "5 steps clipped since step 2", "6");
    since = "7";
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    load_refuses(path, ERR_INPUT, "since step 7", "6");
    clipped = "x";
    rewrite_state("6", "48", TENSOR_I64, D_SAE);
    load_refuses(path, ERR_INPUT, "clipped is x", "must be a number");
    clipped = since = NULL;
}

/* Where no folder can be made or no file written, the save fails and what was there stays. Root may write anywhere, so
 * the obstacles are files where folders should be. */
static void unwritable(void **state)
{
    (void)state;
    struct err e = {0};
    char file[1024];
    training_fill(&a, 4, 6);
    const char *not_a_folder = scratch_write("file", "x", 1);
    assert_int_equal(checkpoint_save(not_a_folder, a.b, &a.normalisation, &place, cfg, 1, path, &e), ERR_SYSTEM);
    assert_non_null(strstr(e.message, not_a_folder));
    assert_int_equal(checkpoint_save("/proc/nowhere", a.b, &a.normalisation, &place, cfg, 1, path, &e), ERR_SYSTEM);
    assert_non_null(strstr(e.message, "/proc/nowhere"));

    save(1);
    a.b->step = 7; /* its place is taken by a folder that cannot be removed: it has a folder in it */
    snprintf(file, sizeof file, "%s/checkpoints/step_0000000007/kept", out);
    assert_int_equal(file_make_folder(file, NULL), 0);
    save(1);
    assert_string_equal(names(), "other_step_0000000007 step_0000000007"); /* it is nobody's to remove */
    snprintf(file, sizeof file, "%s/checkpoints/other_step_0000000007/kept", out);
    assert_int_equal(rmdir(file), 0);
    snprintf(file, sizeof file, "%s/checkpoints/tmp/kept", out); /* in the way of the next */
    assert_int_equal(file_make_folder(file, NULL), 0);
    a.b->step = 8;
    assert_int_equal(checkpoint_save(out, a.b, &a.normalisation, &place, cfg, 1, path, &e), ERR_SYSTEM);
    assert_string_equal(names(), "other_step_0000000007 step_0000000007 tmp");
    assert_int_equal(rmdir(file), 0);
}

/* An old checkpoint that cannot be removed ends nothing, and what is left of a removal is removed later. */
static void old_ones_that_stay(void **state)
{
    (void)state;
    char file[1024];
    training_fill(&a, 4, 6);
    save(1);
    snprintf(file, sizeof file, "%s/checkpoints/removed/kept", out);
    assert_int_equal(file_make_folder(file, NULL), 0);
    a.b->step = 7;
    save(1);
    assert_string_equal(names(), "removed step_0000000006 step_0000000007");
    assert_int_equal(rmdir(file), 0);
    a.b->step = 8;
    save(1);
    assert_string_equal(names(), "step_0000000008");
}

/* ---- what is verified ---- */

/* Returns what verifying the checkpoint at folder says. */
static int verify(const char *folder, struct err *e)
{
    struct checkpoint_id id;
    int rc = checkpoint_identify(folder, &id, e);
    return rc ? rc : checkpoint_verify(folder, &id, e);
}

/* Writes a file of the checkpoint anew and looks at whether it passes; sound: it should. */
static void try_bytes(const char *file, const char *bytes, size_t size, bool sound, const char *what, size_t where)
{
    struct err e = {0};
    FILE *f = fopen(file, "wb");
    assert_true(f && fwrite(bytes, 1, size, f) == size && fclose(f) == 0);
    int rc = verify(path, &e);
    if (rc != (sound ? 0 : ERR_DAMAGED))
        fail_msg("%s, %s at %zu: %d, %s", file, what, where, rc, e.message);
    if (!sound && !strstr(e.message, strrchr(file, '/') + 1) && !strstr(e.message, "manifest"))
        fail_msg("'%s' does not name %s", e.message, file);
}

/* Every byte of every file with one bit flipped, cut at many places, with something behind: none passes. */
static void every_damage_is_found(void **state)
{
    (void)state;
    struct err e = {0};
    struct rng r;
    static const char *const files[] = {"crosscoder.safetensors", "state.safetensors", "cfg.json", "manifest.json"};
    rng_init(&r, 1, RNG_TEST, 0);
    training_fill(&a, 4, 6);
    save(1);
    assert_int_equal(verify(path, &e), 0);
    for (size_t i = 0; i < 4; i++) {
        const char *file = in_checkpoint(files[i]);
        char *text;
        size_t size;
        assert_int_equal(file_read_text(file, 1 << 20, &text, &size, &e), 0);
        for (size_t at = 0; at < size; at += i < 2 ? 13 : 1) {
            char bit = (char)(1 << rng_u32(&r) % 8);
            text[at] ^= bit;
            try_bytes(file, text, size, false, "a bit", at);
            text[at] ^= bit;
            if (at % 5 == 0)
                try_bytes(file, text, at, false, "cut", at);
        }
        try_bytes(file, text, size + 1, false, "a byte behind", size); /* the NUL of file_read_text */
        try_bytes(file, text, size, true, "nothing", 0);
        assert_int_equal(unlink(file), 0);
        assert_int_equal(verify(path, &e), ERR_DAMAGED);
        try_bytes(file, text, size, true, "nothing", 0);
        mem_free(text);
    }
}

/* Files of another step's checkpoint, one, two or all of them: none passes. */
static void swapped_files(void **state)
{
    (void)state;
    struct err e = {0};
    static const char *const files[] = {"crosscoder.safetensors", "state.safetensors", "cfg.json", "manifest.json"};
    char *mine[4], other[4096];
    size_t size[4];
    training_fill(&a, 4, 6);
    save(2);
    memcpy(other, path, sizeof other);
    training_fill(&a, 5, 7);
    json_object_set_new(cfg, "lr", json_real(0.2));
    save(2);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(file_read_text(in_checkpoint(files[i]), 1 << 20, &mine[i], &size[i], &e), 0);
    memcpy(path, other, sizeof other);
    for (unsigned which = 1; which < 16; which++) {
        char *theirs[4];
        size_t their_size[4];
        for (unsigned i = 0; i < 4; i++) {
            const char *file = in_checkpoint(files[i]);
            assert_int_equal(file_read_text(file, 1 << 20, &theirs[i], &their_size[i], &e), 0);
            FILE *f = which >> i & 1 ? fopen(file, "wb") : NULL;
            assert_true(!f || (fwrite(mine[i], 1, size[i], f) == size[i] && fclose(f) == 0));
        }
        if (verify(path, &e) != ERR_DAMAGED)
            fail_msg("files %x swapped: %s", which, e.message);
        for (unsigned i = 0; i < 4; i++) {
            FILE *f = fopen(in_checkpoint(files[i]), "wb");
            assert_true(f && fwrite(theirs[i], 1, their_size[i], f) == their_size[i] && fclose(f) == 0);
            mem_free(theirs[i]);
        }
        assert_int_equal(verify(path, &e), 0);
    }
    for (size_t i = 0; i < 4; i++)
        mem_free(mine[i]);
}

/* ---- which one is resumed ---- */

/* Damages a step's weights. */
static void damage(unsigned long long step)
{
    snprintf(path, sizeof path, "%s/checkpoints/step_%010llu", out, step);
    FILE *f = fopen(in_checkpoint("crosscoder.safetensors"), "r+b");
    assert_true(f && fseek(f, -3, SEEK_END) == 0 && fputc(0x55, f) == 0x55 && fclose(f) == 0);
}

static void choose(const char *run, uint64_t from, uint64_t step, uint64_t n_damaged)
{
    struct checkpoint_choice c;
    struct err e = {0};
    if (checkpoint_choose(out, run, from, &c, &e))
        fail_msg("%s", e.message);
    assert_int_equal(c.step, step);
    assert_int_equal(c.n_damaged, n_damaged);
    assert_string_equal(c.run, RUN);
    assert_true(c.verified);
    if (checkpoint_set_aside(out, &c, &e))
        fail_msg("%s", e.message);
}

static void choose_refuses(const char *run, uint64_t from, const char *why)
{
    struct checkpoint_choice c;
    struct err e = {0};
    assert_int_equal(checkpoint_choose(out, run, from, &c, &e), ERR_INPUT);
    if (!strstr(e.message, why))
        fail_msg("'%s' should say '%s'", e.message, why);
}

static void the_newest_sound_one(void **state)
{
    (void)state;
    choose_refuses(RUN, 0, "no checkpoint");
    training_fill(&a, 4, 1);
    for (a.b->step = 10; a.b->step < 60; a.b->step += 10)
        save(9);
    choose(RUN, 0, 50, 0);
    damage(50);
    damage(40);
    choose_refuses(RUN, 40, "crosscoder.safetensors: checksum");
    choose_refuses(RUN, 45, "no checkpoint of step 45; those that there are: 10, 20, 30, 40, 50");
    choose("", 0, 30, 2);
    assert_string_equal(
        names(), "damaged_step_0000000040 damaged_step_0000000050 step_0000000010 step_0000000020 step_0000000030");
    choose(RUN, 20, 20, 0);
    assert_string_equal(
        names(),
        "damaged_step_0000000040 damaged_step_0000000050 later_step_0000000030 step_0000000010 step_0000000020");
    a.b->step = 30; /* again, and damaged again: nothing is overwritten */
    save(9);
    choose(RUN, 20, 20, 0);
    assert_non_null(strstr(names(), "later_step_0000000030 later_step_0000000030.2 "));
    damage(10);
    damage(20);
    choose_refuses(RUN, 0, "none of its 2 checkpoints is sound");
    assert_non_null(
        strstr(names(), "step_0000000010 step_0000000020")); /* nothing changes before there is one to go on from */
}

/* Another run's checkpoint is neither resumed nor counted nor removed. */
static void another_runs(void **state)
{
    (void)state;
    static const char other[] = "fedcba9876543210fedcba9876543210";
    training_fill(&a, 4, 10);
    save(9);
    json_object_set_new(cfg, "run", json_string(other));
    a.b->step = 20;
    save(9);
    json_object_set_new(cfg, "run", json_string(RUN));
    choose(RUN, 0, 10, 0);
    choose_refuses(RUN, 20, "is of run fedc");
    a.b->step = 30;
    save(1);
    assert_string_equal(names(), "step_0000000020 step_0000000030");
    size_t n;
    assert_int_equal(checkpoint_count(out, RUN, &n, &(struct err){0}), 0);
    assert_int_equal(n, 1);
    a.b->step = 20;
    save(1);
    assert_non_null(strstr(names(), "other_step_0000000020"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_both, close_both)
    const struct CMUnitTest tests[] = {
        TEST(every_bit_comes_back), TEST(the_newest_are_kept),
        TEST(the_same_step_again),  TEST(nothing_to_resume_from),
        TEST(half_a_checkpoint),    TEST(cut_files),
        TEST(missing_files),        TEST(another_shape),
        TEST(clipped_steps),        TEST(a_state_of_something_else),
        TEST(batches_passed_over),  TEST(unwritable),
        TEST(old_ones_that_stay),   TEST(every_damage_is_found),
        TEST(swapped_files),        TEST(the_newest_sound_one),
        TEST(another_runs),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
