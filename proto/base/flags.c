/* flags.c - a value from its text and back; see flags.h. */
#include "flags.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *field_of(const struct flag *f, void *fields)
{
    return (unsigned char *)fields + f->offset;
}

static const void *value_of(const struct flag *f, const void *fields)
{
    return (const unsigned char *)fields + f->offset;
}

static uint64_t count_of(const struct flag *f, const void *fields)
{
    const void *field = value_of(f, fields);
    return f->size == sizeof(uint32_t) ? *(const uint32_t *)field : *(const uint64_t *)field;
}

static int set_number(const struct flag *f, void *field, const char *text, struct err *e)
{
    char *end;
    double x = strtod(text, &end);
    bool whole = f->kind == FLAG_COUNT;
    if (end == text || *end || !(x >= f->low && x <= f->high) || (whole && x != floor(x)))
        return err_set(e, ERR_INPUT, "%s '%s': must be a %s from %.15g to %.15g", f->name, text,
                       whole ? "whole number" : "number", f->low, f->high);
    if (!whole)
        *(double *)field = x;
    else if (f->size == sizeof(uint32_t))
        *(uint32_t *)field = (uint32_t)x;
    else
        *(uint64_t *)field = (uint64_t)x;
    return 0;
}

static int set_choice(const struct flag *f, void *field, const char *text, struct err *e)
{
    char list[256] = "";
    for (unsigned i = 0; f->choices[i]; i++) {
        if (strcmp(text, f->choices[i]) == 0) {
            *(unsigned *)field = i;
            return 0;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s",
                 i == 0              ? ""
                 : f->choices[i + 1] ? ", "
                                     : " or ",
                 f->choices[i]);
    }
    return err_set(e, ERR_INPUT, "%s '%s': must be %s", f->name, text, list);
}

static int set_switch(const struct flag *f, void *field, const char *text, struct err *e)
{
    bool on = !text || strcmp(text, "true") == 0;
    if (!on && strcmp(text, "false") != 0)
        return err_set(e, ERR_INPUT, "%s '%s': must be true or false", f->name, text);
    *(bool *)field = on;
    return 0;
}

static int set_text(const struct flag *f, void *field, const char *text, struct err *e)
{
    struct flag_list *list = field;
    if (f->kind == FLAG_TEXT && strlen(text) >= f->size)
        return err_set(e, ERR_INPUT, "%s: %zu characters, at most %zu", f->name, strlen(text), f->size - 1);
    if (f->kind == FLAG_LIST && (double)list->n >= f->high)
        return err_set(e, ERR_INPUT, "%s '%s': more than %.15g of them", f->name, text, f->high);
    if (f->check && f->check(text, e))
        return e ? e->code : ERR_INPUT;
    if (f->kind == FLAG_TEXT)
        snprintf(field, f->size, "%s", text);
    else if (f->kind == FLAG_STRING)
        *(const char **)field = text;
    else
        list->items[list->n++] = text;
    return 0;
}

int flag_set(const struct flag *f, void *fields, const char *text, struct err *e)
{
    void *field = field_of(f, fields);
    switch (f->kind) {
    case FLAG_COUNT:
    case FLAG_NUMBER:
        return set_number(f, field, text, e);
    case FLAG_CHOICE:
        return set_choice(f, field, text, e);
    case FLAG_SWITCH:
        return set_switch(f, field, text, e);
    default:
        return set_text(f, field, text, e);
    }
}

void flag_set_initial(const struct flag *f, void *fields)
{
    int rc = f->initial ? flag_set(f, fields, f->initial, NULL) : 0;
    assert(rc == 0); /* a table's own mistake */
    (void)rc;
}

void flag_text(const struct flag *f, const void *fields, char *text, size_t size)
{
    const void *field = value_of(f, fields);
    switch (f->kind) {
    case FLAG_COUNT:
        snprintf(text, size, "%llu", (unsigned long long)count_of(f, fields));
        break;
    case FLAG_NUMBER:
        snprintf(text, size, "%.15g", *(const double *)field);
        break;
    case FLAG_CHOICE:
        snprintf(text, size, "%s", f->choices[*(const unsigned *)field]);
        break;
    case FLAG_SWITCH:
        snprintf(text, size, "%s", *(const bool *)field ? "true" : "false");
        break;
    default:
        snprintf(text, size, "%s", (const char *)field);
    }
}

bool flag_equal(const struct flag *f, const void *a, const void *b)
{
    const void *x = value_of(f, a), *y = value_of(f, b);
    if (f->kind == FLAG_NUMBER)
        return *(const double *)x == *(const double *)y;
    return f->kind == FLAG_TEXT ? strcmp(x, y) == 0 : memcmp(x, y, f->size) == 0;
}

json_t *flag_to_json(const struct flag *f, const void *fields)
{
    const void *field = value_of(f, fields);
    switch (f->kind) {
    case FLAG_COUNT:
        return json_integer((json_int_t)count_of(f, fields));
    case FLAG_NUMBER:
        return json_real(*(const double *)field);
    case FLAG_CHOICE:
        return json_string(f->choices[*(const unsigned *)field]);
    case FLAG_SWITCH:
        return json_boolean(*(const bool *)field);
    default:
        return json_string(field);
    }
}

bool flag_text_of_json(const json_t *value, char *text, size_t size)
{
    int length = -1;
    if (json_is_integer(value))
        length = snprintf(text, size, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        length = snprintf(text, size, "%.17g", json_real_value(value));
    else if (json_is_string(value))
        length = snprintf(text, size, "%s", json_string_value(value));
    else if (json_is_boolean(value))
        length = snprintf(text, size, "%s", json_is_true(value) ? "true" : "false");
    return length >= 0 && (size_t)length < size;
}

void flag_name(const struct flag *f, char joint, char *name)
{
    snprintf(name, FLAG_NAME_SIZE, "%s", f->name);
    for (char *c = name; *c; c++)
        if (*c == '_' || *c == '-')
            *c = joint;
}
