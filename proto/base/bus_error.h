/* bus_error.h - a mapped file that is cut short while in use (or whose disk fails) ends the program with the file's name.
 *
 * The kernel reports such a read as SIGBUS. Nothing sensible can be computed from there on, and nothing on disk is
 * harmed: outputs are atomic (file.h). So the handler writes one line and exits 1, as main would. */
#ifndef CROSSFEED_BUS_ERROR_H
#define CROSSFEED_BUS_ERROR_H

#include <stddef.h>

/* For main; program (a literal) begins the line. Without it SIGBUS kills, as ever. */
void bus_error_catch(const char *program);

/* The map of file path is begin .. begin + size - 1; until it is forgotten. For file.c. Any thread. */
void bus_error_watch(const void *begin, size_t size, const char *path);
void bus_error_forget(const void *begin); /* before it is unmapped; one that is not watched is fine */

#endif
