/* actgen.c - the producer's command line: opens a source and serves its activations to a trainer, or records them.
 *
 * Each flag is a row of the table below, with the sources that it belongs to: one that the chosen source does not use is
 * refused by name, because it would do nothing. Exit status: 0 the run ended (or we were asked to leave), 1 run-time
 * failure, 2 usage. */
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bus_error.h"
#include "cli.h"
#include "endpoint.h"
#include "gemm.h"
#include "host_address.h"
#include "json_file.h"
#include "log.h"
#include "overwrite.h"
#include "recorder.h"
#include "row_bound.h"
#include "scale_list.h"
#include "serve.h"
#include "source_import.h"
#include "source_model.h"
#include "source_recording.h"
#include "source_select.h"
#include "source_synthetic.h"
#include "text.h"
#include "version.h"

#define MAX_INPUTS 4096
#define DEFAULT_ENDPOINT "tcp://127.0.0.1:5555"

const char *argp_program_version = "actgen " CROSSFEED_VERSION;

static const char doc[] = "Computes activations and sends them to an xctrain trainer, or records them.";
static const char footer[] = "Producers hold no state: any number may serve one run, join, leave or die.\n\n"
                             "Example:\n"
                             "  actgen --model gpt2 --tokens owt.npy --connect tcp://trainer:5555\n"
                             "  actgen --model gpt2 --tokens owt.npy --record acts/\n"
                             "  actgen --source recording --input acts/\n\n"
                             "See also actgen(1), xctrain(1).";

enum source_kind { SOURCE_MODEL, SOURCE_SYNTHETIC, SOURCE_RECORDING, SOURCE_NPY, SOURCE_SAFETENSORS, SOURCE_GPT2 };
static const char *const source_names[] = {"model", "synthetic", "recording", "npy", "safetensors", "gpt2", NULL};
#define N_SOURCES SOURCE_GPT2 /* which is an older name of SOURCE_MODEL */

enum compute_type { COMPUTE_FP32, COMPUTE_BF16 };
static const char *const compute_names[] = {"fp32", "bf16", NULL};

/* What a flag belongs to: sources; of serving a trainer and recording without one the one that uses it, if not both; a scale
 * that is measured, if it matters to that alone. */
enum {
    MODEL = 1 << SOURCE_MODEL,
    SYNTHETIC = 1 << SOURCE_SYNTHETIC,
    RECORDING = 1 << SOURCE_RECORDING,
    NPY = 1 << SOURCE_NPY,
    SAFETENSORS = 1 << SOURCE_SAFETENSORS,
    RECORDABLE = MODEL | SYNTHETIC | NPY | SAFETENSORS,
    ALL = RECORDABLE | RECORDING,
    SERVING = 1 << 16,
    RECORDING_ALONE = 1 << 17,
    SCALE_MEASURED = 1 << 18,
    MEASURED = RECORDABLE | RECORDING_ALONE | SCALE_MEASURED,
};

struct arguments {
    const char *connect, *curve_secret, *curve_server, *scale, *truth, *npy_dtype;
    enum source_kind source;
    struct flag_list models, inputs;
    bool verify, force;
    double max_abs;
    uint32_t seq_len;
    enum compute_type compute;
    struct source_model_options model;
    struct synthetic_options planted;
    struct record_options record;
    uint32_t threads, give_up_s;
    char name[64];
};

static int check_scale(const char *text, struct err *e)
{
    struct scale_list list;
    return scale_list_parse(&list, text, e);
}

static int check_name(const char *text, struct err *e)
{
    char shown[4 * sizeof((struct arguments *)0)->name];
    text_escape(shown, sizeof shown, text);
    if (strcmp(shown, text) != 0)
        return err_set(e, ERR_INPUT, "name '%s': must be UTF-8 without control characters", shown);
    return 0;
}

static int check_npy_dtype(const char *text, struct err *e)
{
    return strcmp(text, "bf16") == 0 ? 0 : err_set(e, ERR_INPUT, "npy-dtype '%s': only bf16 needs saying", text);
}

