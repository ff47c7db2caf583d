/* sites.c - hook-point names and globs over them; see sites.h.
 *
 * Every name is written out and given to fnmatch: a few thousand calls once at start, and the names that a glob sees
 * are exactly those that the run will print. */
#include "sites.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define GLOB_SIZE 256 /* of one glob, with the NUL */

void site_name(char name[SITE_NAME_SIZE], const struct site *s, uint32_t n_models)
{
    int n = n_models > 1 ? snprintf(name, SITE_NAME_SIZE, "%" PRIu32 ":", s->model) : 0;
    snprintf(name + n, SITE_NAME_SIZE - (size_t)n, "blocks.%" PRIu32 ".%s", s->layer, s->point);
}

/* Copies the glob at *globs, up to its comma, and moves *globs behind it, or to NULL after the last. */
static int next_glob(char glob[GLOB_SIZE], const char **globs, struct err *e)
{
    const char *end = strchrnul(*globs, ',');
    size_t length = (size_t)(end - *globs);
    if (length == 0)
        return err_set(e, ERR_INPUT, "--sites: empty glob; the default is '%s'", SITES_DEFAULT);
    if (length >= GLOB_SIZE)
        return err_set(e, ERR_INPUT, "--sites: glob of %zu characters, at most %d", length, GLOB_SIZE - 1);
    memcpy(glob, *globs, length);
    glob[length] = '\0';
    *globs = *end ? end + 1 : NULL;
    return 0;
}

static bool glob_matches(const char *glob, const struct site *s, uint32_t n_models)
{
    char name[SITE_NAME_SIZE];
    site_name(name, s, strchr(glob, ':') ? n_models : 1);
    return fnmatch(glob, name, 0) == 0;
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

static int nothing_matches(const char *glob, const struct hook_points *models, uint32_t n_models, struct err *e)
{
    const struct hook_points *last_model = &models[n_models - 1];
    char first[SITE_NAME_SIZE], last[SITE_NAME_SIZE], points[256] = "";
    size_t n = 0;
    for (size_t used = 0; last_model->names[n] && used < sizeof points; n++)
        used += (size_t)snprintf(points + used, sizeof points - used, "%s%s", n ? ", " : "", last_model->names[n]);
    site_name(first, &(struct site){.point = models[0].names[0]}, n_models);
    site_name(last, &(struct site){n_models - 1, last_model->n_layers - 1, last_model->names[n - 1]}, n_models);
    return err_set(e, ERR_INPUT,
                   "--sites: '%s' matches no hook point; names go from %s to %s (%s %" PRIu32 " layers; of each: %s)",
                   glob, first, last, n_models > 1 ? "the last model has" : "the model has", last_model->n_layers,
                   points);
}

int sites_match(struct site_list *list, const char *globs, const struct hook_points *models, uint32_t n_models,
                struct err *e)
{
    char glob[GLOB_SIZE];
    list->n = 0;
    if (!globs)
        globs = SITES_DEFAULT;
    for (const char *rest = globs; rest;) {
        if (next_glob(glob, &rest, e))
            return ERR_INPUT;
        bool found = false;
        struct walk w = walk_start(models, n_models);
        do
            found = glob_matches(glob, &w.site, n_models);
        while (!found && walk_next(&w));
        if (!found)
            return nothing_matches(glob, models, n_models, e);
    }
    struct walk w = walk_start(models, n_models);
    do {
        bool wanted = false;
        for (const char *rest = globs; rest && !wanted;) {
            if (next_glob(glob, &rest, e))
                return ERR_INPUT;
            wanted = glob_matches(glob, &w.site, n_models);
        }
        if (wanted && list->n == STREAM_MAX_SITES)
            return err_set(e, ERR_INPUT, "--sites: '%s' matches more than %d hook points", globs, STREAM_MAX_SITES);
        if (wanted)
            list->sites[list->n++] = w.site;
    } while (walk_next(&w));
    return 0;
}
