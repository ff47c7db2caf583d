/* fuzz_keys.c - any file as a key pair, as a public key and as an allow-list; its bytes also as a key given in its place.
 * No message may show a secret key that was read. */
#include <sys/stat.h>

#include "allow_list.h"
#include "curve_keys.h"
#include "fuzz.h"

/* Whether the message holds the first token after a line's "secret". */
static bool tells(const char *message, const char *text)
{
    const char *at = strstr(text, "secret ");
    char key[CURVE_KEY_SIZE];
    if (!at || strlen(at + 7) < CURVE_KEY_SIZE - 1)
        return false;
    memcpy(key, at + 7, CURVE_KEY_SIZE - 1);
    key[CURVE_KEY_SIZE - 1] = '\0';
    return strlen(key) == strcspn(key, " \t\r\n") && strstr(message, key);
}

static void expect(int result, const struct err *e, const char *text)
{
    if (result)
        MUST(e->code && e->message[0] && !tells(e->message, text));
}

static int count(void *context, const char *key, struct err *e)
{
    (void)e;
    MUST(strlen(key) == CURVE_KEY_SIZE - 1);
    ++*(size_t *)context;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct curve_pair p;
    struct err e = {0};
    struct allow_list allowed = {0};
    char key[CURVE_KEY_SIZE];
    size_t n = 0;
    const char *path = fuzz_file(0, data, size);
    char *text = malloc(size + 1);
    MUST(text && chmod(path, 0600) == 0);
    memcpy(text, data, size);
    text[size] = '\0';

    int rc = curve_pair_read(&p, path, &e);
    expect(rc, &e, text);
    MUST(rc || (strlen(p.public_key) == CURVE_KEY_SIZE - 1 && strlen(p.secret_key) == CURVE_KEY_SIZE - 1));
    rc = curve_public_read(key, path, &e);
    expect(rc, &e, text);
    MUST(rc || strlen(key) == CURVE_KEY_SIZE - 1);
    expect(curve_public_each(path, count, &n, &e), &e, text);
    rc = allow_list_init(&allowed, path, &e);
    expect(rc, &e, text);
    MUST(rc || (allowed.n && allow_list_has(&allowed, allowed.keys[allowed.n - 1].key)));
    allow_list_release(&allowed);
    if (!strchr(text, '/') && size < 256)
        curve_public_read(key, text, &e);
    free(text);
    return 0;
}
