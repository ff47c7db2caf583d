/* xctrain.c - the trainer's command line; run.h does the work.
 *
 * The program's own flags are the table below, the configuration's keys are config.c's. Exit status: 0 done (or stopped by a
 * signal, state saved), 1 run-time failure, 2 usage. */
#include "bus_error.h"
#include "cli.h"
#include "config.h"
#include "endpoint.h"
#include "json_file.h"
#include "log.h"
#include "overwrite.h"
#include "preset.h"
#include "run.h"
#include "version.h"

#define MAX_LISTEN 8
#define DEFAULT_ENDPOINT "tcp://127.0.0.1:5555"

const char *argp_program_version = "xctrain " CROSSFEED_VERSION;

static const char doc[] = "Trains a crosscoder on the activations that actgen producers send.";
static const char footer[] = "A run is a pure function of these values, the tokens and the models: not of how many "
                             "producers there are, of timing "
                             "or of restarts.\n\n"
                             "Example:\n"
                             "  xctrain --out runs/gpt2 --dict-size 16384 --num-tokens 4e8\n"
                             "  xctrain --out runs/gpt2 --resume\n\n"
                             "See also xctrain(1), actgen(1).";

struct arguments {
    struct run_options run;
    struct learner_options learner;
    struct flag_list listen;
    bool force;
};

/* A row: the name, kind and field, what stands for the value in --help, the help; GROUP is the heading above it. */
#define FLAG(text, of_kind, field, of_arg, of_help, ...)                                                   \
    {                                                                                                      \
        .name = text, .kind = of_kind, FLAG_FIELD(struct arguments, field), .arg = of_arg, .group = GROUP, \
        .help = of_help, __VA_ARGS__                                                                       \
    }

static const struct flag flags[] = {
#define GROUP "Run"
    FLAG("out", FLAG_STRING, learner.out, "DIR", "folder of the run: metrics, checkpoints, weights (required)"),
    FLAG("resume", FLAG_SWITCH, learner.resume, NULL, "go on from the newest sound checkpoint in DIR"),
    FLAG("resume-from", FLAG_COUNT, learner.resume_from, "STEP",
         "go on from that step's checkpoint; newer ones are set aside", .low = 1, .high = 1e15),
    FLAG("init", FLAG_STRING, learner.init, "FILE", "start from these weights (crosscoder.safetensors)", .input = true),
    FLAG("scale-from-init", FLAG_SWITCH, learner.scale_from_init, NULL,
         "scale the rows as those were that --init was trained on (and centre them so)"),
    FLAG("truth", FLAG_STRING, learner.truth, "FILE",
         "ground truth of a synthetic source: say at the end how much was recovered", .input = true),
    FLAG("provenance", FLAG_STRING, run.provenance, "FILE",
         "write (sequence, position, token), u32 each, of every row trained, in order"),
    FLAG("force", FLAG_SWITCH, force, NULL, "replace existing files that are of another kind"),
#undef GROUP
#define GROUP "Connections"
    FLAG("listen", FLAG_LIST, listen, "ENDPOINT",
         "where producers connect: tcp://HOST:PORT or ipc://PATH; may be repeated (default " DEFAULT_ENDPOINT ")",
         .high = MAX_LISTEN, .check = endpoint_check_listen),
    FLAG("expect", FLAG_STRING, run.expect, "FILE",
         "cfg.json of an earlier run, or manifest.json of a recording: only producers of that stream may join",
         .input = true),
    FLAG("curve-secret", FLAG_STRING, run.door.curve_secret, "FILE",
         "the trainer's key pair (xckeys make): producers need keys", .input = true),
    FLAG("curve-allow", FLAG_STRING, run.door.curve_allow, "PATH",
         "the producers' public keys: a folder of *.public files, or a file of keys", .input = true),
    FLAG("insecure", FLAG_SWITCH, run.door.insecure, NULL, "allow endpoints that other machines reach, without keys"),
    FLAG("metrics-listen", FLAG_STRING, run.metrics_listen, "ADDRESS:PORT",
         "show the run's state there over HTTP, at /metrics, in Prometheus' format", .check = endpoint_check_http),
};

/* Refuses flags that do not go together. */
static int check_together(void *context, struct err *e)
{
    const struct arguments *a = context;
    if (!a->learner.out)
        return err_set(e, ERR_INPUT, "--out is required");
    if (!a->run.door.curve_secret != !a->run.door.curve_allow)
        return err_set(e, ERR_INPUT, "--curve-secret and --curve-allow go together");
    if ((a->learner.resume || a->learner.resume_from) && a->run.expect)
        return err_set(e, ERR_INPUT, "--resume and --expect exclude each other: the checkpoint says what is expected");
    if ((a->learner.resume || a->learner.resume_from) && a->learner.init)
        return err_set(e, ERR_INPUT, "--resume and --init exclude each other");
    if ((a->learner.resume || a->learner.resume_from) && a->force)
        return err_set(e, ERR_INPUT, "--resume and --force exclude each other: what is in --out is the run's");
    if (a->learner.scale_from_init && !a->learner.init)
        return err_set(e, ERR_INPUT, "--scale-from-init needs --init");
    if (a->learner.scale_from_init && *a->learner.config.scale)
        return err_set(e, ERR_INPUT, "--scale and --scale-from-init exclude each other");
    static const char *const start[] = {"dec_init_norm", "b_dec_init", "init_tied_models", "log_threshold_init"};
    for (size_t i = 0; a->learner.init && i < sizeof start / sizeof start[0]; i++)
        if (config_is_given(&a->learner.config, start[i]))
            return err_set(e, ERR_INPUT, "--init takes all weights from %s: %s would do nothing", a->learner.init,
                           start[i]);
    return 0;
}

static int parse(struct arguments *a, int argc, char **argv, struct err *e)
{
    static struct cli cli;
    struct config *config = &a->learner.config;
    cli = (struct cli){.doc = doc, .footer = footer, .check = check_together, .context = a};
    config_init(config);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        cli_add(&cli, &flags[i], a, NULL);
    for (size_t i = 0; i < config_n_keys; i++)
        cli_add(&cli, &config_keys[i].flag, config, &config->given[i]);
    return cli_parse(&cli, argc, argv, e);
}

int main(int argc, char **argv)
{
    const char *endpoints[MAX_LISTEN];
    struct arguments a = {.run.stop = &cli_stop, .listen.items = endpoints};
    struct err e = {0};
    log_init("xctrain");
    bus_error_catch("xctrain");
    json_use_mem();
    int rc = parse(&a, argc, argv, &e);
    log_in_background();
    if (a.listen.n == 0)
        endpoints[a.listen.n++] = DEFAULT_ENDPOINT;
    a.run.endpoints = endpoints;
    a.run.n_endpoints = a.listen.n;
    if (a.force)
        overwrite_force();
    a.learner.resume |= a.learner.resume_from != 0;
    preset_apply(&a.learner.config);
    a.learner.seed = a.learner.config.seed;
    cli_catch_signals();
    if (rc == 0)
        rc = run(&a.run, &a.learner, 1, &e);
    if (rc)
        log_line("error: %s", e.message);
    return rc ? 1 : 0;
}
