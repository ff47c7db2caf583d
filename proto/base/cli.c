/* cli.c - argp's options from tables of flags, and what they set; see cli.h. */
#include "cli.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "overwrite.h"

#define FIRST_KEY 1000 /* of argp's options: beyond all letters, so that there are long flags only */
#define HELP_SIZE 512

void cli_add(struct cli *c, const struct flag *f, void *fields, bool *given)
{
    assert(c->n_flags < CLI_MAX_FLAGS);
    c->flags[c->n_flags++] = (struct cli_flag){f, fields, given};
}

/* ---- the options and their help ---- */

struct option_text {
    char name[FLAG_NAME_SIZE], arg[HELP_SIZE], help[HELP_SIZE];
};

/* What stands for the value: "N", "fp32|bf16", "FILE". NULL: the flag has none. */
static const char *argument(const struct flag *f, struct option_text *t)
{
    if (f->arg || f->kind == FLAG_SWITCH)
        return f->arg;
    if (f->kind != FLAG_CHOICE)
        return f->kind == FLAG_COUNT || f->kind == FLAG_NUMBER ? "N" : "TEXT";
    for (size_t i = 0, used = 0; f->choices[i] && used < sizeof t->arg; i++, used = strlen(t->arg))
        snprintf(t->arg + used, sizeof t->arg - used, "%s%s", i ? "|" : "", f->choices[i]);
    return t->arg;
}

/* The default as a user would write it; "" if there is none to speak of. */
static void default_text(const struct cli_flag *row, char *text, size_t size)
{
    const struct flag *f = row->flag;
    *text = '\0';
    if (f->initial) {
        snprintf(text, size, "%s", f->initial);
    } else if (f->kind == FLAG_COUNT || f->kind == FLAG_NUMBER || f->kind == FLAG_CHOICE) {
        flag_text(f, row->fields, text, size);
        if (strcmp(text, "0") == 0)
            *text = '\0';
    }
}

static void make_option(const struct cli_flag *row, int key, struct option_text *t, struct argp_option *option)
{
    char initial[64];
    flag_name(row->flag, '-', t->name);
    default_text(row, initial, sizeof initial);
    snprintf(t->help, sizeof t->help, "%s%s%s%s", row->flag->help, *initial ? " (default " : "", initial,
             *initial ? ")" : "");
    *option = (struct argp_option){.name = t->name,
                                   .key = key,
                                   .arg = argument(row->flag, t),
                                   .flags = row->flag->kind == FLAG_SWITCH && row->flag->arg ? OPTION_ARG_OPTIONAL : 0,
                                   .doc = t->help};
}

/* Fills texts and options [2 * n_flags + 1]: each heading once, where its first flag stands, and the flags below it. Groups
 * are numbered from 1. */
static void make_options(struct cli *c, struct option_text *texts, struct argp_option *options)
{
    const char *groups[CLI_MAX_FLAGS];
    int n_groups = 0;
    size_t n = 0;
    for (size_t i = 0; i < c->n_flags; i++) {
        const char *name = c->flags[i].flag->group;
        int group = 0;
        while (group < n_groups && strcmp(groups[group], name) != 0)
            group++;
        if (group == n_groups) {
            groups[n_groups++] = name;
            snprintf(texts[n].help, sizeof texts[n].help, "%s:", name);
            options[n] = (struct argp_option){.doc = texts[n].help, .group = group + 1};
            n++;
        }
        make_option(&c->flags[i], FIRST_KEY + (int)i, &texts[n], &options[n]);
        options[n++].group = group + 1;
    }
}

/* ---- parsing ---- */

struct parser {
    struct cli *c;
    bool seen[CLI_MAX_FLAGS];
};

static void set(struct parser *p, size_t i, const char *text, struct argp_state *state)
{
    const struct cli_flag *row = &p->c->flags[i];
    const struct flag *f = row->flag;
    const char *field = (const char *)row->fields + f->offset;
    char name[FLAG_NAME_SIZE];
    struct err e;
    flag_name(f, '-', name);
    if (p->seen[i] && f->kind == FLAG_STRING)
        argp_error(state, "--%s is given twice: '%s' and '%s'", name, *(const char *const *)field, text);
    if (p->seen[i] && f->kind == FLAG_TEXT)
        argp_error(state, "--%s is given twice: '%s' and '%s'", name, field, text);
    if (flag_set(f, row->fields, text, &e)) {
        size_t length = strlen(f->name); /* the message begins with the name, as it stands in the table */
        bool named = strncmp(e.message, f->name, length) == 0;
        argp_error(state, "--%s%s%s", name, named ? "" : ": ", e.message + (named ? length : 0));
    }
    p->seen[i] = true;
    if (row->given)
        *row->given = true;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct parser *p = state->input;
    struct err e;
    if (key >= FIRST_KEY && (size_t)(key - FIRST_KEY) < p->c->n_flags) {
        set(p, (size_t)(key - FIRST_KEY), text, state);
        return 0;
    }
    switch (key) {
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", text);
        return 0;
    case ARGP_KEY_END:
        if (p->c->check && p->c->check(p->c->context, &e))
            argp_error(state, "%s", e.message);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void name_inputs(const struct cli *c)
{
    for (size_t i = 0; i < c->n_flags; i++) {
        const struct flag *f = c->flags[i].flag;
        const char *field = (const char *)c->flags[i].fields + f->offset;
        if (f->input && f->kind == FLAG_STRING && *(const char *const *)field)
            overwrite_inputs((const char *const *)field, 1);
        else if (f->input && f->kind == FLAG_LIST)
            overwrite_inputs(((const struct flag_list *)field)->items, ((const struct flag_list *)field)->n);
    }
}

int cli_parse(struct cli *c, int argc, char **argv, struct err *e)
{
    struct parser p = {.c = c};
    size_t doc_size = strlen(c->doc) + strlen(c->footer) + 2;
    struct option_text *texts = mem_alloc(2 * c->n_flags + 1, sizeof *texts, "flags", e);
    struct argp_option *options = mem_alloc(2 * c->n_flags + 1, sizeof *options, "flags", e);
    char *doc = mem_alloc(doc_size, 1, "help", e);
    int rc = texts && options && doc ? 0 : ERR_MEMORY;
    if (rc == 0) {
        make_options(c, texts, options);
        snprintf(doc, doc_size, "%s\v%s", c->doc, c->footer);
        struct argp argp = {options, parse, NULL, doc, NULL, NULL, NULL};
        argp_err_exit_status = 2;
        argp_parse(&argp, argc, argv, 0, NULL, &p);
        name_inputs(c);
    }
    mem_free(texts);
    mem_free(options);
    mem_free(doc);
    return rc;
}

/* ---- single numbers, and signals ---- */

uint64_t cli_whole(const char *text, uint64_t low, uint64_t high, const char *what, struct argp_state *state)
{
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= (double)low && x <= (double)high) || x != (double)(uint64_t)x)
        argp_error(state, "--%s '%s': must be a whole number from %llu to %llu", what, text, (unsigned long long)low,
                   (unsigned long long)high);
    return (uint64_t)x;
}

double cli_number(const char *text, double low, double high, const char *what, struct argp_state *state)
{
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= low && x <= high))
        argp_error(state, "--%s '%s': must be a number from %g to %g", what, text, low, high);
    return x;
}

volatile sig_atomic_t cli_stop;

static void on_signal(int number)
{
    (void)number;
    cli_stop = 1;
}

void cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal}, hangup;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN) /* nohup: shall outlive its terminal */
        sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the limit of a file's size fails like one to a full disk */
}
