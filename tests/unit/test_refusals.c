/* test_refusals.c - what is said of strangers: once each, and not more than so much in all. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "log_limit.h"
#include "refusals.h"

/* ---- what goes to stderr meanwhile ---- */

static FILE *said;
static int real_stderr;

static int listen_to_stderr(void **state)
{
    (void)state;
    said = tmpfile();
    real_stderr = dup(STDERR_FILENO);
    return !said || real_stderr < 0 || dup2(fileno(said), STDERR_FILENO) < 0;
}

static int stop_listening(void **state)
{
    (void)state;
    fclose(said);
    return dup2(real_stderr, STDERR_FILENO) < 0 || close(real_stderr);
}

/* Lines so far, or since forget(), that contain the text. */
static int lines_with(const char *text)
{
    char line[2000];
    int n = 0;
    rewind(said);
    while (fgets(line, sizeof line, said))
        n += strstr(line, text) != NULL;
    return n;
}

static void forget(void)
{
    assert_int_equal(ftruncate(fileno(said), 0), 0);
    lseek(STDERR_FILENO, 0, SEEK_SET);
}

/* ---- tests ---- */

static void counted_by_kind_and_said_once(void **state)
{
    (void)state;
    struct refusals r;
    uint64_t counts[REFUSAL_KINDS];
    refusals_init(&r);
    for (int i = 0; i < 5; i++)
        refusals_note(&r, REFUSAL_KEY, "refused %s: %s", "10.0.0.7", "not allowed");
    for (int i = 0; i < 3; i++)
        refusals_note(&r, REFUSAL_MEMORY, "closed %s", "10.0.0.8");
    refusals_counts(&r, counts);
    for (int kind = 0; kind < REFUSAL_KINDS; kind++)
        assert_int_equal(counts[kind], kind == REFUSAL_KEY ? 5 : kind == REFUSAL_MEMORY ? 3 : 0);
    assert_int_equal(lines_with("10.0.0.7: not allowed"), 1);
    assert_int_equal(lines_with("closed 10.0.0.8"), 1);
    refusals_release(&r);
}

static void a_thousand_strangers(void **state)
{
    (void)state;
    struct refusals r;
    uint64_t counts[REFUSAL_KINDS];
    refusals_init(&r);
    for (int i = 0; i < 1000; i++)
        refusals_note(&r, REFUSAL_IDLE, "stranger %d", i);
    refusals_counts(&r, counts);
    assert_int_equal(counts[REFUSAL_IDLE], 1000);
    assert_in_range(lines_with("stranger "), 60, 80); /* and one more for each second that this takes */
    refusals_release(&r);
}

static void a_limit_refills(void **state)
{
    (void)state;
    struct log_limit limit = {.lines = {.burst = 3, .per_s = 2}};
    forget();
    for (int i = 0; i < 10; i++)
        log_limited(&limit, "line %d", i);
    assert_int_equal(lines_with("line "), 3);
    assert_int_equal(limit.hidden, 7);
    limit.lines.since_ms -= 1000; /* a second later */
    log_limited(&limit, "line %d", 10);
    assert_int_equal(lines_with("... and 7 more such lines"), 1); /* this is the first of the two, */
    assert_int_equal(lines_with("line 10"), 1);                   /* that the second one */
    log_limited(&limit, "line %d", 11);
    assert_int_equal(lines_with("line 11"), 0);
    limit.lines.since_ms -= 100000; /* after long silence no more than the burst */
    for (int i = 20; i < 30; i++)
        log_limited(&limit, "line %d", i);
    assert_int_equal(lines_with("line 2"), 1 + 2); /* line 2, and two of these beside the number of those hidden */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counted_by_kind_and_said_once, listen_to_stderr, stop_listening),
        cmocka_unit_test_setup_teardown(a_thousand_strangers, listen_to_stderr, stop_listening),
        cmocka_unit_test_setup_teardown(a_limit_refills, listen_to_stderr, stop_listening),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
