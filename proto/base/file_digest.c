/* file_digest.c - see file_digest.h. */
#include "file_digest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem.h"

#define PIECE ((size_t)256 << 10) /* small enough to stay in the processor's cache between the read and the hash */

/* Digests what is left of an open file. */
static int read_all(int fd, const char *path, struct file_digest *d, struct err *e)
{
    struct fingerprint f;
    unsigned char *piece = mem_alloc(1, PIECE, path, e);
    if (!piece || fingerprint_init(&f, e)) {
        mem_free(piece);
        return ERR_MEMORY;
    }
    ssize_t n;
    for (d->bytes = 0; (n = read(fd, piece, PIECE)) > 0; d->bytes += (size_t)n)
        fingerprint_add(&f, piece, (size_t)n);
    int rc = n == 0 ? 0 : err_errno(e, errno, "%s: cannot read", path);
    if (n < 0 && errno == EIO)
        rc = err_set(e, ERR_DAMAGED, "%s: its disk cannot read it", path);
    fingerprint_finish(&f, d->fingerprint);
    mem_free(piece);
    return rc;
}

int file_digest_read(const char *path, struct file_digest *d, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe must not hold it up */
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_set(e, ERR_ABSENT, "%s: there is no such file", path);
    if (fd < 0)
        return err_errno(e, errno, "%s: cannot open", path);
    int rc;
    if (fstat(fd, &st) < 0)
        rc = err_errno(e, errno, "%s: cannot stat", path);
    else if (!S_ISREG(st.st_mode))
        rc = err_set(e, ERR_DAMAGED, "%s: not a regular file", path);
    else
        rc = read_all(fd, path, d, e);
    close(fd);
    return rc;
}

int file_digest_verify(const char *path, const struct file_digest *expected, struct err *e)
{
    struct file_digest d;
    int rc = file_digest_read(path, &d, e);
    if (rc == ERR_ABSENT)
        return err_set(e, ERR_DAMAGED, "%s: is missing, should have %zu bytes", path, expected->bytes);
    if (rc)
        return rc;
    if (d.bytes != expected->bytes)
        return err_set(e, ERR_DAMAGED, "%s: %zu bytes, should have %zu", path, d.bytes, expected->bytes);
    if (strcmp(d.fingerprint, expected->fingerprint) != 0)
        return err_set(e, ERR_DAMAGED, "%s: checksum %s, should be %s", path, d.fingerprint, expected->fingerprint);
    return 0;
}
