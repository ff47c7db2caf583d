/* test_learners.c - two learners on one stream: each gets, to the bit, the weights of a run of its own; stopped and resumed together, too.
 *
 * Runs as they are: run() over a real socket, a synthetic source served from another thread. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "mem.h"
#include "run.h"
#include "scratch.h"
#include "serve.h"
#include "source_synthetic.h"

static char endpoint[256];
static volatile sig_atomic_t stop_trainer, stop_producer;

static void *produce(void *argument)
{
    (void)argument;
    struct synthetic_options so = synthetic_defaults();
    struct source source;
    struct err e = {0};
    so.d_model = 16;
    so.n_sites = 2;
    so.n_latents = 24;
    so.n_seq = 256;
    so.seq_len = 32;
    const struct serve_options options = {
        .endpoint = endpoint, .producer = "test", .give_up_after_ms = 10000, .stop = &stop_producer};
    struct serve_report report;
    if (source_synthetic_open(&source, &so, &e))
        return NULL;
    serve(&source, &options, &report, &e);
    source.close(source.self);
    return NULL;
}

/* Asks the trainer to stop once there is a checkpoint below this folder. */
static void *stop_at_checkpoint(void *folder)
{
    char path[600];
    snprintf(path, sizeof path, "%s/checkpoints/step_0000000020", (const char *)folder);
    while (access(path, F_OK) != 0 && !stop_producer)
        usleep(200);
    stop_trainer = 1;
    return NULL;
}

enum { DICTS = 2 };

struct part {
    char out[512];
    uint64_t seed, dict_size;
};

/* Trains the parts [n] as learners of one run. */
static int train(const struct part *parts, size_t n, bool resume, bool stop, struct err *e)
{
    struct learner_options learners[DICTS] = {0};
    const char *const endpoints[] = {endpoint};
    const struct run_options o = {.endpoints = endpoints, .n_endpoints = 1, .stop = &stop_trainer};
    for (size_t i = 0; i < n; i++) {
        struct config *c = &learners[i].config;
        config_init(c);
        c->batch_size = 64;
        c->buffer_mult = 8;
        c->num_tokens = 64 * 60;
        c->eval_blocks = 2;
        c->dict_size = parts[i].dict_size;
        c->lr = 1e-3;
        c->save_every = 20;
        c->log_every = 7;
        c->eval_every = 30;
        c->threads = 1;
        learners[i].seed = parts[i].seed;
        learners[i].out = parts[i].out;
        learners[i].resume = resume;
    }
    pthread_t producer, stopper;
    stop_trainer = stop_producer = 0;
    assert_int_equal(pthread_create(&producer, NULL, produce, NULL), 0);
    if (stop)
        assert_int_equal(pthread_create(&stopper, NULL, stop_at_checkpoint, (void *)(uintptr_t)parts[0].out), 0);
    int rc = run(&o, learners, n, e);
    stop_producer = 1;
    pthread_join(producer, NULL);
    if (stop)
        pthread_join(stopper, NULL);
    return rc;
}

static void train_well(const struct part *parts, size_t n, bool resume, bool stop)
{
    struct err e = {0};
    if (train(parts, n, resume, stop, &e))
        fail_msg("%s", e.message);
}

static void same_file(const struct part *a, const struct part *b, const char *name, bool same)
{
    char path[600], *text[2];
    size_t size[2];
    struct err e = {0};
    const struct part *both[] = {a, b};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", both[i]->out, name);
        if (file_read_text(path, 1 << 20, &text[i], &size[i], &e))
            fail_msg("%s", e.message);
    }
    if ((size[0] == size[1] && memcmp(text[0], text[1], size[0]) == 0) != same)
        fail_msg("%s of %s and %s: should be %s", name, a->out, b->out, same ? "the same" : "different");
    mem_free(text[0]);
    mem_free(text[1]);
}

static struct part part(const char *name, uint64_t seed, uint64_t dict_size)
{
    struct part p = {.seed = seed, .dict_size = dict_size};
    snprintf(p.out, sizeof p.out, "%s", scratch_path(name));
    return p;
}

static void two_are_two_single_runs(void **state)
{
    (void)state;
    const struct part alone[] = {part("alone1", 1, 48), part("alone2", 2, 80)},
                      both[] = {part("both1", 1, 48), part("both2", 2, 80)};
    train_well(&alone[0], 1, false, false);
    train_well(&alone[1], 1, false, false);
    train_well(both, 2, false, false);
    same_file(&alone[0], &both[0], "crosscoder.safetensors", true);
    same_file(&alone[1], &both[1], "crosscoder.safetensors", true);
    same_file(&both[0], &both[1], "crosscoder.safetensors", false);

    const struct part stopped[] = {part("stopped1", 1, 48), part("stopped2", 2, 80)};
    train_well(stopped, 2, false, true);
    train_well(stopped, 2, true, false);
    same_file(&alone[0], &stopped[0], "crosscoder.safetensors", true);
    same_file(&alone[1], &stopped[1], "crosscoder.safetensors", true);
}

/* Another seed of the initial weights alone, on the same stream. */
static void seeds_differ(void **state)
{
    (void)state;
    const struct part parts[] = {part("seed3", 3, 48), part("seed4", 4, 48)};
    train_well(parts, 2, false, false);
    same_file(&parts[0], &parts[1], "crosscoder.safetensors", false);
}

/* Checkpoints of two runs are not resumed as one. */
static void not_of_one_run(void **state)
{
    (void)state;
    struct err e = {0};
    const struct part strangers[] = {part("alone1", 1, 48), part("alone2", 2, 80)};
    assert_int_equal(train(strangers, 2, true, false, &e), ERR_MISMATCH);
    assert_non_null(strstr(e.message, "alone2"));
}

static int open_all(void **state)
{
    int rc = scratch_open(state);
    snprintf(endpoint, sizeof endpoint, "ipc://%s/socket", scratch_folder);
    return rc;
}

static int close_all(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", scratch_folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_are_two_single_runs),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(not_of_one_run),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
