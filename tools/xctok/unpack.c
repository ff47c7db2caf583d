/* unpack.c - reads, looks at the first bytes, and lets the codec do the rest; see unpack.h. */
#include "unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "codec.h"
#include "file_format.h"
#include "mem.h"

enum { PIECE = 1 << 18 };

size_t codec_memory = (size_t)2 << 30;

/* Each format that can be unpacked, its option in CMakeLists.txt, and its codec if the build has it. */
static const struct {
    const char *format, *option;
    const struct codec *codec;
} known[] = {
#ifdef CROSSFEED_GZIP
    {"gzip", "CROSSFEED_GZIP", &codec_gzip},
#else
    {"gzip", "CROSSFEED_GZIP", NULL},
#endif
#ifdef CROSSFEED_ZSTD
    {"zstd", "CROSSFEED_ZSTD", &codec_zstd},
#else
    {"zstd", "CROSSFEED_ZSTD", NULL},
#endif
#ifdef CROSSFEED_XZ
    {"xz", "CROSSFEED_XZ", &codec_xz},
#else
    {"xz", "CROSSFEED_XZ", NULL},
#endif
};

struct unpack {
    const char *path; /* for messages */
    const volatile sig_atomic_t *stop;
    int fd;
    unsigned char *buffer;     /* [PIECE] */
    struct codec_bytes in;     /* of it, not taken yet */
    bool end;                  /* of the file */
    const struct codec *codec; /* NULL: not packed */
    void *state;
    bool ended;  /* the codec could end here */
    bool looked; /* at the first bytes unpacked */
};

/* Reads once, behind what is in the buffer. */
static int fill(struct unpack *u, struct err *e)
{
    if (u->in.n)
        memmove(u->buffer, u->in.p, u->in.n);
    u->in.p = u->buffer;
    ssize_t n;
    do
        n = read(u->fd, u->buffer + u->in.n, PIECE - u->in.n);
    while (n < 0 && errno == EINTR && !(u->stop && *u->stop));
    if (n < 0 && errno == EINTR)
        return err_set(e, ERR_STOPPED, "%s: stopped while it was read", u->path);
    if (n < 0)
        return err_errno(e, errno, "%s: cannot read", u->path);
    u->in.n += (size_t)n;
    u->end = n == 0;
    return 0;
}

/* Chooses the codec for the bytes at the file's beginning. */
static int choose(struct unpack *u, struct err *e)
{
    const char *format = file_format(u->in.p, u->in.n);
    if (!format)
        return 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(format, known[i].format) != 0)
            continue;
        u->codec = known[i].codec;
        if (!u->codec)
            return err_set(e, ERR_INPUT, "%s: is %s, and this program was built without it (%s=OFF)", u->path, format,
                           known[i].option);
        u->state = u->codec->open(u->path, e);
        return u->state ? 0 : e->code;
    }
    return err_set(e, ERR_INPUT, "%s: is %s, not text", u->path, format);
}

struct unpack *unpack_open(const char *path, const volatile sig_atomic_t *stop, struct err *e)
{
    struct unpack *u = mem_alloc(1, sizeof *u, path, e);
    if (!u)
        return NULL;
    bool standard = strcmp(path, "-") == 0;
    *u = (struct unpack){.path = standard ? "standard input" : path, .stop = stop, .fd = STDIN_FILENO};
    if (!standard && (u->fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        err_errno(e, errno, "%s: cannot open", path);
    else if ((u->buffer = mem_alloc(PIECE, 1, path, e))) {
        int rc = 0;
        while (rc == 0 && !u->end && u->in.n < FILE_FORMAT_HEAD)
            rc = fill(u, e);
        if (rc == 0 && choose(u, e) == 0)
            return u;
    }
    unpack_close(u);
    return NULL;
}

/* Runs the codec until it has given this many bytes or more, or the file ends. */
static int run(struct unpack *u, struct codec_bytes *out, size_t least, struct err *e)
{
    size_t room = out->n;
    while (room - out->n < least) {
        if (u->in.n == 0 && !u->end && fill(u, e))
            return e->code;
        while (u->ended && u->in.n && *u->in.p == 0) { /* padding behind it, of tapes and block devices */
            u->in.p++;
            u->in.n--;
        }
        if (u->in.n == 0 && !u->end)
            continue;
        if (u->in.n == 0 && u->end)
            return u->ended ? 0 : err_set(e, ERR_INPUT, "%s: the %s is cut short", u->path, u->codec->format);
        if (u->codec->run(u->state, &u->in, out, &u->ended, e))
            return e->code;
    }
    return 0;
}

static int read_plain(struct unpack *u, char *dst, size_t size, size_t *n, struct err *e)
{
    if (u->in.n == 0 && !u->end && fill(u, e))
        return e->code;
    *n = u->in.n < size ? u->in.n : size;
    memcpy(dst, u->in.p, *n);
    u->in.p += *n;
    u->in.n -= *n;
    return 0;
}

int unpack_read(struct unpack *u, char *dst, size_t size, size_t *n, struct err *e)
{
    *n = 0;
    if (!u->codec)
        return read_plain(u, dst, size, n, e);
    struct codec_bytes out = {(unsigned char *)dst, size};
    if (run(u, &out, u->looked || size < FILE_FORMAT_HEAD ? 1 : FILE_FORMAT_HEAD, e))
        return e->code;
    *n = size - out.n;
    const char *inside = u->looked ? NULL : file_format(dst, *n);
    u->looked = true;
    return inside ? err_set(e, ERR_INPUT, "%s: in the %s is %s, not text", u->path, u->codec->format, inside) : 0;
}

void unpack_close(struct unpack *u)
{
    if (!u)
        return;
    if (u->state)
        u->codec->close(u->state);
    if (u->fd > STDIN_FILENO)
        close(u->fd);
    mem_free(u->buffer);
    mem_free(u);
}
