/* actgen.c - the producer's command line: opens a source and serves its activations to a trainer.
 *
 * Exit status: 0 the run ended (or we were asked to leave), 1 run-time failure, 2 usage. */
#include <argp.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bus_error.h"
#include "cli.h"
#include "gemm.h"
#include "log.h"
#include "recorder.h"
#include "serve.h"
#include "source_gpt2.h"
#include "source_import.h"
#include "source_recording.h"
#include "source_synthetic.h"
#include "version.h"

enum {
    OPTION_CONNECT = 1000,
    OPTION_CURVE_SECRET,
    OPTION_CURVE_SERVER,
    OPTION_SOURCE,
    OPTION_MODEL,
    OPTION_TOKENS,
    OPTION_LENGTHS,
    OPTION_SITES,
    OPTION_SEQ_LEN,
    OPTION_KEEP_BOS,
    OPTION_CENTER,
    OPTION_COMPUTE,
    OPTION_SCALE,
    OPTION_THREADS,
    OPTION_NAME,
    OPTION_GIVE_UP,
    OPTION_D_MODEL,
    OPTION_N_SITES,
    OPTION_N_MODELS,
    OPTION_LATENTS,
    OPTION_ACTIVE,
    OPTION_NOISE,
    OPTION_N_SEQ,
    OPTION_SEED,
    OPTION_TRUTH,
    OPTION_RECORD,
    OPTION_RESUME,
    OPTION_DTYPE,
    OPTION_SHARD_SEQS,
    OPTION_SCALE_ROWS,
    OPTION_INPUT,
    OPTION_VERIFY,
    OPTION_NPY_DTYPE,
};

enum kind { SOURCE_GPT2, SOURCE_SYNTHETIC, SOURCE_RECORDING, SOURCE_NPY, SOURCE_SAFETENSORS, N_SOURCES };
static const char *const source_names[N_SOURCES] = {"gpt2", "synthetic", "recording", "npy", "safetensors"};

#define MAX_INPUTS 4096

#define DEFAULT_ENDPOINT "tcp://127.0.0.1:5555"

const char *argp_program_version = "actgen " CROSSFEED_VERSION;

static const char doc[] = "Computes activations and sends them to an xctrain trainer.\v"
                          "Producers hold no state: any number may serve one run, join, leave or die. See README.md.";

