/* test_config.c - the reference's defaults, what a flag may say, and what a resumed run may say otherwise. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "config.h"
#include "json_file.h"
#include "scratch.h"
#include "stream_json.h"

static size_t key(const char *name)
{
    for (size_t i = 0; i < config_n_keys; i++)
        if (strcmp(config_keys[i].flag.name, name) == 0)
            return i;
    fail_msg("no key %s", name);
    return 0;
}

static void set(struct config *c, const char *name, const char *text)
{
    struct err e = {0};
    if (config_set(c, key(name), text, &e))
        fail_msg("%s", e.message);
}

static void refused(const char *name, const char *text, const char *why)
{
    struct config c, before;
    struct err e = {0};
    config_init(&c);
    before = c;
    if (config_set(&c, key(name), text, &e) != ERR_INPUT || e.code != ERR_INPUT)
        fail_msg("%s '%s' was taken", name, text);
    if (!strstr(e.message, why))
        fail_msg("'%s' should say '%s'", e.message, why);
    assert_memory_equal(&c, &before, sizeof c);
}

static size_t n_given(const struct config *c)
{
    size_t n = 0;
    for (size_t i = 0; i < CONFIG_MAX_KEYS; i++)
        n += c->given[i];
    return n;
}

/* neelnanda-io/Crosscoders (train.py, crosscoder.py). */
static void defaults_of_the_reference(void **state)
{
    (void)state;
    struct config c;
    config_init(&c);
    assert_int_equal(c.seed, 49);
    assert_int_equal(c.batch_size, 2048);
    assert_int_equal(c.buffer_mult, 512);
    assert_int_equal(c.num_tokens, 400000000);
    assert_int_equal(c.dict_size, 65536);
    assert_int_equal(c.model_batch_size, 4);
    assert_true(c.lr == 2e-5 && c.l1_coeff == 2 && c.beta1 == 0.9 && c.beta2 == 0.999 && c.eps == 1e-8);
    assert_true(c.dec_init_norm == 0.005 && c.max_grad_norm == 1);
    assert_true(c.lr_warmup == 0.05 && c.lr_decay == 0.2 && c.l1_warmup == 0.05);
    assert_int_equal(c.dtype, ROW_BF16);
    assert_string_equal(c.scale, "");
    assert_int_equal(n_given(&c), 0);
}

/* Every default is one that its own key would take, and every key has its place in `given`, a heading and a help. */
static void the_table_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < config_n_keys; i++) {
        const struct flag *f = &config_keys[i].flag;
        struct config c;
        config_init(&c);
        assert_int_equal(config_set(&c, i, f->initial, NULL), 0);
        assert_true(c.given[i] && n_given(&c) == 1);
        assert_true(strlen(f->help) > 0 && strlen(f->group) > 0 && f->low <= f->high);
        assert_true(!config_keys[i].absent || flag_set(f, &c, config_keys[i].absent, NULL) == 0);
        for (size_t j = 0; j < i; j++)
            assert_true(strcmp(f->name, config_keys[j].flag.name) != 0 && f->offset != config_keys[j].flag.offset);
    }
}

static void counts_and_numbers(void **state)
{
    (void)state;
    struct config c;
    config_init(&c);
    set(&c, "num_tokens", "4e8");
    assert_int_equal(c.num_tokens, 400000000);
    set(&c, "num_tokens", "1.5e3");
    assert_int_equal(c.num_tokens, 1500);
    set(&c, "num_tokens", "999999999999999");
    assert_int_equal(c.num_tokens, 999999999999999);
    set(&c, "seed", "0");
    assert_int_equal(c.seed, 0);
    set(&c, "lr", "1e-3");
    assert_true(c.lr == 1e-3);
    set(&c, "lr", "0");
    assert_true(c.lr == 0);
    set(&c, "dtype", "fp32");
    assert_int_equal(c.dtype, ROW_F32);
    set(&c, "scale", "0.5,2,1e-3");
    assert_string_equal(c.scale, "0.5,2,1e-3");
    set(&c, "scale", "");
    assert_true(c.given[key("num_tokens")] && c.given[key("seed")] && c.given[key("lr")] && c.given[key("dtype")] &&
                c.given[key("scale")] && n_given(&c) == 5);
}

