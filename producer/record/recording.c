/* recording.c - writes and reads recordings; see recording.h. */
#include "recording.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "clock.h"
#include "file.h"
#include "json_file.h"
#include "mem.h"
#include "overwrite.h"
#include "safetensors.h"
#include "stream_json.h"
#include "version.h"

#define PATH_SIZE 4096
#define FORMAT "crossfeed-recording"
#define FORMAT_VERSION 2
#define UNSEALED_VERSION 1 /* of recordings whose manifest has no checksum of itself */
#define MANIFEST_SHARE 20  /* At most one part in so many of a writer's time goes into manifests. */

/* A mapped shard. */
struct recording_shard {
    uint32_t shard;
    uint64_t used; /* recording.uses when it was used last; 0: the place is free */
    struct safetensors file;
    bool *verified; /* [chunks]: it has been compared with its checksum */
};

static int manifest_path(const struct recording *r, char path[PATH_SIZE], struct err *e)
{
    return file_join(path, PATH_SIZE, r->folder, "manifest.json", e);
}

static int shard_path(const struct recording *r, uint32_t shard, char path[PATH_SIZE], struct err *e)
{
    char name[64];
    snprintf(name, sizeof name, "shard_%08" PRIu32 ".safetensors", shard);
    return file_join(path, PATH_SIZE, r->folder, name, e);
}

static int allocate(struct recording *r, struct err *e)
{
    r->n_shards = (r->stream.n_seq - 1) / r->shard_seqs + 1;
    if (r->n_shards > RECORDING_MAX_SHARDS)
        return err_set(e, ERR_INPUT,
                       "%s: %" PRIu32 " sequences in shards of %" PRIu32 " are %" PRIu32 " shards, at most %" PRIu32,
                       r->folder, r->stream.n_seq, r->shard_seqs, r->n_shards, RECORDING_MAX_SHARDS);
    r->checksums = mem_alloc(r->n_shards, sizeof *r->checksums, "shard list", e);
    r->open = mem_alloc(RECORDING_MAX_OPEN, sizeof *r->open, "open shards", e);
    r->origins = mem_alloc(stream_chunk_rows(&r->stream, r->dtype), sizeof *r->origins, "origins of a chunk", e);
    return r->checksums && r->open && r->origins ? 0 : ERR_MEMORY;
}

static int set_folder(struct recording *r, const char *folder, struct err *e)
{
    if (strlen(folder) >= sizeof r->folder)
        return err_set(e, ERR_INPUT, "folder name of %zu bytes, at most %zu", strlen(folder), sizeof r->folder - 1);
    snprintf(r->folder, sizeof r->folder, "%s", folder);
    return 0;
}

/* Makes this process the folder's only writer, and removes what an earlier one left half-written. */
static int begin_writing(struct recording *r, struct err *e)
{
    r->lock = open(r->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->lock < 0)
        return err_errno(e, errno, "%s: cannot open folder", r->folder);
    r->writing = true;
    if (flock(r->lock, LOCK_EX | LOCK_NB) != 0 &&
        errno == EWOULDBLOCK) /* a file system without locks is no reason to fail */
        return err_set(e, ERR_INPUT, "%s: another process is recording there", r->folder);
    return file_remove_leftovers(r->folder, e);
}

static int write_manifest(const struct recording *r, struct err *e)
{
    char path[PATH_SIZE], number[16];
    json_t *scale = json_array(), *shards = json_object();
    for (uint32_t i = 0; i < r->stream.n_sites; i++)
        json_array_append_new(scale, json_real((double)r->stream.scale[i]));
    for (uint32_t i = 0; i < r->n_shards; i++)
        if (recording_has(r, i)) {
            snprintf(number, sizeof number, "%" PRIu32, i);
            json_object_set_new(shards, number, json_string(r->checksums[i]));
        }
    json_t *manifest = json_pack("{s:s, s:i, s:s, s:o, s:s, s:o, s:I, s:I, s:o}", "format", FORMAT, "version",
                                 FORMAT_VERSION, "software", CROSSFEED_SOFTWARE, "stream", stream_to_json(&r->stream),
                                 "dtype", row_dtype_name(r->dtype), "scale", scale, "shard_seqs",
                                 (json_int_t)r->shard_seqs, "n_shards", (json_int_t)r->n_shards, "shards", shards);
    int rc = manifest_path(r, path, e);
    if (rc == 0)
        rc = json_write_sealed(path, manifest, e);
    json_decref(manifest);
    return rc;
}

