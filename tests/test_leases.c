/* test_leases.c - the table of wanted blocks: order, holders, ids that mean nothing once given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "leases.h"
#include "peers.h"

static struct leases l;

static int reset(void **state)
{
    (void)state;
    memset(&l, 0, sizeof l);
    return 0;
}

static struct lease_task *add(uint32_t block)
{
    struct lease_task *t = leases_add(&l);
    assert_non_null(t);
    assert_int_equal(t->lease, 0);
    assert_int_equal(t->failures, 0);
    t->block = block;
    return t;
}

static void waiting_in_the_order_added(void **state)
{
    (void)state;
    assert_null(leases_waiting(&l, 99));
    add(7);
    add(3);
    add(5);
    for (int holder = 0; holder < 3; holder++) {
        struct lease_task *t = leases_waiting(&l, 99);
        assert_int_equal(t->block, ((uint32_t[]){7, 3, 5})[holder]);
        leases_grant(&l, t, holder);
        assert_true(t->lease != 0);
        assert_int_equal(t->holder, holder);
    }
    assert_null(leases_waiting(&l, 99));
    assert_int_equal(l.n, 3);
}

/* What is given back comes before what was added later, under an id never used before. */
static void given_back_goes_first_under_a_new_id(void **state)
{
    (void)state;
    leases_grant(&l, add(1), 0);
    leases_grant(&l, add(2), 1);
    add(3);
    struct lease_task *t = leases_find(&l, 1, 0);
    assert_int_equal(t->block, 1);
    t->rows_taken = 10;
    t->chunks_taken = 2;
    t->failures = 1;
    leases_give_back(&l, t);
    assert_null(leases_find(&l, 1, 0));
    assert_ptr_equal(leases_waiting(&l, 99), t);
    leases_grant(&l, t, 1);
    assert_int_equal(t->lease, 3);
    assert_int_equal(t->rows_taken, 0);
    assert_int_equal(t->chunks_taken, 0);
    assert_int_equal(t->failures, 1); /* of the block, whoever held it */
    assert_null(leases_find(&l, 1, 0));
    assert_null(leases_find(&l, 1, 1));
    assert_null(leases_find(&l, 3, 0)); /* somebody else's */
    assert_ptr_equal(leases_find(&l, 3, 1), t);
    assert_int_equal(l.leased_again, 1);
}

/* A waiting task has lease 0: a peer that claims lease 0 finds nothing. */
static void lease_zero_is_nobodys(void **state)
{
    (void)state;
    add(1);
    assert_null(leases_find(&l, 0, 0));
    assert_null(leases_find(&l, 99, 0));
}

static void all_of_a_holder(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 6; i++)
        leases_grant(&l, add(i), (int)(i % 2));
    add(6);
    assert_int_equal(leases_held(&l, 0), 3);
    assert_int_equal(leases_forget(&l, 0), 3);
    assert_int_equal(leases_held(&l, 0), 0);
    assert_int_equal(leases_held(&l, 1), 3);
    assert_int_equal(leases_forget(&l, 0), 0);
    assert_int_equal(l.leased_again, 3);
    for (uint32_t i = 0; i < 4; i++) { /* 0, 2, 4, then 6, which came last */
        struct lease_task *t = leases_waiting(&l, 99);
        assert_int_equal(t->block, 2 * i);
        leases_grant(&l, t, 7);
    }
}

/* Who does not have a block is passed over for it, until he is gone and his number is somebody else's. */
static void refused_by_a_holder(void **state)
{
    (void)state;
    leases_grant(&l, add(1), 70);
    add(2);
    leases_refuse(&l, leases_find(&l, 1, 70));
    assert_null(leases_find(&l, 1, 70));
    assert_true(leases_refused(&l.tasks[0], 70));
    assert_false(leases_refused(&l.tasks[0], 6));
    assert_int_equal(leases_waiting(&l, 70)->block, 2);
    assert_int_equal(leases_waiting(&l, 71)->block, 1);
    assert_int_equal(leases_waiting(&l, 6)->block, 1);
    leases_grant(&l, leases_waiting(&l, 70), 70);
    assert_null(leases_waiting(&l, 70));
    assert_int_equal(leases_forget(&l, 70), 1);
    assert_int_equal(leases_waiting(&l, 70)->block, 1);
    assert_int_equal(l.leased_again, 2);
    leases_grant(&l, leases_waiting(&l, LEASES_HOLDERS - 1), LEASES_HOLDERS - 1);
    leases_refuse(&l, &l.tasks[0]);
    assert_int_equal(leases_waiting(&l, LEASES_HOLDERS - 1)->block, 2);
}