static void what_is_refused(void **state)
{
    (void)state;
    refused("batch_size", "0", "batch_size '0': must be a whole number from 1 to 10000000");
    refused("batch_size", "-1", "whole number");
    refused("batch_size", "2.5", "whole number");
    refused("batch_size", "", "whole number");
    refused("batch_size", "12x", "'12x'");
    refused("batch_size", "1 2", "whole number");
    refused("batch_size", "nan", "whole number");
    refused("batch_size", "inf", "whole number");
    refused("batch_size", "1e8", "from 1 to 10000000");
    refused("num_tokens", "1e16", "num_tokens '1e16'");
    refused("seed", "18446744073709551616", "seed");
    refused("seed", "9007199254740993", "seed"); /* not a double: it would become another seed */
    refused("lr", "-1e-9", "lr '-1e-9': must be a number from 0 to 1000");
    refused("lr", "nan", "must be a number");
    refused("lr", "1e-3,", "must be a number");
    refused("beta1", "1", "beta1 '1'");
    refused("beta2", "1", "beta2 '1'");
    refused("max_grad_norm", "0", "max_grad_norm '0'");
    refused("lr_warmup", "1.01", "from 0 to 1");
    refused("dtype", "bf17", "dtype 'bf17': must be bf16 or fp32");
    refused("dtype", "", "must be bf16 or fp32");
    refused("scale", "1,0", "value 1 is not a positive number");
    refused("scale", "1,,2", "value 1");
    refused("scale", "1,", "value 1");
    refused("scale", "nan", "value 0");
    refused("scale", "1 2", "value 0");
    refused("credit", "65", "from 1 to 64");
    char list[CONFIG_TEXT_SIZE + 1];
    memset(list, '1', sizeof list - 1);
    list[sizeof list - 1] = '\0';
    refused("scale", list, "4096 characters, at most 4095");
    char many[2 * STREAM_MAX_SITES + 2] = "";
    for (int i = 0; i <= STREAM_MAX_SITES; i++)
        strcat(many, i ? ",1" : "1");
    refused("scale", many, "more than 512 values");
}

/* Through a file and back, every value is the same to the last bit. */
static struct config through_a_file(const struct config *c)
{
    struct config back;
    struct err e = {0};
    const char *path = scratch_path("cfg.json");
    json_t *object = config_to_json(c), *read = NULL;
    assert_non_null(object);
    if (json_write(path, object, &e) || json_read_object(path, &read, &e))
        fail_msg("%s", e.message);
    config_init(&back);
    if (config_resume(&back, read, path, &e))
        fail_msg("%s", e.message);
    json_decref(object);
    json_decref(read);
    return back;
}

static void json_keeps_every_bit(void **state)
{
    (void)state;
    static const double awkward[] = {0.1, 1.0 / 3, 2e-5, 5e-324, 2.2250738585072014e-308, 0.99999999999999989, 0, 1};
    struct config c, back;
    config_init(&c);
    for (size_t i = 0; i < sizeof awkward / sizeof awkward[0]; i++) {
        c.lr = c.lr_warmup = awkward[i];
        c.l1_coeff = 1e9 / 3;
        c.seed = 9000000000000000 - i;
        c.num_tokens = 999999999999999;
        c.dtype = ROW_F32;
        strcpy(c.scale, "0.1,0.333333343");
        back = through_a_file(&c);
        assert_int_equal(n_given(&back), 0);
        assert_memory_equal(&back, &c, sizeof c);
    }
}

/* ---- resuming ---- */

static json_t *saved;

