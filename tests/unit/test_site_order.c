/* test_site_order.c - numbers in names are numbers, and sites from files have the places of a live run. */
#include "site_order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "name_order.h"

/* Each name stands before all that follow it, and is only itself. */
static void check(int (*order)(const char *, const char *), const char *const *names)
{
    for (size_t i = 0; names[i]; i++)
        for (size_t k = 0; names[k]; k++) {
            int is = order(names[i], names[k]);
            if ((is > 0) - (is < 0) != (i > k) - (i < k))
                fail_msg("%s and %s: %d", names[i], names[k], is);
        }
}

static void names(void **state)
{
    (void)state;
    check(name_order, (const char *const[]){"",
                                            "0",
                                            "00",
                                            "01",
                                            "1",
                                            "2",
                                            "9",
                                            "10",
                                            "a",
                                            "a-1",
                                            "a.1",
                                            "a.2",
                                            "a.10",
                                            "a.10.b",
                                            "a00.x",
                                            "a0.y",
                                            "a01.x",
                                            "a1.y",
                                            "a2",
                                            "a10",
                                            "a184467440737095516150",
                                            "a184467440737095516151",
                                            "a\xc3",
                                            NULL});
    assert_true(name_order_n("a10", 2, "a2", 2) < 0); /* a1 and a2 */
    assert_int_equal(name_order_n("a1x", 2, "a1y", 2), 0);
}

static void sites(void **state)
{
    (void)state;
    check(site_order,
          (const char *const[]){"blocks.0.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.2.hook_attn_out",
                                "blocks.2.hook_resid_mid", "blocks.2.hook_mlp_out", "blocks.2.hook_resid_post",
                                "blocks.2.other", "blocks.10.hook_resid_post", "1:blocks.2.hook_mlp_out",
                                "1:blocks.11.hook_mlp_out", "10:blocks.0.hook_mlp_out", "1-0:blocks.9.hook_mlp_out",
                                "1-0:blocks.10.hook_mlp_out", "2-0:blocks.0.hook_mlp_out", NULL});
    check(site_order, (const char *const[]){"0:blocks.9.hook_resid_post", "0:blocks.10.hook_resid_post",
                                            "1:blocks.0.hook_resid_post", NULL});
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(sites)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
