/* cli.h - what the programs' command lines share: tables of flags, numbers with a range, and a flag that SIGINT, SIGTERM and
 * SIGHUP set. */
#ifndef CROSSFEED_CLI_H
#define CROSSFEED_CLI_H

#include <argp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "flags.h"

#define CLI_MAX_FLAGS 320

/* A command line: the program fills in what it does, adds its flags, and parses. */
struct cli {
    const char *doc;    /* one or two sentences above the flags in --help */
    const char *footer; /* below them: an example, the man page */
    /* Called once all flags are set: refuses those that do not go together; or NULL. */
    int (*check)(void *context, struct err *e);
    void *context;
    struct cli_flag {
        const struct flag *flag;
        void *fields;
        bool *given; /* set to true when the flag is given */
    } flags[CLI_MAX_FLAGS];
    size_t n_flags;
};

/* Adds a row of a table. The fields have their defaults already; --help shows the row's own, or else the number
 * or word that is there. given may be NULL. All of it must outlive the parsing. */
void cli_add(struct cli *c, const struct flag *f, void *fields, bool *given);

/* Parses a command line of added flags, and names the inputs among them (overwrite.h). Numbers, words and switches may be given again, the last one holds; a second file,
 * folder, name or list (FLAG_STRING, FLAG_TEXT) is refused, because the first one would be dropped without a word. Usage
 * errors and --help end the program, as argp does; the status is 2 for errors. Returns ERR_MEMORY, or 0. */
int cli_parse(struct cli *c, int argc, char **argv, struct err *e);

/* A whole number from low to high; "4e8" is one too. Else argp_error (exit 2) naming --what, the text and the range. */
uint64_t cli_whole(const char *text, uint64_t low, uint64_t high, const char *what, struct argp_state *state);
double cli_number(const char *text, double low, double high, const char *what, struct argp_state *state);

/* Set once SIGINT, SIGTERM or SIGHUP has come, after cli_catch_signals; SIGPIPE and SIGXFSZ are ignored from then on. SIGHUP, a terminal that is closed,
 * is left alone where the program was started with it ignored (nohup). */
extern volatile sig_atomic_t cli_stop;
void cli_catch_signals(void);

#endif
