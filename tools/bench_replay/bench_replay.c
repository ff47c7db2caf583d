/* bench_replay.c - replay over TCP loopback against plain ZeroMQ with messages of the same sizes, in turns.
 *
 * Both senders are processes of their own and send without copying; both receivers drop what they get. Replay's
 * producer reads a recording by mmap and computes the checksums; its receiver checks them only with --verify. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "log.h"
#include "mem.h"
#include "plain_zmq.h"
#include "recording.h"
#include "replay.h"
#include "version.h"

enum { OPTION_ACTGEN = 1000, OPTION_BLOCK_SEQS, OPTION_CREDIT, OPTION_MEGABYTES, OPTION_RUNS, OPTION_VERIFY };

#define MAX_RUNS 99
#define HEADER_BYTES 128 /* of a BATCH's header beside its origins */

const char *argp_program_version = "bench_replay " CROSSFEED_VERSION;

static const struct argp_option options[] = {
    {"actgen", OPTION_ACTGEN, "PATH", 0, "the program (default actgen)", 1},
    {"block-seqs", OPTION_BLOCK_SEQS, "N", 0, "sequences a block (default 16)", 1},
    {"credit", OPTION_CREDIT, "N", 0, "leases at a time (default 2, as xctrain)", 1},
    {"megabytes", OPTION_MEGABYTES, "N", 0, "payload a run (default 4000)", 1},
    {"runs", OPTION_RUNS, "N", 0, "of each, in turns (default 5)", 1},
    {"verify", OPTION_VERIFY, 0, 0, "the receiver checks the checksums, as the trainer does", 1},
    {0},
};

struct arguments {
    struct replay_options replay;
    size_t runs;
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case OPTION_ACTGEN:
        a->replay.actgen = text;
        return 0;
    case OPTION_BLOCK_SEQS:
        a->replay.block_seqs = (uint32_t)strtoul(text, NULL, 10);
        return 0;
    case OPTION_CREDIT:
        a->replay.credit = (uint32_t)strtoul(text, NULL, 10);
        return 0;
    case OPTION_MEGABYTES:
        a->replay.bytes = strtoul(text, NULL, 10) * 1000000;
        return 0;
    case OPTION_RUNS:
        a->runs = strtoul(text, NULL, 10);
        return 0;
    case OPTION_VERIFY:
        a->replay.verify = true;
        return 0;
    case ARGP_KEY_ARG:
        a->replay.folder = text;
        return 0;
    case ARGP_KEY_END:
        if (!a->replay.folder || !a->replay.block_seqs || !a->replay.credit || !a->replay.bytes || a->runs < 1 ||
            a->runs > MAX_RUNS)
            argp_error(state, "one recording, and numbers of at least 1");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* Of this process and of those it waited for. */
static double cpu_seconds(void)
{
    double s = 0;
    for (int who = RUSAGE_CHILDREN; who <= RUSAGE_SELF; who++) { /* -1, 0 */
        struct rusage u;
        getrusage(who, &u);
        s += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    }
    return s;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, by_size);
    return x[n / 2];
}

/* The sizes of the chunks that replay sends (but for the shorter last ones), and memory to send as many bytes from. */
static int plan(const struct replay_options *o, struct plain_messages *m, struct err *e)
{
    struct recording r;
    if (recording_open(&r, o->folder, e))
        return e->code;
    size_t rows = stream_block_rows(&r.stream, o->block_seqs < r.stream.n_seq ? o->block_seqs : r.stream.n_seq);
    size_t chunk = stream_chunk_rows(&r.stream, r.dtype), row_bytes = stream_row_bytes(&r.stream, r.dtype);
    chunk = chunk < rows ? chunk : rows;
    *m = (struct plain_messages){.n = o->bytes / (chunk * row_bytes) + 1,
                                 .header = HEADER_BYTES + chunk * sizeof(struct row_origin),
                                 .payload = chunk * row_bytes,
                                 .data_size = 2 * rows * row_bytes};
    recording_close(&r);
    unsigned char *data = mem_alloc(1, m->data_size, "payloads", e);
    for (size_t i = 0; data && i < m->data_size; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    m->data = data;
    return data ? 0 : ERR_MEMORY;
}

int main(int argc, char **argv)
{
    static struct arguments a = {.replay = {.actgen = "actgen", .block_seqs = 16, .credit = 2, .bytes = 4000000000},
                                 .runs = 5};
    struct argp argp = {options, parse, "RECORDING", "Measures replay over loopback against plain ZeroMQ.",
                        NULL,    NULL,  NULL};
    struct plain_messages m = {0};
    double plain[MAX_RUNS], replayed[MAX_RUNS], plain_cpu[MAX_RUNS], replay_cpu[MAX_RUNS], seconds;
    struct err e = {0};
    log_init("bench_replay");
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);
    int rc = plan(&a.replay, &m, &e);
    if (rc == 0)
        printf("messages of %zu + %zu bytes, %.0f MB a run, receivers %s\n", m.header, m.payload,
               (double)a.replay.bytes / 1e6,
               a.replay.verify ? "drop; replay's checks the checksums" : "drop, no checksum checked");
    for (size_t i = 0; i < a.runs && rc == 0; i++) {
        struct replay_result r;
        double before = cpu_seconds(), between;
        if (plain_zmq(&m, &seconds, &e) || (between = cpu_seconds(), replay(&a.replay, &r, &e))) {
            rc = e.code;
            break;
        }
        plain_cpu[i] = (between - before) / ((double)m.n * (double)m.payload / 1e9);
        replay_cpu[i] = (cpu_seconds() - between) / ((double)r.bytes / 1e9);
        plain[i] = (double)(m.n - 1) * (double)m.payload / seconds / 1e9;
        replayed[i] = (double)r.bytes / r.seconds / 1e9;
        printf("run %zu: plain ZeroMQ %.2f GB/s (%.2f CPU s/GB), replay %.2f GB/s (%.2f), %.0f %%\n", i + 1, plain[i],
               plain_cpu[i], replayed[i], replay_cpu[i], 100 * replayed[i] / plain[i]);
        fflush(stdout);
    }
    if (rc == 0) {
        double p = median(plain, a.runs), r = median(replayed, a.runs);
        printf("medians: plain ZeroMQ %.2f GB/s (%.2f CPU s/GB), replay %.2f GB/s (%.2f): %.0f %%\n", p,
               median(plain_cpu, a.runs), r, median(replay_cpu, a.runs), 100 * r / p);
    } else {
        log_line("error: %s", e.message);
    }
    mem_free((void *)(uintptr_t)m.data);
    return rc ? 1 : 0;
}
