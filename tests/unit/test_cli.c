/* test_cli.c - a command line from tables: what it sets, what it refuses, and what --help shows. A refusal ends the
 * program, so each line is parsed by a child. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "cli.h"

enum shape { ROUND, SQUARE };
static const char *const shapes[] = {"round", "square", NULL};

static struct fields {
    uint64_t count;
    uint32_t narrow;
    double number;
    enum shape shape;
    bool loud, fixed;
    char text[16];
    const char *file;
    struct flag_list inputs;
} x;

#define FLAG(words, of_kind, field, ...)                                                                           \
    {                                                                                                              \
        .name = words, .kind = of_kind, FLAG_FIELD(struct fields, field), .help = "what " words " is", __VA_ARGS__ \
    }

static const struct flag flags[] = {
    FLAG("dict_size", FLAG_COUNT, count, .low = 1, .high = 100, .initial = "8", .group = "Size"),
    FLAG("narrow", FLAG_COUNT, narrow, .high = 100, .group = "Size"),
    FLAG("lr", FLAG_NUMBER, number, .high = 1, .group = "Speed"),
    FLAG("shape", FLAG_CHOICE, shape, .choices = shapes, .group = "Size"),
    FLAG("loud", FLAG_SWITCH, loud, .group = "Speed"),
    FLAG("fixed", FLAG_SWITCH, fixed, .arg = "true|false", .group = "Speed"),
    FLAG("title", FLAG_TEXT, text, .group = "Names"),
    FLAG("file", FLAG_STRING, file, .arg = "FILE", .group = "Names"),
    FLAG("input", FLAG_LIST, inputs, .high = 2, .arg = "FILE", .group = "Names"),
};
#define N_FLAGS (sizeof flags / sizeof flags[0])

static bool given[N_FLAGS];
static const char *items[2];

static int check(void *context, struct err *e)
{
    const struct fields *f = context;
    return f->count == 13 ? err_set(e, ERR_INPUT, "--dict-size 13 is bad luck") : 0;
}

static void parse(const char *const *words)
{
    static struct cli cli;
    struct err e = {0};
    char *argv[16] = {(char *)(uintptr_t) "prog"};
    int n = 1;
    for (; words[n - 1]; n++)
        argv[n] = (char *)(uintptr_t)words[n - 1];
    memset(&x, 0, sizeof x);
    memset(given, 0, sizeof given);
    x.inputs.items = items;
    x.number = 0.25;
    x.shape = SQUARE;
    cli = (struct cli){.doc = "Does nothing.", .footer = "Example:\n  prog --lr 1", .check = check, .context = &x};
    for (size_t i = 0; i < N_FLAGS; i++) {
        flag_set_initial(&flags[i], &x);
        cli_add(&cli, &flags[i], &x, &given[i]);
    }
    assert_int_equal(cli_parse(&cli, n, argv, &e), 0);
}
#define PARSE(...) parse((const char *const[]){__VA_ARGS__, NULL})

/* What a child that parses these words writes, and how it ends; text [4096]. */
static int child(const char *const *words, char *text)
{
    int fds[2], status;
    size_t n = 0;
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        close(fds[0]);
        close(fds[1]);
        parse(words);
        _exit(0);
    }
    close(fds[1]);
    for (ssize_t got; n < 4095 && (got = read(fds[0], text + n, 4095 - n)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void refused(const char *message, const char *const *words)
{
    char text[4096], first[256];
    int status = child(words, text);
    if (status != 2)
        fail_msg("ended with %d and said '%s'", status, text);
    snprintf(first, sizeof first, "prog: %s\n", message);
    if (strncmp(text, first, strlen(first)) != 0)
        fail_msg("said '%s', should say '%s'", text, message);
}
#define REFUSED(message, ...) refused(message, (const char *const[]){__VA_ARGS__, NULL})

static void what_is_set(void **state)
{
    (void)state;
    parse((const char *const[]){NULL});
    assert_true(x.count == 8 && x.number == 0.25 && x.shape == SQUARE && !x.loud && !x.file && x.inputs.n == 0);
    for (size_t i = 0; i < N_FLAGS; i++)
        assert_false(given[i]);
    PARSE("--dict-size", "9", "--lr=1e-3", "--shape", "round", "--loud", "--title", "T", "--input", "a", "--input",
          "b");
    assert_true(x.count == 9 && x.number == 1e-3 && x.shape == ROUND && x.loud && x.inputs.n == 2);
    assert_string_equal(x.text, "T");
    assert_string_equal(items[1], "b");
    static const bool expected[N_FLAGS] = {true, false, true, true, true, false, true, false, true};
    assert_memory_equal(given, expected, sizeof given);
    PARSE("--fixed");
    assert_true(x.fixed);
    PARSE("--fixed", "--fixed=false");
    assert_false(x.fixed);
    PARSE("--dict-size", "9", "--dict-size", "10", "--shape", "round", "--shape", "square"); /* the last one holds */
    assert_true(x.count == 10 && x.shape == SQUARE);
}

static void what_is_refused(void **state)
{
    (void)state;
    REFUSED("--dict-size '0': must be a whole number from 1 to 100", "--dict-size", "0");
    REFUSED("--narrow '1.5': must be a whole number from 0 to 100", "--narrow", "1.5");
    REFUSED("--lr '2': must be a number from 0 to 1", "--lr", "2");
    REFUSED("--shape 'oval': must be round or square", "--shape", "oval");
    REFUSED("--fixed 'yes': must be true or false", "--fixed=yes");
    REFUSED("--title: 16 characters, at most 15", "--title", "0123456789abcdef");
    REFUSED("--input 'c': more than 2 of them", "--input", "a", "--input", "b", "--input", "c");
    REFUSED("--file is given twice: 'a' and 'b'", "--file", "a", "--file", "b");
    REFUSED("--title is given twice: 'a' and 'a'", "--title", "a", "--title", "a");
    REFUSED("unexpected argument 'stray'", "stray");
    REFUSED("--dict-size 13 is bad luck", "--dict-size", "13");
    REFUSED("unrecognized option '--nonsense'", "--nonsense");
}

static void help(void **state)
{
    (void)state;
    static const char *const lines[] = {"Does nothing.\n",
                                        "\n Size:\n",
                                        "\n Speed:\n",
                                        "\n Names:\n",
                                        "--dict-size=N          what dict_size is (default 8)\n",
                                        "--narrow=N             what narrow is\n", /* 0: no default to speak of */
                                        "--lr=N                 what lr is (default 0.25)\n",
                                        "--shape=round|square   what shape is (default square)\n",
                                        "--loud                 what loud is\n",
                                        "--fixed[=true|false]   what fixed is\n",
                                        "--title=TEXT ",
                                        "--file=FILE            what file is\n",
                                        "\nExample:\n  prog --lr 1\n"};
    char text[4096];
    assert_int_equal(child((const char *const[]){"--help", NULL}, text), 0);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        if (!strstr(text, lines[i]))
            fail_msg("'%s' is missing in '%s'", lines[i], text);
    const char *size = strstr(text, " Size:\n"), *speed = strstr(text, " Speed:\n"), *shape = strstr(text, "--shape");
    assert_true(size < shape && shape < speed); /* a flag stands under its heading, wherever its row is */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_set),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