static const struct argp_option options[] = {
    {"connect", OPTION_CONNECT, "ENDPOINT", 0, "of the trainer (default tcp://127.0.0.1:5555)", 1},
    {"curve-secret", OPTION_CURVE_SECRET, "FILE", 0,
     "this producer's key pair (xckeys make), if the trainer wants keys", 1},
    {"curve-server", OPTION_CURVE_SERVER, "KEY", 0, "the trainer's public key, or a file that holds it", 1},
    {"source", OPTION_SOURCE, "KIND", 0, "gpt2 (default), synthetic, recording, npy or safetensors", 1},
    {"scale", OPTION_SCALE, "LIST", 0,
     "the scale of the rows, one number per site; the run must have the same (default: the run's)", 1},
    {"threads", OPTION_THREADS, "N", 0, "default: one a core", 1},
    {"name", OPTION_NAME, "TEXT", 0, "in the trainer's messages (default host and process id)", 1},
    {"give-up-after", OPTION_GIVE_UP, "SECONDS", 0, "without a trainer (default 300)", 1},
    {"seq-len", OPTION_SEQ_LEN, "N", 0,
     "tokens a sequence: at most what the token tensor has (gpt2: default all), rows a sequence (synthetic: 128; npy, "
     "safetensors: default 1 or as the tensors say)",
     1},
    {0, 0, 0, 0, "GPT-2:", 2},
    {"model", OPTION_MODEL, "DIR", 0, "folder with config.json and model.safetensors; twice for a base/chat pair", 2},
    {"tokens", OPTION_TOKENS, "FILE", 0, "token tensor, .npy [n_seq, seq_len]", 2},
    {"lengths", OPTION_LENGTHS, "FILE", 0,
     "valid tokens of each sequence, .npy [n_seq] (xctok --per-document): padding is masked from training", 2},
    {"sites", OPTION_SITES, "GLOBS", 0, "hook points, comma-separated (default blocks.*.hook_resid_post)", 2},
    {"keep-bos", OPTION_KEEP_BOS, 0, 0, "keep the first position of each sequence", 2},
    {"center-writing-weights", OPTION_CENTER, 0, 0,
     "centre the weights that write to the residual stream, as TransformerLens does", 2},
    {"compute", OPTION_COMPUTE, "TYPE", 0,
     "fp32 (default) or bf16: products with weights in bf16, faster; the error is printed", 2},
    {0, 0, 0, 0, "Synthetic:", 3},
    {"d-model", OPTION_D_MODEL, "N", 0, "default 64", 3},
    {"n-sites", OPTION_N_SITES, "N", 0, "default 4", 3},
    {"n-models", OPTION_N_MODELS, "N", 0, "1 (default) or 2: half of the sites each", 3},
    {"latents", OPTION_LATENTS, "N", 0, "planted latents (default 256)", 3},
    {"active", OPTION_ACTIVE, "N", 0, "expected active latents a row (default 8)", 3},
    {"noise", OPTION_NOISE, "STD", 0, "default 0.01", 3},
    {"n-seq", OPTION_N_SEQ, "N", 0, "default 8192", 3},
    {"seed", OPTION_SEED, "N", 0, "of the planted dictionary and the rows", 3},
    {"truth", OPTION_TRUTH, "FILE", 0, "write the planted dictionary there (safetensors)", 3},
    {0, 0, 0, 0, "Recording, replay and import:", 4},
    {"record", OPTION_RECORD, "DIR", 0,
     "store the activations there; without --connect all of them and no trainer, with it a copy of what is served", 4},
    {"resume", OPTION_RESUME, 0, 0, "go on with the recording in DIR, if there is one", 4},
    {"dtype", OPTION_DTYPE, "TYPE", 0, "of a recording without a trainer: bf16 (default) or fp32", 4},
    {"shard-seqs", OPTION_SHARD_SEQS, "N", 0, "sequences a shard, without a trainer (default 16)", 4},
    {"scale-rows", OPTION_SCALE_ROWS, "N", 0,
     "rows over which the scale is measured, without a trainer (default 16384)", 4},
    {"input", OPTION_INPUT, "PATH", 0, "recording: its folder; npy: a file, or one per site; safetensors: files", 4},
    {"verify", OPTION_VERIFY, 0, 0, "check a recording's checksums first", 4},
    {"npy-dtype", OPTION_NPY_DTYPE, "bf16", 0, "16-bit integers in .npy are bfloat16", 4},
    {0},
};

struct arguments {
    const char *connect, *curve_secret, *curve_server, *scale, *truth;
    enum kind kind;
    const char *inputs[MAX_INPUTS];
    struct import_options import;
    bool verify;
    struct record_options record;
    struct source_gpt2_options gpt2;
    const char *models[STREAM_MAX_MODELS];
    struct synthetic_options planted;
    int threads, give_up_s;
    char name[64];
};

