/* xckeys.c - makes CURVE key pairs and shows public keys; the files are described in curve_keys.h.
 *
 * Exit status: 0 done, 1 run-time failure, 2 usage. */
#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "curve_keys.h"
#include "log.h"
#include "version.h"

const char *argp_program_version = "xckeys " CROSSFEED_VERSION;

static const char doc[] =
    "Makes and shows the keys with which trainer and producers know each other.\v"
    "make writes NAME.secret (mode 0600, stays on this machine) and NAME.public (for the other side), never over what "
    "is "
    "there, and prints the public key. public prints the public key of a secret file.\n\n"
    "The trainer: xctrain --curve-secret trainer.secret --curve-allow FOLDER, where FOLDER holds the producers' "
    "*.public files. A producer: actgen --curve-secret NAME.secret --curve-server trainer.public.";

struct arguments {
    const char *words[2];
    unsigned n;
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (a->n == 2)
            argp_error(state, "unexpected argument '%s'", text);
        a->words[a->n++] = text;
        return 0;
    case ARGP_KEY_END:
        if (a->n != 2 || (strcmp(a->words[0], "make") != 0 && strcmp(a->words[0], "public") != 0))
            argp_error(state, "must be 'make NAME' or 'public FILE'");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    struct arguments a = {0};
    struct argp argp = {NULL, parse, "make NAME\npublic FILE", doc, NULL, NULL, NULL};
    struct curve_pair pair;
    struct err e = {0};
    log_init("xckeys");
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);

    bool make = strcmp(a.words[0], "make") == 0;
    int rc = make ? curve_pair_make(&pair, &e) : curve_pair_read(&pair, a.words[1], &e);
    if (rc == 0 && make)
        rc = curve_pair_write(&pair, a.words[1], &e);
    if (rc)
        log_line("error: %s", e.message);
    else
        puts(pair.public_key);
    explicit_bzero(&pair, sizeof pair);
    if (rc == 0 && fflush(stdout) != 0)
        rc = 1;
    return rc ? 1 : 0;
}