/* A row: the name, kind and field, what it belongs to, what stands for the value in --help, the help, then more fields of
 * the flag; GROUP is the heading above it. */
#define FLAG(text, of_kind, field, belongs_to, of_arg, of_help, ...) \
    {                                                                \
        .flag = {.name = text,                                       \
                 .kind = of_kind,                                    \
                 FLAG_FIELD(struct arguments, field),                \
                 .arg = of_arg,                                      \
                 .group = GROUP,                                     \
                 .help = of_help,                                    \
                 __VA_ARGS__},                                       \
        .belongs = belongs_to                                        \
    }
#define RANGE(from, to) .low = (from), .high = (to)

static const struct actgen_flag {
    struct flag flag;
    unsigned belongs;
} flags[] = {
#define GROUP "Trainer"
    FLAG("connect", FLAG_STRING, connect, ALL, "ENDPOINT",
         "of the trainer: tcp://HOST:PORT or ipc://PATH (default " DEFAULT_ENDPOINT ")",
         .check = endpoint_check_connect),
    FLAG("curve-secret", FLAG_STRING, curve_secret, ALL | SERVING, "FILE",
         "this producer's key pair (xckeys make), if the trainer wants keys", .input = true),
    FLAG("curve-server", FLAG_STRING, curve_server, ALL | SERVING, "KEY",
         "the trainer's public key, or a file that holds it", .input = true),
    FLAG("name", FLAG_TEXT, name, ALL | SERVING, "TEXT", "in the trainer's messages (default: host and process id)",
         .check = check_name),
    FLAG("give-up-after", FLAG_COUNT, give_up_s, ALL | SERVING, "SECONDS", "end when no trainer is heard for so long",
         RANGE(1, 1e6)),
#undef GROUP
#define GROUP "Source"
    FLAG("source", FLAG_CHOICE, source, ALL, "KIND",
         "where activations come from: model (older name: gpt2), synthetic, recording, npy or safetensors",
         .choices = source_names),
    FLAG(
        "seq-len", FLAG_COUNT, seq_len, RECORDABLE, "N",
        "tokens a sequence (model: default all that the token tensor has), or rows a sequence (synthetic: default 128; "
        "npy, safetensors: default 1 or as the tensors say)",
        RANGE(1, UINT32_MAX)),
    FLAG("sites", FLAG_STRING, model.sites, ALL, "GLOBS",
         "the sites, comma-separated; 1-0:GLOB is model 1's vectors less model 0's (default: of a model "
         "blocks.*.hook_resid_post, else all that there are). A difference of recorded rows is off by their rounding"),
    FLAG(
        "scale", FLAG_STRING, scale, ALL, "LIST",
        "the scale of the rows: a number a site, comma-separated, in the order of the sites or as NAME=NUMBER; the run "
        "must have the same (default: the run's)",
        .check = check_scale),
    FLAG("max-abs", FLAG_NUMBER, max_abs, ALL, "X",
         "refuse a row with a value greater than this in size, as it is sent; the trainer has such a flag, too",
         RANGE(ROW_MAX_ABS_LEAST, ROW_MAX_ABS_MOST)),
    FLAG("lengths", FLAG_STRING, model.lengths, MODEL | NPY | SAFETENSORS, "FILE",
         "valid tokens (npy, safetensors: rows) of each sequence, .npy [n_seq]: padding is masked from training "
         "(default of a model: the .lengths.npy beside the tokens, as xctok --per-document writes it)",
         .input = true),
    FLAG("threads", FLAG_COUNT, threads, ALL, "N", "threads to compute with (default: one a core)", RANGE(1, 4096)),
#undef GROUP
#define GROUP "Source model"
    FLAG("model", FLAG_LIST, models, MODEL, "DIR",
         "folder with config.json and model.safetensors; twice for a base/chat pair", .high = STREAM_MAX_MODELS,
         .input = true),
    FLAG("tokens", FLAG_STRING, model.tokens, MODEL, "FILE", "token tensor, .npy [n_seq, seq_len]", .input = true),
    FLAG("no-lengths", FLAG_SWITCH, model.no_lengths, MODEL, NULL,
         "leave out the .lengths.npy beside the tokens: all of them are text"),
    FLAG("keep-bos", FLAG_SWITCH, model.keep_bos, MODEL, NULL, "keep the first position of each sequence"),
    FLAG("center-writing-weights", FLAG_SWITCH, model.center_writing_weights, MODEL, NULL,
         "centre the weights that write to the residual stream, as TransformerLens does"),
    FLAG("compute", FLAG_CHOICE, compute, MODEL, NULL,
         "bf16: products with weights in bf16, faster; the error is printed", .choices = compute_names),
#undef GROUP
#define GROUP "Source synthetic"
    FLAG("d-model", FLAG_COUNT, planted.d_model, SYNTHETIC, "N", "elements of a vector", RANGE(1, 1 << 20)),
    FLAG("n-sites", FLAG_COUNT, planted.n_sites, SYNTHETIC, "N", "sites", RANGE(1, STREAM_MAX_SITES)),
    FLAG("n-models", FLAG_COUNT, planted.n_models, SYNTHETIC, "N", "1 or 2: half of the sites each", RANGE(1, 2)),
    FLAG("latents", FLAG_COUNT, planted.n_latents, SYNTHETIC, "N", "planted latents", RANGE(1, 1 << 24)),
    FLAG("local", FLAG_NUMBER, planted.local, SYNTHETIC, "SHARE", "of the latents are at one site only", RANGE(0, 1)),
    FLAG("exclusive", FLAG_NUMBER, planted.exclusive, SYNTHETIC, "SHARE",
         "of the latents are at one half of the sites only: of two models, in one", RANGE(0, 1)),
    FLAG("aligned", FLAG_SWITCH, planted.aligned, SYNTHETIC, NULL,
         "latents in both models have the same directions in both"),
    FLAG("active", FLAG_NUMBER, planted.active, SYNTHETIC, "N", "expected active latents a row", RANGE(0, 1e6)),
    FLAG("rate-spread", FLAG_NUMBER, planted.rate_spread, SYNTHETIC, "FACTOR",
         "the most frequent latent is active so many times as often as the least", RANGE(1, 1e6)),
    FLAG("correlated", FLAG_NUMBER, planted.correlated, SYNTHETIC, "SHARE",
         "of the latents are pairs that are mostly active together", RANGE(0, 1)),
    FLAG("weak-ratio", FLAG_NUMBER, planted.weak_ratio, SYNTHETIC, "R",
         "a tenth of the latents in both models are so many times as large in the second", RANGE(0, 1)),
    FLAG("alone", FLAG_NUMBER, planted.alone, SYNTHETIC, "SHARE",
         "another tenth of them is, that often when it is active, active in the second model alone", RANGE(0, 1)),
    FLAG("noise", FLAG_NUMBER, planted.noise, SYNTHETIC, "STD", "standard deviation of the noise", RANGE(0, 1e6)),
    FLAG("n-seq", FLAG_COUNT, planted.n_seq, SYNTHETIC, "N", "sequences", RANGE(1, UINT32_MAX)),
    FLAG("seed", FLAG_COUNT, planted.seed, SYNTHETIC, "N", "of the planted dictionary and the rows", RANGE(0, 9e15)),
    FLAG("truth", FLAG_STRING, truth, SYNTHETIC, "FILE", "write the planted dictionary there (safetensors)"),
#undef GROUP
#define GROUP "Sources recording, npy and safetensors"
    FLAG("input", FLAG_LIST, inputs, RECORDING | NPY | SAFETENSORS, "PATH",
         "recording: its folder; npy: a file, or one per site; safetensors: files", .high = MAX_INPUTS, .input = true),
    FLAG("verify", FLAG_SWITCH, verify, RECORDING, NULL, "check a recording's checksums first"),
    FLAG("npy-dtype", FLAG_STRING, npy_dtype, NPY, "bf16", "16-bit integers in .npy are bfloat16",
         .check = check_npy_dtype),
#undef GROUP
#define GROUP "Recording"
    FLAG("record", FLAG_STRING, record.folder, RECORDABLE, "DIR",
         "store the activations there; without --connect all of them and no trainer, with it a copy of what is served"),
    FLAG("resume", FLAG_SWITCH, record.resume, RECORDABLE, NULL, "go on with the recording in DIR, if there is one"),
    FLAG("dtype", FLAG_CHOICE, record.dtype, RECORDABLE | RECORDING_ALONE, NULL, "of the rows, without a trainer",
         .choices = row_dtype_names),
    FLAG("shard-seqs", FLAG_COUNT, record.shard_seqs, RECORDABLE | RECORDING_ALONE, "N",
         "sequences a shard, without a trainer", RANGE(1, 1 << 24)),
#undef GROUP
#define GROUP "Recording and --truth"
    FLAG("force", FLAG_SWITCH, force, RECORDABLE, NULL, "replace existing files that are of another kind"),
#undef GROUP
#define GROUP "Run whose scale a recording without a trainer measures"
    FLAG("run-seed", FLAG_COUNT, record.run_seed, MEASURED, "N", "its --seed", RANGE(0, 9e15)),
    FLAG("model-batch-size", FLAG_COUNT, record.block_seqs, MEASURED, "N", "its --model-batch-size", RANGE(1, 1e6)),
    FLAG("eval-blocks", FLAG_COUNT, record.eval_blocks, MEASURED, "N", "its --eval-blocks", RANGE(0, 500)),
    FLAG("window-rows", FLAG_COUNT, record.window_rows, MEASURED, "N", "its --batch-size times its --buffer-mult",
         RANGE(1, 1e15)),
    FLAG("scale-rows", FLAG_COUNT, record.scale_rows, MEASURED, "N", "its --scale-rows", RANGE(1, 1e9)),
};
#define N_FLAGS (sizeof flags / sizeof flags[0])

