/* test_status.c - the run's status: rates that forget, status.json and the Prometheus text of a snapshot. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "clock.h"
#include "json_file.h"
#include "ledger.h"
#include "scratch.h"
#include "status.h"
#include "status_json.h"
#include "status_text.h"
#include "status_writer.h"

static struct status_snapshot s;

static int set_up(void **state)
{
    (void)state;
    memset(&s, 0, sizeof s);
    s.loss = s.l0 = s.fvu = s.fvu_typical = s.clipped = s.dead = s.silent = NAN;
    return 0;
}

static void add_producer(const char *name)
{
    struct ingest_producer *p = &s.ingest.producers[s.ingest.n_producers++];
    memset(p, 0, sizeof *p);
    p->number = s.ingest.n_producers;
    snprintf(p->name, sizeof p->name, "%s", name);
}

/* ---- rates ---- */

static void rates_forget(void **state)
{
    (void)state;
    struct rate r = {0};
    assert_true(isnan(rate_value(&r)));
    rate_add(&r, 10, 2);
    assert_float_equal(rate_value(&r), 5, 1e-9); /* the first is all there is */
    for (int i = 0; i < 300; i++)
        rate_add(&r, 40, 2);
    assert_float_equal(rate_value(&r), 20, 1e-6);
    rate_add(&r, 0, 1e9);
    assert_float_equal(rate_value(&r), 0, 1e-6);
}

static void remaining_time(void **state)
{
    (void)state;
    s.step = 25;
    s.total_steps = 100;
    s.batch_size = 8;
    assert_true(isnan(status_eta_s(&s)));
    rate_add(&s.rows_rate, 0, 2);
    assert_true(isnan(status_eta_s(&s))); /* not infinite */
    s.rows_rate = (struct rate){0};
    rate_add(&s.rows_rate, 12, 2);
    assert_float_equal(status_eta_s(&s), 100, 1e-9);
}

static void shares_of_producers(void **state)
{
    (void)state;
    assert_true(isnan(status_mean_share(&s, STATUS_WAITING)));
    add_producer("silent");
    add_producer("one");
    add_producer("two");
    assert_true(isnan(status_mean_share(&s, STATUS_WAITING)));
    for (int i = 1; i < 3; i++)
        s.ingest.producers[i].reports = true;
    s.ingest.producers[1].computing = 0.25f;
    s.ingest.producers[1].sending = 0.5f;
    s.ingest.producers[2].computing = 1;
    assert_true(isnan(status_share(&s.ingest.producers[0], STATUS_COMPUTING)));
    assert_float_equal(status_share(&s.ingest.producers[1], STATUS_WAITING), 0.25, 1e-9);
    assert_float_equal(status_mean_share(&s, STATUS_WAITING), 0.125, 1e-9);
    assert_float_equal(status_mean_share(&s, STATUS_SENDING), 0.25, 1e-9);
    s.ingest.producers[2].sending = 1; /* says more than there is */
    assert_float_equal(status_share(&s.ingest.producers[2], STATUS_WAITING), 0, 0);
}

/* ---- what the threads tell, and the file ---- */

static struct ingest_snapshot ingest;

static void two_sides(void **state)
{
    (void)state;
    struct status *status;
    struct err e = {0};
    assert_int_equal(status_new(&status, &e), 0);
    status_run(status, "cafe", 10, 100, 4);
    status_phase(status, STATUS_TRAINING);
    struct step_report r = {.step = 10, .path = STEP_SPARSE, .loss = 2.5, .l0 = 7};
    status_step(status, &r);
    status_skipped(status, 2);
    status_waited(status, 1e-9);

    memset(&ingest, 0, sizeof ingest);
    ingest.counters.rows_received = 123;
    ingest.window_rows = 3;
    ingest.window_slots = 4;
    ingest.n_producers = 2;
    for (uint64_t i = 0; i < 2; i++) {
        ingest.producers[i] = (struct ingest_producer){.number = i + 1, .here_s = 10, .rows = 100 * (i + 1)};
        snprintf(ingest.producers[i].name, sizeof ingest.producers[i].name, "p%d", (int)i + 1);
    }
    status_ingest(status, &ingest);
    status_snapshot(status, &s);
    assert_int_equal(s.step, 11);
    assert_int_equal(s.batches_skipped, 2);
    assert_true(status_rows_per_s(&s) > 0);
    assert_true(status_waiting(&s) > 0 && status_waiting(&s) <= 1);
    assert_float_equal(rate_value(&s.producer_rates[1]), 20, 1e-6);

    /* The first one leaves: the other keeps its rate. */
    ingest.producers[0] = ingest.producers[1];
    ingest.n_producers = 1;
    status_ingest(status, &ingest);
    status_snapshot(status, &s);
    assert_int_equal(s.ingest.n_producers, 1);
    double rate = rate_value(&s.producer_rates[0]);
    assert_true(rate > 15 && rate <= 20);
    char text[128];
    status_sides(status, text, sizeof text);
    assert_string_equal(text, "window 75 %, 1 producer");

    /* A third one gets the place of the first, before the second: that keeps its rate too. */
    ingest.producers[1] = ingest.producers[0];
    ingest.producers[0] = (struct ingest_producer){.number = 3, .here_s = 1};
    ingest.producers[1].here_s = 1e6;
    ingest.n_producers = 2;
    status_ingest(status, &ingest);
    status_snapshot(status, &s);
    assert_true(rate_value(&s.producer_rates[0]) == 0);
    assert_true(rate_value(&s.producer_rates[1]) > 15);
    status_free(status);
}

