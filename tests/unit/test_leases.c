/* test_leases.c - the table of wanted blocks: order, holders, ids that mean nothing once given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "leases.h"
#include "producers.h"

static struct leases l;
static struct lease_holders all; /* nobody is here, unless a test says so */
static int answer;               /* of the last waiting or find */

static int reset(void **state)
{
    (void)state;
    memset(&l, 0, sizeof l);
    memset(&all, 0, sizeof all);
    for (uint64_t i = 0; i < LEASES_HOLDERS; i++)
        all.whose[i] = 1000 + i;
    return 0;
}

static struct lease_task *waiting(int holder)
{
    return leases_waiting(&l, holder, &all, true, &answer);
}

static struct lease_task *find(uint64_t lease, int holder)
{
    return leases_find(&l, lease, holder, &answer);
}

static uint64_t grant(struct lease_task *t, int which, int holder)
{
    leases_grant(&l, t, which, holder, all.whose[holder]);
    return t->answers[which].lease;
}

static struct lease_task *add(uint32_t block)
{
    struct lease_task *t = leases_add(&l);
    assert_non_null(t);
    assert_int_equal(t->answers[0].lease, 0);
    assert_int_equal(t->retries, 0);
    t->block = block;
    return t;
}

static void waiting_in_the_order_added(void **state)
{
    (void)state;
    assert_null(waiting(99));
    add(7);
    add(3);
    add(5);
    for (int holder = 0; holder < 3; holder++) {
        struct lease_task *t = waiting(99);
        assert_int_equal(t->block, ((uint32_t[]){7, 3, 5})[holder]);
        grant(t, 0, holder);
        assert_true(t->answers[0].lease != 0);
        assert_int_equal(t->answers[0].holder, holder);
    }
    assert_null(waiting(99));
    assert_int_equal(l.n, 3);
}

/* What is given back comes before what was added later, under an id never used before. */
static void given_back_goes_first_under_a_new_id(void **state)
{
    (void)state;
    grant(add(1), 0, 0);
    grant(add(2), 0, 1);
    add(3);
    struct lease_task *t = find(1, 0);
    assert_int_equal(t->block, 1);
    t->answers[0].rows_taken = 10;
    t->answers[0].chunks_taken = 2;
    t->retries = 1;
    leases_give_back(&l, t, 0);
    assert_null(find(1, 0));
    assert_ptr_equal(waiting(99), t);
    grant(t, 0, 1);
    assert_int_equal(t->answers[0].lease, 3);
    assert_int_equal(t->answers[0].rows_taken, 0);
    assert_int_equal(t->answers[0].chunks_taken, 0);
    assert_int_equal(t->retries, 1); /* of the block, whoever held it */
    assert_null(find(1, 0));
    assert_null(find(1, 1));
    assert_null(find(3, 0)); /* somebody else's */
    assert_ptr_equal(find(3, 1), t);
    assert_int_equal(l.leased_again, 1);
}

/* A waiting task has lease 0: a peer that claims lease 0 finds nothing. */
static void lease_zero_is_nobodys(void **state)
{
    (void)state;
    add(1);
    assert_null(find(0, 0));
    assert_null(find(99, 0));
}

static void all_of_a_holder(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 6; i++)
        grant(add(i), 0, (int)(i % 2));
    add(6);
    assert_int_equal(leases_held(&l, 0), 3);
    assert_int_equal(leases_forget(&l, 0), 3);
    assert_int_equal(leases_held(&l, 0), 0);
    assert_int_equal(leases_held(&l, 1), 3);
    assert_int_equal(leases_forget(&l, 0), 0);
    assert_int_equal(l.leased_again, 3);
    for (uint32_t i = 0; i < 4; i++) { /* 0, 2, 4, then 6, which came last */
        struct lease_task *t = waiting(99);
        assert_int_equal(t->block, 2 * i);
        grant(t, 0, 7);
    }
}

