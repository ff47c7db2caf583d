/* test_bus_error.c - a file that shrinks while it is mapped ends the program, which names it; in child processes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "bus_error.h"
#include "scratch.h"

enum { SIZE = 20000 };

/* In a child: maps `path` and another file, cuts `path` short and reads its last byte. Returns the child's status; text:
 * what it wrote to stderr. */
static int read_cut_file(const char *path, bool catch, bool unmap_first, char *text, size_t size)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        struct file_map other, m, again;
        dup2(ends[1], STDERR_FILENO);
        signal(SIGBUS, SIG_DFL); /* not a sanitizer's */
        if (catch)
            bus_error_catch("tester");
        if (file_map(&other, scratch_path("other"), NULL) || file_map(&m, path, NULL) || file_map(&again, path, NULL))
            _exit(2);
        if (unmap_first)
            file_unmap(&m);
        if (truncate(path, 100) != 0)
            _exit(3);
        volatile unsigned char last = again.data[SIZE - 1];
        _exit(4 + !last);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], text, size - 1), more = 0;
    for (; n >= 0 && (more = read(ends[0], text + n, size - 1 - (size_t)n)) > 0; n += more)
        ;
    text[n < 0 ? 0 : n] = '\0';
    close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static const char *make_files(void)
{
    static char bytes[SIZE];
    scratch_write("other", bytes, SIZE);
    return scratch_write("shrinks", bytes, SIZE);
}

static void the_file_is_named(void **state)
{
    (void)state;
    char text[1024];
    for (int unmap = 0; unmap < 2; unmap++) {
        int status = read_cut_file(make_files(), true, unmap, text, sizeof text);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
        assert_memory_equal(text, "tester: ", 8);
        assert_non_null(strstr(text, "/shrinks: cannot be read any more"));
        assert_null(strstr(text, "other"));
    }
}

static void uncaught_it_kills(void **state)
{
    (void)state;
    char text[1024];
    int status = read_cut_file(make_files(), false, false, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

/* Not in a file of ours: the handler must not loop. */
static void another_map_kills(void **state)
{
    (void)state;
    int status;
    pid_t child = fork();
    if (child == 0) {
        bus_error_catch("tester");
        raise(SIGBUS);
        raise(SIGBUS);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_named),
        cmocka_unit_test(uncaught_it_kills),
        cmocka_unit_test(another_map_kills),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