/* What goes with which source. */
static void check_together(const struct arguments *a, struct argp_state *state)
{
    const char *source = source_names[a->kind];
    bool model = a->gpt2.n_models || a->gpt2.tokens, input = a->import.n_files > 0;
    if (!a->curve_secret != !a->curve_server)
        argp_error(state, "--curve-secret and --curve-server go together");
    if (a->kind == SOURCE_GPT2 && (a->gpt2.n_models == 0 || !a->gpt2.tokens))
        argp_error(state, "--model and --tokens are required (or another --source)");
    if (a->kind != SOURCE_GPT2 && model)
        argp_error(state, "--model and --tokens do not go with --source %s", source);
    if (a->truth && a->kind != SOURCE_SYNTHETIC)
        argp_error(state, "--truth goes with --source synthetic only");
    if ((a->kind >= SOURCE_RECORDING) != input)
        argp_error(state, input ? "--input does not go with --source %s" : "--source %s needs --input", source);
    if (a->kind == SOURCE_RECORDING && a->import.n_files > 1)
        argp_error(state, "--source recording takes one --input");
    if (a->kind == SOURCE_RECORDING && a->record.folder)
        argp_error(state, "--record does not go with --source recording");
    if (a->record.resume && !a->record.folder)
        argp_error(state, "--resume goes with --record only");
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case OPTION_CONNECT:
        a->connect = text;
        return 0;
    case OPTION_CURVE_SECRET:
        a->curve_secret = text;
        return 0;
    case OPTION_CURVE_SERVER:
        a->curve_server = text;
        return 0;
    case OPTION_SOURCE:
        a->kind = 0;
        while (a->kind < N_SOURCES && strcmp(text, source_names[a->kind]) != 0)
            a->kind++;
        if (a->kind == N_SOURCES)
            argp_error(state, "--source '%s': must be gpt2, synthetic, recording, npy or safetensors", text);
        return 0;
    case OPTION_MODEL:
        if (a->gpt2.n_models == STREAM_MAX_MODELS)
            argp_error(state, "--model more than %d times", STREAM_MAX_MODELS);
        a->models[a->gpt2.n_models++] = text;
        return 0;
    case OPTION_TOKENS:
        a->gpt2.tokens = text;
        return 0;
    case OPTION_LENGTHS:
        a->gpt2.lengths = text;
        return 0;
    case OPTION_SITES:
        a->gpt2.sites = text;
        return 0;
    case OPTION_SEQ_LEN:
        a->gpt2.seq_len = a->planted.seq_len = a->import.seq_len =
            (uint32_t)cli_whole(text, 1, UINT32_MAX, "seq-len", state);
        return 0;
    case OPTION_KEEP_BOS:
        a->gpt2.keep_bos = true;
        return 0;
    case OPTION_CENTER:
        a->gpt2.center_writing_weights = true;
        return 0;
    case OPTION_COMPUTE:
        a->gpt2.bf16 = strcmp(text, "bf16") == 0;
        if (!a->gpt2.bf16 && strcmp(text, "fp32") != 0)
            argp_error(state, "--compute '%s': must be fp32 or bf16", text);
        return 0;
    case OPTION_SCALE:
        a->scale = text;
        return 0;
    case OPTION_THREADS:
        a->threads = (int)cli_whole(text, 1, 4096, "threads", state);
        return 0;
    case OPTION_NAME:
        if (strlen(text) >= sizeof a->name)
            argp_error(state, "--name of %zu characters, at most %zu", strlen(text), sizeof a->name - 1);
        snprintf(a->name, sizeof a->name, "%s", text);
        return 0;
    case OPTION_GIVE_UP:
        a->give_up_s = (int)cli_whole(text, 1, 1000000, "give-up-after", state);
        return 0;
    case OPTION_D_MODEL:
        a->planted.d_model = (uint32_t)cli_whole(text, 1, 1 << 20, "d-model", state);
        return 0;
    case OPTION_N_SITES:
        a->planted.n_sites = (uint32_t)cli_whole(text, 1, STREAM_MAX_SITES, "n-sites", state);
        return 0;
    case OPTION_N_MODELS:
        a->planted.n_models = (uint32_t)cli_whole(text, 1, 2, "n-models", state);
        return 0;
    case OPTION_LATENTS:
        a->planted.n_latents = (uint32_t)cli_whole(text, 1, 1 << 24, "latents", state);
        return 0;
    case OPTION_ACTIVE:
        a->planted.active = cli_number(text, 0, 1e6, "active", state);
        return 0;
    case OPTION_NOISE:
        a->planted.noise = cli_number(text, 0, 1e6, "noise", state);
        return 0;
    case OPTION_N_SEQ:
        a->planted.n_seq = (uint32_t)cli_whole(text, 1, UINT32_MAX, "n-seq", state);
        return 0;
    case OPTION_SEED:
        a->planted.seed = cli_whole(text, 0, (uint64_t)1 << 53, "seed", state);
        return 0;
    case OPTION_TRUTH:
        a->truth = text;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument '%s'", text);
        return 0;
    case OPTION_RECORD:
        a->record.folder = text;
        return 0;
    case OPTION_RESUME:
        a->record.resume = true;
        return 0;
    case OPTION_DTYPE: {
        struct err e;
        if (row_dtype_parse(&a->record.dtype, text, &e))
            argp_error(state, "--%s", e.message);
        return 0;
    }
    case OPTION_SHARD_SEQS:
        a->record.shard_seqs = (uint32_t)cli_whole(text, 1, 1 << 24, "shard-seqs", state);
        return 0;
    case OPTION_SCALE_ROWS:
        a->record.scale_rows = cli_whole(text, 1, (uint64_t)1 << 40, "scale-rows", state);
        return 0;
    case OPTION_INPUT:
        if (a->import.n_files == MAX_INPUTS)
            argp_error(state, "--input more than %d times", MAX_INPUTS);
        a->inputs[a->import.n_files++] = text;
        return 0;
    case OPTION_VERIFY:
        a->verify = true;
        return 0;
    case OPTION_NPY_DTYPE:
        a->import.npy_bf16 = true;
        if (strcmp(text, "bf16") != 0)
            argp_error(state, "--npy-dtype '%s': only bf16 needs saying", text);
        return 0;
    case ARGP_KEY_END:
        check_together(a, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int open_source(struct source *s, const struct arguments *a, struct err *e)
{
    switch (a->kind) {
    case SOURCE_GPT2:
        return source_gpt2_open(s, &a->gpt2, e);
    case SOURCE_RECORDING:
        return source_recording_open(s, a->inputs[0], a->verify, e);
    case SOURCE_NPY:
    case SOURCE_SAFETENSORS:
        return source_import_open(s, &a->import, e);
    default:
        break;
    }
    if (source_synthetic_open(s, &a->planted, e))
        return e->code;
    return a->truth ? source_synthetic_write_truth(s, a->truth, e) : 0;
}

static int set_scale(struct stream *s, const char *text, struct err *e)
{
    uint32_t n;
    float scale[STREAM_MAX_SITES];
    if (!text)
        return 0;
    if (stream_parse_scale(text, scale, &n, e))
        return e->code;
    if (n != s->n_sites)
        return err_set(e, ERR_INPUT, "--scale has %u values, there are %u sites", n, s->n_sites);
    for (uint32_t i = 0; s->has_scale && i < n; i++)
        if (scale[i] != s->scale[i])
            return err_set(e, ERR_MISMATCH, "--scale is %.9g at site %u, the recording has %.9g", (double)scale[i], i,
                           (double)s->scale[i]);
    memcpy(s->scale, scale, n * sizeof *scale);
    s->has_scale = true;
    return 0;
}

/* Serves a trainer, keeping a copy if asked. */
static int serve_trainer(struct source *source, const struct arguments *a, struct err *e)
{
    struct serve_options so = {.endpoint = a->connect ? a->connect : DEFAULT_ENDPOINT,
                               .producer = a->name,
                               .give_up_after_ms = a->give_up_s * 1000,
                               .stop = &cli_stop};
    struct serve_report report = {0};
    struct recorder *tee = NULL;
    struct curve_client keys;
    if (a->curve_secret) {
        if (curve_pair_read(&keys.own, a->curve_secret, e) || curve_public_read(keys.server, a->curve_server, e))
            return e->code;
        so.keys = &keys;
    }
    if (a->record.folder) {
        if (recorder_new(&tee, source, a->record.folder, a->record.resume, e))
            return e->code;
        so.keep = recorder_keep;
        so.keep_context = tee;
    }
    log_line("connecting to %s", so.endpoint);
    int rc = serve(source, &so, &report, e);
    if (rc == 0)
        log_line("%s: sent %llu rows in %llu blocks; computing %.1f s, sending %.1f s, waiting for leases %.1f s",
                 *report.end_reason ? report.end_reason : "left", (unsigned long long)report.rows,
                 (unsigned long long)report.blocks, report.seconds[SERVE_COMPUTING], report.seconds[SERVE_SENDING],
                 report.seconds[SERVE_WAITING]);
    if (report.absent)
        log_line("%llu leases were for sequences that are not recorded", (unsigned long long)report.absent);
    if (rc == 0 && tee)
        rc = recorder_finish(tee, e);
    recorder_free(tee);
    return rc;
}

int main(int argc, char **argv)
{
    static struct arguments a = {
        .planted.n_latents = 0, .record.dtype = ROW_BF16, .record.shard_seqs = 16, .record.scale_rows = 16384};
    struct argp argp = {options, parse, NULL, doc, NULL, NULL, NULL};
    struct source source = {0};
    struct err e = {0};
    char host[40] = "";
    gethostname(host, sizeof host - 1);
    snprintf(a.name, sizeof a.name, "%s:%ld", host, (long)getpid());
    a.gpt2.models = a.models;
    a.import.files = a.inputs;
    a.record.stop = &cli_stop;
    a.planted = synthetic_defaults();
    a.threads = omp_get_num_procs();
    a.give_up_s = 300;
    log_init("actgen");
    bus_error_catch("actgen");
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    a.import.safetensors = a.kind == SOURCE_SAFETENSORS;

    cli_catch_signals();
    omp_set_num_threads(a.threads);
    gemm_set_threads(a.threads);

    int rc = open_source(&source, &a, &e);
    if (rc == 0) {
        const struct stream *s = &source.stream;
        log_line("%u sequences of %u tokens, %u sites (%s ... %s) of d_model %u", s->n_seq, s->seq_len, s->n_sites,
                 s->sites[0], s->sites[s->n_sites - 1], s->d_model);
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
