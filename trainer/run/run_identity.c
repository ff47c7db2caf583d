/* run_identity.c - see run_identity.h. */
#include "run_identity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "file.h"
#include "json_file.h"
#include "log.h"
#include "version.h"

#define PATH_SIZE 4096

int run_identity_read(const char *out, char run[FINGERPRINT_SIZE], struct err *e)
{
    char path[PATH_SIZE];
    json_t *identity;
    bool sealed;
    if (file_join(path, sizeof path, out, RUN_IDENTITY_NAME, e) || json_read_sealed(path, &identity, &sealed, e))
        return e->code;
    const char *text = json_string_value(json_object_get(identity, "run"));
    int rc = 0;
    if (sealed && text && fingerprint_is(text))
        memcpy(run, text, FINGERPRINT_SIZE);
    else
        rc = err_set(e, ERR_DAMAGED, "%s: does not name a run", path);
    json_decref(identity);
    return rc;
}

int run_identity_write(const char *out, const char *run, struct err *e)
{
    char path[PATH_SIZE];
    json_t *identity = json_pack("{s:s, s:s}", "software", CROSSFEED_SOFTWARE, "run", run);
    int rc = file_join(path, sizeof path, out, RUN_IDENTITY_NAME, e);
    if (rc == 0)
        rc = json_write_sealed(path, identity, e);
    json_decref(identity);
    return rc;
}

int run_identity_check(const char *out, int folder, const char *run, struct err *e)
{
    struct stat now, ours;
    char found[FINGERPRINT_SIZE];
    if (stat(out, &now) != 0)
        return err_errno(e, errno, "%s: the run's folder is gone (renamed or removed?)", out);
    if (fstat(folder, &ours) != 0)
        return err_errno(e, errno, "%s: cannot stat", out);
    if (now.st_dev != ours.st_dev || now.st_ino != ours.st_ino)
        return err_set(e, ERR_SYSTEM, "%s: another folder has taken the place of the run's (inode %llu, was %llu)", out,
                       (unsigned long long)now.st_ino, (unsigned long long)ours.st_ino);
    if (!run)
        return 0;
    int rc = run_identity_read(out, found, e);
    if (rc == ERR_ABSENT || rc == ERR_DAMAGED) { /* it is our folder all the same: nobody else could lock it */
        rc = run_identity_write(out, run, e);
        if (rc == 0)
            log_line("%s/" RUN_IDENTITY_NAME " was removed or damaged: it is written again", out);
        return rc;
    }
    if (rc)
        return rc;
    if (strcmp(found, run) != 0)
        return err_set(e, ERR_SYSTEM, "%s: is the folder of run %s now, was of %s", out, found, run);
    return 0;
}