/* Writes the file and reads it. dead: whether dead latents can be told. */
static json_t *write_file(bool dead, const char *collapse)
{
    struct status *status;
    struct status_writer *writer;
    struct err e = {0};
    assert_int_equal(status_new(&status, &e), 0);
    assert_int_equal(status_writer_start(&writer, status, scratch_folder, &e), 0);
    status_run(status, "cafe", 10, 100, 4);
    struct step_report r = {.step = 10, .path = STEP_SPARSE, .loss = 2.5, .l0 = 7, .dead = 3, .dead_measurable = dead};
    fvu_unknown(&r.fvu);
    r.fvu.fvu_typical = 0.25;
    status_step(status, &r);
    status_line(status, &r, 0.5);
    status_evaluation(status, &(struct evaluation_report){.silent = 9});
    status_collapse(status, collapse);
    ingest.counters.rows_received = 123;
    status_ingest(status, &ingest);
    status_end(status, STATUS_DONE, "");
    status_writer_stop(writer);
    status_free(status);
    json_t *value;
    assert_int_equal(json_read_object(scratch_path("status.json"), &value, &e), 0);
    return value;
}

static void the_file(void **state)
{
    (void)state;
    json_t *value = write_file(false, "");
    assert_string_equal(json_string_value(json_object_get(value, "phase")), "done");
    assert_string_equal(json_string_value(json_object_get(value, "run")), "cafe");
    assert_string_equal(json_string_value(json_object_get(value, "path")), "sparse");
    assert_true(json_is_null(json_object_get(value, "fvu")));
    assert_true(json_is_null(json_object_get(value, "dead")) && json_is_null(json_object_get(value, "collapse")));
    assert_float_equal(json_real_value(json_object_get(value, "fvu_typical")), 0.25, 0);
    assert_float_equal(json_real_value(json_object_get(value, "clipped")), 0.5, 0);
    assert_int_equal(json_integer_value(json_object_get(value, "silent")), 9);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(value, "ledger"), "rows_received")), 123);
    const json_t *p = json_array_get(json_object_get(value, "producers"), 1);
    assert_string_equal(json_string_value(json_object_get(p, "name")), "p2");
    assert_true(json_is_null(json_object_get(p, "waiting")));
    json_decref(value);
    assert_int_not_equal(access(scratch_path(".status.json.tmp"), F_OK), 0);
    value = write_file(true, "L0 0");
    assert_int_equal(json_integer_value(json_object_get(value, "dead")), 3);
    assert_string_equal(json_string_value(json_object_get(value, "collapse")), "L0 0");
    json_decref(value);
}

static void a_folder_that_is_gone(void **state)
{
    (void)state;
    struct status *status;
    struct status_writer *writer;
    struct err e = {0};
    const char *folder = scratch_path("gone"), *file = scratch_path("gone/status.json");
    assert_int_equal(status_new(&status, &e), 0);
    assert_int_equal(status_writer_start(&writer, status, folder, &e), ERR_SYSTEM);
    assert_int_equal(file_make_folder(folder, &e), 0);
    assert_int_equal(status_writer_start(&writer, status, folder, &e), 0);
    for (int turn = 0; turn < 1000 && access(file, F_OK) != 0; turn++)
        usleep(10000);
    assert_int_equal(file_remove_tree(folder, &e), 0);
    status_end(status, STATUS_FAILED, "disk gone"); /* it says so on stderr, once, and goes on */
    status_writer_stop(writer);
    status_free(status);
}

