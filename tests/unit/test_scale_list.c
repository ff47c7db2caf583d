/* test_scale_list.c - a scale by place or by name lands on the site that was meant, or is refused. */
#include "scale_list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static const struct stream stream = {.n_sites = 3, .sites = {"blocks.0", "a=b", "1-0:c"}};

static void refuses(const char *text, const char *part)
{
    struct scale_list l;
    struct err e = {0};
    float scale[STREAM_MAX_SITES];
    if (scale_list_parse(&l, text, &e) == 0 && scale_list_match(&l, &stream, scale, &e) == 0)
        fail_msg("'%s' was taken, should say '%s'", text, part);
    if (!strstr(e.message, part))
        fail_msg("'%s' does not say '%s'", e.message, part);
}

static void takes(const char *text)
{
    struct scale_list l;
    struct err e = {0};
    float scale[3];
    if (scale_list_parse(&l, text, &e) || scale_list_match(&l, &stream, scale, &e))
        fail_msg("'%s': %s", text, e.message);
    assert_true(scale[0] == 0.5f && scale[1] == 2 && scale[2] == 1e-3f);
}

static void taken(void **state)
{
    (void)state;
    takes("0.5, 2, 1e-3");
    takes("blocks.0=0.5,a=b=2,1-0:c=1e-3");
    takes("1-0:c=1e-3, blocks.0=0.5,a=b=2");
}

static void refused(void **state)
{
    (void)state;
    refuses("", "value 0 is not a positive number");
    refuses("0.5,2,", "value 2 is not");
    refuses("0.5,-2,1", "value 1 is not");
    refuses("0.5,inf,1", "value 1 is not");
    refuses("blocks.0=x", "value 0 is not");
    refuses("0.5,2", "3 sites, the scale has 2 values");
    refuses("blocks.0=0.5,2,1", "either all values have names or none");
    refuses("=1", "name 0 has 0 characters");
    refuses("a234567890123456789012345678901234567890123456789012345678901234=1",
            "name 0 has 64 characters, must be 1 to 63");
    refuses("blocks.0=0.5,blocks.0=0.25", "blocks.0 is named twice, with 0.5 and 0.25");
    refuses("blocks.0=0.5,a=b=2", "no value for site 2, 1-0:c");
    refuses("blocks.0=0.5,a=b=2,c=1", "names c, which is no site; there are blocks.0 ... 1-0:c");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(taken), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
