/* actcat.c - looks at activations on disk: what they are, their statistics, their checksums, rows, and the text around
 * a row.
 *
 * Exit status: 0 done, 1 run-time failure or a checksum that differs, 2 usage. What was asked for goes to stdout. */
#include <argp.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bus_error.h"
#include "cache.h"
#include "json_file.h"
#include "log.h"
#include "look.h"
#include "version.h"

enum { OPTION_VERIFY = 1000, OPTION_ROWS, OPTION_JSON, OPTION_TOKENIZER, OPTION_ROW, OPTION_NPY_DTYPE, OPTION_SEQ_LEN };

#define MAX_FILES 4096

const char *argp_program_version = "actcat " CROSSFEED_VERSION;

static const char doc[] =
    "Prints what is in a recording (its folder), in .npy or in .safetensors files of activations.\v"
    "Per site: mean norm, range, NaN and Inf, the scale that the rows as stored would give, and dimensions "
    "whose mean square is more than 20 times the median. See README.md.";

static const struct argp_option options[] = {
    {"verify", OPTION_VERIFY, 0, 0, "compare a recording's shards with their checksums, and print nothing else", 1},
    {"rows", OPTION_ROWS, "A:B", 0, "print rows A to B - 1: where they come from and their first values", 1},
    {"row", OPTION_ROW, "N", 0, "print the text around row N of a recording; needs --tokenizer", 1},
    {"tokenizer", OPTION_TOKENIZER, "DIR", 0, "with tokenizer.json, or vocab.json and merges.txt", 1},
    {"json", OPTION_JSON, 0, 0, "for machines", 1},
    {"npy-dtype", OPTION_NPY_DTYPE, "bf16", 0, "16-bit integers in .npy are bfloat16", 1},
    {"seq-len", OPTION_SEQ_LEN, "N", 0, "rows a sequence of .npy and .safetensors (default 1 or as the tensors say)",
     1},
    {0},
};

struct arguments {
    const char *files[MAX_FILES];
    struct import_options input;
    bool verify, json, rows, row;
    size_t first, stop;
    const char *tokenizer;
};

static size_t whole(const char *text, char **end, struct argp_state *state)
{
    size_t x = strtoull(text, end, 10);
    if (*text < '0' || *text > '9')
        argp_error(state, "'%s': must be a row number", text);
    return x;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    char *end;
    switch (key) {
    case OPTION_VERIFY:
        a->verify = true;
        return 0;
    case OPTION_JSON:
        a->json = true;
        return 0;
    case OPTION_ROWS:
        a->rows = true;
        a->first = whole(text, &end, state);
        if (*end != ':')
            argp_error(state, "--rows '%s': must be A:B", text);
        a->stop = whole(end + 1, &end, state);
        if (*end || a->stop <= a->first)
            argp_error(state, "--rows '%s': must be A:B with A < B", text);
        return 0;
    case OPTION_ROW:
        a->row = true;
        a->first = whole(text, &end, state);
        if (*end)
            argp_error(state, "--row '%s': must be a number", text);
        return 0;
    case OPTION_TOKENIZER:
        a->tokenizer = text;
        return 0;
    case OPTION_NPY_DTYPE:
        a->input.npy_bf16 = true;
        if (strcmp(text, "bf16") != 0)
            argp_error(state, "--npy-dtype '%s': only bf16 needs saying", text);
        return 0;
    case OPTION_SEQ_LEN:
        a->input.seq_len = (uint32_t)strtoul(text, &end, 10);
        if (*end || a->input.seq_len == 0)
            argp_error(state, "--seq-len '%s': must be a positive number", text);
        return 0;
    case ARGP_KEY_ARG:
        if (a->input.n_files == MAX_FILES)
            argp_error(state, "more than %d files", MAX_FILES);
        a->files[a->input.n_files++] = text;
        return 0;
    case ARGP_KEY_END:
        if (a->input.n_files == 0)
            argp_error(state, "nothing to look at");
        if (a->verify + a->rows + a->row > 1)
            argp_error(state, "--verify, --rows and --row exclude each other");
        if (a->row != (a->tokenizer != NULL))
            argp_error(state, "--row and --tokenizer go together");
        if (a->json && (a->verify || a->row))
            argp_error(state, "--json goes with statistics and --rows");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static struct arguments a;
    static struct cache cache;
    struct argp argp = {options, parse, "FOLDER or FILE...", doc, NULL, NULL, NULL};
    struct err e = {0};
    a.input.files = a.files;
    log_init("actcat");
    bus_error_catch("actcat");
    json_use_mem();
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);

    int rc = cache_open(&cache, &a.input, &e);
    if (rc == 0) {
        if (a.verify)
            rc = look_verify(&cache, &e);
        else if (a.rows)
            rc = look_rows(&cache, a.first, a.stop, a.json, &e);
        else if (a.row)
            rc = look_text(&cache, a.first, a.tokenizer, &e);
        else
            rc = look_stats(&cache, a.json, &e);
    }
    if (rc == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        rc = err_set(&e, ERR_SYSTEM, "cannot write to standard output");
    if (rc)
        log_line("error: %s", e.message);
    cache_close(&cache);
    return rc ? 1 : 0;
}
