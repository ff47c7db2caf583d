/* fuzz_manifest.c - any manifest.json of a recording, and behind a NUL any first shard; without one, shards that a
 * recording of two sites left. All that opens is read as a producer would. */
#include "fuzz.h"
#include "recording.h"
#include "source_recording.h"

/* The recording that the shards come from: 5 sequences of 3 rows in shards of 2; the last one not recorded. */
static void make_shards(void)
{
    static bool made;
    struct stream s = {.n_sites = 2,
                       .d_model = 3,
                       .seq_len = 4,
                       .rows_per_seq = 3,
                       .n_seq = 5,
                       .vocab_size = 100,
                       .n_models = 1,
                       .can_bf16 = true,
                       .has_scale = true,
                       .scale = {0.5f, 2},
                       .sites = {"blocks.0.hook_resid_post", "blocks.1.hook_resid_post"},
                       .tokens_fingerprint = "70cc",
                       .model_fingerprints = {"aaaa"}};
    struct recording r;
    struct rows rows;
    struct err e = {0};
    char folder[128];
    if (made)
        return;
    snprintf(folder, sizeof folder, "%s/made", fuzz_folder());
    MUST(recording_create(&r, folder, &s, ROW_BF16, 2, &e) == 0);
    MUST(rows_init(&rows, &s, 6, &e) == 0);
    for (uint32_t shard = 0; shard < 2; shard++) {
        rows_begin(&rows, &s, 6, ROW_BF16, s.scale);
        for (uint32_t i = 0; i < 6; i++) {
            for (uint32_t site = 0; site < 2; site++)
                rows_put(&rows, i, site, (float[]){(float)i, (float)site, 1});
            rows_put_origin(&rows, i, (struct row_origin){shard * 2 + i / 3, 1 + i % 3, i});
        }
        MUST(recording_write(&r, shard, &rows, &e) == 0);
    }
    MUST(recording_flush(&r, &e) == 0);
    rows_release(&rows);
    recording_close(&r);
    made = true;
}

static void read_all(struct source *source)
{
    const struct stream *s = &source->stream;
    struct rows rows;
    struct err e = {0};
    uint32_t most = s->n_seq < 3 ? s->n_seq : 3;
    size_t n_rows = stream_block_rows(s, most);
    if (n_rows > 4096 || n_rows * stream_row_bytes(s, ROW_F32) > (size_t)1 << 20)
        return;
    MUST(rows_init(&rows, s, n_rows, &e) == 0);
    for (uint32_t first = 0; first < s->n_seq && first < 12; first++)
        for (uint32_t count = 1; count <= most && count <= s->n_seq - first; count++) {
            rows_begin(&rows, s, stream_block_rows(s, count), s->can_f32 ? ROW_F32 : ROW_BF16, s->scale);
            if (source->compute(source->self, first, count, &rows, &e)) {
                MUST(e.code && e.message[0]);
                continue;
            }
            size_t bytes, n, sum = 0;
            const struct row_origin *origins;
            const unsigned char *acts = rows_chunk(&rows, 0, &bytes, &n, &origins);
            for (size_t i = 0; i < bytes; i++)
                sum += acts[i];
            MUST(n <= rows.n_rows && sum <= bytes * 255);
            rows_checksums(&rows);
        }
    rows_release(&rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct source source;
    struct err e = {0};
    const uint8_t *nul = memchr(data, 0, size);
    size_t n_manifest = nul ? (size_t)(nul - data) : size;
    make_shards();
    fuzz_link("manifest.json", fuzz_file(0, data, n_manifest));
    fuzz_link("shard_00000000.safetensors",
              nul ? fuzz_file(1, nul + 1, size - n_manifest - 1) : "made/shard_00000000.safetensors");
    fuzz_link("shard_00000001.safetensors", "made/shard_00000001.safetensors");
    for (int verify = 0; verify < 2; verify++)
        if (source_recording_open(&source, fuzz_folder(), verify, &e) == 0) {
            read_all(&source);
            source.close(source.self);
        } else {
            MUST(e.code && e.message[0]);
        }
    return 0;
}
