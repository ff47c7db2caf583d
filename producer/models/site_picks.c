/* site_picks.c - see site_picks.h.
 *
 * Every name is given to fnmatch: a few thousand calls once at start, and the names that a glob sees are exactly those
 * that the run will print. The result does not depend on the order of the globs, so two producers agree whatever the
 * order in which they were told. */
#include "site_picks.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "site_parts.h"

#define GLOB_SIZE 256 /* of one glob, with the NUL */

struct sites {
    const char (*names)[SITE_NAME_SIZE];
    size_t n;
};

/* Copies the glob at *globs, up to its comma, and moves *globs behind it, or to NULL after the last. */
static int next_glob(char glob[GLOB_SIZE], const char **globs, struct err *e)
{
    const char *end = strchrnul(*globs, ',');
    size_t length = (size_t)(end - *globs);
    if (length == 0)
        return err_set(e, ERR_INPUT, "--sites: empty glob");
    if (length >= GLOB_SIZE)
        return err_set(e, ERR_INPUT, "--sites: glob of %zu characters, at most %d", length, GLOB_SIZE - 1);
    memcpy(glob, *globs, length);
    glob[length] = '\0';
    *globs = *end ? end + 1 : NULL;
    return 0;
}

static bool matches(const char *glob, const char *name)
{
    return fnmatch(glob, strchr(glob, ':') ? name : site_parts(name).hook_point, 0) == 0;
}

/* Returns the index of model m's site at a hook point, or n if there is none. */
static size_t find(const struct sites *s, uint32_t model, const char *hook_point)
{
    size_t i = 0;
    for (; i < s->n; i++) {
        struct site_parts p = site_parts(s->names[i]);
        if (p.n_models == 1 && p.model == model && strcmp(p.hook_point, hook_point) == 0)
            break;
    }
    return i;
}

/* Returns whether a site of the name that this difference would have is there. */
static bool has_difference(const struct sites *s, uint32_t model, uint32_t less, const char *hook_point)
{
    bool has = false;
    for (size_t i = 0; i < s->n && !has; i++) {
        struct site_parts p = site_parts(s->names[i]);
        has = p.n_models == 2 && p.model == model && p.less == less && strcmp(p.hook_point, hook_point) == 0;
    }
    return has;
}

/* Returns how many models there are: one, where no name has a number. */
static uint32_t count_models(const struct sites *s)
{
    uint32_t n = 1;
    for (size_t i = 0; i < s->n; i++) {
        struct site_parts p = site_parts(s->names[i]);
        n = p.n_models == 1 && p.model >= n ? p.model + 1 : n;
    }
    return n;
}

/* Returns whether difference a stands before difference b: by models, then in the order of the names. */
static bool is_before(const struct sites *s, const struct site_pick *a, const struct site_pick *b)
{
    uint32_t a_model = site_parts(s->names[a->site]).model, b_model = site_parts(s->names[b->site]).model;
    uint32_t a_less = site_parts(s->names[a->less]).model, b_less = site_parts(s->names[b->less]).model;
    if (a_model != b_model)
        return a_model < b_model;
    return a_less != b_less ? a_less < b_less : a->site < b->site;
}

/* Adds a pick, unless it is there already. */
static int add(struct site_picks *p, const struct sites *s, struct site_pick k, struct err *e)
{
    size_t at = p->n;
    char name[2 * SITE_NAME_SIZE];
    for (size_t i = 0; i < p->n; i++)
        if (p->picks[i].site == k.site && p->picks[i].less == k.less)
            return 0;
    if (p->n == STREAM_MAX_SITES)
        return err_set(e, ERR_INPUT, "--sites matches more than %d sites", STREAM_MAX_SITES);
    if (k.less != PICK_WHOLE) {
        struct site_parts a = site_parts(s->names[k.site]), b = site_parts(s->names[k.less]);
        int length = snprintf(name, sizeof name, "%" PRIu32 "-%" PRIu32 ":%s", a.model, b.model, a.hook_point);
        if (length >= SITE_NAME_SIZE)
            return err_set(e, ERR_INPUT, "--sites: name %s has %d characters, at most %d", name, length,
                           SITE_NAME_SIZE - 1);
        for (; at > 0 && p->picks[at - 1].less != PICK_WHOLE && is_before(s, &k, &p->picks[at - 1]); at--)
            p->picks[at] = p->picks[at - 1];
    }
    p->picks[at] = k;
    p->n++;
    return 0;
}