static bool given[N_FLAGS];

/* Writes the names of the sources in a mask: "recording, npy or safetensors". */
static void list_sources(unsigned mask, char *list, size_t size)
{
    *list = '\0';
    for (unsigned i = 0; i < N_SOURCES; i++) {
        size_t used = strlen(list);
        bool last = mask >> (i + 1) == 0;
        if (mask & 1u << i)
            snprintf(list + used, size - used, "%s%s", !used ? "" : last ? " or " : ", ", source_names[i]);
    }
}

/* Refuses a flag that the source, or what is done with it, does not use. */
static int check_belongs(const struct arguments *a, struct err *e)
{
    bool alone = a->record.folder && !a->connect;
    for (size_t i = 0; i < N_FLAGS; i++) {
        const char *name = flags[i].flag.name;
        unsigned belongs = flags[i].belongs;
        char list[100];
        if (!given[i])
            continue;
        list_sources(belongs & ALL, list, sizeof list);
        if (!(belongs & 1u << a->source))
            return err_set(e, ERR_INPUT, "--%s belongs to --source %s, not to --source %s", name, list,
                           source_names[a->source]);
        if ((belongs & RECORDING_ALONE) && !alone)
            return err_set(e, ERR_INPUT, "--%s belongs to --record without --connect: with a trainer, the run says it",
                           name);
        if ((belongs & SERVING) && alone)
            return err_set(e, ERR_INPUT, "--%s belongs to a trainer; --record without --connect has none", name);
        if ((belongs & SCALE_MEASURED) && a->scale)
            return err_set(e, ERR_INPUT, "--%s and --scale exclude each other: a scale that is given is not measured",
                           name);
    }
    return 0;
}

