/* recorder.c - measures the scale, then computes and stores what is missing; see recorder.h.
 *
 * The scale is part of the manifest, so a recording that is continued has the same one. */
#include "recorder.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "file.h"
#include "log.h"
#include "mem.h"
#include "plan.h"
#include "recording.h"
#include "scale.h"

/* Adds the rows of the blocks to the sums, in their order, which is that of a trainer. */
static int add_blocks(struct source *source, const struct record_options *o, const struct plan *plan,
                      const uint32_t *blocks, uint32_t n, struct scale_sums *sums, struct err *e)
{
    const struct stream *s = &source->stream;
    struct rows rows;
    int rc = rows_init(&rows, s, plan->max_block_rows, e);
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        rows_begin(&rows, s, plan_block_rows(plan, blocks[i]), ROW_F32, NULL);
        if (*o->stop)
            rc = err_set(e, ERR_STOPPED, "stopped while the scale was measured, nothing is recorded");
        else
            rc = source_compute(source, plan_block_first(plan, blocks[i]), plan_block_seqs(plan, blocks[i]), &rows, e);
        if (rc == 0)
            scale_add(sums, rows.acts, rows.origins, rows.n_rows, s);
    }
    rows_release(&rows);
    return rc;
}

/* Measures the source's scale as a run would, and puts it into its stream. */
static int measure(struct source *source, const struct record_options *o, struct err *e)
{
    struct stream *s = &source->stream;
    struct scale_sums sums = {0};
    struct plan plan;
    if (plan_init(&plan, s, o->run_seed, o->block_seqs, o->eval_blocks, o->window_rows, e))
        return err_prefix(e, "the scale cannot be measured as a run would (--scale gives one)");
    uint32_t *blocks = mem_alloc(plan.window_blocks, sizeof *blocks, "block list", e);
    int rc = blocks ? 0 : ERR_MEMORY;
    if (rc == 0)
        rc = add_blocks(source, o, &plan, blocks, plan_measured_blocks(&plan, o->scale_rows, blocks), &sums, e);
    if (rc == 0)
        rc = scale_finish(&sums, s, s->scale, e);
    mem_free(blocks);
    plan_release(&plan);
    if (rc)
        return rc;
    s->has_scale = true;
    log_line("scale measured over %zu rows, as a run of seed %" PRIu64 " measures it", sums.rows, o->run_seed);
    return 0;
}

/* Prints the disk budget. *need becomes the bytes still to write, *available those free on the disk. */
static int disk_budget(const struct recording *r, size_t *need, size_t *available, struct err *e)
{
    size_t total = 0;
    *need = 0;
    for (uint32_t i = 0; i < r->n_shards; i++) {
        total += recording_shard_bytes(r, i);
        *need += recording_has(r, i) ? 0 : recording_shard_bytes(r, i);
    }
    if (file_free_bytes(r->folder, available, e))
        return e->code;
    log_line("disk budget: %.1f MB in %" PRIu32 " shards, %.1f MB of it still to write; %.1f MB free",
             (double)total / 1e6, r->n_shards, (double)*need / 1e6, (double)*available / 1e6);
    return 0;
}

static int check_disk(const struct recording *r, struct err *e)
{
    size_t need, available;
    if (disk_budget(r, &need, &available, e))
        return e->code;
    if (need > available)
        return err_set(e, ERR_SYSTEM, "%s: %.1f MB to write, %.1f MB free", r->folder, (double)need / 1e6,
                       (double)available / 1e6);
    return 0;
}

/* Opens a recording to go on with, and refuses one that is not of this source, dtype, shard and scale. */
static int open_again(struct recording *r, struct source *source, const struct record_options *o, struct err *e)
{
    struct stream *s = &source->stream;
    if (recording_continue(r, o->folder, e))
        return e->code;
    int rc = stream_compare(&r->stream, s, e) ? err_prefix(e, "%s", o->folder) : 0;
    if (rc == 0 && (r->dtype != o->dtype || r->shard_seqs != o->shard_seqs))
        rc = err_set(e, ERR_MISMATCH, "%s: %s in shards of %" PRIu32 " sequences, asked for %s in shards of %" PRIu32,
                     o->folder, row_dtype_name(r->dtype), r->shard_seqs, row_dtype_name(o->dtype), o->shard_seqs);
    for (uint32_t i = 0; rc == 0 && s->has_scale && i < s->n_sites; i++)
        if (s->scale[i] != r->stream.scale[i])
            rc = err_set(e, ERR_MISMATCH, "%s: scale of site %" PRIu32 " is %.9g, asked for %.9g", o->folder, i,
                         (double)r->stream.scale[i], (double)s->scale[i]);
    if (rc) {
        recording_close(r);
        return rc;
    }
    memcpy(s->scale, r->stream.scale, sizeof s->scale);
    s->has_scale = true;
    return 0;
}

