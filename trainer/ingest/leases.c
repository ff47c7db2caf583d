/* leases.c - see leases.h. The table is short (credit times producers), so it is searched and not indexed. */
#include "leases.h"

struct lease_task *leases_add(struct leases *l)
{
    if (l->n == LEASES_MAX)
        return NULL;
    struct lease_task *t = &l->tasks[l->n++];
    *t = (struct lease_task){.order = ++l->last_order, .copy = SHUFFLE_NO_COPY};
    return t;
}

/* Returns whether the holder shall give the second answer of an audited task, whose first one is `first`. */
static bool may_check(const struct lease_task *t, const struct lease_answer *first, int holder,
                      const struct lease_holders *all)
{
    bool others = false; /* somebody else here could */
    if (all->whose[holder] != first->whose)
        return true;
    for (int i = 0; i < LEASES_HOLDERS; i++) {
        if (!(all->here[i / 64] >> i % 64 & 1) || leases_refused(t, i))
            continue;
        if (all->whose[i] != first->whose)
            return false;
        others |= i != first->holder;
    }
    return holder != first->holder || !others;
}

static bool is_free(const struct lease_answer *a)
{
    return !a->lease && !a->complete;
}

/* Returns the answer that is wanted and not under way; -1 if there is none. */
static int free_answer(const struct lease_task *t)
{
    const struct lease_answer *a = t->answers;
    if (t->audit)
        return is_free(&a[0]) ? 0 : is_free(&a[1]) ? 1 : -1;
    return is_free(&a[0]) && is_free(&a[1]) ? 0 : -1;
}

struct lease_task *leases_waiting(struct leases *l, int holder, const struct lease_holders *all, bool room, int *answer)
{
    struct lease_task *first = NULL;
    for (size_t i = 0; i < l->n; i++) {
        struct lease_task *t = &l->tasks[i];
        int a = free_answer(t);
        if (a < 0 || (first && t->order > first->order) || leases_refused(t, holder) ||
            (a == 1 && t->copy == SHUFFLE_NO_COPY && !room))
            continue;
        const struct lease_answer *other = &t->answers[1 - a];
        if (t->audit && !is_free(other) && !may_check(t, other, holder, all))
            continue;
        first = t;
        *answer = a;
    }
    return first;
}

void leases_grant(struct leases *l, struct lease_task *t, int answer, int holder, uint64_t whose)
{
    t->answers[answer] = (struct lease_answer){.lease = ++l->last_lease, .holder = holder, .whose = whose};
}

struct lease_task *leases_find(struct leases *l, uint64_t lease, int holder, int *answer)
{
    for (size_t i = 0; lease && i < l->n; i++)
        for (int a = 0; a < LEASES_ANSWERS; a++)
            if (l->tasks[i].answers[a].lease == lease && l->tasks[i].answers[a].holder == holder) {
                *answer = a;
                return &l->tasks[i];
            }
    return NULL;
}

void leases_give_back(struct leases *l, struct lease_task *t, int answer)
{
    t->answers[answer] = (struct lease_answer){0};
    l->leased_again++;
}

/* Remembers that the holder will still answer. */
static void owe(struct leases *l, const struct lease_answer *a)
{
    if (a->lease && l->n_owed < LEASES_MAX)
        l->owed[l->n_owed++] = (struct lease_owed){a->lease, a->holder};
}

void leases_take_away(struct leases *l, struct lease_task *t, int answer)
{
    owe(l, &t->answers[answer]);
    t->taken_away++;
    leases_give_back(l, t, answer);
}

void leases_refuse(struct leases *l, struct lease_task *t, int answer, bool failed)
{
    int holder = t->answers[answer].holder;
    t->refused[holder / 64] |= (uint64_t)1 << holder % 64;
    t->failed[holder / 64] |= (uint64_t)failed << holder % 64;
    leases_give_back(l, t, answer);
}

void leases_retry(struct lease_task *t)
{
    for (size_t word = 0; word < LEASES_HOLDERS / 64; word++) {
        t->refused[word] &= ~t->failed[word];
        t->failed[word] = 0;
    }
    t->retry_ms = 0;
}

bool leases_refused(const struct lease_task *t, int holder)
{
    return t->refused[holder / 64] >> holder % 64 & 1;
}

bool leases_nobodys(const struct lease_task *t, const uint64_t here[LEASES_HOLDERS / 64])
{
    uint64_t willing = 0;
    for (size_t word = 0; word < LEASES_HOLDERS / 64; word++)
        willing |= here[word] & ~t->refused[word];
    return free_answer(t) >= 0 && !willing;
}

bool leases_failed(const struct lease_task *t, const uint64_t here[LEASES_HOLDERS / 64])
{
    uint64_t failed = 0;
    for (size_t word = 0; word < LEASES_HOLDERS / 64; word++)
        failed |= here[word] & t->failed[word];
    return failed != 0;
}

size_t leases_forget(struct leases *l, int holder)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct lease_task *t = &l->tasks[i];
        t->refused[holder / 64] &= ~((uint64_t)1 << holder % 64);
        t->failed[holder / 64] &= ~((uint64_t)1 << holder % 64);
        for (int a = 0; a < LEASES_ANSWERS; a++) {
            if (t->answers[a].holder != holder)
                continue;
            if (t->answers[a].lease) {
                leases_give_back(l, t, a);
                n++;
            } else if (t->answers[a].complete) {
                t->answers[a].holder = -1;
            }
        }
    }
    for (size_t i = l->n_owed; i-- > 0;)
        if (l->owed[i].holder == holder)
            l->owed[i] = l->owed[--l->n_owed];
    return n;
}

size_t leases_held(const struct leases *l, int holder)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        for (int a = 0; a < LEASES_ANSWERS; a++)
            n += l->tasks[i].answers[a].lease && l->tasks[i].answers[a].holder == holder;
    for (size_t i = 0; i < l->n_owed; i++)
        n += l->owed[i].holder == holder;
    return n;
}

size_t leases_rows_until(const struct leases *l, int holder, uint64_t lease)
{
    size_t rows = 0;
    for (size_t i = 0; i < l->n; i++)
        for (int a = 0; a < LEASES_ANSWERS; a++) {
            const struct lease_answer *other = &l->tasks[i].answers[a];
            if (other->lease && other->lease <= lease && other->holder == holder)
                rows += l->tasks[i].n_rows;
        }
    return rows;
}

void leases_complete(struct lease_task *t, int answer)
{
    t->answers[answer].lease = 0;
    t->answers[answer].complete = true;
}

void leases_done(struct leases *l, struct lease_task *t)
{
    for (int a = 0; a < LEASES_ANSWERS; a++)
        owe(l, &t->answers[a]);
    *t = l->tasks[--l->n];
}

/* Returns the place of what the holder owes under this lease; n_owed if it owes nothing. */
static size_t find_owed(const struct leases *l, uint64_t lease, int holder)
{
    size_t i = 0;
    while (i < l->n_owed && (l->owed[i].lease != lease || l->owed[i].holder != holder))
        i++;
    return i;
}

bool leases_owes(const struct leases *l, uint64_t lease, int holder)
{
    return find_owed(l, lease, holder) < l->n_owed;
}

bool leases_settle(struct leases *l, uint64_t lease, int holder)
{
    size_t i = find_owed(l, lease, holder);
    if (i == l->n_owed)
        return false;
    l->owed[i] = l->owed[--l->n_owed];
    return true;
}
