/* fuzz_checkpoint.c - a checkpoint's files, one of them any bytes: which one, the first byte says (state.safetensors,
 * crosscoder.safetensors, cfg.json). What loads goes on as a resumed run would: rows of the open window, one more step.
 */
#include "checkpoint.h"
#include "checkpoint_folder.h"
#include "config.h"
#include "cpu_backend.h"
#include "file.h"
#include "fuzz.h"
#include "initial_weights.h"
#include "mem.h"
#include "recovery.h"
#include "shuffle.h"
#include "stream_json.h"

enum { N_SITES = 2, D_MODEL = 3, D_SAE = 4, BATCH = 4 };

static const struct stream stream = {.n_sites = N_SITES,
                                     .d_model = D_MODEL,
                                     .seq_len = 4,
                                     .rows_per_seq = 3,
                                     .n_seq = 8,
                                     .can_bf16 = true,
                                     .can_f32 = true,
                                     .sites = {"a", "b"},
                                     .tokens_fingerprint = "70cc"};
static struct backend *backend;
static struct plan plan;
static struct normalisation normalisation;

static void set_up(void)
{
    static bool done;
    const struct backend_setup setup = {.n_sites = N_SITES,
                                        .d_model = D_MODEL,
                                        .d_sae = D_SAE,
                                        .batch_size = BATCH,
                                        .activation = "relu",
                                        .terms = {"l2", "l1"},
                                        .n_terms = 2,
                                        .keep_gradients = true};
    struct err e = {0};
    char now[128];
    struct plan_place next = {0};
    if (done)
        return;
    MUST(backend_cpu.open(&backend, &setup, &e) == 0);
    MUST(plan_init(&plan, &stream, 1, 2, 1, 12, &e) == 0);
    MUST(initial_weights(backend, &(struct initial_weights){.seed = 1, .dec_init_norm = 0.1}, &e) == 0);
    json_t *cfg = json_pack("{s:s}", "run", "0123456789abcdef0123456789abcdef");
    MUST(cfg && checkpoint_save(fuzz_folder(), backend, &normalisation, &next, cfg, 1, NULL, &e) == 0);
    json_decref(cfg);
    fuzz_link("step", "checkpoints/step_0000000000");
    snprintf(now, sizeof now, "%s/now", fuzz_folder());
    MUST(file_make_folder(now, &e) == 0);
    done = true;
}

/* One window from the checkpoint's place on, as run.c and ingest.c drive it. */
static void go_on(struct plan_place next)
{
    struct shuffle *s;
    struct shuffle_ticket t;
    struct err e = {0};
    static unsigned char acts[12 * N_SITES * D_MODEL * sizeof(float)];
    static float x[BATCH * N_SITES * D_MODEL];
    static struct row_origin origins[12];
    struct shuffle_config sc = {.plan = &plan,
                                .row_elements = N_SITES * D_MODEL,
                                .dtype = ROW_F32,
                                .lookahead_rows = 6,
                                .start_row = backend->step * BATCH,
                                .start = next,
                                .total_rows = 1000000,
                                .wake = -1};
    if (shuffle_new(&s, &sc, &e)) {
        MUST(e.code && e.message[0]);
        return;
    }
    for (int i = 0; i < 8 && shuffle_reserve(s, &t); i++) {
        shuffle_store(s, &t, 0, t.n_rows, acts, origins);
        shuffle_complete(s, &t);
    }
    for (int i = 0; i < 3 && shuffle_take(s, x, NULL, BATCH, 0, &e) == 0; i++)
        ;
    shuffle_free(s);
}

static void read_config(const char *path)
{
    struct config config;
    struct stream expected;
    struct err e = {0};
    json_t *saved;
    if (checkpoint_config(path, &saved, &e)) {
        MUST(e.code && e.message[0]);
        return;
    }
    config_init(&config);
    if (config_resume(&config, saved, path, &e) == 0) {
        json_t *again = config_to_json(&config);
        MUST(again);
        json_decref(again);
    }
    if (stream_from_json(&expected, json_object_get(saved, "stream"), path, &e) == 0) {
        struct plan p;
        if (expected.n_seq < 100000 &&
            plan_init(&p, &expected, config.seed, (uint32_t)config.model_batch_size, (uint32_t)config.eval_blocks,
                      config.batch_size * config.buffer_mult, &e) == 0)
            plan_release(&p);
    }
    json_decref(saved);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[3] = {"state.safetensors", "crosscoder.safetensors", "cfg.json"};
    struct plan_place next = {0};
    struct recovery recovery;
    struct err e = {0};
    char path[128], name[192];
    set_up();
    if (size == 0)
        return 0;
    int which = data[0] % 3;
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "now/%s", names[i]);
        snprintf(path, sizeof path, "../step/%s", names[i]);
        fuzz_link(name, i == which ? fuzz_file(0, data + 1, size - 1) : path);
    }
    snprintf(path, sizeof path, "%s/now", fuzz_folder());
    if (which == 2) {
        read_config(path);
        return 0;
    }
    if (checkpoint_load(path, backend, &normalisation, &next, &e) == 0)
        go_on(next);
    else
        MUST(e.code && e.message[0]);
    snprintf(name, sizeof name, "%s/%s", path, names[which]); /* and as the truth that --truth names */
    if (recovery_init(&recovery, name, N_SITES, D_MODEL, &e) == 0)
        recovery_release(&recovery);
    return 0;
}