/* Refuses flags that do not go together. */
static int check_together(void *context, struct err *e)
{
    struct arguments *a = context;
    if (a->source == SOURCE_GPT2)
        a->source = SOURCE_MODEL;
    if (check_belongs(a, e))
        return e->code;
    if (!a->curve_secret != !a->curve_server)
        return err_set(e, ERR_INPUT, "--curve-secret and --curve-server go together");
    if (a->source == SOURCE_MODEL && (a->models.n == 0 || !a->model.tokens))
        return err_set(e, ERR_INPUT, "--model and --tokens are required (or another --source)");
    if (a->source >= SOURCE_RECORDING && a->inputs.n == 0)
        return err_set(e, ERR_INPUT, "--source %s needs --input", source_names[a->source]);
    if (a->source == SOURCE_RECORDING && a->inputs.n > 1)
        return err_set(e, ERR_INPUT, "--source recording takes one --input, not %zu", a->inputs.n);
    if (a->model.lengths && a->model.no_lengths)
        return err_set(e, ERR_INPUT, "--lengths and --no-lengths exclude each other");
    if (a->record.resume && !a->record.folder)
        return err_set(e, ERR_INPUT, "--resume goes with --record only");
    if (a->force && !a->record.folder && !a->truth)
        return err_set(e, ERR_INPUT, "--force goes with --record or --truth only");
    if (a->truth && a->model.sites)
        return err_set(e, ERR_INPUT, "--truth and --sites exclude each other: the truth is that of all planted sites");
    return 0;
}