/* A run's folder is renamed and another takes its name: the status goes with the first. A link in the temporary's place is not followed. */
static void a_folder_with_another_name(void **state)
{
    (void)state;
    struct status *status;
    struct status_writer *writer;
    struct err e = {0};
    char folder[512], moved[512], file[600];
    snprintf(folder, sizeof folder, "%s", scratch_path("folder"));
    snprintf(moved, sizeof moved, "%s", scratch_path("moved"));
    const char *victim = scratch_write("victim", "mine", 4);
    assert_int_equal(file_make_folder(folder, &e), 0);
    snprintf(file, sizeof file, "%s/.status.json.tmp", folder);
    assert_int_equal(symlink(victim, file), 0);
    assert_int_equal(status_new(&status, &e), 0);
    assert_int_equal(status_writer_start(&writer, status, folder, &e), 0);
    snprintf(file, sizeof file, "%s/status.json", folder);
    for (int turn = 0; turn < 1000 && access(file, F_OK) != 0; turn++)
        usleep(10000);
    assert_int_equal(rename(folder, moved), 0);
    assert_int_equal(file_make_folder(folder, &e), 0);
    status_end(status, STATUS_DONE, "");
    status_writer_stop(writer);
    status_free(status);
    assert_int_equal(rmdir(folder), 0); /* nothing is in it */
    json_t *value;
    snprintf(file, sizeof file, "%s/status.json", moved);
    assert_int_equal(json_read_object(file, &value, &e), 0);
    assert_string_equal(json_string_value(json_object_get(value, "phase")), "done");
    json_decref(value);
    struct stat st;
    assert_true(stat(victim, &st) == 0 && st.st_size == 4);
    assert_int_equal(file_remove_tree(moved, &e), 0);
}

/* The disk: while it hangs, no file gets its name. */
static atomic_bool hangs;
int __real_renameat(int from_folder, const char *from, int to_folder, const char *to);
int __wrap_renameat(int from_folder, const char *from, int to_folder, const char *to);
int __wrap_renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    while (atomic_load(&hangs))
        usleep(1000);
    return __real_renameat(from_folder, from, to_folder, to);
}

/* The disk hangs, and everybody else goes on. */
static void a_disk_that_hangs(void **state)
{
    (void)state;
    struct status *status;
    struct status_writer *writer;
    struct err e = {0};
    const char *file = scratch_path("status.json");
    unlink(file);
    atomic_store(&hangs, true);
    assert_int_equal(status_new(&status, &e), 0);
    assert_int_equal(status_writer_start(&writer, status, scratch_folder, &e), 0);
    usleep(100000); /* the writer hangs by now; if not yet, it will below */
    double before = clock_s();
    struct step_report r = {.step = 1};
    status_phase(status, STATUS_TRAINING);
    status_step(status, &r);
    status_waited(status, 0.1);
    status_ingest(status, &ingest);
    status_snapshot(status, &s);
    status_writer_watch(writer, NULL);
    assert_int_equal(s.step, 2);
    assert_true(clock_s() - before < 5);
    assert_int_not_equal(access(file, F_OK), 0);
    atomic_store(&hangs, false); /* it is back */
    for (int turn = 0; turn < 1000 && access(file, F_OK) != 0; turn++)
        usleep(10000);
    assert_int_equal(access(file, F_OK), 0);
    status_writer_stop(writer);
    status_free(status);
}

/* It hangs for ever: the end of the run does not wait for it for ever. */
static void a_disk_that_never_comes_back(void **state)
{
    (void)state;
    struct status *status;
    struct status_writer *writer;
    struct err e = {0};
    unlink(scratch_path("status.json"));
    atomic_store(&hangs, true);
    assert_int_equal(status_new(&status, &e), 0);
    assert_int_equal(status_writer_start(&writer, status, scratch_folder, &e), 0);
    usleep(100000);
    double before = clock_s();
    status_writer_stop(writer);
    status_free(status);
    assert_true(clock_s() - before < 30);
    assert_true(clock_s() - before > 1); /* it did hang */
    assert_int_not_equal(access(scratch_path("status.json"), F_OK), 0);
    atomic_store(&hangs, false); /* lets the thread go, which must touch nothing of what was freed */
    usleep(300000);
}

/* ---- Prometheus text ---- */

static char *text;

static void render(void)
{
    size_t size;
    free(text);
    text = status_to_text(&s, &size);
    assert_non_null(text);
    assert_int_equal(strlen(text), size);
    assert_int_equal(text[size - 1], '\n');
}

static void has_line(const char *line)
{
    char whole[400];
    snprintf(whole, sizeof whole, "\n%s\n", line);
    if (!strstr(text, whole))
        fail_msg("no line '%s' in:\n%s", line, text);
}

