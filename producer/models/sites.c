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

static const char *const kind_names[SITE_KINDS] = {"resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"};

void site_name(char name[SITE_NAME_SIZE], const struct site *s, uint32_t n_models)
{
    int n = n_models > 1 ? snprintf(name, SITE_NAME_SIZE, "%" PRIu32 ":", s->model) : 0;
    snprintf(name + n, SITE_NAME_SIZE - (size_t)n, "blocks.%" PRIu32 ".hook_%s", s->layer, kind_names[s->kind]);
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

static int nothing_matches(const char *glob, const uint32_t *n_layers, uint32_t n_models, struct err *e)
{
    uint32_t model = n_models - 1;
    char first[SITE_NAME_SIZE], last[SITE_NAME_SIZE];
    site_name(first, &(struct site){.kind = SITE_RESID_PRE}, n_models);
    site_name(last, &(struct site){model, n_layers[model] - 1, SITE_RESID_POST}, n_models);
    return err_set(e, ERR_INPUT,
                   "--sites: '%s' matches no hook point; names go from %s to %s (%s %" PRIu32
                   " layers; of each: hook_resid_pre, "
                   "hook_attn_out, hook_resid_mid, hook_mlp_out, hook_resid_post)",
                   glob, first, last, n_models > 1 ? "the last model has" : "the model has", n_layers[model]);
}

/* Moves s to the next hook point in order; false after the last one of the last model. */
static bool next_site(struct site *s, const uint32_t *n_layers, uint32_t n_models)
{
    if (s->kind < SITE_RESID_POST) {
        s->kind++;
        return true;
    }
    s->kind = SITE_RESID_PRE;
    if (++s->layer < n_layers[s->model])
        return true;
    s->layer = 0;
    return ++s->model < n_models;
}

int sites_match(struct site_list *list, const char *globs, const uint32_t *n_layers, uint32_t n_models, struct err *e)
{
    char glob[GLOB_SIZE];
    list->n = 0;
    if (!globs)
        globs = SITES_DEFAULT;
    for (const char *rest = globs; rest;) {
        if (next_glob(glob, &rest, e))
            return ERR_INPUT;
        bool found = false;
        struct site s = {0};
        do
            found = glob_matches(glob, &s, n_models);
        while (!found && next_site(&s, n_layers, n_models));
        if (!found)
            return nothing_matches(glob, n_layers, n_models, e);
    }
    struct site s = {0};
    do {
        bool wanted = false;
        for (const char *rest = globs; rest && !wanted;) {
            if (next_glob(glob, &rest, e))
                return ERR_INPUT;
            wanted = glob_matches(glob, &s, n_models);
        }
        if (wanted && list->n == STREAM_MAX_SITES)
            return err_set(e, ERR_INPUT, "--sites: '%s' matches more than %d hook points", globs, STREAM_MAX_SITES);
        if (wanted)
            list->sites[list->n++] = s;
    } while (next_site(&s, n_layers, n_models));
    return 0;
}