/* Adds the differences that a glob asks for, which site_parts takes apart as d. *found says whether the glob has matched a
 * whole site, and becomes true if it matches a difference. */
static int add_differences(struct site_picks *p, const struct sites *s, const char *glob, const struct site_parts *d,
                           bool *found, struct err *e)
{
    uint32_t n_models = count_models(s);
    if (d->model == d->less)
        return err_set(e, ERR_INPUT, "--sites: '%s': model %" PRIu32 " less itself is nothing", glob, d->model);
    if (!*found && (d->model >= n_models || d->less >= n_models))
        return err_set(e, ERR_INPUT,
                       "--sites: '%s': model %" PRIu32 " less model %" PRIu32 ", but there %s %" PRIu32 " model%s",
                       glob, d->model, d->less, n_models == 1 ? "is" : "are", n_models, n_models == 1 ? "" : "s");
    for (size_t i = 0; i < s->n; i++) {
        struct site_parts site = site_parts(s->names[i]);
        if (site.n_models != 1 || (site.model != d->model && site.model != d->less) ||
            fnmatch(d->hook_point, site.hook_point, 0) != 0 || has_difference(s, d->model, d->less, site.hook_point))
            continue;
        uint32_t other_model = site.model == d->model ? d->less : d->model;
        size_t other = find(s, other_model, site.hook_point);
        if (other == s->n)
            return err_set(e, ERR_INPUT, "--sites: '%s': model %" PRIu32 " has %s, model %" PRIu32 " has no such site",
                           glob, site.model, site.hook_point, other_model);
        *found = true;
        if (site.model == d->model && add(p, s, (struct site_pick){i, other}, e))
            return e->code;
    }
    return 0;
}

/* Adds the sites that any of the globs matches as they are. */
static int add_whole(struct site_picks *p, const struct sites *s, const char *globs, struct err *e)
{
    char glob[GLOB_SIZE];
    for (size_t i = 0; i < s->n; i++) {
        bool wanted = false;
        for (const char *rest = globs; rest && !wanted;) {
            if (next_glob(glob, &rest, e))
                return e->code;
            wanted = matches(glob, s->names[i]);
        }
        if (wanted && add(p, s, (struct site_pick){i, PICK_WHOLE}, e))
            return e->code;
    }
    return 0;
}

int site_picks_match(struct site_picks *p, const char *globs, const char (*names)[SITE_NAME_SIZE], size_t n_names,
                     const char *hint, struct err *e)
{
    const struct sites s = {names, n_names};
    char glob[GLOB_SIZE];
    p->n = 0;
    if (add_whole(p, &s, globs, e))
        return e->code;
    for (const char *rest = globs; rest;) {
        if (next_glob(glob, &rest, e))
            return e->code;
        bool found = false;
        for (size_t i = 0; i < n_names && !found; i++)
            found = matches(glob, names[i]);
        struct site_parts d = site_parts(glob);
        if (d.n_models == 2 && add_differences(p, &s, glob, &d, &found, e))
            return e->code;
        if (!found)
            return err_set(e, ERR_INPUT, "--sites: '%s' matches no site; names go from %s to %s%s", glob, names[0],
                           names[n_names - 1], hint);
    }
    return 0;
}

void site_pick_name(char name[SITE_NAME_SIZE], const struct site_pick *k, const char (*names)[SITE_NAME_SIZE])
{
    struct site_parts p = site_parts(names[k->site]);
    if (k->less == PICK_WHOLE)
        memcpy(name, names[k->site], SITE_NAME_SIZE);
    else
        snprintf(name, SITE_NAME_SIZE, "%" PRIu32 "-%" PRIu32 ":%s", p.model, site_parts(names[k->less]).model,
                 p.hook_point);
}