int recording_flush(struct recording *r, struct err *e)
{
    double start = clock_s();
    if (!r->unnamed)
        return 0;
    int rc = write_manifest(r, e);
    if (rc)
        return rc;
    double end = clock_s();
    r->next_manifest = end + MANIFEST_SHARE * (end - start);
    r->unnamed = false;
    return 0;
}

/* Refuses a folder in which files that are no shards have the names of shards. */
static int check_shards(const struct recording *r, struct err *e)
{
    static const struct file_kind kind = {"a shard of a recording", safetensors_file_has, "chunk_checksums"};
    char path[PATH_SIZE];
    for (uint32_t i = 0; i < r->n_shards; i++)
        if (shard_path(r, i, path, e) || overwrite_check(path, &kind, e))
            return e->code;
    return 0;
}

int recording_create(struct recording *r, const char *folder, const struct stream *stream, enum row_dtype dtype,
                     uint32_t shard_seqs, struct err *e)
{
    char path[PATH_SIZE];
    *r = (struct recording){.stream = *stream, .dtype = dtype, .shard_seqs = shard_seqs};
    r->stream.has_scale = true;
    int rc = set_folder(r, folder, e);
    if (rc == 0 && (manifest_path(r, path, e) || file_make_folder(folder, e) || begin_writing(r, e)))
        rc = e->code;
    if (rc == 0 && access(path, F_OK) == 0)
        rc = err_set(e, ERR_INPUT, "%s holds a recording already: --resume goes on with it, or choose another folder",
                     folder);
    if (rc == 0 && (allocate(r, e) || check_shards(r, e) || write_manifest(r, e)))
        rc = e->code;
    if (rc)
        recording_close(r);
    return rc;
}

/* Reads the list of finished shards. */
static int read_shards(struct recording *r, const json_t *shards, const char *path, struct err *e)
{
    const char *key;
    json_t *value, *object = (json_t *)(uintptr_t)shards;
    json_object_foreach(object, key, value)
    {
        char number[32];
        unsigned long i = strtoul(key, NULL, 10);
        const char *checksum = json_string_value(value);
        snprintf(number, sizeof number, "%lu", i);
        if (strcmp(key, number) != 0 || i >= r->n_shards || !checksum || strlen(checksum) != FINGERPRINT_SIZE - 1)
            return err_set(e, ERR_INPUT, "%s: shard '%s' is not one of %" PRIu32 " with a checksum", path, key,
                           r->n_shards);
        snprintf(r->checksums[i], FINGERPRINT_SIZE, "%s", checksum);
        r->n_recorded++;
    }
    return 0;
}

int recording_open(struct recording *r, const char *folder, struct err *e)
{
    char path[PATH_SIZE];
    json_t *manifest, *stream, *scale, *shards;
    const char *format, *dtype;
    int version;
    bool sealed;
    json_int_t shard_seqs;
    *r = (struct recording){0};
    if (set_folder(r, folder, e) || manifest_path(r, path, e))
        return e->code;
    int rc = json_read_sealed(path, &manifest, &sealed, e);
    if (rc) /* not ERR_ABSENT, which says that somebody else may have it */
        return rc == ERR_ABSENT ? err_errno(e, ENOENT, "%s: cannot open", path) : rc;
    int lacking =
        json_unpack(manifest, "{s:s, s:i, s:o, s:s, s:o, s:I, s:o}", "format", &format, "version", &version, "stream",
                    &stream, "dtype", &dtype, "scale", &scale, "shard_seqs", &shard_seqs, "shards", &shards);
    rc = mem_raw_failed(path, e);
    if (rc)
        ; /* memory is short, whatever was unpacked */
    else if (lacking || strcmp(format, FORMAT) != 0 || !json_is_array(scale) || !json_is_object(shards))
        rc = err_set(e, ERR_INPUT, "%s: not the manifest of a recording", path);
    else if (version != FORMAT_VERSION && version != UNSEALED_VERSION)
        rc = err_set(e, ERR_INPUT, "%s: version %d, this program reads %d and %d", path, version, UNSEALED_VERSION,
                     FORMAT_VERSION);
    else if (sealed != (version == FORMAT_VERSION))
        rc = err_set(e, ERR_DAMAGED, "%s: version %d %s a checksum at its end", path, version,
                     sealed ? "has not" : "has");
    else if (stream_from_json(&r->stream, stream, path, e))
        rc = e->code;
    else if (row_dtype_parse(&r->dtype, dtype, e))
        rc = err_prefix(e, "%s", path);
    else if (shard_seqs < 1 || shard_seqs > UINT32_MAX || json_array_size(scale) != r->stream.n_sites)
        rc = err_set(e, ERR_INPUT, "%s: %lld sequences a shard, %zu scales for %" PRIu32 " sites", path,
                     (long long)shard_seqs, json_array_size(scale), r->stream.n_sites);
    if (rc == 0) {
        r->shard_seqs = (uint32_t)shard_seqs;
        r->sealed = sealed;
        for (uint32_t i = 0; i < r->stream.n_sites; i++)
            r->stream.scale[i] = (float)json_number_value(json_array_get(scale, i));
        r->stream.has_scale = true;
        r->stream.can_bf16 = r->dtype == ROW_BF16;
        r->stream.can_f32 = r->dtype == ROW_F32;
        rc = stream_check(&r->stream, e) ? err_prefix(e, "%s", path) : allocate(r, e);
    }
    if (rc == 0)
        rc = read_shards(r, shards, path, e);
    json_decref(manifest);
    if (rc)
        recording_close(r);
    return rc;
}

