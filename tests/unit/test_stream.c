/* test_stream.c - what names of sites say, and which streams have sites that pair across two models. */
#include "stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "site_parts.h"

static void check_parts(const char *name, uint32_t n_models, uint32_t model, uint32_t less, const char *hook_point)
{
    struct site_parts p = site_parts(name);
    assert_int_equal(p.n_models, n_models);
    assert_int_equal(p.model, model);
    assert_int_equal(p.less, less);
    assert_string_equal(p.hook_point, hook_point);
    assert_true(p.hook_point >= name && p.hook_point <= name + strlen(name));
}

static void names(void **state)
{
    (void)state;
    check_parts("blocks.5.hook_resid_post", 0, 0, 0, "blocks.5.hook_resid_post");
    check_parts("0:blocks.5.hook_resid_post", 1, 0, 0, "blocks.5.hook_resid_post");
    check_parts("12:a:b", 1, 12, 0, "a:b");
    check_parts("1-0:blocks.*", 2, 1, 0, "blocks.*");
    check_parts("0-10:x", 2, 0, 10, "x");
    check_parts("999999999:", 1, 999999999, 0, "");
    static const char *const of_no_model[] = {"",     ":x",     "-1:x",  "1-:x", "1-0",     "1-0-2:x",      "01:x",
                                              "00:x", "1-00:x", "1.0:x", "1",    "layer:3", "1000000000:x", "+1:x"};
    for (size_t i = 0; i < sizeof of_no_model / sizeof *of_no_model; i++)
        check_parts(of_no_model[i], 0, 0, 0, of_no_model[i]);
}

/* Returns what stream_pairs_models says of the names, a list that ends with NULL. */
static int pairs(const char *const *sites, struct err *e)
{
    static struct stream s;
    memset(&s, 0, sizeof s);
    for (; sites[s.n_sites]; s.n_sites++)
        strcpy(s.sites[s.n_sites], sites[s.n_sites]);
    memset(e, 0, sizeof *e);
    return stream_pairs_models(&s, e);
}
#define PAIRS(...) pairs((const char *const[]){__VA_ARGS__, NULL}, &e)

static void sites_that_pair(void **state)
{
    (void)state;
    struct err e;
    assert_int_equal(PAIRS("0:a", "1:a"), 0);
    assert_int_equal(PAIRS("0:blocks.1.hook_resid_post", "0:blocks.0.hook_mlp_out", "1:blocks.1.hook_resid_post",
                           "1:blocks.0.hook_mlp_out"),
                     0);
}

#define REFUSED(text, ...)                               \
    do {                                                 \
        assert_int_equal(PAIRS(__VA_ARGS__), ERR_INPUT); \
        assert_int_equal(e.code, ERR_INPUT);             \
        assert_string_equal(e.message, text);            \
    } while (0)

/* The first site that does not pair is named, and what stands where its partner should. */
static void sites_that_do_not(void **state)
{
    (void)state;
    struct err e;
    REFUSED("site 0 (a) pairs with none: the sites of two models are 0:... and 1:...", "a", "b");
    REFUSED("site 0 (1:a) pairs with none: the sites of two models are 0:... and 1:...", "1:a", "0:a");
    REFUSED("site 0 (1-0:a) pairs with none: the sites of two models are 0:... and 1:...", "1-0:a");
    REFUSED("site 1 (0:b) pairs with none: in its place in the second half, site 3 is 1:c", "0:a", "0:b", "1:a", "1:c");
    REFUSED("site 0 (0:a) pairs with none: in its place in the second half, site 2 is 1:b", "0:a", "0:b", "1:b", "1:a");
    REFUSED("site 0 (0:a) pairs with none: in its place in the second half, site 1 is 2:a", "0:a", "2:a");
    REFUSED("site 0 (0:a) pairs with none: in its place in the second half, site 1 is 1-0:a", "0:a", "1-0:a");
    REFUSED("site 1 (0:b) pairs with none: 2 sites are of model 0, 1 follow", "0:a", "0:b", "1:a");
    REFUSED("site 0 (0:a) pairs with none: 1 sites are of model 0, 0 follow", "0:a");
    REFUSED("site 2 (1-0:a) pairs with none: 1 sites are of model 0, 2 follow", "0:a", "1:a", "1-0:a");
    REFUSED("site 2 (1:b) pairs with none: 1 sites are of model 0, 2 follow", "0:a", "1:a", "1:b");
    REFUSED("site 0 (0:a) pairs with none: in its place in the second half, site 1 is 1:b", "0:a", "1:b", "0:b", "1:a");
}

/* Returns what stream_check says of a stream of so many models with these sites; "" if nothing. */
static const char *check(uint32_t n_models, const char *const *sites)
{
    static struct stream s;
    static struct err e;
    s = (struct stream){
        .d_model = 4, .seq_len = 2, .rows_per_seq = 1, .n_seq = 1, .n_models = n_models, .can_f32 = true};
    for (; sites[s.n_sites]; s.n_sites++)
        strcpy(s.sites[s.n_sites], sites[s.n_sites]);
    e = (struct err){0};
    return stream_check(&s, &e) ? e.message : "";
}
#define CHECK(text, n_models, ...) assert_string_equal(check(n_models, (const char *const[]){__VA_ARGS__, NULL}), text)

/* Which model a site is of stands in its name if there are two or more, and only then. */
static void sites_of_models(void **state)
{
    (void)state;
    CHECK("", 0, "a", "b");
    CHECK("", 1, "a", "layer:3");
    CHECK("", 2, "0:a", "1:a", "1-0:a", "0-1:a");
    CHECK("", 2, "1:a");
    CHECK("", 3, "2:a", "0-2:a");
    CHECK("site 0 (0:a) names a model, but there is one only", 1, "0:a");
    CHECK("site 1 (1-0:a) names a model, but there is one only", 1, "a", "1-0:a");
    CHECK("site 0 (0:a) names a model, but there is none", 0, "0:a");
    CHECK("site 1 (b) names no model, but there are 2: must be 0:b, or another's", 2, "0:a", "b");
    CHECK("site 1 (2:a) names model 2, but there are 2, counted from 0", 2, "0:a", "2:a");
    CHECK("site 0 (0-7:a) names model 7, but there are 2, counted from 0", 2, "0-7:a");
    CHECK("sites 0 and 2 are both a", 1, "a", "b", "a");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names), cmocka_unit_test(sites_that_pair),
                                       cmocka_unit_test(sites_that_do_not), cmocka_unit_test(sites_of_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
