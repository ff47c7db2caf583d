/* test_sites.c - names, order and globs of hook points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "sites.h"

static const char *const five[] = {"hook_resid_pre", "hook_attn_out",   "hook_resid_mid",
                                   "hook_mlp_out",   "hook_resid_post", NULL};
#define LAYERS(n) ((const struct hook_points[]){{five, n}})

static struct site_list list;
static struct err e;

static const char *name_of(size_t i, uint32_t n_models)
{
    static char name[SITE_NAME_SIZE];
    assert_true(i < list.n);
    site_name(name, &list.sites[i], n_models);
    return name;
}

static void test_default(void **state)
{
    (void)state;
    assert_int_equal(sites_match(&list, NULL, LAYERS(12), 1, &e), 0);
    assert_int_equal(list.n, 12);
    assert_string_equal(name_of(0, 1), "blocks.0.hook_resid_post");
    assert_string_equal(name_of(11, 1), "blocks.11.hook_resid_post");
}

static void test_order(void **state)
{
    (void)state;
    /* Whatever the order of the globs: by layer, then in forward order, each once. */
    assert_int_equal(sites_match(&list, "*mlp_out,blocks.1.*,blocks.1.hook_attn_out", LAYERS(3), 1, &e), 0);
    static const char *const want[] = {"blocks.0.hook_mlp_out",   "blocks.1.hook_resid_pre", "blocks.1.hook_attn_out",
                                       "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out",   "blocks.1.hook_resid_post",
                                       "blocks.2.hook_mlp_out"};
    assert_int_equal(list.n, 7);
    for (size_t i = 0; i < 7; i++)
        assert_string_equal(name_of(i, 1), want[i]);
}

static void test_models(void **state)
{
    (void)state;
    const struct hook_points models[] = {{five, 2}, {five, 4}};
    assert_int_equal(sites_match(&list, "blocks.[13].hook_resid_pre", models, 2, &e), 0);
    assert_int_equal(list.n, 3);
    assert_string_equal(name_of(0, 2), "0:blocks.1.hook_resid_pre");
    assert_string_equal(name_of(1, 2), "1:blocks.1.hook_resid_pre");
    assert_string_equal(name_of(2, 2), "1:blocks.3.hook_resid_pre");
    assert_int_equal(sites_match(&list, "1:*resid_post,0:blocks.0.hook_attn_out", models, 2, &e), 0);
    assert_int_equal(list.n, 5);
    assert_string_equal(name_of(0, 2), "0:blocks.0.hook_attn_out");
    assert_string_equal(name_of(4, 2), "1:blocks.3.hook_resid_post");
}

/* A model has the hook points that its family names, in that order; those of a pair may differ. */
static void test_points(void **state)
{
    (void)state;
    static const char *const two[] = {"hook_in", "hook_resid_post", NULL};
    const struct hook_points models[] = {{five, 1}, {two, 2}};
    assert_int_equal(sites_match(&list, "*", models, 2, &e), 0);
    static const char *const want[] = {
        "0:blocks.0.hook_resid_pre",  "0:blocks.0.hook_attn_out",   "0:blocks.0.hook_resid_mid",
        "0:blocks.0.hook_mlp_out",    "0:blocks.0.hook_resid_post", "1:blocks.0.hook_in",
        "1:blocks.0.hook_resid_post", "1:blocks.1.hook_in",         "1:blocks.1.hook_resid_post"};
    assert_int_equal(list.n, 9);
    for (size_t i = 0; i < 9; i++)
        assert_string_equal(name_of(i, 2), want[i]);
    assert_int_equal(sites_match(&list, "1:*mlp_out", models, 2, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "1:blocks.1.hook_resid_post (the last model has 2 layers; of each: hook_in, "
                                      "hook_resid_post)"));
    assert_int_equal(sites_match(&list, "*hook_in", models, 2, &e), 0);
    assert_int_equal(list.n, 2);
}

