/* curve_keys.c - makes, writes and reads CURVE keys; see curve_keys.h. ZeroMQ has the arithmetic. */
#include "curve_keys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zmq.h>

#include "file.h"
#include "mem.h"

#define MAX_FILE_BYTES ((size_t)1 << 20)

int curve_pair_make(struct curve_pair *p, struct err *e)
{
    if (zmq_curve_keypair(p->public_key, p->secret_key) != 0)
        return err_set(e, ERR_SYSTEM, "cannot make a CURVE key pair: %s", zmq_strerror(errno));
    return 0;
}

/* Writes text to NAME.ending; with text NULL it only checks that no such file is there. */
static int write_key_file(const char *name, const char *ending, mode_t mode, const char *text, struct err *e)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s.%s", name, ending) >= sizeof path)
        return err_set(e, ERR_INPUT, "%.80s...: longer than a path may be", name);
    if (access(path, F_OK) == 0)
        return err_errno(e, EEXIST, "%s: not overwritten", path);
    return text ? file_write_new(path, mode, text, strlen(text), e) : 0;
}

int curve_pair_write(const struct curve_pair *p, const char *name, struct err *e)
{
    char secret[512], public[512];
    snprintf(public, sizeof public, "# Crossfeed CURVE public key; for the other side\npublic %s\n", p->public_key);
    snprintf(secret, sizeof secret,
             "# Crossfeed CURVE key pair; whoever can read this file can pass for this machine\nsecret %s\npublic %s\n",
             p->secret_key, p->public_key);
    int rc = write_key_file(name, "public", 0644, NULL, e);
    if (rc == 0)
        rc = write_key_file(name, "secret", 0600, secret, e);
    explicit_bzero(secret, sizeof secret);
    return rc ? rc : write_key_file(name, "public", 0644, public, e);
}

/* ---- reading ---- */

struct line {
    const char *path;
    unsigned number;
    char *kind, *key; /* NULL: the line has none */
    char *next;       /* where the next line begins; NULL: there is none */
};

/* Cuts the line at l->next into its words. A key that has no word before it is taken for a public one. */
static void cut_line(struct line *l)
{
    static char public[] = "public";
    char *text = l->next, *end = text + strcspn(text, "\r\n"), *rest;
    l->next = *end ? end + strspn(end, "\r") + (end[strspn(end, "\r")] == '\n') : NULL;
    *end = '\0';
    l->number++;
    l->kind = l->key = NULL;
    if (text[0] == '#')
        return;
    char *first = strtok_r(text, " \t", &rest);
    if (!first)
        return;
    bool named = strcmp(first, "public") == 0 || strcmp(first, "secret") == 0;
    l->kind = named ? first : public;
    l->key = named ? strtok_r(NULL, " \t", &rest) : first;
}

static bool is_key(const char *text)
{
    unsigned char bytes[32];
    bool good = strlen(text) == CURVE_KEY_SIZE - 1 && zmq_z85_decode(bytes, text);
    explicit_bzero(bytes, sizeof bytes);
    return good;
}

static int take_key(const struct line *l, char key[CURVE_KEY_SIZE], struct err *e)
{
    size_t size = l->key ? strlen(l->key) : 0;
    if (size != CURVE_KEY_SIZE - 1)
        return err_set(e, ERR_INPUT, "%s: line %u: a %s key of %zu characters, must be %d", l->path, l->number, l->kind,
                       size, CURVE_KEY_SIZE - 1);
    if (!is_key(l->key))
        return err_set(e, ERR_INPUT, "%s: line %u: not a key: its %d characters are not all of Z85", l->path, l->number,
                       CURVE_KEY_SIZE - 1);
    memcpy(key, l->key, CURVE_KEY_SIZE);
    return 0;
}

/* Checks that nobody but its owner may read the file. */
static int check_private(const char *path, struct err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(e, errno, "%s: cannot open", path);
    int rc = fstat(fd, &st) < 0 ? err_errno(e, errno, "%s: cannot stat", path) : 0;
    close(fd);
    if (rc == 0 && S_ISREG(st.st_mode) && (st.st_mode & 077))
        return err_set(e, ERR_INPUT, "%s: mode %04o lets others at the secret key, must be 0600 (chmod 600)", path,
                       (unsigned)st.st_mode & 07777);
    return rc;
}

int curve_pair_read(struct curve_pair *p, const char *path, struct err *e)
{
    char *text, belongs[CURVE_KEY_SIZE];
    size_t size;
    *p = (struct curve_pair){0};
    if (check_private(path, e) || file_read_text(path, MAX_FILE_BYTES, &text, &size, e))
        return e->code;
    assert(text);
    struct line l = {.path = path, .next = text};
    int rc = 0;
    while (rc == 0 && l.next) {
        cut_line(&l);
        char *key = l.kind && *l.kind == 's' ? p->secret_key : p->public_key;
        if (l.kind && *key)
            rc = err_set(e, ERR_INPUT, "%s: line %u: a second %s key", path, l.number, l.kind);
        else if (l.kind)
            rc = take_key(&l, key, e);
    }
    explicit_bzero(text, size);
    mem_free(text);
    if (rc == 0 && !*p->secret_key)
        rc = err_set(e, ERR_INPUT, "%s: has no line 'secret KEY'", path);
    if (rc == 0 && zmq_curve_public(belongs, p->secret_key) != 0)
        rc = err_set(e, ERR_SYSTEM, "%s: cannot work out the public key: %s", path, zmq_strerror(errno));
    if (rc == 0 && *p->public_key && strcmp(p->public_key, belongs) != 0)
        /* the line's own key is not shown, because it may be the secret key once more */
        rc = err_set(e, ERR_INPUT, "%s: its public key does not belong to its secret key, %s would", path, belongs);
    if (rc == 0)
        memcpy(p->public_key, belongs, sizeof belongs);
    else
        explicit_bzero(p, sizeof *p);
    return rc;
}

int curve_public_each(const char *path, int (*each)(void *context, const char *key, struct err *e), void *context,
                      struct err *e)
{
    char *text, key[CURVE_KEY_SIZE];
    size_t size, n = 0;
    if (file_read_text(path, MAX_FILE_BYTES, &text, &size, e))
        return e->code;
    assert(text);
    struct line l = {.path = path, .next = text};
    int rc = 0;
    while (rc == 0 && l.next) {
        cut_line(&l);
        if (!l.kind)
            continue;
        if (*l.kind == 's')
            rc = err_set(e, ERR_INPUT, "%s: line %u: a secret key, must be public ones only", path, l.number);
        else if ((rc = take_key(&l, key, e)) == 0)
            rc = each(context, key, e);
        n++;
    }
    explicit_bzero(text, size);
    mem_free(text);
    return rc == 0 && n == 0 ? err_set(e, ERR_ABSENT, "%s: has no line 'public KEY'", path) : rc;
}

struct only {
    const char *path;
    char *key;
};

static int take_only(void *context, const char *key, struct err *e)
{
    const struct only *o = context;
    if (*o->key)
        return err_set(e, ERR_INPUT, "%s: more than one public key, must be one", o->path);
    memcpy(o->key, key, CURVE_KEY_SIZE);
    return 0;
}

int curve_public_read(char key[CURVE_KEY_SIZE], const char *text, struct err *e)
{
    struct only only = {text, key};
    *key = '\0';
    if (access(text, F_OK) != 0 && is_key(text)) {
        memcpy(key, text, CURVE_KEY_SIZE);
        return 0;
    }
    return curve_public_each(text, take_only, &only, e);
}