/* Who does not have a block is passed over for it, until he is gone and his number is somebody else's. */
static void refused_by_a_holder(void **state)
{
    (void)state;
    grant(add(1), 0, 70);
    add(2);
    leases_refuse(&l, find(1, 70), 0, false);
    assert_null(find(1, 70));
    assert_true(leases_refused(&l.tasks[0], 70));
    assert_false(leases_refused(&l.tasks[0], 6));
    assert_int_equal(waiting(70)->block, 2);
    assert_int_equal(waiting(71)->block, 1);
    assert_int_equal(waiting(6)->block, 1);
    grant(waiting(70), 0, 70);
    assert_null(waiting(70));
    assert_int_equal(leases_forget(&l, 70), 1);
    assert_int_equal(waiting(70)->block, 1);
    assert_int_equal(l.leased_again, 2);
    grant(waiting(LEASES_HOLDERS - 1), 0, LEASES_HOLDERS - 1);
    leases_refuse(&l, &l.tasks[0], 0, false);
    assert_int_equal(waiting(LEASES_HOLDERS - 1)->block, 2);
}

static void nobodys(void **state)
{
    (void)state;
    all.here[0] = 1 << 3; /* 3 and 200 */
    all.here[3] = 1 << 8;
    add(1);
    add(2);
    for (int i = 0; i < 2; i++) {
        assert_false(leases_nobodys(&l.tasks[0], all.here));
        int holder = i ? 200 : 3;
        grant(waiting(holder), 0, holder);
        leases_refuse(&l, find(l.last_lease, holder), 0, false);
    }
    assert_true(leases_nobodys(&l.tasks[0], all.here));
    assert_false(leases_nobodys(&l.tasks[1], all.here));
    assert_false(leases_failed(&l.tasks[0], all.here));
    grant(waiting(4), 0, 4); /* somebody new takes it */
    assert_false(leases_nobodys(&l.tasks[0], all.here));
}

/* Who failed a block is asked again after the pause; who does not have it is not. */
static void failed_and_asked_again(void **state)
{
    (void)state;
    all.here[0] = 1 << 3 | 1 << 4;
    struct lease_task *t = add(1);
    leases_refuse(&l, find(grant(t, 0, 3), 3), 0, true);
    assert_null(waiting(3));
    assert_false(leases_nobodys(t, all.here));
    leases_refuse(&l, find(grant(t, 0, 4), 4), 0, false);
    assert_true(leases_nobodys(t, all.here) && leases_failed(t, all.here));
    all.here[0] = 1 << 4; /* he who failed has left */
    assert_false(leases_failed(t, all.here));
    all.here[0] = 1 << 3 | 1 << 4;
    t->retry_ms = 17;
    leases_retry(t);
    assert_int_equal(t->retry_ms, 0);
    assert_null(waiting(4));
    assert_ptr_equal(waiting(3), t);
    leases_refuse(&l, find(grant(t, 0, 3), 3), 0, true);
    leases_forget(&l, 3);
    assert_false(leases_failed(t, all.here)); /* his number is somebody else's */
}

static void done_tasks_are_gone(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        grant(add(i), 0, 0);
    leases_done(&l, find(1, 0));
    assert_null(find(1, 0));
    assert_int_equal(find(2, 0)->block, 1);
    assert_int_equal(find(3, 0)->block, 2);
    leases_done(&l, find(3, 0));
    leases_done(&l, find(2, 0));
    assert_int_equal(l.n, 0);
    grant(add(9), 0, 0);
    assert_int_equal(l.tasks[0].answers[0].lease, 4); /* ids go on */
}

static void a_full_table(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < LEASES_MAX; i++)
        grant(add(i), 0, 0);
    assert_null(leases_add(&l));
    leases_done(&l, find(1, 0));
    assert_non_null(leases_add(&l));
    assert_null(leases_add(&l));
}

