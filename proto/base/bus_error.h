/* bus_error.h - a mapped file that is cut short while in use (or whose disk fails) ends the program with the file's
 * name.
 *
 * The kernel reports such a read as SIGBUS. Nothing sensible can be computed from there on, and nothing on disk is
 * harmed: outputs are atomic (file.h). So the handler writes one line and exits 1, as main would. */
#ifndef CROSSFEED_BUS_ERROR_H
#define CROSSFEED_BUS_ERROR_H

#include <stddef.h>

/* Installs the handler; main calls it once. program (a literal) begins the line. Without this call SIGBUS kills, as
 * ever. */
void bus_error_catch(const char *program);

/* Notes that file path is mapped at begin .. begin + size - 1, until bus_error_forget(begin). file.c calls it. Any
 * thread may. */
void bus_error_watch(const void *begin, size_t size, const char *path);
/* Forgets a map that is about to be unmapped; one that is not watched is fine. */
void bus_error_forget(const void *begin);

#endif
