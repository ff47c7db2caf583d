/* budget.h - the memory that a run will take, said before any of it is allocated. */
#ifndef CROSSFEED_BUDGET_H
#define CROSSFEED_BUDGET_H

#include <stddef.h>

#include "err.h"

struct budget {          /* bytes */
    size_t program;      /* what the program and its libraries hold before anything below is allocated: measured */
    size_t parameters;   /* weights and Adam's moments, 12 a parameter; 16 with gradients kept */
    size_t workspace;    /* one batch and what a step needs beside it */
    size_t window;       /* rows: the window and its lookahead */
    size_t window_index; /* where each row lies and comes from */
    size_t evaluation;   /* held-out rows */
    size_t raw;          /* the first rows and their scaled copies, only until they are measured; not in the total */
    size_t beginning;    /* measured rows, and what is computed over them, only until the first step */
    size_t wire;         /* two blocks of one producer, received and not yet stored; each further one adds as much. Of
                            one far away that holds more leases, most are on the way */
};

size_t budget_total(const struct budget *b);
size_t budget_machine(void); /* the machine's memory, bytes */

/* Prints the budget. ERR_MEMORY, naming both values, if the machine has less memory than that. */
int budget_print(const struct budget *b, struct err *e);

#endif