static void check_wanted(const char *globs, const struct hook_points *models, const char *const *want)
{
    char name[SITE_NAME_SIZE];
    if (sites_match(&list, globs, models, 2, &e))
        fail_msg("%s", e.message);
    for (size_t i = 0; i < list.wanted.n; i++) {
        site_list_name(name, &list, i, 2);
        assert_non_null(want[i]);
        assert_string_equal(name, want[i]);
    }
    assert_null(want[list.wanted.n]);
}

/* The sites of a difference are visited once each, in forward order of each model, whoever else wants them. */
static void test_differences(void **state)
{
    (void)state;
    const struct hook_points models[] = {{five, 2}, {five, 4}};
    check_wanted(
        "1-0:blocks.[01].hook_resid_post,1:blocks.1.*post,0:blocks.1.hook_attn_out,0-1:blocks.0.hook_resid_post",
        models,
        (const char *const[]){"0:blocks.1.hook_attn_out", "1:blocks.1.hook_resid_post", "0-1:blocks.0.hook_resid_post",
                              "1-0:blocks.0.hook_resid_post", "1-0:blocks.1.hook_resid_post", NULL});
    static const char *const visited[] = {"0:blocks.0.hook_resid_post", "0:blocks.1.hook_attn_out",
                                          "0:blocks.1.hook_resid_post", "1:blocks.0.hook_resid_post",
                                          "1:blocks.1.hook_resid_post"};
    assert_int_equal(list.n, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(name_of(i, 2), visited[i]);
    static const size_t wanted[5][2] = {{1, PICK_WHOLE}, {4, PICK_WHOLE}, {0, 3}, {3, 0}, {4, 2}};
    for (size_t i = 0; i < 5; i++)
        assert_true(list.wanted.picks[i].site == wanted[i][0] && list.wanted.picks[i].less == wanted[i][1]);

    assert_int_equal(sites_match(&list, "1-0:blocks.*.hook_resid_post", models, 2, &e), ERR_INPUT);
    assert_string_equal(e.message, "--sites: '1-0:blocks.*.hook_resid_post': model 1 has blocks.2.hook_resid_post, "
                                   "model 0 has no such site");
    assert_int_equal(sites_match(&list, "1-0:blocks.0.hook_resid_post", models, 1, &e), ERR_INPUT);
    assert_string_equal(e.message,
                        "--sites: '1-0:blocks.0.hook_resid_post': model 1 less model 0, but there is 1 model");
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(sites_match(&list, "blocks.0.*,blocks.12.hook_resid_post", LAYERS(12), 1, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "'blocks.12.hook_resid_post'"));
    assert_non_null(strstr(e.message, "blocks.11.hook_resid_post"));
    assert_non_null(strstr(e.message,
                           "12 layers; of each: hook_resid_pre, hook_attn_out, hook_resid_mid, hook_mlp_out, "
                           "hook_resid_post)"));
    assert_int_equal(sites_match(&list, "1:*", LAYERS(12), 1, &e), ERR_INPUT);
    assert_int_equal(sites_match(&list, "*,", LAYERS(12), 1, &e), ERR_INPUT);
    assert_int_equal(sites_match(&list, "", LAYERS(12), 1, &e), ERR_INPUT);
    char longest[400];
    memset(longest, '*', sizeof longest);
    longest[399] = '\0';
    assert_int_equal(sites_match(&list, longest, LAYERS(12), 1, &e), ERR_INPUT);
    assert_int_equal(sites_match(&list, "*", LAYERS(103), 1, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "512"));
    assert_int_equal(sites_match(&list, "*", LAYERS(102), 1, &e), 0);
    assert_int_equal(list.n, 510);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_default),     cmocka_unit_test(test_order),
                                       cmocka_unit_test(test_models),      cmocka_unit_test(test_points),
                                       cmocka_unit_test(test_differences), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
