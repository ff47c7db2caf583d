/* test_sites.c - names, order and globs of hook points. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "sites.h"

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
    assert_int_equal(sites_match(&list, NULL, (uint32_t[]){12}, 1, &e), 0);
    assert_int_equal(list.n, 12);
    assert_string_equal(name_of(0, 1), "blocks.0.hook_resid_post");
    assert_string_equal(name_of(11, 1), "blocks.11.hook_resid_post");
}

static void test_order(void **state)
{
    (void)state;
    /* Whatever the order of the globs: by layer, then in forward order, each once. */
    assert_int_equal(sites_match(&list, "*mlp_out,blocks.1.*,blocks.1.hook_attn_out", (uint32_t[]){3}, 1, &e), 0);
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
    const uint32_t n_layers[] = {2, 4};
    assert_int_equal(sites_match(&list, "blocks.[13].hook_resid_pre", n_layers, 2, &e), 0);
    assert_int_equal(list.n, 3);
    assert_string_equal(name_of(0, 2), "0:blocks.1.hook_resid_pre");
    assert_string_equal(name_of(1, 2), "1:blocks.1.hook_resid_pre");
    assert_string_equal(name_of(2, 2), "1:blocks.3.hook_resid_pre");
    assert_int_equal(sites_match(&list, "1:*resid_post,0:blocks.0.hook_attn_out", n_layers, 2, &e), 0);
    assert_int_equal(list.n, 5);
    assert_string_equal(name_of(0, 2), "0:blocks.0.hook_attn_out");
    assert_string_equal(name_of(4, 2), "1:blocks.3.hook_resid_post");
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(sites_match(&list, "blocks.0.*,blocks.12.hook_resid_post", (uint32_t[]){12}, 1, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "'blocks.12.hook_resid_post'"));
    assert_non_null(strstr(e.message, "blocks.11.hook_resid_post"));
    assert_non_null(strstr(e.message, "12 layers"));
    assert_int_equal(sites_match(&list, "1:*", (uint32_t[]){12}, 1, &e), ERR_INPUT);
    assert_int_equal(sites_match(&list, "*,", (uint32_t[]){12}, 1, &e), ERR_INPUT);
    assert_int_equal(sites_match(&list, "", (uint32_t[]){12}, 1, &e), ERR_INPUT);
    char longest[400];
    memset(longest, '*', sizeof longest);
    longest[399] = '\0';
    assert_int_equal(sites_match(&list, longest, (uint32_t[]){12}, 1, &e), ERR_INPUT);
    assert_int_equal(sites_match(&list, "*", (uint32_t[]){103}, 1, &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "512"));
    assert_int_equal(sites_match(&list, "*", (uint32_t[]){102}, 1, &e), 0);
    assert_int_equal(list.n, 510);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_default), cmocka_unit_test(test_order),
                                       cmocka_unit_test(test_models), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
