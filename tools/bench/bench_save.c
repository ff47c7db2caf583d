/* bench_save.c - a checkpoint saved and verified, beside a plain file of as many bytes written and synced in the same folder; see bench.h.
 *
 * Files lie in a new folder of the one that the program was started in, which is removed. What is verified was just written, so that it comes
 * from the page cache: what is timed is the program, not the disk. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoint_folder.h"
#include "clock.h"
#include "cpu_backend.h"
#include "file.h"
#include "initial_weights.h"
#include "mem.h"

#define PIECE ((size_t)4 << 20)

/* Writes a file of that many bytes, whole and synced. */
static int write_plain(const char *path, size_t bytes, const void *piece, struct err *e)
{
    struct file_out o;
    if (file_out_open(&o, path, e))
        return e->code;
    int rc = 0;
    for (size_t left = bytes, n; left && rc == 0; left -= n) {
        n = left < PIECE ? left : PIECE;
        rc = file_out_write(&o, piece, n, e);
    }
    if (rc == 0)
        return file_out_commit(&o, e);
    file_out_abandon(&o);
    return rc;
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Times one save, one verification and one plain file. */
static int measure(struct backend *b, const char *folder, const json_t *cfg, const void *piece, size_t *bytes,
                   double *save_s, double *verify_s, double *plain_s, struct err *e)
{
    const struct normalisation n = {0};
    const struct plan_place next = {0};
    struct checkpoint_id id;
    char path[4096], plain[4096];
    double began = clock_s();
    if (checkpoint_save(folder, b, &n, &next, cfg, 1, path, e))
        return e->code;
    *save_s = clock_s() - began;
    began = cpu_s();
    if (checkpoint_identify(path, &id, e) || checkpoint_verify(path, &id, e))
        return e->code;
    *verify_s = cpu_s() - began;
    *bytes = checkpoint_manifest_bytes(&id.manifest);
    if (file_join(plain, sizeof plain, folder, "plain", e))
        return e->code;
    began = clock_s();
    int rc = write_plain(plain, *bytes, piece, e);
    *plain_s = clock_s() - began;
    return rc ? rc : file_remove_tree(plain, e);
}

/* Removes what is left in the folder: one checkpoint. */
static void clean_up(const char *folder, uint64_t step)
{
    char name[CHECKPOINT_NAME_SIZE], checkpoints[128], path[256];
    checkpoint_name(name, step);
    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", folder);
    snprintf(path, sizeof path, "%s/%s", checkpoints, name);
    file_remove_tree(path, NULL);
    file_remove_tree(checkpoints, NULL);
    file_remove_tree(folder, NULL);
}

int bench_save(const struct bench_options *o, struct err *e)
{
    const struct backend_setup setup = {.n_sites = o->n_sites,
                                        .d_model = o->n_inputs / o->n_sites,
                                        .d_sae = o->d_sae,
                                        .batch_size = 1,
                                        .activation = "relu",
                                        .terms = {"l2", "l1"},
                                        .n_terms = 2};
    char folder[] = "bench-save-XXXXXX";
    double save_s[BENCH_MAX_REPS], verify_s[BENCH_MAX_REPS], plain_s[BENCH_MAX_REPS];
    size_t bytes = 0;
    struct backend *b = NULL;
    json_t *cfg = json_pack("{s:s}", "run", "00000000000000000000000000000000");
    void *piece = mem_alloc(1, PIECE, "piece of a file", e);
    if (!piece || backend_cpu.open(&b, &setup, e) ||
        initial_weights(b, &(struct initial_weights){.seed = 1, .dec_init_norm = 0.1}, e)) {
        /* e says it */
    } else if (!mkdtemp(folder)) {
        err_set(e, ERR_SYSTEM, "cannot make a folder here");
    } else {
        e->code = 0;
        for (size_t i = 0; i < o->reps && e->code == 0; i++, b->step++)
            measure(b, folder, cfg, piece, &bytes, &save_s[i], &verify_s[i], &plain_s[i], e);
        clean_up(folder, b->step - 1);
    }
    int rc = e->code;
    if (rc == 0) {
        double save = bench_median(save_s, o->reps), plain = bench_median(plain_s, o->reps),
               verify = bench_median(verify_s, o->reps), gb = (double)bytes * 1e-9;
        if (o->json)
            printf("{\"part\": \"save\", \"gb\": %.3f, \"save_s\": %.4f, \"plain_s\": %.4f, \"verify_cpu_s\": %.4f}\n",
                   gb, save, plain, verify);
        else
            printf(
                "checkpoint of %.2f GB: saved in %.2f s (%.2f GB/s), a plain file in %.2f s; verified with %.1f GB/s a "
                "core\n",
                gb, save, gb / save, plain, gb / verify);
    }
    if (b)
        backend_cpu.close(b);
    mem_free(piece);
    json_decref(cfg);
    return rc;
}
