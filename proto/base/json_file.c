/* json_file.c - JSON files by jansson; see json_file.h. */
#include "json_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "file.h"

#define MAX_JSON ((size_t)64 << 20)

int json_write(const char *path, const json_t *value, struct err *e)
{
    struct file_out o;
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    if (!text)
        return err_set(e, ERR_MEMORY, "%s: out of memory", path);
    int rc = file_out_open(&o, path, e);
    if (rc == 0)
        rc = file_out_write(&o, text, strlen(text), e);
    if (rc == 0)
        rc = file_out_write(&o, "\n", 1, e);
    if (rc == 0)
        rc = file_out_commit(&o, e);
    else
        file_out_abandon(&o);
    free(text);
    return rc;
}

int json_read_object(const char *path, json_t **value, struct err *e)
{
    char *text;
    size_t size;
    json_error_t bad;
    *value = NULL;
    if (file_read_text(path, MAX_JSON, &text, &size, e))
        return e->code;
    *value = json_loadb(text, size, JSON_REJECT_DUPLICATES, &bad);
    free(text);
    if (json_is_object(*value))
        return 0;
    json_decref(*value);
    *value = NULL;
    return err_set(e, ERR_INPUT, "%s: not a JSON object: %s (line %d)", path, bad.text, bad.line);
}

json_t *json_real_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}