int recording_continue(struct recording *r, const char *folder, struct err *e)
{
    struct recording writer = {0}; /* locked before the manifest is read */
    if (set_folder(&writer, folder, e) || begin_writing(&writer, e) || recording_open(r, folder, e)) {
        recording_close(&writer);
        return e->code;
    }
    r->writing = true;
    r->lock = writer.lock;
    return 0;
}

void recording_close(struct recording *r)
{
    for (uint32_t i = 0; r->open && i < RECORDING_MAX_OPEN; i++) {
        safetensors_close(&r->open[i].file);
        mem_free(r->open[i].verified);
    }
    mem_free(r->origins);
    r->origins = NULL;
    if (r->writing && r->lock >= 0)
        close(r->lock);
    mem_free(r->open);
    mem_free(r->checksums);
    r->writing = false;
    r->open = NULL;
    r->checksums = NULL;
}

uint32_t recording_shard_first(const struct recording *r, uint32_t shard)
{
    return shard * r->shard_seqs;
}

uint32_t recording_shard_count(const struct recording *r, uint32_t shard)
{
    uint32_t left = r->stream.n_seq - recording_shard_first(r, shard);
    return left < r->shard_seqs ? left : r->shard_seqs;
}

bool recording_has(const struct recording *r, uint32_t shard)
{
    return r->checksums[shard][0] != '\0';
}

size_t recording_shard_bytes(const struct recording *r, uint32_t shard)
{
    size_t rows = stream_block_rows(&r->stream, recording_shard_count(r, shard));
    return rows * (stream_row_bytes(&r->stream, r->dtype) + 4 + 4 + 8);
}

static int origins_to_columns(const struct rows *rows, int32_t **tokens, int32_t **positions, int64_t **sequence,
                              struct err *e)
{
    *tokens = mem_alloc(rows->n_rows, sizeof **tokens, "tokens of a shard", e);
    *positions = mem_alloc(rows->n_rows, sizeof **positions, "positions of a shard", e);
    *sequence = mem_alloc(rows->n_rows, sizeof **sequence, "sequences of a shard", e);
    if (!*tokens || !*positions || !*sequence)
        return ERR_MEMORY;
    for (size_t i = 0; i < rows->n_rows; i++) {
        (*tokens)[i] = (int32_t)rows->origins[i].token;
        (*positions)[i] = (int32_t)rows->origins[i].position;
        (*sequence)[i] = rows->origins[i].sequence;
    }
    return 0;
}

