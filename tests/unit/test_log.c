/* test_log.c - lines are shown escaped, and a standard error that nobody reads holds up nobody. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "clock.h"
#include "log.h"

#define N_LINES 20000 /* of which a pipe and the queue hold some thousands */

/* Runs say() in a process of its own whose standard error is a pipe. Returns the pipe's end to read from. */
static int start(void (*say)(void), pid_t *pid)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    *pid = fork();
    assert_true(*pid >= 0);
    if (*pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        log_init("test");
        say();
        exit(0);
    }
    close(ends[1]);
    return ends[0];
}

static char text[4 << 20];

/* Reads until the process has ended, and returns its status. */
static int take_all(int fd, pid_t pid)
{
    size_t size = 0;
    int status;
    for (ssize_t n; (n = read(fd, text + size, sizeof text - 1 - size)) > 0; size += (size_t)n)
        ;
    text[size] = '\0';
    close(fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void say_escaped(void)
{
    log_line("%s", "red\x1b[31m\xe2\x80\xae\nM\xfcller");
    log_in_background();
    log_line("%s", "red\x1b[31m\xe2\x80\xae\nM\xfcller");
}

static void lines_are_escaped(void **state)
{
    (void)state;
    pid_t pid;
    int fd = start(say_escaped, &pid);
    assert_int_equal(take_all(fd, pid), 0);
    assert_string_equal(text, "test: red\\x1b[31m\\u202e\\x0aM\\xfcller\ntest: red\\x1b[31m\\u202e\\x0aM\\xfcller\n");
}

static void say_much(void)
{
    log_in_background();
    for (int i = 0; i < N_LINES; i++)
        log_line("line %d of many", i);
    raise(SIGSTOP); /* all said: the test goes on */
}

static void a_blocked_standard_error_blocks_nobody(void **state)
{
    (void)state;
    pid_t pid;
    int status, n = 0, last = -1, lost = 0;
    int fd = start(say_much, &pid);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid); /* nobody has read a line yet */
    assert_true(WIFSTOPPED(status));
    kill(pid, SIGCONT);
    assert_int_equal(take_all(fd, pid), 0);
    for (char *line, *rest = text; (line = strsep(&rest, "\n")) && *line; n++) {
        int i, more;
        if (sscanf(line, "test: line %d of many", &i) == 1) {
            assert_true(i > last); /* in their order */
            last = i;
        } else if (sscanf(line, "test: ... and %d lines that standard error did not take", &more) == 1) {
            lost += more;
            n--;
        } else {
            fail_msg("'%s'", line);
        }
    }
    assert_true(lost > 0);
    assert_int_equal(n + lost, N_LINES);
}

static void the_end_waits_a_second_at_most(void **state)
{
    (void)state;
    pid_t pid;
    int status;
    int fd = start(say_much, &pid);
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    int64_t begun = clock_ms();
    kill(pid, SIGCONT);
    assert_int_equal(waitpid(pid, &status, 0), pid); /* still nobody reads */
    assert_int_equal(status, 0);
    assert_true(clock_ms() - begun < 10000);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_escaped),
        cmocka_unit_test(a_blocked_standard_error_blocks_nobody),
        cmocka_unit_test(the_end_waits_a_second_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
