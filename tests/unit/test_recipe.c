/* test_recipe.c - what configurations and presets ask of a backend, and what is refused before anything is made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "preset.h"
#include "recipe.h"

static struct err e;

static void set(struct config *c, const char *name, const char *text)
{
    if (config_set(c, config_index(name), text, &e))
        fail_msg("%s", e.message);
}

static struct stream two_models(void)
{
    struct stream s = {.n_sites = 2, .d_model = 10, .n_models = 2};
    strcpy(s.sites[0], "0:blocks.1.hook_resid_post");
    strcpy(s.sites[1], "1:blocks.1.hook_resid_post");
    return s;
}

static void defaults(void **state)
{
    (void)state;
    struct config c;
    struct stream s = two_models();
    config_init(&c);
    assert_int_equal(recipe_check(&c, &e), 0);
    assert_int_equal(recipe_settle(&c, &s, &e), 0);
    const struct backend_setup setup = recipe_setup(&c, &s);
    assert_string_equal(setup.activation, "relu");
    assert_int_equal(setup.n_terms, 2);
    assert_string_equal(setup.terms[0], "l2");
    assert_string_equal(setup.terms[1], "l1");
    assert_int_equal(setup.d_sae, 65536);
    assert_true(setup.two_models);
    const struct schedule schedule = {.total_steps = 100, .lr = 2, .l1_coeff = 3, .l1_warmup_fraction = 0.1};
    const struct step_options o = recipe_step(&c, &schedule, 5);
    assert_true(o.lr == 2 && o.weight[0] == 1 && o.weight[1] == 1.5 && o.k == 0 && !o.move_threshold);
}

static void batchtopk(void **state)
{
    (void)state;
    struct config c;
    struct stream s = two_models();
    config_init(&c);
    set(&c, "activation", "batchtopk");
    set(&c, "reconstruction", "norm");
    set(&c, "dict_size", "300");
    set(&c, "k", "20");
    set(&c, "k_start", "101");
    set(&c, "k_anneal_steps", "10");
    set(&c, "threshold_start", "7");
    assert_int_equal(recipe_check(&c, &e), 0);
    assert_int_equal(recipe_settle(&c, &s, &e), 0);
    assert_true(c.score == CONFIG_SCORE_NORM_SUM && c.aux_k == 5);
    const struct backend_setup setup = recipe_setup(&c, &s);
    assert_int_equal(setup.most_k, 101);
    assert_int_equal(setup.aux_k, 5);
    assert_true(setup.score == SCORE_NORM_SUM);
    assert_string_equal(setup.terms[0], "norm");
    assert_string_equal(setup.terms[1], "aux");
    const struct schedule schedule = {.total_steps = 100, .lr = 1};
    const size_t k[] = {101, 93, 85, 77, 69, 60,
                        52,  44, 36, 28, 20, 20}; /* 101 - 8.1 * step, to the nearest, half to even */
    for (uint64_t step = 0; step < 12; step++) {
        const struct step_options o = recipe_step(&c, &schedule, step);
        assert_int_equal(o.k, k[step]);
        assert_true(o.move_threshold == (step >= 7) && o.weight[1] == 0.03125);
    }
    set(&c, "aux_coeff", "0");
    assert_int_equal(recipe_setup(&c, &s).n_terms, 1);
}

static void jumprelu(void **state)
{
    (void)state;
    struct config c;
    struct stream s = two_models();
    config_init(&c);
    set(&c, "activation", "jumprelu");
    set(&c, "exclusive_latents", "30,20");
    set(&c, "shared_latents", "10");
    const struct backend_setup setup = recipe_setup(&c, &s);
    assert_string_equal(setup.terms[1], "tanh");
    assert_string_equal(setup.terms[2], "pre_act");
    assert_true(setup.bandwidth == 2 && setup.tanh_scale == 4 && !setup.ste_to_input && setup.shared_coeff == 0.1);
    assert_true(setup.partition.shared == 10 && setup.partition.exclusive[0] == 30 &&
                setup.partition.exclusive[1] == 20);
    const struct schedule schedule = {.total_steps = 100, .lr = 1};
    assert_true(recipe_step(&c, &schedule, 0).weight[1] == 0);
    assert_true(recipe_step(&c, &schedule, 25).weight[1] == 5 && recipe_step(&c, &schedule, 25).weight[2] == 3e-6);
}

/* Every value of a preset is one that its key takes; what a flag has set stays. */
static void presets(void **state)
{
    (void)state;
    const char *const names[] = {"seed", "ckkissane", "batchtopk-2025", "jumprelu-2025", "diff-sae"};
    struct stream s = two_models();
    for (size_t i = 0; i < 5; i++) {
        struct config c;
        config_init(&c);
        set(&c, "preset", names[i]);
        set(&c, "lr", "0.5");
        preset_apply(&c);
        assert_true(c.lr == 0.5);
        assert_int_equal(recipe_check(&c, &e), 0);
        s.d_model = 576;
        assert_int_equal(recipe_settle(&c, &s, &e), 0);
        const bool k = i == 2 || i == 4;
        assert_int_equal(c.dict_size, i == 1 ? 16384 : i == 2 ? 32 * 576 : i == 4 ? 2 * 576 : 65536);
        assert_string_equal(recipe_setup(&c, &s).activation, k ? "batchtopk" : i == 3 ? "jumprelu" : "relu");
        assert_int_equal(c.batch_size, i == 1 ? 4096 : i == 3 ? 32768 : 2048);
        assert_true(c.init_tied_models == (i == 2) && c.center == (i == 2));
        assert_int_equal(c.b_dec_init, i == 2 ? B_DEC_GEOMETRIC_MEDIAN : B_DEC_ZERO);
        assert_int_equal(c.scale_mode, i == 2 ? SCALE_TOTAL_STD : SCALE_MEAN_NORM);
        assert_true(c.lr_from_zero == (i == 0 || i == 2) && c.lr_warmup_steps == (i == 2 ? 1000 : 0));
    }
}

