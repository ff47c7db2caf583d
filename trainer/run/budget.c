/* budget.c - adds up and prints the memory budget; see budget.h. */
#include "budget.h"

#include <stdio.h>
#include <unistd.h>

#include "log.h"

size_t budget_total(const struct budget *b)
{
    return b->program + b->parameters + b->workspace + b->window + b->window_index + b->evaluation + b->wire +
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
    size_t total = budget_total(b), peak = b->raw > b->window ? total - b->window + b->raw : total;
    size_t machine = budget_machine();
    char beginning[64] = "";
    if (b->beginning)
        snprintf(beginning, sizeof beginning, " + %.1f measured rows to begin with", mb(b->beginning));
    log_line(
        "memory budget: %.1f MB = %.1f parameters (weights, moments, kept gradients) + %.1f batch workspace + %.1f "
        "window + %.1f "
        "window index + %.1f held-out rows + %.1f wire a producer + %.1f program%s",
        mb(total), mb(b->parameters), mb(b->workspace), mb(b->window), mb(b->window_index), mb(b->evaluation),
        mb(b->wire), mb(b->program), beginning);
    if (b->raw)
        log_line("memory budget: until the scale is measured %.1f MB of raw rows and their scaled copies, before the "
                 "window fills",
                 mb(b->raw));
    if (peak > machine)
        return err_set(e, ERR_MEMORY, "the run needs %.1f MB of memory, this machine has %.1f MB", mb(peak),
                       mb(machine));
    return 0;
}
