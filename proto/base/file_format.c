/* file_format.c - magic numbers; see file_format.h. */
#include "file_format.h"

#include <string.h>

static const struct {
    const char *name, *magic;
    size_t n, offset;
} formats[] = {
    {"gzip", "\x1f\x8b\x08", 3, 0},        {"zstd", "\x28\xb5\x2f\xfd", 4, 0},
    {"zstd", "\x2a\x4d\x18", 3, 1}, /* a frame to be skipped, as pzstd begins */
    {"xz", "\xfd\x37zXZ", 6, 0},           {"bzip2", "1AY&SY", 6, 4},
    {"lz4", "\x04\x22\x4d\x18", 4, 0},     {"snappy", "\xff\x06\0\0sNaPpY", 10, 0},
    {"a zip archive", "PK\x03\x04", 4, 0}, {"a 7z archive", "7z\xbc\xaf\x27\x1c", 6, 0},
    {"a tar archive", "ustar", 5, 257},    {"Parquet", "PAR1\x15", 5, 0},
    {"Arrow", "ARROW1\0", 7, 0},           {"HDF5", "\x89HDF\r\n\x1a\n", 8, 0},
    {"GGUF", "GGUF\x03\0\0\0", 8, 0},      {"NumPy's .npy", "\x93NUMPY", 6, 0},
};

const char *file_format(const void *head, size_t n)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (n >= formats[i].offset + formats[i].n &&
            memcmp((const char *)head + formats[i].offset, formats[i].magic, formats[i].n) == 0)
            return formats[i].name;
    return NULL;
}
