/* xctok.c - the tokenizer's command line: text to a token tensor (.npy), and back.
 *
 * Exit status: 0 done, 1 run-time failure, 2 usage. Standard output carries decoded text only. */
#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "bus_error.h"
#include "cli.h"
#include "clock.h"
#include "corpus.h"
#include "decode.h"
#include "json_file.h"
#include "log.h"
#include "mem.h"
#include "overwrite.h"
#include "pack.h"
#include "tokenizer.h"
#include "version.h"

enum {
    OPTION_TOKENIZER = 1000,
    OPTION_OUT,
    OPTION_SEQ_LEN,
    OPTION_EOS,
    OPTION_BOS,
    OPTION_NO_BOS,
    OPTION_PER_DOCUMENT,
    OPTION_MAX_TOKENS,
    OPTION_JSONL,
    OPTION_FIELD,
    OPTION_LINE_DOCUMENTS,
    OPTION_DECODE,
    OPTION_ROWS,
    OPTION_SKIP_SPECIAL,
    OPTION_SEPARATE,
    OPTION_FORCE,
    OPTION_SKIP_BAD_LINES,
};

const char *argp_program_version = "xctok " CROSSFEED_VERSION;

static const char doc[] =
    "Makes a token tensor of text files (- or none: standard input; also gzip, zstd and xz), or text of a token "
    "tensor.\v"
    "Documents are packed as TransformerLens' tokenize_and_concatenate does: end-of-text between them, BOS "
    "first in each sequence, the last incomplete sequence dropped. Ids are uint16 where the vocabulary "
    "fits, else int32. See README.md.";

static const struct argp_option options[] = {
    {"tokenizer", OPTION_TOKENIZER, "PATH", 0,
     "a Hugging Face tokenizer.json, a folder with one, or a folder with GPT-2's vocab.json and merges.txt", 1},
    {"out", OPTION_OUT, "FILE", 0, "token tensor to write, .npy [n_seq, seq_len]", 1},
    {"seq-len", OPTION_SEQ_LEN, "N", 0, "tokens a sequence (default 1024)", 1},
    {"eos", OPTION_EOS, "TOKEN", 0, "end-of-text token (default <|endoftext|>)", 1},
    {"bos", OPTION_BOS, "TOKEN", 0, "first token of each sequence (default: the end-of-text token)", 1},
    {"no-bos", OPTION_NO_BOS, 0, 0, "no first token", 1},
    {"per-document", OPTION_PER_DOCUMENT, 0, 0,
     "one sequence a document, cut or filled up with end-of-text; lengths go to OUT's name with .lengths.npy", 1},
    {"max-tokens", OPTION_MAX_TOKENS, "N", 0, "write no more tokens than that", 1},
    {"force", OPTION_FORCE, 0, 0, "replace existing files that are of another kind", 1},
    {0, 0, 0, 0, "Text:", 2},
    {"jsonl", OPTION_JSONL, 0, 0, "a JSON object a line, each a document", 2},
    {"field", OPTION_FIELD, "NAME", 0, "of the object that is the text (default text); implies --jsonl", 2},
    {"skip-bad-lines", OPTION_SKIP_BAD_LINES, 0, 0,
     "leave out, and count, lines that are no JSON object with that field", 2},
    {"line-documents", OPTION_LINE_DOCUMENTS, 0, 0, "each line is a document (default: each file)", 2},
    {0, 0, 0, 0, "Back to text:", 3},
    {"decode", OPTION_DECODE, "FILE", 0, "write a token tensor's text to standard output", 3},
    {"rows", OPTION_ROWS, "A:B", 0, "only sequences A to B-1", 3},
    {"skip-special", OPTION_SKIP_SPECIAL, 0, 0, "leave special tokens out", 3},
    {"separate", OPTION_SEPARATE, 0, 0, "a line feed after each sequence", 3},
    {0},
};

struct arguments {
    const char *tokenizer, *eos, *bos;
    const char **files; /* [n_files] */
    size_t n_files;
    enum corpus_kind kind;
    const char *field;
    bool force, skip_bad_lines;
    struct pack_options pack;
    struct decode_options decode;
};

/* Reads "A:B"; either may be left out. */
static void parse_rows(const char *text, struct decode_options *d, struct argp_state *state)
{
    const char *colon = strchr(text, ':');
    char first[32];
    if (!colon || (size_t)(colon - text) >= sizeof first) {
        argp_error(state, "--rows '%s': must be A:B", text);
        return;
    }
    snprintf(first, sizeof first, "%.*s", (int)(colon - text), text);
    if (*first)
        d->first = (size_t)cli_whole(first, 0, (uint64_t)1 << 53, "rows", state);
    if (colon[1])
        d->stop = (size_t)cli_whole(colon + 1, 0, (uint64_t)1 << 53, "rows", state);
    if (d->first > d->stop)
        argp_error(state, "--rows '%s': its first is after its end", text);
}

