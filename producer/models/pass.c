/* pass.c - see pass.h. */
#include "pass.h"

#include <string.h>

#include "clock.h"

bool pass_stops_at(const struct pass *p, const char *point)
{
    if (p->next == p->n_sites)
        return false;
    const struct site *s = &p->sites[p->next];
    return s->layer == p->layer && strcmp(s->point, point) == 0;
}

int pass_visit(struct pass *p, const char *point, float *vectors)
{
    if (!pass_stops_at(p, point))
        return 0;
    int rc = p->hook(p->context, &p->sites[p->next], vectors, p->e);
    pass_lap(p, PASS_HOOK);
    return rc ? rc : ++p->next == p->n_sites && !p->goes_on ? PASS_DONE : 0;
}

void pass_lap(struct pass *p, enum pass_phase phase)
{
    double now = clock_s();
    p->workspace->seconds[phase] += now - p->clock;
    p->clock = now;
}

void pass_fail(struct pass *p, const struct err *e)
{
#pragma omp critical(pass_failed)
    {
        p->failed = e->code;
        *p->e = *e;
    }
}