/* Two are at one block: it is not leased again while one of them still is. */
static void two_answers(void **state)
{
    (void)state;
    struct lease_task *t = add(1);
    uint64_t first = grant(t, 0, 3), second = grant(t, 1, 4);
    assert_true(first != second);
    assert_ptr_equal(find(second, 4), t);
    assert_int_equal(answer, 1);
    assert_ptr_equal(find(first, 3), t);
    assert_int_equal(answer, 0);
    assert_null(find(second, 3));
    assert_null(find(first, 4));
    t->answers[0].rows_taken = 5;
    t->answers[1].rows_taken = 7;
    leases_give_back(&l, t, 0);
    assert_null(waiting(5));
    assert_int_equal(t->answers[1].rows_taken, 7);
    assert_int_equal(leases_forget(&l, 4), 1);
    assert_ptr_equal(waiting(5), t);
    assert_int_equal(answer, 0);
    assert_int_equal(l.leased_again, 2);
}

/* The one that comes second is owed: its holder is busy with it until it has sent it all, or is gone. */
static void owed_answers(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        uint64_t slow = grant(add(1), 0, 3);
        grant(&l.tasks[0], 1, 4);
        struct lease_task *t = find(l.last_lease, 4);
        leases_complete(t, answer);
        leases_done(&l, t);
        assert_int_equal(l.n, 0);
        assert_null(find(slow, 3));
        assert_int_equal(leases_held(&l, 3), 1);
        assert_int_equal(leases_held(&l, 4), 0);
        assert_false(leases_settle(&l, slow, 4)); /* not his */
        assert_false(leases_settle(&l, 77, 3));
        if (i == 0)
            assert_true(leases_settle(&l, slow, 3));
        else
            assert_int_equal(leases_forget(&l, 3), 0); /* nothing is leased again for it */
        assert_int_equal(leases_held(&l, 3), 0);
        assert_false(leases_settle(&l, slow, 3));
    }
    assert_int_equal(l.leased_again, 0);
}

/* Somebody else is asked, while the first holder is still at it. */
static void taken_away(void **state)
{
    (void)state;
    uint64_t late = grant(add(1), 0, 3);
    struct lease_task *t = find(late, 3);
    t->answers[0].rows_taken = 5;
    leases_take_away(&l, t, 0);
    assert_int_equal(t->taken_away, 1);
    assert_int_equal(leases_held(&l, 3), 1);
    assert_null(find(late, 3));
    assert_ptr_equal(leases_waiting(&l, 4, &all, false, &answer), t);
    grant(t, answer, 4);
    assert_int_equal(t->answers[answer].rows_taken, 0);
    assert_true(leases_settle(&l, late, 3));
    assert_int_equal(leases_held(&l, 3), 0);
    assert_int_equal(leases_held(&l, 4), 1);
}

static void rows_until(void **state)
{
    (void)state;
    uint64_t leases[3];
    for (uint32_t i = 0; i < 3; i++) {
        struct lease_task *t = add(i);
        t->n_rows = 10 + i;
        leases[i] = grant(t, 0, 3);
        grant(t, 1, 4);
    }
    assert_int_equal(leases_rows_until(&l, 3, leases[0]), 10);
    assert_int_equal(leases_rows_until(&l, 3, leases[1]), 21);
    assert_int_equal(leases_rows_until(&l, 3, leases[2]), 33);
    leases_complete(find(leases[0], 3), 0);
    assert_int_equal(leases_rows_until(&l, 3, leases[2]), 23);
}

/* Both answers are wanted, of two holders if anybody else here can give the second. */
static void audited(void **state)
{
    (void)state;
    all.here[0] = 1 << 3 | 1 << 4;
    struct lease_task *t = add(1);
    t->audit = true;
    add(2);
    assert_ptr_equal(waiting(3), t);
    assert_int_equal(answer, 0);
    uint64_t first = grant(t, 0, 3);
    assert_int_equal(waiting(3)->block, 2); /* the second is 4's */
    assert_ptr_equal(waiting(4), t);
    assert_int_equal(answer, 1);
    assert_int_equal(leases_waiting(&l, 4, &all, false, &answer)->block, 2); /* no room for it now */
    leases_complete(t, 0);
    assert_null(find(first, 3));
    assert_int_equal(leases_held(&l, 3), 0);
    assert_int_equal(waiting(3)->block, 2);
    grant(t, 1, 4);
    assert_int_equal(waiting(5)->block, 2); /* nothing is wanted of it any more */
    leases_refuse(&l, t, 1, false);
    assert_ptr_equal(waiting(3), t); /* nobody else would */
    assert_int_equal(answer, 1);
    all.here[0] |= 1 << 5;
    assert_int_equal(waiting(3)->block, 2);
    leases_forget(&l, 3); /* what it has answered stays; its number is somebody else's */
    assert_true(t->answers[0].complete);
    assert_int_equal(waiting(3)->block, 2); /* who may be the same one, as it is known by the same */
    all.whose[3] = 99;
    assert_ptr_equal(waiting(3), t);
}

