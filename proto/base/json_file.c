/* json_file.c - JSON files by jansson; see json_file.h. */
#include "json_file.h"

#include <math.h>
#include <string.h>

#include "file.h"
#include "file_format.h"
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

int json_write(const char *path, const json_t *value, struct err *e)
{
    struct file_out o;
    char *text = json_text(value, JSON_INDENT(2) | JSON_REAL_PRECISION(17), path, e);
    if (!text)
        return e ? e->code : ERR_MEMORY;
    int rc = file_out_open(&o, path, e);
    if (rc == 0)
        rc = file_out_write(&o, text, strlen(text), e);
    if (rc == 0)
        rc = file_out_write(&o, "\n", 1, e);
    if (rc == 0)
        rc = file_out_commit(&o, e);
    else
        file_out_abandon(&o);
    mem_free(text);
    return rc;
}

int json_read_object(const char *path, json_t **value, struct err *e)
{
    char *text;
    size_t size;
    *value = NULL;
    int rc = file_read_text(path, MAX_JSON, &text, &size, e);
    if (rc)
        return rc;
    rc = json_parse(text, size, JSON_REJECT_DUPLICATES, value, path, e);
    mem_free(text);
    if (rc)
        return rc;
    if (json_is_object(*value))
        return 0;
    json_decref(*value);
    *value = NULL;
    return err_set(e, ERR_INPUT, "%s: JSON, but not an object", path);
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