static void unknown_is_nan(void **state)
{
    (void)state;
    render();
    has_line("crossfeed_loss NaN");
    has_line("crossfeed_dead_latents NaN");
    has_line("crossfeed_silent_latents NaN");
    has_line("crossfeed_collapsed 0");
    has_line("crossfeed_eta_seconds NaN");
    has_line("crossfeed_sparse_step NaN");
    has_line("crossfeed_producers_waiting_ratio NaN");
    has_line("crossfeed_phase{phase=\"starting\"} 1");
    has_line("crossfeed_phase{phase=\"training\"} 0");
    s.loss = INFINITY;
    s.l0 = -INFINITY;
    s.dead = 12;
    s.silent = 0;
    s.clipped = 0.5;
    s.fvu_typical = 0.25;
    snprintf(s.collapse, sizeof s.collapse, "L0 0");
    render();
    has_line("crossfeed_dead_latents 12");
    has_line("crossfeed_silent_latents 0");
    has_line("crossfeed_clipped_ratio 0.5");
    has_line("crossfeed_fvu_typical 0.25");
    has_line("crossfeed_collapsed 1");
    has_line("crossfeed_loss +Inf");
    has_line("crossfeed_l0 -Inf");
}

static void labels_are_escaped(void **state)
{
    (void)state;
    const char name[] = {'a', '"', 'b', '\\', 'c', '\n', 'd', '\xc3', '\xb6', '\xe2', '\x80', '\xae', '\xfc', '\0'};
    add_producer(name);
    snprintf(s.ingest.producers[0].address, sizeof s.ingest.producers[0].address, "::1");
    s.ingest.producers[0].rows = (uint64_t)1 << 40;
    s.ingest.producers[0].reports = true;
    s.ingest.producers[0].sending = 0.25f;
    render();
    has_line("crossfeed_producer_rows_total{number=\"1\",name=\"a\\\"b\\\\c\\\\x0ad\xc3\xb6\\\\u202e\\\\xfc\",address="
             "\"::1\"} 1099511627776");
    has_line("crossfeed_producer_waiting_ratio{number=\"1\",name=\"a\\\"b\\\\c\\\\x0ad\xc3\xb6\\\\u202e\\\\xfc\","
             "address=\"::1\"} 0.75");
}

/* Every sample line belongs to a metric whose HELP and TYPE came just before its first one, once. */
static void well_formed(void **state)
{
    (void)state;
    add_producer("one");
    add_producer("two");
    s.ingest.counters.bad_chunks = UINT64_MAX;
    render();
    has_line("crossfeed_bad_chunks_total 18446744073709551615");
    char *copy = strdup(text), *rest = copy, metric[128] = "", seen[8192] = " ";
    int samples = 0;
    for (char *line; (line = strsep(&rest, "\n")) && *line;) {
        char name[128], type[16], mark[140];
        if (sscanf(line, "# HELP %127s", name) == 1) {
            snprintf(metric, sizeof metric, "%s", name);
            snprintf(mark, sizeof mark, " %s ", name);
            assert_null(strstr(seen, mark));
            strcat(seen, mark + 1);
            line = strsep(&rest, "\n");
            assert_int_equal(sscanf(line, "# TYPE %127s %15s", name, type), 2);
            assert_string_equal(name, metric);
            bool total = strlen(name) > 6 && strcmp(name + strlen(name) - 6, "_total") == 0;
            assert_string_equal(type, total ? "counter" : "gauge");
        } else {
            size_t n = strcspn(line, "{ ");
            assert_true(n == strlen(metric) && strncmp(line, metric, n) == 0);
            assert_int_equal(strncmp(line, "crossfeed_", 10), 0);
            samples++;
        }
    }
    free(copy);
    assert_true(samples > 40);
    for (size_t i = 0; i < ledger_n_entries; i++) {
        char name[80];
        snprintf(name, sizeof name, "\ncrossfeed_%s_total ", ledger_entries[i].name);
        assert_non_null(strstr(text, name));
    }
    free(text);
    text = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(rates_forget, set_up),
        cmocka_unit_test_setup(remaining_time, set_up),
        cmocka_unit_test_setup(shares_of_producers, set_up),
        cmocka_unit_test_setup(two_sides, set_up),
        cmocka_unit_test_setup(the_file, set_up),
        cmocka_unit_test_setup(a_folder_that_is_gone, set_up),
        cmocka_unit_test_setup(a_folder_with_another_name, set_up),
        cmocka_unit_test_setup(a_disk_that_hangs, set_up),
        cmocka_unit_test_setup(a_disk_that_never_comes_back, set_up),
        cmocka_unit_test_setup(unknown_is_nan, set_up),
        cmocka_unit_test_setup(labels_are_escaped, set_up),
        cmocka_unit_test_setup(well_formed, set_up),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