static void check(const struct arguments *a, struct argp_state *state)
{
    if (!a->tokenizer)
        argp_error(state, "--tokenizer is required");
    if (!a->pack.path == !a->decode.path)
        argp_error(state, "--out or --decode is required, not both");
    if (a->decode.path && a->n_files)
        argp_error(state, "unexpected argument '%s' with --decode", a->files[0]);
    if (!a->decode.path &&
        (a->decode.skip_special || a->decode.separate || a->decode.first || a->decode.stop != SIZE_MAX))
        argp_error(state, "--rows, --skip-special and --separate go with --decode only");
    if (a->skip_bad_lines && a->kind != CORPUS_JSONL)
        argp_error(state, "--skip-bad-lines goes with --jsonl or --field only");
    if (a->decode.path && a->force)
        argp_error(state, "--force goes with --out only");
    if (a->pack.bos && a->pack.seq_len < 2)
        argp_error(state, "--seq-len 1 has room for the first token only; see --no-bos");
    if (!a->pack.bos && a->bos)
        argp_error(state, "--bos and --no-bos exclude each other");
    if (a->pack.max_tokens < a->pack.seq_len)
        argp_error(state, "--max-tokens %llu is less than one sequence of %zu", (unsigned long long)a->pack.max_tokens,
                   a->pack.seq_len);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case OPTION_TOKENIZER:
        a->tokenizer = text;
        return 0;
    case OPTION_OUT:
        a->pack.path = text;
        return 0;
    case OPTION_SEQ_LEN:
        a->pack.seq_len = (size_t)cli_whole(text, 1, 1 << 24, "seq-len", state);
        return 0;
    case OPTION_EOS:
        a->eos = text;
        return 0;
    case OPTION_BOS:
        a->bos = text;
        return 0;
    case OPTION_NO_BOS:
        a->pack.bos = false;
        return 0;
    case OPTION_PER_DOCUMENT:
        a->pack.per_document = true;
        return 0;
    case OPTION_MAX_TOKENS:
        a->pack.max_tokens = cli_whole(text, 1, (uint64_t)1 << 53, "max-tokens", state);
        return 0;
    case OPTION_FIELD:
        a->field = text; /* fall through */
    case OPTION_JSONL:
    case OPTION_LINE_DOCUMENTS: {
        enum corpus_kind kind = key == OPTION_LINE_DOCUMENTS ? CORPUS_LINES : CORPUS_JSONL;
        if (a->kind != CORPUS_FILES && a->kind != kind)
            argp_error(state, "--jsonl and --line-documents exclude each other");
        a->kind = kind;
        return 0;
    }
    case OPTION_DECODE:
        a->decode.path = text;
        return 0;
    case OPTION_ROWS:
        parse_rows(text, &a->decode, state);
        return 0;
    case OPTION_SKIP_SPECIAL:
        a->decode.skip_special = true;
        return 0;
    case OPTION_SEPARATE:
        a->decode.separate = true;
        return 0;
    case OPTION_SKIP_BAD_LINES:
        a->skip_bad_lines = true;
        return 0;
    case OPTION_FORCE:
        a->force = true;
        return 0;
    case ARGP_KEY_ARG:
        a->files[a->n_files++] = text;
        return 0;
    case ARGP_KEY_END:
        check(a, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Documents through the tokenizer into the tensor. */
struct work {
    struct tokenizer *tokenizer;
    struct pack pack;
    struct ids ids;
    struct corpus corpus;
    int done; /* --max-tokens reached */
    double began, reported;
};

static double megabytes_per_s(const struct work *w)
{
    double s = clock_s() - w->began;
    return s > 0 ? 1e-6 * (double)w->corpus.bytes / s : 0;
}

static int take_ids(struct work *w, struct err *e)
{
    int rc = pack_ids(&w->pack, w->ids.data, w->ids.n, e);
    w->ids.n = 0;
    w->done = w->pack.done;
    if (clock_s() - w->reported > (log_is_terminal() ? 0.5 : 10)) {
        w->reported = clock_s();
        log_progress("%.1f MB read, %.2f million tokens, %.1f MB/s", 1e-6 * (double)w->corpus.bytes,
                     1e-6 * (double)w->pack.n_ids, megabytes_per_s(w));
    }
    return rc;
}

static int begin_document(void *self, struct err *e)
{
    struct work *w = self;
    return pack_begin(&w->pack, e);
}

static int put_text(void *self, const char *text, size_t n, struct err *e)
{
    struct work *w = self;
    if (w->pack.full) /* the rest of this document is not wanted */
        return 0;
    if (tokenizer_feed(w->tokenizer, text, n, &w->ids, e))
        return e->code;
    return take_ids(w, e);
}

static int end_document(void *self, struct err *e)
{
    struct work *w = self;
    if (w->pack.full)
        tokenizer_drop(w->tokenizer);
    else if (tokenizer_end(w->tokenizer, &w->ids, e) || take_ids(w, e))
        return e->code;
    if (pack_end(&w->pack, e))
        return e->code;
    w->done = w->pack.done;
    return 0;
}

/* Finds the ids of --eos and --bos, and the narrowest type for all ids. */
static int choose_tokens(struct arguments *a, const struct tokenizer *t, struct err *e)
{
    const char *eos = a->eos ? a->eos : "<|endoftext|>";
    a->pack.narrow = tokenizer_vocabulary(t)->n_tokens <= 65536;
    if (tokenizer_find(t, eos, &a->pack.eos_id, e))
        return err_prefix(e, "--eos");
    if (a->pack.bos && tokenizer_find(t, a->bos ? a->bos : eos, &a->pack.bos_id, e))
        return err_prefix(e, "--bos");
    return 0;
}

/* invalid: what the tokenizer found, beside what the corpus did. */
static void say_what_was_lost(const struct corpus *c, uint64_t invalid)
{
    invalid += c->invalid;
    if (invalid)
        log_line("%llu invalid UTF-8 sequences became U+FFFD", (unsigned long long)invalid);
    if (c->bad_lines)
        log_line("%llu bad lines left out, the first: %s", (unsigned long long)c->bad_lines, c->first_bad_line.message);
}

static int encode(struct arguments *a, struct tokenizer *t, struct err *e)
{
    struct work w = {.tokenizer = t, .began = clock_s(), .reported = clock_s()};
    w.corpus = (struct corpus){.kind = a->kind,
                               .field = a->field,
                               .sink = {&w, begin_document, put_text, end_document},
                               .stop = &cli_stop,
                               .done = &w.done,
                               .skip_bad_lines = a->skip_bad_lines};
    int rc = choose_tokens(a, t, e);
    if (!rc)
        rc = pack_open(&w.pack, &a->pack, e);
    for (size_t i = 0; !rc && i < a->n_files && !w.done; i++)
        rc = corpus_read(&w.corpus, a->files[i], e);
    if (!rc)
        rc = pack_commit(&w.pack, e);
    if (!rc)
        log_line("%s: %zu sequences of %zu tokens, %s; %llu documents, %.1f MB, %.2f million tokens of text, %.1f MB/s",
                 a->pack.path, w.pack.tokens.rows, a->pack.seq_len, a->pack.narrow ? "uint16" : "int32",
                 (unsigned long long)w.pack.documents, 1e-6 * (double)w.corpus.bytes, 1e-6 * (double)w.pack.n_ids,
                 megabytes_per_s(&w));
    if (!rc && a->pack.per_document)
        log_line("%s: how much of each sequence is text; actgen --tokens %s finds it there (elsewhere: --lengths FILE)",
                 w.pack.lengths_path, a->pack.path);
    if (!rc && w.pack.empty)
        log_line("%llu documents without a token left out", (unsigned long long)w.pack.empty);
    if (!rc)
        say_what_was_lost(&w.corpus, tokenizer_invalid(t));
    pack_abandon(&w.pack);
    mem_free(w.ids.data);
    return rc;
}

int main(int argc, char **argv)
{
    struct arguments a = {.field = "text",
                          .pack = {.seq_len = 1024, .bos = true, .max_tokens = UINT64_MAX},
                          .decode = {.stop = SIZE_MAX}};
    struct argp argp = {options, parse, "[FILE...]", doc, NULL, NULL, NULL};
    struct err e = {0};
    static const char *standard_input[] = {"-"};
    log_init("xctok");
    bus_error_catch("xctok");
    json_use_mem();
    const char **files = mem_alloc((size_t)argc, sizeof *files, "list of files", &e);
    if (!files) {
        log_line("error: %s", e.message);
        return 1;
    }
    a.files = files;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.n_files == 0) {
        a.files = standard_input;
        a.n_files = 1;
    }
    static const char *const standard_input_file = "/dev/stdin"; /* what it is redirected from */
    overwrite_inputs(&standard_input_file, 1);
    overwrite_inputs(&a.tokenizer, 1);
    overwrite_inputs(a.files, a.n_files);
    if (a.force)
        overwrite_force();
    if (!a.decode.path) /* a tensor on its way is removed; decoding just ends */
        cli_catch_signals();
    struct tokenizer *t = tokenizer_open(a.tokenizer, &e);
    int rc = !t ? e.code : a.decode.path ? decode(&a.decode, tokenizer_vocabulary(t), stdout, &e) : encode(&a, t, &e);
    if (rc)
        log_line("error: %s", e.message);
    tokenizer_close(t);
    mem_free(files);
    return rc ? 1 : 0;
}