static void nobodys(void **state)
{
    (void)state;
    uint64_t here[LEASES_HOLDERS / 64] = {[0] = 1 << 3, [3] = 1 << 8}; /* 3 and 200 */
    size_t n;
    add(1);
    add(2);
    for (int i = 0; i < 2; i++) {
        assert_null(leases_nobodys(&l, here, &n));
        int holder = i ? 200 : 3;
        leases_grant(&l, leases_waiting(&l, holder), holder);
        leases_refuse(&l, leases_find(&l, l.last_lease, holder));
    }
    assert_int_equal(leases_nobodys(&l, here, &n)->block, 1);
    assert_int_equal(n, 1);
    leases_grant(&l, leases_waiting(&l, 4), 4); /* somebody new takes it */
    assert_null(leases_nobodys(&l, here, &n));
}

static void done_tasks_are_gone(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        leases_grant(&l, add(i), 0);
    leases_done(&l, leases_find(&l, 1, 0));
    assert_null(leases_find(&l, 1, 0));
    assert_int_equal(leases_find(&l, 2, 0)->block, 1);
    assert_int_equal(leases_find(&l, 3, 0)->block, 2);
    leases_done(&l, leases_find(&l, 3, 0));
    leases_done(&l, leases_find(&l, 2, 0));
    assert_int_equal(l.n, 0);
    leases_grant(&l, add(9), 0);
    assert_int_equal(l.tasks[0].lease, 4); /* ids go on */
}

static void a_full_table(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < LEASES_MAX; i++)
        leases_grant(&l, add(i), 0);
    assert_null(leases_add(&l));
    leases_done(&l, leases_find(&l, 1, 0));
    assert_non_null(leases_add(&l));
    assert_null(leases_add(&l));
}

/* The table of producers, beside it. */
static void peers(void **state)
{
    (void)state;
    static struct peers p;
    struct link_peer a = {.id = {0, 1, 2, 3, 4}, .size = 5}, b = {.id = {0, 1, 2, 3, 5}, .size = 5},
                     prefix = {.id = {0, 1, 2, 3}, .size = 4};
    memset(&p, 0, sizeof p);
    assert_int_equal(peers_find(&p, &a), -1);
    int i = peers_add(&p, &a, "one", 100), j = peers_add(&p, &b, "two", 200);
    assert_true(i >= 0 && j >= 0 && i != j);
    assert_int_equal(peers_find(&p, &a), i);
    assert_int_equal(peers_find(&p, &b), j);
    assert_int_equal(peers_find(&p, &prefix), -1);
    assert_string_equal(p.peers[j].name, "two");
    assert_int_equal(p.peers[j].last_heard_ms, 200);
    p.peers[i].faults = 2;
    peers_remove(&p, i);
    assert_int_equal(peers_find(&p, &a), -1);
    assert_int_equal(p.n, 1);
    assert_int_equal(peers_add(&p, &a, "one", 300), i);
    assert_int_equal(p.peers[i].faults, 0); /* nothing is left of who was there before */
    assert_int_equal(p.peers[i].number, 3);
    assert_int_equal(p.peers[i].joined_ms, 300);
    for (int n = 2; n < PEERS_MAX; n++) {
        struct link_peer next = {.id = {1, (unsigned char)n}, .size = 2};
        assert_true(peers_add(&p, &next, "more", 0) >= 0);
    }
    assert_int_equal(peers_add(&p, &prefix, "too many", 0), -1);
    assert_int_equal(p.n, PEERS_MAX);
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
        cmocka_unit_test(peers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
