/* json_file.c - JSON files by jansson; see json_file.h. */
#include "json_file.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "file_format.h"
#include "fingerprint.h"
#include "mem.h"

#define MAX_JSON ((size_t)64 << 20)

void json_use_mem(void)
{
    json_set_alloc_funcs(mem_raw_alloc, mem_raw_free);
}

int json_parse(const char *text, size_t size, size_t flags, json_t **value, const char *path, struct err *e)
{
    json_error_t where;
    *value = json_loadb(text, size, flags, &where);
    int rc = mem_raw_failed(path, e); /* asked first: jansson takes a string that it could not hold for a shorter one */
    const char *format = rc || *value ? NULL : file_format(text, size);
    if (format)
        rc = err_set(e, ERR_INPUT, "%s: not JSON but %s", path, format);
    else if (rc == 0 && !*value)
        rc = err_set(e, ERR_INPUT, "%s: not JSON, line %d, byte %d: %s", path, where.line, where.position, where.text);
    if (rc) {
        json_decref(*value);
        *value = NULL;
    }
    return rc;
}

char *json_text(const json_t *value, size_t flags, const char *what, struct err *e)
{
    if (mem_raw_failed(what, e))
        return NULL;
    if (!value) {
        err_set(e, ERR_INPUT, "%s: cannot be made: out of memory, or a text in it is not UTF-8", what);
        return NULL;
    }
    size_t size = json_dumpb(value, NULL, 0, flags);
    char *text = mem_alloc(size + 1, 1, what, e); /* the last byte ends it */
    if (text)
        json_dumpb(value, text, size, flags);
    if (mem_raw_failed(what, e)) {
        mem_free(text);
        return NULL;
    }
    return text;
}

#define FORMAT (JSON_INDENT(2) | JSON_REAL_PRECISION(17))

/* Writes the text and a newline as the file. */
static int write_text(const char *path, const char *text, struct file_digest *digest, struct err *e)
{
    struct file_out o;
    int rc = file_out_open(&o, path, e);
    if (rc == 0)
        rc = file_out_write(&o, text, strlen(text), e);
    if (rc == 0)
        rc = file_out_write(&o, "\n", 1, e);
    if (rc == 0)
        rc = file_out_commit(&o, e);
    else
        file_out_abandon(&o);
    *digest = o.digest;
    return rc;
}

int json_write_digest(const char *path, const json_t *value, struct file_digest *digest, struct err *e)
{
    char *text = json_text(value, FORMAT, path, e);
    if (!text)
        return e ? e->code : ERR_MEMORY;
    int rc = write_text(path, text, digest, e);
    mem_free(text);
    return rc;
}

int json_write(const char *path, const json_t *value, struct err *e)
{
    struct file_digest ignored;
    return json_write_digest(path, value, &ignored, e);
}

/* Parses a text that must be one object. */
static int parse_object(const char *text, size_t size, json_t **value, const char *path, struct err *e)
{
    int rc = json_parse(text, size, JSON_REJECT_DUPLICATES, value, path, e);
    if (rc)
        return rc;
    if (json_is_object(*value))
        return 0;
    json_decref(*value);
    *value = NULL;
    return err_set(e, ERR_INPUT, "%s: JSON, but not an object", path);
}

int json_read_object(const char *path, json_t **value, struct err *e)
{
    char *text;
    size_t size;
    *value = NULL;
    int rc = file_read_text(path, MAX_JSON, &text, &size, e);
    if (rc)
        return rc;
    rc = parse_object(text, size, value, path, e);
    mem_free(text);
    return rc;
}

/* ---- sealed files ---- */

#define SEAL_KEY "\"checksum\": \"" /* and then the digits, */
#define SEAL_END "\"\n}"            /* and a newline that ends the file */
#define SEAL_SIZE (sizeof SEAL_KEY - 1 + FINGERPRINT_SIZE - 1 + sizeof SEAL_END - 1)

static int hash_text(const char *text, size_t size, char hex[FINGERPRINT_SIZE], struct err *e)
{
    struct fingerprint f;
    if (fingerprint_init(&f, e))
        return ERR_MEMORY;
    fingerprint_add(&f, text, size);
    fingerprint_finish(&f, hex);
    return 0;
}

int json_write_sealed(const char *path, json_t *value, struct err *e)
{
    struct file_digest ignored;
    char hex[FINGERPRINT_SIZE];
    memset(hex, '0', sizeof hex - 1);
    hex[sizeof hex - 1] = '\0';
    json_object_set_new(value, "checksum", json_string(hex)); /* jansson writes members in the order of their setting */
    char *text = json_text(value, FORMAT, path, e);
    if (!text)
        return e ? e->code : ERR_MEMORY;
    size_t sealed = strlen(text) - SEAL_SIZE;
    int rc = hash_text(text, sealed, hex, e);
    if (rc == 0) {
        memcpy(text + sealed + sizeof SEAL_KEY - 1, hex, sizeof hex - 1);
        rc = write_text(path, text, &ignored, e);
    }
    mem_free(text);
    return rc;
}

/* Returns whether the text ends as a sealed file does, with this hash of what is before. */
static bool has_seal(const char *text, size_t size, const char *hex)
{
    char end[SEAL_SIZE + 2];
    snprintf(end, sizeof end, "%s%s%s\n", SEAL_KEY, hex, SEAL_END);
    return memcmp(text + size - strlen(end), end, strlen(end)) == 0;
}

int json_read_sealed(const char *path, json_t **value, bool *sealed, struct err *e)
{
    char *text, hex[FINGERPRINT_SIZE];
    size_t size;
    *value = NULL;
    *sealed = false;
    if (access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_set(e, ERR_ABSENT, "%s: there is no such file", path);
    int rc = file_read_text(path, MAX_JSON, &text, &size, e);
    if (rc == 0)
        rc = parse_object(text, size, value, path, e);
    if (rc == 0 && json_object_get(*value, "checksum")) {
        rc = size <= SEAL_SIZE ? ERR_INPUT : hash_text(text, size - SEAL_SIZE - 1, hex, e);
        *sealed = rc == 0 && has_seal(text, size, hex);
        if (rc == ERR_INPUT || (rc == 0 && !*sealed))
            rc = err_set(e, ERR_INPUT, "%s: its bytes have not the checksum at its end", path);
    }
    mem_free(text);
    if (rc) {
        json_decref(*value);
        *value = NULL;
    }
    if (rc == ERR_INPUT && e)
        e->code = ERR_DAMAGED;
    return rc == ERR_INPUT ? ERR_DAMAGED : rc;
}

bool json_file_has(const char *path, const char *key)
{
    struct err e;
    json_t *object;
    if (json_read_object(path, &object, &e))
        return false;
    bool has = json_object_get(object, key) != NULL;
    json_decref(object);
    return has;
}

json_t *json_real_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}