static void refused(const char *const flags[][2], size_t n, const char *one, const char *other)
{
    struct config c;
    struct stream s = two_models();
    config_init(&c);
    for (size_t i = 0; i < n; i++)
        set(&c, flags[i][0], flags[i][1]);
    int rc = recipe_check(&c, &e);
    if (rc == 0)
        rc = recipe_settle(&c, &s, &e);
    if (rc != ERR_INPUT || !strstr(e.message, one) || !strstr(e.message, other))
        fail_msg("%d: '%s' should say '%s' and '%s'", rc, e.message, one, other);
}

static void what_is_refused(void **state)
{
    (void)state;
#define REFUSED(one, other, ...)                   \
    refused((const char *const[][2]){__VA_ARGS__}, \
            sizeof((const char *const[][2]){__VA_ARGS__}) / sizeof(const char *[2]), one, other)
    REFUSED("l1_coeff", "batchtopk", {"activation", "batchtopk"}, {"l1_coeff", "2"});
    REFUSED("resample_steps", "topk", {"activation", "topk"}, {"resample_steps", "5"});
    REFUSED("bandwidth", "relu", {"bandwidth", "1"});
    REFUSED("aux_k", "jumprelu", {"activation", "jumprelu"}, {"aux_k", "5"});
    REFUSED("k 65537", "65536", {"activation", "topk"}, {"k", "65537"});
    REFUSED("k 300", "dict_size 200", {"activation", "topk"}, {"k_start", "300"}, {"k_anneal_steps", "5"},
            {"dict_size", "200"});
    REFUSED("k_start 300", "k_anneal_steps 0", {"activation", "topk"}, {"k_start", "300"});
    REFUSED("dec_init_norm", "jumprelu", {"activation", "jumprelu"}, {"dec_init_norm", "1"});
    REFUSED("log_threshold_init", "relu", {"log_threshold_init", "1"});
    REFUSED("dict_size 7", "expansion 2", {"dict_size", "7"}, {"expansion", "2"});
    REFUSED("lr_warmup 0.1", "lr_warmup_steps 5", {"lr_warmup", "0.1"}, {"lr_warmup_steps", "5"});
    REFUSED("fail_on_collapse is true", "eval_blocks 0", {"fail_on_collapse", "true"}, {"eval_blocks", "0"});
    struct config c;
    struct stream one = two_models();
    config_init(&c);
    set(&c, "shared_latents", "5");
    assert_int_equal(recipe_settle(&c, &one, &e), 0);
    strcpy(one.sites[1], "1:blocks.2.hook_resid_post");
    assert_int_equal(recipe_settle(&c, &one, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "shared_latents"));
    assert_non_null(strstr(e.message, "blocks.2.hook_resid_post"));
    strcpy(one.sites[0], "blocks.1.hook_resid_post");
    strcpy(one.sites[1], "blocks.2.hook_resid_post");
    assert_int_equal(recipe_settle(&c, &one, &e), ERR_INPUT);
    config_init(&c);
    assert_int_equal(config_set(&c, config_index("exclusive_latents"), "3", &e), ERR_INPUT);
    assert_int_equal(config_set(&c, config_index("exclusive_latents"), "3,4,5", &e), ERR_INPUT);
    assert_int_equal(config_set(&c, config_index("resample_steps"), "5,4", &e), ERR_INPUT);
    assert_int_equal(config_set(&c, config_index("resample_steps"), "5,,6", &e), ERR_INPUT);
    assert_int_equal(config_set(&c, config_index("preset"), "reference", &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "batchtopk-2025"));
}

/* Decoders of one model cannot be tied to those of another: asked for by a flag that is refused, by a preset it means nothing. */
static void tied(void **state)
{
    (void)state;
    struct stream two = two_models(), one = two_models();
    struct config c;
    one.n_models = 1;
    one.d_model = 576;
    strcpy(one.sites[0], "blocks.0.hook_resid_post");
    strcpy(one.sites[1], "blocks.1.hook_resid_post");
    config_init(&c);
    set(&c, "init_tied_models", "true");
    assert_int_equal(recipe_settle(&c, &two, &e), 0);
    assert_true(c.init_tied_models);
    assert_int_equal(recipe_settle(&c, &one, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "init_tied_models"));
    config_init(&c);
    set(&c, "preset", "batchtopk-2025");
    preset_apply(&c);
    assert_int_equal(recipe_settle(&c, &one, &e), 0);
    assert_false(c.init_tied_models);
}

static void resampling(void **state)
{
    (void)state;
    struct config c;
    uint64_t before;
    config_init(&c);
    assert_false(recipe_resamples(&c, 5, &before));
    set(&c, "resample_steps", "5,25,100");
    assert_false(recipe_resamples(&c, 0, &before));
    assert_true(recipe_resamples(&c, 5, &before) && before == 0);
    assert_false(recipe_resamples(&c, 6, &before));
    assert_true(recipe_resamples(&c, 25, &before) && before == 5);
    assert_true(recipe_resamples(&c, 100, &before) && before == 25);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults), cmocka_unit_test(batchtopk),       cmocka_unit_test(jumprelu),
        cmocka_unit_test(presets),  cmocka_unit_test(what_is_refused), cmocka_unit_test(resampling),
        cmocka_unit_test(tied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
