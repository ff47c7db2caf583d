/* test_mem.c - blocks grow and keep what they hold; memory that a library could not get is told once, to its thread; and
 * JSON that lacks a part for want of memory is never written. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "json_file.h"
#include "mem.h"
#include "scratch.h"

static void grows_and_shrinks(void **state)
{
    (void)state;
    struct err e = {0};
    unsigned char *p = mem_realloc(NULL, 3, 1, "bytes", &e);
    assert_non_null(p);
    memcpy(p, "abc", 3);
    assert_non_null(p = mem_realloc(p, 1000, 5, "bytes", &e));
    assert_int_equal((uintptr_t)p % 64, 0);
    assert_memory_equal(p, "abc", 3);
    for (size_t i = 3; i < 5000; i++)
        assert_int_equal(p[i], 0);
    assert_null(mem_realloc(p, SIZE_MAX / 2, 3, "bytes", &e));
    assert_int_equal(e.code, ERR_MEMORY);
    assert_memory_equal(p, "abc", 3); /* as it was */
    assert_non_null(p = mem_realloc(p, 2, 1, "bytes", &e));
    assert_memory_equal(p, "ab", 2);
    mem_free(p);
}

static void copies_text(void **state)
{
    (void)state;
    char *empty = mem_strdup("", "text", NULL), *text = mem_strdup("a text", "text", NULL);
    assert_string_equal(empty, "");
    assert_string_equal(text, "a text");
    mem_free(empty);
    mem_free(text);
}

#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__ /* which keep what was freed */
/* A large block goes back when it is freed, and the next one is not touched, also after still larger ones were freed. */
static void large_blocks_go_back(void **state)
{
    (void)state;
    enum { MB = 1 << 20 };
    size_t before = mem_rss();
    for (size_t size = 16 * MB; size >= 2 * MB; size /= 2) {
        unsigned char *p = mem_alloc(size, 1, "block", NULL), *q = mem_alloc(64, 1, "small block", NULL);
        assert_non_null(p);
        assert_in_range(mem_rss(), 0, before + MB);
        memset(p, 1, size);
        assert_in_range(mem_rss(), before + size - MB, SIZE_MAX);
        mem_free(p);
        assert_in_range(mem_rss(), 0, before + MB);
        mem_free(q);
    }
}
#endif

#ifdef __SANITIZE_ADDRESS__ /* which else ends the program when malloc is asked for too much */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
#endif

/* Asks for more than there is address space for. */
static void fail_once(void)
{
    assert_null(mem_raw_alloc((size_t)1 << 60));
}

static void *ask_elsewhere(void *failed)
{
    *(int *)failed = mem_raw_failed("elsewhere", NULL);
    return NULL;
}

static void failure_is_told_once(void **state)
{
    (void)state;
    struct err e = {0};
    pthread_t thread;
    int elsewhere = -1;
    assert_int_equal(mem_raw_failed("file", &e), 0);
    fail_once();
    assert_int_equal(pthread_create(&thread, NULL, ask_elsewhere, &elsewhere), 0);
    pthread_join(thread, NULL);
    assert_int_equal(elsewhere, 0);
    void *p = mem_raw_alloc(10);
    assert_non_null(p);
    mem_raw_free(p);
    assert_int_equal(mem_raw_failed("file", &e), ERR_MEMORY); /* later success does not hide it */
    assert_string_equal(e.message, "file: cannot get 1152921504606846976 bytes of memory");
    assert_int_equal(mem_raw_failed("file", &e), 0);
}

static void incomplete_json_is_refused(void **state)
{
    (void)state;
    struct err e = {0};
    json_use_mem();
    json_t *object = json_pack("{s:[i, i]}", "a", 1, 2);
    char *text = json_text(object, JSON_COMPACT, "object", &e);
    assert_string_equal(text, "{\"a\":[1,2]}");
    mem_free(text);
    fail_once(); /* as if a part could not be added */
    assert_null(json_text(object, JSON_COMPACT, "object", &e));
    assert_int_equal(e.code, ERR_MEMORY);
    fail_once();
    const char *path = scratch_path("object.json");
    assert_int_equal(json_write(path, object, &e), ERR_MEMORY);
    assert_int_equal(scratch_count("object"), 0);
    assert_int_equal(json_write(path, NULL, &e), ERR_INPUT);
    assert_int_equal(json_write(path, object, &e), 0);
    json_decref(object);

    fail_once(); /* as if a string had been cut short */
    assert_int_equal(json_parse("{}", 2, 0, &object, "text", &e), ERR_MEMORY);
    assert_null(object);
    assert_int_equal(json_parse("{", 1, 0, &object, "text", &e), ERR_INPUT);
    assert_non_null(strstr(e.message, "text: not JSON, line 1"));
    assert_int_equal(json_parse("{}", 2, 0, &object, "text", &e), 0);
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_shrinks),
        cmocka_unit_test(copies_text),
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__
        cmocka_unit_test(large_blocks_go_back),
#endif
        cmocka_unit_test(failure_is_told_once),
        cmocka_unit_test(incomplete_json_is_refused),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
