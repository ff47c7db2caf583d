/* xctrain.c - the trainer's command line; run.h does the work.
 *
 * Exit status: 0 done (or stopped by a signal, state saved), 1 run-time failure, 2 usage. */
#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include "bus_error.h"
#include "cli.h"
#include "config.h"
#include "log.h"
#include "run.h"
#include "version.h"

#define MAX_LISTEN 8

enum {
    OPTION_OUT = 1000,
    OPTION_LISTEN,
    OPTION_METRICS_LISTEN,
    OPTION_CURVE_SECRET,
    OPTION_CURVE_ALLOW,
    OPTION_INSECURE,
    OPTION_RESUME,
    OPTION_INIT,
    OPTION_TRUTH,
    OPTION_PROVENANCE,
};
enum { OPTION_CONFIG = 2000 }; /* + index of the key */

const char *argp_program_version = "xctrain " CROSSFEED_VERSION;

static const char doc[] =
    "Trains a crosscoder on the activations that actgen producers send.\v"
    "Keys of the configuration have the reference's names and defaults; a run is a pure function of them, the "
    "tokens and the models. See README.md.";

static const struct argp_option own_options[] = {
    {"out", OPTION_OUT, "DIR", 0, "folder of the run: metrics, checkpoints, weights (required)", 1},
    {"listen", OPTION_LISTEN, "ENDPOINT", 0, "where producers connect; may be repeated (default tcp://127.0.0.1:5555)",
     1},
    {"metrics-listen", OPTION_METRICS_LISTEN, "ADDRESS:PORT", 0,
     "show the run's state there over HTTP, at /metrics, in Prometheus' format", 1},
    {"curve-secret", OPTION_CURVE_SECRET, "FILE", 0, "the trainer's key pair (xckeys make): producers need keys", 1},
    {"curve-allow", OPTION_CURVE_ALLOW, "PATH", 0, "their public keys: a folder of *.public files, or a file of keys",
     1},
    {"insecure", OPTION_INSECURE, NULL, 0, "allow endpoints that other machines reach, without keys", 1},
    {"resume", OPTION_RESUME, NULL, 0, "go on from the newest checkpoint in DIR", 1},
    {"init", OPTION_INIT, "FILE", 0, "start from these weights (crosscoder.safetensors)", 1},
    {"truth", OPTION_TRUTH, "FILE", 0, "ground truth of a synthetic source: say at the end how much was recovered", 1},
    {"provenance", OPTION_PROVENANCE, "FILE", 0,
     "write (sequence, position, token), u32 each, of every row trained, in order", 1},
};
#define N_OWN (sizeof own_options / sizeof own_options[0])

struct arguments {
    struct run_options run;
    struct learner_options learner;
    const char *listen[MAX_LISTEN];
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    struct err e;
    if (key >= OPTION_CONFIG && (size_t)(key - OPTION_CONFIG) < config_n_keys) {
        if (config_set(&a->learner.config, (size_t)(key - OPTION_CONFIG), text, &e))
            argp_error(state, "%s", e.message);
        return 0;
    }
    switch (key) {
    case OPTION_OUT:
        a->learner.out = text;
        return 0;
    case OPTION_LISTEN:
        if (a->run.n_endpoints == MAX_LISTEN)
            argp_error(state, "--listen more than %d times", MAX_LISTEN);
        a->listen[a->run.n_endpoints++] = text;
        return 0;
    case OPTION_METRICS_LISTEN:
        a->run.metrics_listen = text;
        return 0;
    case OPTION_CURVE_SECRET:
        a->run.door.curve_secret = text;
        return 0;
    case OPTION_CURVE_ALLOW:
        a->run.door.curve_allow = text;
        return 0;
    case OPTION_INSECURE:
        a->run.door.insecure = true;
        return 0;
    case OPTION_RESUME:
        a->learner.resume = true;
        return 0;
    case OPTION_INIT:
        a->learner.init = text;
        return 0;
    case OPTION_TRUTH:
        a->learner.truth = text;
        return 0;
    case OPTION_PROVENANCE:
        a->run.provenance = text;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", text);
        return 0;
    case ARGP_KEY_END:
        if (!a->learner.out)
            argp_error(state, "--out is required");
        if (!a->run.door.curve_secret != !a->run.door.curve_allow)
            argp_error(state, "--curve-secret and --curve-allow go together");
        if (a->learner.resume && a->learner.init)
            argp_error(state, "--resume and --init exclude each other");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The flags of the configuration follow from its table; names with '-' and the help text are made here once. */
static void make_options(struct argp_option *options)
{
    memcpy(options, own_options, sizeof own_options);
    for (size_t i = 0; i < config_n_keys; i++) {
        const struct config_key *k = &config_keys[i];
        char *name = strdup(k->name), *help = NULL;
        for (char *c = name; c && *c; c++)
            if (*c == '_')
                *c = '-';
        if (!name || asprintf(&help, "%s%s%s%s", k->help, *k->initial ? " (default " : "", k->initial,
                              *k->initial ? ")" : "") < 0)
            abort(); /* at start-up, out of memory */
        options[N_OWN + i] =
            (struct argp_option){name, OPTION_CONFIG + (int)i, k->kind == CONFIG_TEXT ? "LIST" : "N", 0, help, 2};
    }
}

int main(int argc, char **argv)
{
    struct arguments a = {.run.endpoints = a.listen, .run.stop = &cli_stop};
    struct argp_option *options = calloc(N_OWN + config_n_keys + 1, sizeof *options);
    if (!options)
        return 1;
    make_options(options);
    struct argp argp = {options, parse, NULL, doc, NULL, NULL, NULL};
    config_init(&a.learner.config);
    log_init("xctrain");
    bus_error_catch("xctrain");
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.run.n_endpoints == 0)
        a.listen[a.run.n_endpoints++] = "tcp://127.0.0.1:5555";

    cli_catch_signals();

    struct err e = {0};
    a.learner.seed = a.learner.config.seed;
    int rc = run(&a.run, &a.learner, 1, &e);
    if (rc)
        log_line("error: %s", e.message);
    for (size_t i = 0; i < config_n_keys; i++) {
        free((char *)(uintptr_t)options[N_OWN + i].name);
        free((char *)(uintptr_t)options[N_OWN + i].doc);
    }
    free(options);
    return rc ? 1 : 0;
}
