/* xcverify.c - says whether what a run or a recording has on disk is what was written, to the bit.
 *
 * A folder is a run (it has checkpoints/ or run.json), a checkpoint (its name is step_ and digits) or a recording (a manifest.json without
 * these). All files that a manifest names are read. It changes nothing, and may look at a run that is going on. A line an object, on standard
 * output. Exit status: 0 all is sound, 1 something is damaged or cannot be read, 2 usage. */
#include <argp.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bus_error.h"
#include "checkpoint.h"
#include "checkpoint_folder.h"
#include "file.h"
#include "json_file.h"
#include "log.h"
#include "recording.h"
#include "run_identity.h"
#include "version.h"

#define PATH_SIZE 4096
#define MAX_FOLDERS 64

const char *argp_program_version = "xcverify " CROSSFEED_VERSION;

static const char doc[] =
    "Compares checkpoints, results and recordings with their checksums.\v"
    "FOLDER is what xctrain's --out or actgen's --record named, or one of a run's checkpoints. Checkpoints that were "
    "set aside are not looked at. A checkpoint that is older than checksums is said to have none.";

struct arguments {
    const char *folders[MAX_FOLDERS];
    size_t n;
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *a = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (a->n == MAX_FOLDERS)
            argp_error(state, "more than %d folders", MAX_FOLDERS);
        a->folders[a->n++] = text;
        return 0;
    case ARGP_KEY_END:
        if (a->n == 0)
            argp_error(state, "nothing to look at");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What has been found so far. */
struct found {
    size_t sound, damaged;
    char run[FINGERPRINT_SIZE]; /* of the folder; "": it does not say */
};

/* Counts an object and prints its line; e: why it is not sound. Damage is no error of this program: others are looked at, too. Returns 0 or
 * ERR_MEMORY. */
static int tell(struct found *f, const char *path, int rc, const char *what, const struct err *e)
{
    if (rc == 0)
        printf("sound    %s%s\n", path, what);
    else
        printf("DAMAGED  %s: %s\n", path, e->message);
    f->sound += rc == 0;
    f->damaged += rc != 0;
    return rc == ERR_MEMORY ? rc : 0;
}

static int verify_checkpoint(void *context, const char *path, struct err *e)
{
    struct found *f = context;
    struct checkpoint_id id;
    char what[128] = ": no manifest, as it is older than these; not verified";
    int rc = checkpoint_identify(path, &id, e);
    if (rc == 0)
        rc = checkpoint_verify(path, &id, e);
    if (rc == 0 && id.has_manifest)
        snprintf(what, sizeof what, ": %.1f MB", (double)checkpoint_manifest_bytes(&id.manifest) / 1e6);
    if (rc == 0 && *f->run && *id.run && strcmp(f->run, id.run) != 0)
        snprintf(what, sizeof what, ": of another run, %s; ignored by this one", id.run);
    return tell(f, path, rc, what, e);
}

/* Verifies the files that a finished run has beside its checkpoints. */
static int verify_results(struct found *f, const char *folder, struct err *e)
{
    struct checkpoint_manifest m;
    char what[128] = "";
    int rc = checkpoint_manifest_read(folder, &m, e);
    if (rc == ERR_ABSENT)
        return 0;
    if (rc == 0)
        rc = checkpoint_manifest_verify(folder, &m, e);
    if (rc == 0 && *f->run && strcmp(f->run, m.run) != 0)
        rc = err_set(e, ERR_DAMAGED, "its results are of run %s, the folder is of %s", m.run, f->run);
    if (rc == 0)
        snprintf(what, sizeof what, ": results of step %" PRIu64 ", %.1f MB", m.step,
                 (double)checkpoint_manifest_bytes(&m) / 1e6);
    return tell(f, folder, rc, what, e);
}

static int verify_run(struct found *f, const char *folder, struct err *e)
{
    char path[PATH_SIZE];
    int rc = run_identity_read(folder, f->run, e);
    if (rc && rc != ERR_ABSENT &&
        (file_join(path, sizeof path, folder, RUN_IDENTITY_NAME, e) || tell(f, path, rc, "", e)))
        return e->code;
    return verify_results(f, folder, e) ? e->code : checkpoint_for_each(folder, verify_checkpoint, f, e);
}

static int verify_recording(struct found *f, const char *folder, struct err *e)
{
    struct recording r;
    char what[128];
    int rc = recording_open(&r, folder, e);
    if (rc)
        return tell(f, folder, rc, "", e);
    size_t before = f->damaged;
    for (uint32_t i = 0; i < r.n_shards && rc == 0; i++) {
        int found = recording_has(&r, i) ? recording_verify_shard(&r, i, e) : 0;
        if (found)
            rc = tell(f, folder, found, "", e);
    }
    snprintf(what, sizeof what, ": %" PRIu32 " of %" PRIu32 " shards recorded", r.n_recorded, r.n_shards);
    recording_close(&r);
    return rc || f->damaged > before ? rc : tell(f, folder, 0, what, e);
}

static bool has(const char *folder, const char *name)
{
    char path[PATH_SIZE];
    return file_join(path, sizeof path, folder, name, NULL) == 0 && access(path, F_OK) == 0;
}

static int verify(struct found *f, const char *folder, struct err *e)
{
    char path[PATH_SIZE];
    size_t n = strlen(folder), before = f->sound + f->damaged;
    while (n > 1 && folder[n - 1] == '/')
        n--;
    snprintf(path, sizeof path, "%.*s", (int)(n < sizeof path ? n : 0), folder);
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    bool step = strncmp(base, "step_", 5) == 0 && base[5] && !base[5 + strspn(base + 5, "0123456789")];
    *f->run = '\0';
    int rc = step                                                       ? verify_checkpoint(f, path, e)
             : has(path, "checkpoints") || has(path, RUN_IDENTITY_NAME) ? verify_run(f, path, e)
             : has(path, "manifest.json")                               ? verify_recording(f, path, e)
                                                                        : 0;
    if (rc == 0 && f->sound + f->damaged == before)
        rc = err_set(e, ERR_INPUT, "%s: has no checkpoint, no results and no recording", folder);
    return rc;
}

int main(int argc, char **argv)
{
    static struct arguments a;
    struct argp argp = {NULL, parse, "FOLDER...", doc, NULL, NULL, NULL};
    struct found f = {0};
    struct err e = {0};
    log_init("xcverify");
    bus_error_catch("xcverify");
    json_use_mem();
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, &a);

    int rc = 0;
    for (size_t i = 0; i < a.n && rc == 0; i++)
        rc = verify(&f, a.folders[i], &e);
    if (rc == 0 && (fflush(stdout) != 0 || ferror(stdout)))
        rc = err_set(&e, ERR_SYSTEM, "cannot write to standard output");
    if (rc == 0 && f.damaged)
        rc = err_set(&e, ERR_DAMAGED, "%zu of %zu are damaged", f.damaged, f.sound + f.damaged);
    if (rc)
        log_line("error: %s", e.message);
    return rc ? 1 : 0;
}