static int save_defaults(void **state)
{
    (void)state;
    struct config c;
    config_init(&c);
    set(&c, "batch_size", "256");
    set(&c, "lr", "1e-3");
    set(&c, "log_every", "7");
    set(&c, "dtype", "fp32");
    saved = config_to_json(&c);
    return saved ? 0 : -1;
}

static int forget(void **state)
{
    (void)state;
    json_decref(saved);
    return 0;
}

static void resume_refuses(struct config *c, int code, const char *a, const char *b)
{
    struct err e = {0};
    int rc = config_resume(c, saved, "old/cfg.json", &e);
    if (rc != code || e.code != code)
        fail_msg("gives %d, should be %d: %s", rc, code, a);
    if (!strstr(e.message, a) || !strstr(e.message, b))
        fail_msg("'%s' should name '%s' and '%s'", e.message, a, b);
}

static void what_is_not_given_comes_from_the_run(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    config_init(&c);
    assert_int_equal(config_resume(&c, saved, "old/cfg.json", &e), 0);
    assert_int_equal(c.batch_size, 256);
    assert_true(c.lr == 1e-3);
    assert_int_equal(c.log_every, 7);
    assert_int_equal(c.dtype, ROW_F32);
    assert_int_equal(n_given(&c), 0);
}

static void free_keys_may_change(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    config_init(&c);
    set(&c, "log_every", "9");
    set(&c, "keep", "1");
    set(&c, "batch_size", "256"); /* said again, the same */
    set(&c, "lr", "0.001");
    assert_int_equal(config_resume(&c, saved, "old/cfg.json", &e), 0);
    assert_int_equal(c.log_every, 9);
    assert_int_equal(c.keep, 1);
    assert_int_equal(c.save_every, 10000);
    assert_int_equal(c.batch_size, 256);
}

static void fixed_keys_may_not(void **state)
{
    (void)state;
    struct config c;
    config_init(&c);
    set(&c, "batch_size", "2048"); /* the default, but given */
    resume_refuses(&c, ERR_MISMATCH, "batch_size is 2048", "old/cfg.json has 256");
    config_init(&c);
    set(&c, "lr", "0.002");
    resume_refuses(&c, ERR_MISMATCH, "lr is 0.002", "has 0.001");
    config_init(&c);
    set(&c, "dtype", "bf16");
    resume_refuses(&c, ERR_MISMATCH, "dtype is \"bf16\"", "has \"fp32\"");
    config_init(&c);
    set(&c, "scale", "1,1");
    resume_refuses(&c, ERR_MISMATCH, "scale is \"1,1\"", "has \"\"");
    config_init(&c);
    set(&c, "seed", "50");
    resume_refuses(&c, ERR_MISMATCH, "seed is 50", "has 49");
}

/* Whatever changes the result of a run that goes on is fixed; the rest of the keys cannot. */
static void which_keys_are_fixed(void **state)
{
    (void)state;
    static const char *const open[] = {"log_every",        "eval_every",  "save_every",       "keep",
                                       "lookahead_blocks", "credit",      "heartbeat_ms",     "timeout_ms",
                                       "wait_timeout",     "audit",       "audit_tolerance",  "threads",
                                       "fail_on_collapse", "max_abs",     "skip_bad_batches", "save_retries",
                                       "source_retries",   "ban_minutes", "max_bad"};
    size_t n_open = 0;
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
        assert_false(config_keys[key(open[i])].fixed);
    for (size_t i = 0; i < config_n_keys; i++)
        n_open += !config_keys[i].fixed;
    assert_int_equal(n_open, sizeof open / sizeof open[0]);
}

