/* checkpoint_manifest.c - see checkpoint_manifest.h. */
#include "checkpoint_manifest.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "file.h"
#include "json_file.h"
#include "mem.h"
#include "version.h"

#define PATH_SIZE 4096
#define FORMAT "crossfeed-checkpoint"
#define FORMAT_VERSION 1

struct file_digest *checkpoint_manifest_add(struct checkpoint_manifest *m, const char *name)
{
    assert(m->n_files < MANIFEST_MAX_FILES);
    struct checkpoint_file *f = &m->files[m->n_files++];
    snprintf(f->name, sizeof f->name, "%s", name);
    return &f->digest;
}

int checkpoint_manifest_write(const char *folder, const struct checkpoint_manifest *m, struct err *e)
{
    char path[PATH_SIZE];
    json_t *files = json_object();
    for (size_t i = 0; i < m->n_files; i++)
        json_object_set_new(files, m->files[i].name,
                            json_pack("{s:I, s:s}", "bytes", (json_int_t)m->files[i].digest.bytes, "xxh3",
                                      m->files[i].digest.fingerprint));
    json_t *manifest =
        json_pack("{s:s, s:i, s:s, s:s, s:I, s:o}", "format", FORMAT, "version", FORMAT_VERSION, "software",
                  CROSSFEED_SOFTWARE, "run", m->run, "step", (json_int_t)m->step, "files", files);
    int rc = file_join(path, sizeof path, folder, MANIFEST_NAME, e);
    if (rc == 0)
        rc = json_write_sealed(path, manifest, e);
    json_decref(manifest);
    return rc;
}

static int read_files(struct checkpoint_manifest *m, json_t *files, const char *path, struct err *e)
{
    const char *name, *fingerprint;
    json_t *entry;
    json_object_foreach(files, name, entry)
    {
        json_int_t bytes;
        if (json_unpack(entry, "{s:I, s:s}", "bytes", &bytes, "xxh3", &fingerprint) || bytes < 0 ||
            !fingerprint_is(fingerprint) || m->n_files == MANIFEST_MAX_FILES || strchr(name, '/') ||
            strlen(name) >= sizeof m->files[0].name)
            return mem_raw_failed(path, e) ? ERR_MEMORY
                                           : err_set(e, ERR_DAMAGED, "%s: file '%.80s' is no entry", path, name);
        struct file_digest *d = checkpoint_manifest_add(m, name);
        d->bytes = (size_t)bytes;
        memcpy(d->fingerprint, fingerprint, sizeof d->fingerprint);
    }
    return 0;
}

int checkpoint_manifest_read(const char *folder, struct checkpoint_manifest *m, struct err *e)
{
    char path[PATH_SIZE];
    json_t *manifest, *files;
    const char *format, *run;
    json_int_t step;
    int version;
    bool sealed;
    *m = (struct checkpoint_manifest){0};
    if (file_join(path, sizeof path, folder, MANIFEST_NAME, e) || json_read_sealed(path, &manifest, &sealed, e))
        return e->code;
    int lacking = json_unpack(manifest, "{s:s, s:i, s:s, s:I, s:o}", "format", &format, "version", &version, "run",
                              &run, "step", &step, "files", &files);
    int rc = mem_raw_failed(path, e);
    if (rc)
        ; /* memory is short, whatever was unpacked */
    else if (!sealed || lacking || strcmp(format, FORMAT) != 0 || !fingerprint_is(run) || step < 0 ||
             !json_is_object(files))
        rc = err_set(e, ERR_DAMAGED, "%s: not the manifest of a checkpoint", path);
    else if (version != FORMAT_VERSION)
        rc = err_set(e, ERR_INPUT, "%s: version %d, this program reads %d", path, version, FORMAT_VERSION);
    else
        rc = read_files(m, files, path, e);
    if (rc == 0) {
        memcpy(m->run, run, sizeof m->run);
        m->step = (uint64_t)step;
    }
    json_decref(manifest);
    return rc;
}

int checkpoint_manifest_verify(const char *folder, const struct checkpoint_manifest *m, struct err *e)
{
    char path[PATH_SIZE];
    for (size_t i = 0; i < m->n_files; i++)
        if (file_join(path, sizeof path, folder, m->files[i].name, e) ||
            file_digest_verify(path, &m->files[i].digest, e))
            return e->code;
    return 0;
}

size_t checkpoint_manifest_bytes(const struct checkpoint_manifest *m)
{
    size_t bytes = 0;
    for (size_t i = 0; i < m->n_files; i++)
        bytes += m->files[i].digest.bytes;
    return bytes;
}