static int open_whole(struct source *s, const struct arguments *a, struct err *e)
{
    struct source_model_options model = a->model;
    struct synthetic_options planted = a->planted;
    struct import_options import = {.files = a->inputs.items,
                                    .n_files = a->inputs.n,
                                    .safetensors = a->source == SOURCE_SAFETENSORS,
                                    .npy_bf16 = a->npy_dtype != NULL,
                                    .seq_len = a->seq_len,
                                    .lengths = a->model.lengths};
    switch (a->source) {
    case SOURCE_SYNTHETIC:
        planted.seq_len = a->seq_len ? a->seq_len : planted.seq_len;
        if (source_synthetic_open(s, &planted, e))
            return e->code;
        return a->truth ? source_synthetic_write_truth(s, a->truth, e) : 0;
    case SOURCE_RECORDING:
        return source_recording_open(s, a->inputs.items[0], a->verify, e);
    case SOURCE_NPY:
    case SOURCE_SAFETENSORS:
        return source_import_open(s, &import, e);
    default:
        model.models = a->models.items;
        model.n_models = (uint32_t)a->models.n;
        model.seq_len = a->seq_len;
        model.bf16 = a->compute == COMPUTE_BF16;
        return source_model_open(s, &model, e);
    }
}

static int open_source(struct source *s, const struct arguments *a, struct err *e)
{
    int rc = open_whole(s, a, e);
    return rc || !a->model.sites || a->source == SOURCE_MODEL ? rc : source_select(s, a->model.sites, e);
}

/* Gives the stream the scale of --scale, if there is one. */
static int set_scale(struct stream *s, const char *text, struct err *e)
{
    struct scale_list list;
    float scale[STREAM_MAX_SITES];
    if (!text)
        return 0;
    if (scale_list_parse(&list, text, e) || scale_list_match(&list, s, scale, e))
        return err_prefix(e, "--scale");
    for (uint32_t i = 0; s->has_scale && i < s->n_sites; i++)
        if (scale[i] != s->scale[i])
            return err_set(e, ERR_MISMATCH, "--scale is %.9g at site %u, the recording has %.9g", (double)scale[i], i,
                           (double)s->scale[i]);
    memcpy(s->scale, scale, s->n_sites * sizeof *scale);
    s->has_scale = true;
    return 0;
}

/* Refuses a trainer's host that does not exist, before anything is loaded. One that cannot be looked up now may be there later: serving
 * says so, and tries again. */
static int check_host(const char *connect, struct err *e)
{
    struct endpoint p;
    struct host_address address;
    if (endpoint_parse(&p, connect, ENDPOINT_CONNECT, e))
        return e->code;
    int rc = p.ipc ? 0 : host_address_find(&address, &p, ENDPOINT_CONNECT, connect, e);
    return rc == ERR_SYSTEM ? 0 : rc;
}