/* Returns whether the folder holds a recording. */
static bool is_there(const char *folder)
{
    char path[4096 + 16];
    snprintf(path, sizeof path, "%s/manifest.json", folder);
    return access(path, F_OK) == 0;
}

/* Computes and writes the shards that are missing, until asked to stop. */
static int record_shards(struct source *source, const struct record_options *o, struct recording *r, struct rows *rows,
                         struct err *e)
{
    const struct stream *s = &source->stream;
    double start = clock_s(), last = start;
    size_t done_rows = 0, left_rows = 0;
    for (uint32_t i = 0; i < r->n_shards; i++)
        left_rows += recording_has(r, i) ? 0 : stream_block_rows(s, recording_shard_count(r, i));
    int rc = 0;
    for (uint32_t i = 0; i < r->n_shards && !*o->stop; i++) {
        if (recording_has(r, i))
            continue;
        uint32_t n = recording_shard_count(r, i);
        rows_begin(rows, s, stream_block_rows(s, n), r->dtype, s->scale);
        if ((rc = source_compute(source, recording_shard_first(r, i), n, rows, e)) ||
            (rc = recording_write(r, i, rows, e)))
            break;
        done_rows += rows->n_rows;
        double now = clock_s(), rate = (double)done_rows / (now - start);
        if (now - last > (log_is_terminal() ? 1 : 10)) {
            log_progress("%" PRIu32 " of %" PRIu32 " shards, %.0f rows/s, ETA %.0f s", r->n_recorded, r->n_shards, rate,
                         (double)(left_rows - done_rows) / rate);
            last = now;
        }
    }
    int flushed = recording_flush(r, rc ? NULL : e);
    log_line("%s: %" PRIu32 " of %" PRIu32 " shards recorded%s", r->folder, r->n_recorded, r->n_shards,
             r->n_recorded < r->n_shards ? "; --resume goes on" : "");
    return rc ? rc : flushed;
}

int record(struct source *source, const struct record_options *o, struct err *e)
{
    struct stream *s = &source->stream;
    struct rows rows;
    struct recording r = {0};
    int rc = rows_init(&rows, s, stream_block_rows(s, o->shard_seqs < s->n_seq ? o->shard_seqs : s->n_seq), e);
    if (rc)
        return rc;
    if (o->resume && is_there(o->folder))
        rc = open_again(&r, source, o, e);
    else if (s->has_scale || (rc = measure(source, o, e)) == 0)
        rc = recording_create(&r, o->folder, s, o->dtype, o->shard_seqs, e);
    bool complete = rc == 0 && r.n_recorded == r.n_shards;
    if (complete)
        log_line("%s: the recording is complete, all its %" PRIu32 " shards are there: nothing to do", r.folder,
                 r.n_shards);
    if (rc == 0 && !complete)
        rc = check_disk(&r, e);
    if (rc == 0 && !complete)
        rc = record_shards(source, o, &r, &rows, e);
    recording_close(&r);
    rows_release(&rows);
    return rc;
}

/* ---- a copy of what is served ---- */

struct recorder {
    struct source *source;
    const char *folder;
    bool resume, opened;
    struct recording recording;
    struct message_lease *raw; /* [n_raw] leases whose blocks were raw and are still to be kept */
    size_t n_raw, raw_capacity;
};

int recorder_new(struct recorder **out, struct source *source, const char *folder, bool resume, struct err *e)
{
    struct recorder *t = mem_alloc(1, sizeof *t, "recorder", e);
    *out = t;
    if (!t)
        return ERR_MEMORY;
    t->source = source;
    t->folder = folder;
    t->resume = resume;
    return 0;
}

/* Opens the folder under the terms of a scaled block. */
static int recorder_open(struct recorder *t, uint32_t block_seqs, struct rows *rows, struct err *e)
{
    struct source scaled = *t->source; /* its stream with the run's scale */
    volatile sig_atomic_t never = 0;
    struct record_options o = {.folder = t->folder, .dtype = rows->dtype, .shard_seqs = block_seqs, .stop = &never};
    memcpy(scaled.stream.scale, rows->scale, rows->n_sites * sizeof *rows->scale);
    scaled.stream.has_scale = true;
    int rc = t->resume && is_there(t->folder)
                 ? open_again(&t->recording, &scaled, &o, e)
                 : recording_create(&t->recording, t->folder, &scaled.stream, rows->dtype, block_seqs, e);
    t->opened = rc == 0;
    size_t need, available;
    return rc ? rc : disk_budget(&t->recording, &need, &available, e);
}