int recording_write(struct recording *r, uint32_t shard, struct rows *rows, struct err *e)
{
    char path[PATH_SIZE];
    size_t n_chunks = stream_chunk_count(&r->stream, r->dtype, rows->n_rows);
    size_t n = rows->n_rows, acts_bytes = n * stream_row_bytes(&r->stream, r->dtype);
    struct safetensors_writer w = {0};
    int32_t *tokens = NULL, *positions = NULL;
    int64_t *sequence = NULL;
    const struct tensor_spec specs[] = {
        {"acts", r->dtype == ROW_BF16 ? TENSOR_BF16 : TENSOR_F32, 3, {n, r->stream.n_sites, r->stream.d_model}},
        {"tokens", TENSOR_I32, 1, {n}},
        {"positions", TENSOR_I32, 1, {n}},
        {"sequence", TENSOR_I64, 1, {n}},
        {"chunk_checksums", TENSOR_I64, 1, {n_chunks}},
    };
    int rc = origins_to_columns(rows, &tokens, &positions, &sequence, e);
    if (rc == 0 && (shard_path(r, shard, path, e) || safetensors_write_begin(&w, path, specs, 5, NULL, 0, e) ||
                    safetensors_write_data(&w, rows->acts, acts_bytes, e) ||
                    safetensors_write_data(&w, tokens, n * sizeof *tokens, e) ||
                    safetensors_write_data(&w, positions, n * sizeof *positions, e) ||
                    safetensors_write_data(&w, sequence, n * sizeof *sequence, e) ||
                    safetensors_write_data(&w, rows_checksums(rows), n_chunks * sizeof(uint64_t), e) ||
                    safetensors_write_commit(&w, e)))
        rc = e->code;
    if (rc)
        safetensors_write_abandon(&w);
    mem_free(tokens);
    mem_free(positions);
    mem_free(sequence);
    if (rc)
        return rc;
    r->n_recorded += !recording_has(r, shard);
    memcpy(r->checksums[shard], w.out.digest.fingerprint, FINGERPRINT_SIZE);
    r->unnamed = true;
    return clock_s() < r->next_manifest ? 0 : recording_flush(r, e);
}

int recording_verify_shard(const struct recording *r, uint32_t shard, struct err *e)
{
    char path[PATH_SIZE];
    struct file_digest d;
    if (shard_path(r, shard, path, e))
        return e->code;
    int rc = file_digest_read(path, &d, e);
    if (rc) /* not ERR_ABSENT: it was recorded, nobody else has it */
        return rc == ERR_ABSENT ? err_set(e, ERR_INPUT, "%s: is missing, the manifest has it", path) : rc;
    if (strcmp(d.fingerprint, r->checksums[shard]) != 0)
        return err_set(e, ERR_INPUT, "%s: checksum %s, the manifest has %s", path, d.fingerprint, r->checksums[shard]);
    return 0;
}

/* Opens the shard's file and checks its tensors against the manifest. */
static int open_shard(const struct recording *r, uint32_t shard, struct safetensors *f, struct err *e)
{
    char path[PATH_SIZE];
    size_t n = stream_block_rows(&r->stream, recording_shard_count(r, shard));
    size_t n_chunks = stream_chunk_count(&r->stream, r->dtype, n);
    const size_t shape[] = {n, r->stream.n_sites, r->stream.d_model};
    if (shard_path(r, shard, path, e) || safetensors_open(f, path, e))
        return e->code;
    const struct tensor_view *acts = safetensors_require(f, "acts", 3, shape, e), *tokens, *positions, *sequence,
                             *checksums;
    int rc = 0;
    if (!acts || !(tokens = safetensors_require(f, "tokens", 1, &n, e)) ||
        !(positions = safetensors_require(f, "positions", 1, &n, e)) ||
        !(sequence = safetensors_require(f, "sequence", 1, &n, e)) ||
        !(checksums = safetensors_require(f, "chunk_checksums", 1, &n_chunks, e)))
        rc = e->code;
    else if (acts->dtype != (r->dtype == ROW_BF16 ? TENSOR_BF16 : TENSOR_F32))
        rc = err_set(e, ERR_INPUT, "%s: acts are %s, the manifest has %s", path, acts->dtype_name,
                     row_dtype_name(r->dtype));
    else if (tokens->dtype != TENSOR_I32 || positions->dtype != TENSOR_I32 || sequence->dtype != TENSOR_I64 ||
             checksums->dtype != TENSOR_I64)
        rc = err_set(e, ERR_INPUT,
                     "%s: tokens, positions, sequence and chunk_checksums are %s, %s, %s and %s, must be I32, I32, "
                     "I64 and I64",
                     path, tokens->dtype_name, positions->dtype_name, sequence->dtype_name, checksums->dtype_name);
    if (rc)
        safetensors_close(f);
    return rc;
}