/* Serves a trainer, and keeps a copy of what it computes if --record says so. */
static int serve_trainer(struct source *source, const struct arguments *a, struct err *e)
{
    struct serve_options so = {.endpoint = a->connect ? a->connect : DEFAULT_ENDPOINT,
                               .producer = a->name,
                               .give_up_after_ms = (int)a->give_up_s * 1000,
                               .stop = &cli_stop};
    struct serve_report report = {0};
    struct recorder *recorder = NULL;
    struct curve_client keys;
    if (a->curve_secret) {
        if (curve_pair_read(&keys.own, a->curve_secret, e) || curve_public_read(keys.server, a->curve_server, e))
            return e->code;
        so.keys = &keys;
    }
    if (a->record.folder) {
        if (recorder_new(&recorder, source, a->record.folder, a->record.resume, e))
            return e->code;
        so.keep = recorder_keep;
        so.keep_context = recorder;
    }
    log_line("connecting to %s", so.endpoint);
    int rc = serve(source, &so, &report, e);
    if (rc == 0)
        log_line("%s: sent %llu rows in %llu blocks; computing %.1f s, sending %.1f s, waiting for leases %.1f s",
                 *report.end_reason ? report.end_reason : "left", (unsigned long long)report.rows,
                 (unsigned long long)report.blocks, report.computing_s, report.sending_s, report.waiting_s);
    if (report.absent)
        log_line("%llu leases were for sequences that are not recorded", (unsigned long long)report.absent);
    if (rc == 0 && recorder)
        rc = recorder_finish(recorder, e);
    recorder_free(recorder);
    return rc;
}

static int parse(struct arguments *a, int argc, char **argv, struct err *e)
{
    static struct cli cli;
    cli = (struct cli){.doc = doc, .footer = footer, .check = check_together, .context = a};
    for (size_t i = 0; i < N_FLAGS; i++)
        cli_add(&cli, &flags[i].flag, a, &given[i]);
    return cli_parse(&cli, argc, argv, e);
}

int main(int argc, char **argv)
{
    static const char *inputs[MAX_INPUTS];
    const char *models[STREAM_MAX_MODELS];
    struct arguments a = {.models.items = models,
                          .inputs.items = inputs,
                          .planted = synthetic_defaults(),
                          .record = {.dtype = ROW_BF16,
                                     .shard_seqs = 16,
                                     .run_seed = 49, /* these five are xctrain's defaults */
                                     .block_seqs = 4,
                                     .eval_blocks = 4,
                                     .window_rows = 2048 * 512,
                                     .scale_rows = 16384,
                                     .stop = &cli_stop},
                          .max_abs = ROW_MAX_ABS,
                          .give_up_s = 300};
    struct source source = {0};
    struct err e = {0};
    char host[40] = "", shown[40];
    gethostname(host, sizeof host - 1);
    text_escape(shown, sizeof shown, host);
    snprintf(a.name, sizeof a.name, "%s:%ld", shown, (long)getpid());
    log_init("actgen");
    bus_error_catch("actgen");
    json_use_mem();
    int rc = parse(&a, argc, argv, &e);
    if (a.force)
        overwrite_force();
    log_in_background();
    int threads = a.threads ? (int)a.threads : omp_get_num_procs();
    cli_catch_signals();
    omp_set_num_threads(threads);
    gemm_set_threads(threads);
    if (rc == 0 && a.connect)
        rc = check_host(a.connect, &e);
    if (rc == 0)
        rc = open_source(&source, &a, &e);
    if (rc == 0) {
        const struct stream *s = &source.stream;
        log_line("%u sequences of %u tokens, %u sites (%s ... %s) of d_model %u", s->n_seq, s->seq_len, s->n_sites,
                 s->sites[0], s->sites[s->n_sites - 1], s->d_model);
        source.max_abs = a.max_abs;
        rc = set_scale(&source.stream, a.scale, &e);
    }
    if (rc == 0)
        rc = a.record.folder && !a.connect ? record(&source, &a.record, &e) : serve_trainer(&source, &a, &e);
    if (rc)
        log_line("error: %s", e.message);
    if (source.close)
        source.close(source.self);
    return rc ? 1 : 0;
}
