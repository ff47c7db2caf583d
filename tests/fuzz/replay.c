/* replay.c - main for a fuzz target in the ordinary tests: runs it over files, and over all files of folders.
 *
 * Each input is a heap block of just its size, so that AddressSanitizer sees a read past its end. */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

static size_t n_run;

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    MUST(f && fseek(f, 0, SEEK_END) == 0);
    long size = ftell(f);
    MUST(size >= 0 && fseek(f, 0, SEEK_SET) == 0);
    uint8_t *data = malloc(size ? (size_t)size : 1);
    MUST(data && fread(data, 1, (size_t)size, f) == (size_t)size);
    fclose(f);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    n_run++;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        struct dirent **names;
        struct stat st;
        MUST(stat(argv[i], &st) == 0);
        if (!S_ISDIR(st.st_mode)) {
            run_file(argv[i]);
            continue;
        }
        int n = scandir(argv[i], &names, NULL, alphasort);
        MUST(n >= 0);
        for (int k = 0; k < n; k++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], names[k]->d_name);
            if (names[k]->d_name[0] != '.')
                run_file(path);
            free(names[k]);
        }
        free(names);
    }
    printf("%zu inputs\n", n_run);
    return n_run ? 0 : 1; /* a corpus that is not there must not pass */
}
