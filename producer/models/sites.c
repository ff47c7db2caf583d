/* sites.c - the hook points of models as a list of names, from which globs pick; see sites.h. */
#include "sites.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "mem.h"

void site_name(char name[SITE_NAME_SIZE], const struct site *s, uint32_t n_models)
{
    int n = n_models > 1 ? snprintf(name, SITE_NAME_SIZE, "%" PRIu32 ":", s->model) : 0;
    snprintf(name + n, SITE_NAME_SIZE - (size_t)n, "blocks.%" PRIu32 ".%s", s->layer, s->point);
}

void site_list_name(char name[SITE_NAME_SIZE], const struct site_list *list, size_t i, uint32_t n_models)
{
    const struct site_pick *k = &list->wanted.picks[i];
    char names[2][SITE_NAME_SIZE] = {"", ""};
    site_name(names[0], &list->sites[k->site], n_models);
    if (k->less != PICK_WHOLE)
        site_name(names[1], &list->sites[k->less], n_models);
    site_pick_name(name, &(struct site_pick){0, k->less == PICK_WHOLE ? PICK_WHOLE : 1}, names);
}

/* Goes through the hook points of all models in order. */
struct walk {
    const struct hook_points *models;
    uint32_t n_models;
    size_t point; /* index of site.point */
    struct site site;
};

static struct walk walk_start(const struct hook_points *models, uint32_t n_models)
{
    return (struct walk){models, n_models, 0, {.point = models[0].names[0]}};
}

/* Moves to the next hook point; returns false after the last one of the last model. */
static bool walk_next(struct walk *w)
{
    struct site *s = &w->site;
    if (!w->models[s->model].names[++w->point]) {
        w->point = 0;
        if (++s->layer == w->models[s->model].n_layers) {
            s->layer = 0;
            if (++s->model == w->n_models)
                return false;
        }
    }
    s->point = w->models[s->model].names[w->point];
    return true;
}

/* Describes the last model's hook points, for the message of a glob that matches none: it may have fewer layers than a
 * user thinks. */
static void describe(char *text, size_t size, const struct hook_points *models, uint32_t n_models)
{
    const struct hook_points *m = &models[n_models - 1];
    size_t used = (size_t)snprintf(text, size, " (%s %" PRIu32 " layers; of each: ",
                                   n_models > 1 ? "the last model has" : "the model has", m->n_layers);
    for (size_t i = 0; m->names[i] && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", m->names[i]);
    if (used < size)
        snprintf(text + used, size - used, ")");
}

/* Replaces index `from` by `to` in all picks; returns whether there was any. */
static bool renumber(struct site_picks *p, size_t from, size_t to)
{
    bool any = false;
    for (size_t i = 0; i < p->n; i++) {
        struct site_pick *k = &p->picks[i];
        any = any || k->site == from || k->less == from;
        k->site = k->site == from ? to : k->site;
        k->less = k->less == from ? to : k->less;
    }
    return any;
}

int sites_match(struct site_list *list, const char *globs, const struct hook_points *models, uint32_t n_models,
                struct err *e)
{
    size_t n_names = 0, i = 0;
    char hint[320];
    struct walk w = walk_start(models, n_models);
    do
        n_names++;
    while (walk_next(&w));
    char(*names)[SITE_NAME_SIZE] = mem_alloc(n_names, sizeof *names, "names of hook points", e);
    if (!names)
        return ERR_MEMORY;
    w = walk_start(models, n_models);
    do
        site_name(names[i++], &w.site, n_models);
    while (walk_next(&w));
    describe(hint, sizeof hint, models, n_models);
    int rc = site_picks_match(&list->wanted, globs ? globs : SITES_DEFAULT, names, n_names, hint, e);
    mem_free(names);
    list->n = i = 0;
    w = walk_start(models, n_models);
    do /* the new index is at most the old one, so that none is renumbered twice */
        if (!rc && renumber(&list->wanted, i++, list->n))
            list->sites[list->n++] = w.site;
    while (walk_next(&w));
    return rc;
}