static void damaged_files(void **state)
{
    (void)state;
    struct config c;
    config_init(&c);
    struct err e = {0};
    json_object_del(saved, "wait_timeout"); /* of a run that is older than the key: it changes no result */
    set(&c, "wait_timeout", "7");
    assert_int_equal(config_resume(&c, saved, "old/cfg.json", &e), 0);
    assert_int_equal(c.wait_timeout, 7);
    json_object_del(saved, "beta2");
    resume_refuses(&c, ERR_INPUT, "old/cfg.json", "key beta2");
    json_object_set_new(saved, "beta2", json_real(0.999));
    json_object_set_new(saved, "batch_size", json_integer(-3));
    resume_refuses(&c, ERR_INPUT, "old/cfg.json", "key batch_size");
    json_object_set_new(saved, "batch_size", json_string("many"));
    resume_refuses(&c, ERR_INPUT, "old/cfg.json", "key batch_size");
    json_object_set_new(saved, "batch_size", json_null());
    resume_refuses(&c, ERR_INPUT, "old/cfg.json", "key batch_size");
    json_object_set_new(saved, "batch_size", json_array());
    resume_refuses(&c, ERR_INPUT, "old/cfg.json", "key batch_size");
}

/* ---- the stream in cfg.json ---- */

static void stream_round_trip(void **state)
{
    (void)state;
    static struct stream s, back;
    struct err e = {0};
    s = (struct stream){.n_sites = STREAM_MAX_SITES,
                        .d_model = 256,
                        .seq_len = 1024,
                        .rows_per_seq = 1023,
                        .n_seq = UINT32_MAX,
                        .vocab_size = 50257,
                        .n_models = STREAM_MAX_MODELS,
                        .can_bf16 = true,
                        .can_f32 = true};
    for (uint32_t i = 0; i < s.n_sites; i++)
        snprintf(s.sites[i], SITE_NAME_SIZE, "%u:blocks.%u.hook_mlp_out", i % 8, i);
    memset(s.tokens_fingerprint, 'f', FINGERPRINT_SIZE - 1);
    for (uint32_t i = 0; i < s.n_models; i++)
        memset(s.model_fingerprints[i], '0' + (int)i, FINGERPRINT_SIZE - 1);
    json_t *object = stream_to_json(&s);
    assert_non_null(object);
    if (stream_from_json(&back, object, "cfg.json", &e) || stream_compare(&s, &back, &e))
        fail_msg("%s", e.message);
    assert_memory_equal(&s, &back, sizeof s);

    json_object_set_new(object, "d_model", json_integer(0));
    assert_int_equal(stream_from_json(&back, object, "cfg.json", &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "cfg.json: d_model 0"));
    json_object_set_new(object, "d_model", json_integer((json_int_t)UINT32_MAX + 257)); /* 256 in 32 bits */
    assert_int_equal(stream_from_json(&back, object, "cfg.json", &e), ERR_INPUT);
    json_object_set_new(object, "d_model", json_integer(-1));
    assert_int_equal(stream_from_json(&back, object, "cfg.json", &e), ERR_INPUT);
    json_object_set_new(object, "d_model", json_integer(256));
    json_array_append_new(json_object_get(object, "sites"), json_string("one too many"));
    assert_int_equal(stream_from_json(&back, object, "cfg.json", &e), ERR_INPUT);
    json_object_del(object, "sites");
    assert_int_equal(stream_from_json(&back, object, "cfg.json", &e), ERR_INPUT);
    assert_int_equal(stream_from_json(&back, NULL, "cfg.json", &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "cfg.json"));
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_of_the_reference),
        cmocka_unit_test(the_table_is_sound),
        cmocka_unit_test(counts_and_numbers),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(json_keeps_every_bit),
        cmocka_unit_test_setup_teardown(what_is_not_given_comes_from_the_run, save_defaults, forget),
        cmocka_unit_test_setup_teardown(free_keys_may_change, save_defaults, forget),
        cmocka_unit_test_setup_teardown(fixed_keys_may_not, save_defaults, forget),
        cmocka_unit_test(which_keys_are_fixed),
        cmocka_unit_test_setup_teardown(damaged_files, save_defaults, forget),
        cmocka_unit_test(stream_round_trip),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