/* Two connections of one peer do not check each other, unless nobody else is here. */
static void audited_by_somebody_else(void **state)
{
    (void)state;
    all.whose[3] = all.whose[4] = 7;
    all.here[0] = 1 << 3 | 1 << 4 | 1 << 5;
    struct lease_task *t = add(1);
    t->audit = true;
    grant(t, 0, 3);
    assert_null(waiting(3));
    assert_null(waiting(4));
    assert_ptr_equal(waiting(5), t);
    all.here[0] = 1 << 3 | 1 << 4;
    assert_null(waiting(3));
    assert_ptr_equal(waiting(4), t);
    all.here[0] = 1 << 3;
    assert_ptr_equal(waiting(3), t);
}

/* The table of producers, beside it. */
static void producers(void **state)
{
    (void)state;
    static struct producers p;
    struct link_peer a = {.id = {0, 1, 2, 3, 4}, .size = 5}, b = {.id = {0, 1, 2, 3, 5}, .size = 5},
                     prefix = {.id = {0, 1, 2, 3}, .size = 4};
    memset(&p, 0, sizeof p);
    assert_int_equal(producers_find(&p, &a), -1);
    int i = producers_add(&p, &a, "one", "10.0.0.1", 100), j = producers_add(&p, &b, "two", "10.0.0.1", 200);
    assert_true(i >= 0 && j >= 0 && i != j);
    assert_int_equal(producers_find(&p, &a), i);
    assert_int_equal(producers_find(&p, &b), j);
    assert_int_equal(producers_find(&p, &prefix), -1);
    assert_string_equal(p.list[j].name, "two");
    assert_int_equal(p.list[j].last_heard_ms, 200);
    p.list[i].speed.row_ms = 2;
    producers_remove(&p, i);
    assert_int_equal(producers_find(&p, &a), -1);
    assert_int_equal(p.n, 1);
    assert_int_equal(producers_add(&p, &a, "one", "", 300), i);
    assert_int_equal(p.list[i].faults, 0); /* nothing is left of who was there before */
    assert_int_equal(p.list[i].number, 3);
    assert_int_equal(p.list[i].joined_ms, 300);
    assert_int_equal((int)p.list[i].speed.row_ms, 0); /* nothing is left of who was there before */
    for (int n = 2; n < PRODUCERS_MAX; n++) {
        struct link_peer next = {.id = {1, (unsigned char)n}, .size = 2};
        assert_true(producers_add(&p, &next, "more", "", 0) >= 0);
    }
    assert_int_equal(producers_add(&p, &prefix, "too many", "", 0), -1);
    assert_int_equal(p.n, PRODUCERS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(waiting_in_the_order_added, reset),
        cmocka_unit_test_setup(given_back_goes_first_under_a_new_id, reset),
        cmocka_unit_test_setup(lease_zero_is_nobodys, reset),
        cmocka_unit_test_setup(all_of_a_holder, reset),
        cmocka_unit_test_setup(refused_by_a_holder, reset),
        cmocka_unit_test_setup(nobodys, reset),
        cmocka_unit_test_setup(done_tasks_are_gone, reset),
        cmocka_unit_test_setup(a_full_table, reset),
        cmocka_unit_test_setup(two_answers, reset),
        cmocka_unit_test_setup(owed_answers, reset),
        cmocka_unit_test_setup(taken_away, reset),
        cmocka_unit_test_setup(rows_until, reset),
        cmocka_unit_test_setup(audited, reset),
        cmocka_unit_test_setup(audited_by_somebody_else, reset),
        cmocka_unit_test_setup(failed_and_asked_again, reset),
        cmocka_unit_test(producers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
