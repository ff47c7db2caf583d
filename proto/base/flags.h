/* flags.h - flags and settings as tables: a row says what a value is called, what it may be, what it means and where it
 * goes.
 *
 * The programs' command lines (cli.h) and the trainer's configuration (settings.h) are such tables, so a new flag is one
 * line. A value is written as text, the same on the command line and in a file; it lies in a field of a struct of the
 * program's own, `fields`, at the row's offset. */
#ifndef CROSSFEED_FLAGS_H
#define CROSSFEED_FLAGS_H

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include "err.h"

/* The kind of a value, and in brackets the type of its field. */
enum flag_kind {
    FLAG_COUNT,  /* a whole number from low to high, "4e8" is one too [uint32_t or uint64_t] */
    FLAG_NUMBER, /* a number from low to high [double] */
    FLAG_CHOICE, /* one of the words in choices [an enum that counts them from 0] */
    FLAG_SWITCH, /* on or off: "true" or "false"; a flag without a text is on [bool] */
    FLAG_TEXT,   /* a text that is copied [char[]] */
    FLAG_STRING, /* a text that is not copied and must outlive the fields [const char *] */
    FLAG_LIST,   /* such texts, one each time the flag is given, at most high [struct flag_list] */
};

struct flag_list {
    const char **items; /* owned by the program; room for the row's high */
    size_t n;
};

struct flag {
    const char *name; /* words are joined by '_' in files and by '-' in flags; the table may have either */
    enum flag_kind kind;
    size_t offset, size;                           /* of the field: FLAG_FIELD */
    double low, high;                              /* of FLAG_COUNT and FLAG_NUMBER, both ends in; FLAG_LIST: high */
    const char *const *choices;                    /* of FLAG_CHOICE, ends with NULL */
    int (*check)(const char *text, struct err *e); /* of texts: refuses what is not right; or NULL */
    const char *initial; /* the default as a user would write it; NULL: what the field has is the default */
    const char *arg;     /* stands for the value in --help; NULL: follows from the kind */
    const char *group;   /* the heading above it in --help */
    const char *help;
    bool input; /* of FLAG_STRING and FLAG_LIST: files or folders that are read (overwrite.h) */
};

#define FLAG_FIELD(type, field) .offset = offsetof(type, field), .size = sizeof(((type *)0)->field)

/* Sets the field from a text. What is not of the row's kind, out of range or too long is refused with ERR_INPUT, and the
 * field stays as it was; the message begins with the row's name. text NULL: of a FLAG_SWITCH, that it is on. */
int flag_set(const struct flag *f, void *fields, const char *text, struct err *e);

/* Sets the field to the row's default, if it has one. The row's own default is of its kind. */
void flag_set_initial(const struct flag *f, void *fields);

/* Writes the field's value as a user would: numbers with 15 digits. Not of FLAG_STRING and FLAG_LIST. */
void flag_text(const struct flag *f, const void *fields, char *text, size_t size);

/* Returns whether the row's field has the same value in both structs. Not of FLAG_STRING and FLAG_LIST. */
bool flag_equal(const struct flag *f, const void *a, const void *b);

/* Returns the field's value as a new JSON value, NULL if memory is out. Not of FLAG_STRING and FLAG_LIST,
 * which no file keeps. */
json_t *flag_to_json(const struct flag *f, const void *fields);

/* Writes a JSON value as the text that flag_set reads. Returns false if it is neither a number, a text nor a truth
 * value, or longer than size - 1. */
bool flag_text_of_json(const json_t *value, char *text, size_t size);

/* The row's name with `joint` between its words. name: at least FLAG_NAME_SIZE. */
#define FLAG_NAME_SIZE 64
void flag_name(const struct flag *f, char joint, char *name);

#endif