/* Returns whether the lease's sequences are those of its block's shard. */
static bool is_shard(const struct recording *r, const struct message_lease *l)
{
    return l->block < r->n_shards && l->first == recording_shard_first(r, l->block) &&
           l->count == recording_shard_count(r, l->block);
}

/* Refuses a block of other terms than the recording's: a producer that outlives its trainer may join another run. */
static int check_terms(const struct recording *r, const struct message_lease *l, uint32_t block_seqs, struct rows *rows,
                       struct err *e)
{
    if (!is_shard(r, l))
        return err_set(e, ERR_PEER,
                       "%s: lease of block %" PRIu32 " is for sequences %" PRIu32 " and %" PRIu32
                       " after, which are no shard",
                       r->folder, l->block, l->first, l->count - 1);
    if (r->dtype != rows->dtype || r->shard_seqs != block_seqs)
        return err_set(e, ERR_MISMATCH,
                       "%s: %s in shards of %" PRIu32 " sequences, the run has %s in blocks of %" PRIu32, r->folder,
                       row_dtype_name(r->dtype), r->shard_seqs, row_dtype_name(rows->dtype), block_seqs);
    for (uint32_t i = 0; i < r->stream.n_sites; i++)
        if (rows->scale[i] != r->stream.scale[i])
            return err_set(e, ERR_MISMATCH, "%s: scale of site %" PRIu32 " is %.9g, the run has %.9g", r->folder, i,
                           (double)r->stream.scale[i], (double)rows->scale[i]);
    return 0;
}

/* Adds a lease to those that recorder_finish computes again. */
static int remember_raw(struct recorder *t, const struct message_lease *lease, struct err *e)
{
    if (t->n_raw == t->raw_capacity) {
        size_t capacity = t->raw_capacity ? 2 * t->raw_capacity : 64;
        struct message_lease *raw = mem_realloc(t->raw, capacity, sizeof *raw, "leases to be recorded", e);
        if (!raw)
            return ERR_MEMORY;
        t->raw = raw;
        t->raw_capacity = capacity;
    }
    t->raw[t->n_raw++] = *lease;
    return 0;
}

int recorder_keep(void *context, const struct message_lease *lease, uint32_t block_seqs, struct rows *rows,
                  struct err *e)
{
    struct recorder *t = context;
    if (!lease->scaled)
        return remember_raw(t, lease, e);
    if ((!t->opened && recorder_open(t, block_seqs, rows, e)) || check_terms(&t->recording, lease, block_seqs, rows, e))
        return e->code;
    return recording_has(&t->recording, lease->block) ? 0 : recording_write(&t->recording, lease->block, rows, e);
}

int recorder_finish(struct recorder *t, struct err *e)
{
    struct recording *r = &t->recording;
    struct rows rows;
    if (!t->opened) {
        log_line("%s: nothing recorded, no scaled block was computed", t->folder);
        return 0;
    }
    int rc = t->n_raw ? rows_init(&rows, &r->stream, stream_block_rows(&r->stream, recording_shard_count(r, 0)), e) : 0;
    for (size_t i = 0; i < t->n_raw && rc == 0; i++) {
        const struct message_lease *l = &t->raw[i];
        if (!is_shard(r, l) || recording_has(r, l->block)) /* no shard: of an earlier run with other blocks */
            continue;
        rows_begin(&rows, &r->stream, stream_block_rows(&r->stream, l->count), r->dtype, r->stream.scale);
        rc = source_compute(t->source, l->first, l->count, &rows, e);
        if (rc == 0)
            rc = recording_write(r, l->block, &rows, e);
    }
    if (t->n_raw)
        rows_release(&rows);
    int flushed = recording_flush(r, rc ? NULL : e);
    log_line("%s: %" PRIu32 " of %" PRIu32 " shards recorded", t->folder, r->n_recorded, r->n_shards);
    return rc ? rc : flushed;
}

void recorder_free(struct recorder *t)
{
    if (!t)
        return;
    if (t->opened) {
        recording_flush(&t->recording, NULL);
        recording_close(&t->recording);
    }
    mem_free(t->raw);
    mem_free(t);
}
