/* budget.h - the memory that a run will take at most, said before any of it is allocated.
 *
 * The total is an upper bound of the process's peak, with as many as CREDIT_PRODUCERS producers (tests/e2e/test_memory.py). */
#ifndef CROSSFEED_BUDGET_H
#define CROSSFEED_BUDGET_H

#include <stddef.h>

#include "err.h"

struct budget { /* bytes */
    size_t
        program; /* what the program and its libraries hold before anything below is allocated: measured; and budget_growth */
    size_t parameters; /* weights and Adam's moments, 12 a parameter; 16 with gradients kept */
    size_t
        workspace; /* two batches, what a step and an evaluation need beside them, and what recovery is measured with */
    size_t rare;   /* what is taken for a moment, to save or to resample */
    size_t window; /* rows: the window and its lookahead */
    size_t window_index; /* where each row lies and comes from */
    size_t evaluation;   /* held-out rows */
    size_t
        raw; /* the first rows and their scaled copies in the window, until they are measured: before the window fills */
    size_t beginning; /* measured rows, and what is computed over them, only until the first step */
    size_t
        wire; /* leased rows that are received and not yet stored: of CREDIT_PRODUCERS, at most as much as the window */
    size_t wire_each; /* what a further one adds: two blocks */
};

size_t budget_total(const struct budget *b);
size_t budget_machine(void); /* the machine's memory, bytes */

/* Returns what the program and its libraries come to hold once the run is under way: code that was not needed before, stacks, status. */
size_t budget_growth(int threads);

/* Prints the budget. ERR_MEMORY, naming both values, if the machine has less memory than a run with one producer needs. */
int budget_print(const struct budget *b, struct err *e);

#endif
