/* What an output may take the place of: no input however it is spelt, and only files of its kind unless that is asked for. */
#include "overwrite.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <sys/stat.h>

#include "json_file.h"
#include "safetensors.h"
#include "scratch.h"

static const struct file_kind notes = {"notes", json_file_has, "note"};

static void refused(int rc, const struct err *e, const char *part)
{
    assert_int_equal(rc, ERR_INPUT);
    if (!strstr(e->message, part))
        fail_msg("message \"%s\" lacks \"%s\"", e->message, part);
}

static void kinds(void **state)
{
    (void)state;
    struct err e = {0};
    const char *path = scratch_path("kind");
    assert_int_equal(overwrite_check(path, &notes, &e), 0);
    scratch_write("kind", "", 0);
    assert_int_equal(overwrite_check(path, &notes, &e), 0);
    scratch_write("kind", "{\"note\": 1}", 11);
    assert_int_equal(overwrite_check(path, &notes, &e), 0);
    scratch_write("kind", "{\"nota\": 1}", 11);
    refused(overwrite_check(path, &notes, &e), &e, "not overwritten without --force: it exists and is not notes");
    refused(overwrite_check(scratch_folder, &notes, &e), &e, "exists and is not a regular file");
}

static void tensors(void **state)
{
    (void)state;
    struct err e = {0};
    struct safetensors_writer w;
    const struct tensor_spec spec = {"x", TENSOR_F32, 1, {1}};
    const struct file_kind x = {"x", safetensors_file_has, "x"}, y = {"y", safetensors_file_has, "y"};
    const char *path = scratch_path("tensors");
    assert_int_equal(safetensors_write_begin(&w, path, &spec, 1, NULL, 0, &e), 0);
    assert_int_equal(safetensors_write_data(&w, "1234", 4, &e), 0);
    assert_int_equal(safetensors_write_commit(&w, &e), 0);
    assert_int_equal(overwrite_check(path, &x, &e), 0);
    refused(overwrite_check(path, &y, &e), &e, "is not y");
    scratch_write("tensors", "{\"x\": 1}", 8);
    refused(overwrite_check(path, &x, &e), &e, "is not x");
}

static void inputs(void **state)
{
    (void)state;
    struct err e = {0};
    struct file_out o;
    static char input[512], folder[512], absent[512];
    static const char *paths[] = {input, folder, absent};
    snprintf(input, sizeof input, "%s", scratch_write("input", "{\"note\": 1}", 11));
    snprintf(folder, sizeof folder, "%s", scratch_path("folder"));
    snprintf(absent, sizeof absent, "%s", scratch_path("absent"));
    assert_int_equal(mkdir(folder, 0777), 0);
    scratch_write("folder/file", "{\"note\": 1}", 11);
    assert_int_equal(overwrite_check(input, &notes, &e), 0);
    overwrite_inputs(paths, 3);

    const char *hard = scratch_path("hard"), *soft = scratch_path("soft");
    assert_int_equal(link(input, hard), 0);
    assert_int_equal(symlink("folder/file", soft), 0);
    refused(overwrite_check(input, &notes, &e), &e, "not overwritten: it is an input");
    refused(overwrite_check(hard, &notes, &e), &e, "/input)");
    refused(overwrite_check(soft, &notes, &e), &e, "/folder)");
    refused(file_out_open(&o, soft, &e), &e, "/soft: not overwritten: it is an input");
    assert_int_equal(overwrite_check(absent, &notes, &e), 0);
    assert_int_equal(overwrite_check(scratch_write("folder-file", "{\"note\": 1}", 11), &notes, &e), 0);
    assert_int_equal(overwrite_check(scratch_path("folder/new"), &notes, &e), 0);
    scratch_write("absent", "{\"note\": 1}", 11); /* it is one as soon as it is there */
    refused(overwrite_check(absent, &notes, &e), &e, "it is an input");
    unlink(scratch_path("folder/file"));
    rmdir(folder);
}

static void force(void **state)
{
    (void)state;
    struct err e = {0};
    const char *path = scratch_write("forced", "text", 4);
    refused(overwrite_check(path, &notes, &e), &e, "without --force");
    overwrite_force();
    assert_int_equal(overwrite_check(path, &notes, &e), 0);
    refused(overwrite_check(scratch_path("input"), &notes, &e), &e, "it is an input");
    refused(overwrite_check(scratch_folder, &notes, &e), &e, "is not a regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds), cmocka_unit_test(tensors), cmocka_unit_test(inputs),
        cmocka_unit_test(force), /* for good: the last */
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
