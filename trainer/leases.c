/* leases.c - the task table; see leases.h. The table is short (credit times producers), so it is searched, not indexed.
 */
#include "leases.h"

struct lease_task *leases_add(struct leases *l)
{
    if (l->n == LEASES_MAX)
        return NULL;
    struct lease_task *t = &l->tasks[l->n++];
    *t = (struct lease_task){.order = ++l->last_order};
    return t;
}

struct lease_task *leases_waiting(struct leases *l, int holder)
{
    struct lease_task *first = NULL;
    for (size_t i = 0; i < l->n; i++)
        if (l->tasks[i].lease == 0 && (!first || l->tasks[i].order < first->order) &&
            !leases_refused(&l->tasks[i], holder))
            first = &l->tasks[i];
    return first;
}

void leases_grant(struct leases *l, struct lease_task *t, int holder)
{
    t->lease = ++l->last_lease;
    t->holder = holder;
    t->chunks_taken = 0;
    t->rows_taken = 0;
}

struct lease_task *leases_find(struct leases *l, uint64_t lease, int holder)
{
    for (size_t i = 0; lease && i < l->n; i++)
        if (l->tasks[i].lease == lease)
            return l->tasks[i].holder == holder ? &l->tasks[i] : NULL;
    return NULL;
}

void leases_give_back(struct leases *l, struct lease_task *t)
{
    t->lease = 0;
    l->leased_again++;
}

void leases_refuse(struct leases *l, struct lease_task *t)
{
    t->refused[t->holder / 64] |= (uint64_t)1 << t->holder % 64;
    leases_give_back(l, t);
}

bool leases_refused(const struct lease_task *t, int holder)
{
    return t->refused[holder / 64] >> holder % 64 & 1;
}

const struct lease_task *leases_nobodys(const struct leases *l, const uint64_t here[LEASES_HOLDERS / 64], size_t *n)
{
    const struct lease_task *first = NULL;
    *n = 0;
    for (size_t i = 0; i < l->n; i++) {
        const struct lease_task *t = &l->tasks[i];
        uint64_t willing = 0;
        for (size_t word = 0; word < LEASES_HOLDERS / 64; word++)
            willing |= here[word] & ~t->refused[word];
        if (t->lease || willing)
            continue;
        ++*n;
        if (!first || t->order < first->order)
            first = t;
    }
    return first;
}

size_t leases_forget(struct leases *l, int holder)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct lease_task *t = &l->tasks[i];
        t->refused[holder / 64] &= ~((uint64_t)1 << holder % 64);
        if (t->lease && t->holder == holder) {
            leases_give_back(l, t);
            n++;
        }
    }
    return n;
}

size_t leases_held(const struct leases *l, int holder)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        n += l->tasks[i].lease && l->tasks[i].holder == holder;
    return n;
}

void leases_done(struct leases *l, struct lease_task *t)
{
    *t = l->tasks[--l->n];
}
