/* scale_list.c - see scale_list.h. */
#include "scale_list.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Reads the value of `length` characters at `at`, with its name if it has one, behind the list's last. */
static int read_value(struct scale_list *l, const char *text, const char *at, size_t length, struct err *e)
{
    for (; length > 0 && *at == ' '; length--)
        at++;
    const char *equals = memrchr(at, '=', length), *number = equals ? equals + 1 : at;
    size_t name_length = equals ? (size_t)(equals - at) : 0;
    char *end;
    float x = strtof(number, &end);
    if (end == number || end != at + length || !(x > 0) || !isfinite(x))
        return err_set(e, ERR_INPUT, "scale '%s': value %u is not a positive number", text, l->n);
    if (l->n == STREAM_MAX_SITES)
        return err_set(e, ERR_INPUT, "scale of more than %d values", STREAM_MAX_SITES);
    if (l->n > 0 && l->named != (equals != NULL))
        return err_set(e, ERR_INPUT, "scale '%s': either all values have names or none has", text);
    if (equals && (name_length == 0 || name_length >= SITE_NAME_SIZE))
        return err_set(e, ERR_INPUT, "scale '%s': name %u has %zu characters, must be 1 to %d", text, l->n, name_length,
                       SITE_NAME_SIZE - 1);
    char *name = l->names[l->n];
    memcpy(name, at, name_length);
    name[name_length] = '\0';
    for (uint32_t i = 0; equals && i < l->n; i++)
        if (strcmp(l->names[i], name) == 0)
            return err_set(e, ERR_INPUT, "scale: %s is named twice, with %g and %g", name, (double)l->values[i],
                           (double)x);
    l->named = equals != NULL;
    l->values[l->n++] = x;
    return 0;
}

int scale_list_parse(struct scale_list *l, const char *text, struct err *e)
{
    *l = (struct scale_list){0};
    for (const char *at = text;; at++) {
        size_t length = strcspn(at, ",");
        if (read_value(l, text, at, length, e))
            return e->code;
        at += length;
        if (!*at)
            return 0;
    }
}

void scale_list_set(struct scale_list *l, const float *scale, uint32_t n)
{
    l->n = n;
    l->named = false;
    memcpy(l->values, scale, n * sizeof *scale);
}

int scale_list_match(const struct scale_list *l, const struct stream *s, float *scale, struct err *e)
{
    bool found[STREAM_MAX_SITES] = {false};
    if (!l->named && l->n != s->n_sites)
        return err_set(e, ERR_MISMATCH, "%u sites, the scale has %u values", s->n_sites, l->n);
    for (uint32_t i = 0; i < l->n; i++) {
        uint32_t site = l->named ? 0 : i;
        while (l->named && site < s->n_sites && strcmp(s->sites[site], l->names[i]) != 0)
            site++;
        if (site == s->n_sites)
            return err_set(e, ERR_MISMATCH, "the scale names %s, which is no site; there are %s ... %s", l->names[i],
                           s->sites[0], s->sites[s->n_sites - 1]);
        scale[site] = l->values[i];
        found[site] = true;
    }
    for (uint32_t site = 0; site < s->n_sites; site++)
        if (!found[site])
            return err_set(e, ERR_MISMATCH, "the scale has no value for site %u, %s", site, s->sites[site]);
    return 0;
}
