/* budget.c - adds up and prints the memory budget; see budget.h. */
#include "budget.h"

#include <stdio.h>
#include <unistd.h>

#include "credit.h"
#include "log.h"

#define GROWTH ((size_t)4 << 20)          /* measured: 2 to 3 MB */
#define THREAD_GROWTH ((size_t)256 << 10) /* a thread's stack and its part of the heap */

size_t budget_growth(int threads)
{
    return GROWTH + (size_t)threads * THREAD_GROWTH;
}

/* The first rows are freed before the window fills. */
static size_t rows(const struct budget *b)
{
    return b->raw > b->window ? b->raw : b->window;
}

size_t budget_total(const struct budget *b)
{
    return b->program + b->parameters + b->workspace + b->rare + rows(b) + b->window_index + b->evaluation + b->wire +
           b->beginning;
}

static double mb(size_t bytes)
{
    return (double)bytes / 1e6;
}

size_t budget_machine(void)
{
    return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

int budget_print(const struct budget *b, struct err *e)
{
    size_t total = budget_total(b), least = total - b->wire + (b->wire_each < b->wire ? b->wire_each : b->wire);
    size_t machine = budget_machine();
    char beginning[64] = "";
    if (b->beginning)
        snprintf(beginning, sizeof beginning, " + %.1f measured rows to begin with", mb(b->beginning));
    log_line("memory budget: %.1f MB = %.1f parameters (weights, moments, kept gradients) + %.1f batch workspace + "
             "%.1f saving + "
             "%.1f window%s + %.1f window index + %.1f held-out rows + %.1f wire + %.1f program%s",
             mb(total), mb(b->parameters), mb(b->workspace), mb(b->rare), mb(rows(b)),
             b->raw > b->window ? " (of rows to be measured, before it fills)" : "", mb(b->window_index),
             mb(b->evaluation), mb(b->wire), mb(b->program), beginning);
    log_line("memory budget: the wire's part is for up to %d producers; each further one may add %.1f MB",
             CREDIT_PRODUCERS, mb(b->wire_each));
    if (least > machine)
        return err_set(e, ERR_MEMORY, "the run needs %.1f MB of memory, this machine has %.1f MB", mb(least),
                       mb(machine));
    return 0;
}
