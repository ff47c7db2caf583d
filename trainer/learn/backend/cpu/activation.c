/* activation.c - the table of activations; see activation.h. */
#include "activation.h"

#include <assert.h>
#include <string.h>

enum { ADDED_MAX = 4 };

static const struct activation *const all[] = {
    &activation_relu,
    &activation_topk,
    &activation_batchtopk,
    &activation_jumprelu,
};
static const struct activation *added[ADDED_MAX];

const struct activation *activation_find(const char *name)
{
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    for (size_t i = 0; i < ADDED_MAX && added[i]; i++)
        if (strcmp(added[i]->name, name) == 0)
            return added[i];
    return NULL;
}

void activation_add(const struct activation *a)
{
    size_t i = 0;
    while (i < ADDED_MAX && added[i])
        i++;
    assert(i < ADDED_MAX);
    added[i] = a;
}

int selection_open(struct selection *s, const struct backend_setup *setup, struct err *e)
{
    *s = (struct selection){.kind = activation_find(setup->activation), .setup = setup, .threshold = -1};
    if (!s->kind)
        return err_set(e, ERR_INPUT, "activation '%s' is not known", setup->activation);
    if (s->kind->scope != SCOPE_ENTRY && setup->path == STEP_DENSE)
        return err_set(e, ERR_INPUT, "activation '%s' has no dense step", setup->activation);
    return s->kind->open ? s->kind->open(s, e) : 0;
}

void selection_close(struct selection *s)
{
    if (s->kind && s->kind->close)
        s->kind->close(s);
    *s = (struct selection){0};
}