/* Returns the shard, opened if it is not open yet; NULL with e filled. */
static struct recording_shard *find_shard(struct recording *r, uint32_t shard, struct err *e)
{
    struct recording_shard *oldest = &r->open[0];
    for (struct recording_shard *s = r->open; s < r->open + RECORDING_MAX_OPEN; s++) {
        if (s->used && s->shard == shard) {
            s->used = ++r->uses;
            return s;
        }
        if (s->used < oldest->used)
            oldest = s;
    }
    safetensors_close(&oldest->file);
    mem_free(oldest->verified);
    size_t rows = stream_block_rows(&r->stream, recording_shard_count(r, shard));
    oldest->used = 0;
    oldest->verified = mem_alloc(stream_chunk_count(&r->stream, r->dtype, rows), sizeof *oldest->verified, "shard", e);
    if (!oldest->verified || open_shard(r, shard, &oldest->file, e))
        return NULL;
    oldest->shard = shard;
    oldest->used = ++r->uses;
    return oldest;
}

/* Returns where rows lie in a mapped shard, from one on. */
static struct recording_rows rows_at(const struct recording *r, const struct safetensors *f, size_t row)
{
    return (struct recording_rows){.acts =
                                       safetensors_find(f, "acts")->data + row * stream_row_bytes(&r->stream, r->dtype),
                                   .tokens = safetensors_find(f, "tokens")->data + row * 4,
                                   .positions = safetensors_find(f, "positions")->data + row * 4,
                                   .sequence = safetensors_find(f, "sequence")->data + row * 8};
}

struct row_origin recording_origin(const struct recording_rows *rows, size_t row)
{
    int32_t token, position;
    int64_t sequence;
    memcpy(&token, rows->tokens + 4 * row, 4);
    memcpy(&position, rows->positions + 4 * row, 4);
    memcpy(&sequence, rows->sequence + 8 * row, 8);
    return (struct row_origin){(uint32_t)sequence, (uint32_t)position, (uint32_t)token};
}

int recording_read(struct recording *r, uint32_t first, uint32_t n, struct recording_rows *rows, struct err *e)
{
    uint32_t shard = first / r->shard_seqs;
    if (shard >= r->n_shards || !recording_has(r, shard))
        return err_set(e, ERR_ABSENT,
                       "sequences %" PRIu32 " to %" PRIu32 " are not recorded in %s (%" PRIu32 " of %" PRIu32
                       " shards are)",
                       first, first + n - 1, r->folder, r->n_recorded, r->n_shards);
    struct recording_shard *s = find_shard(r, shard, e);
    if (!s)
        return e->code;
    uint32_t skipped = first - recording_shard_first(r, shard), left = recording_shard_count(r, shard) - skipped;
    size_t row = stream_block_rows(&r->stream, skipped);
    *rows = rows_at(r, &s->file, row);
    rows->n = n < left ? n : left;
    if (skipped == 0 && n == left)
        rows->checksums = safetensors_find(&s->file, "chunk_checksums")->data;
    return 0;
}

/* Compares the chunks that hold rows first .. end - 1 of a shard with its chunk_checksums. */
static int verify_chunks(struct recording *r, struct recording_shard *s, size_t first, size_t end, struct err *e)
{
    size_t chunk_rows = stream_chunk_rows(&r->stream, r->dtype), row_bytes = stream_row_bytes(&r->stream, r->dtype);
    size_t shard_rows = stream_block_rows(&r->stream, recording_shard_count(r, s->shard));
    for (size_t c = first / chunk_rows; c * chunk_rows < end; c++) {
        if (s->verified[c])
            continue;
        size_t n = shard_rows - c * chunk_rows < chunk_rows ? shard_rows - c * chunk_rows : chunk_rows;
        const struct recording_rows rows = rows_at(r, &s->file, c * chunk_rows);
        for (size_t i = 0; i < n; i++)
            r->origins[i] = recording_origin(&rows, i);
        uint64_t expected, found = fingerprint_checksum(rows.acts, n * row_bytes, r->origins, n * sizeof *r->origins);
        memcpy(&expected, safetensors_find(&s->file, "chunk_checksums")->data + c * sizeof expected, sizeof expected);
        if (found != expected)
            return err_set(e, ERR_DAMAGED, "%s: rows %zu to %zu: checksum %016" PRIx64 ", recorded with %016" PRIx64,
                           s->file.path, c * chunk_rows, c * chunk_rows + n - 1, found, expected);
        s->verified[c] = true;
    }
    return 0;
}

int recording_verify_rows(struct recording *r, uint32_t first, uint32_t n, struct err *e)
{
    struct recording_shard *s = find_shard(r, first / r->shard_seqs, e);
    if (!s)
        return e->code;
    size_t row = stream_block_rows(&r->stream, first - recording_shard_first(r, s->shard));
    return verify_chunks(r, s, row, row + stream_block_rows(&r->stream, n), e);
}
