/* cli.h - what the programs' command lines share: numbers with a range, and a flag that SIGINT and SIGTERM set. */
#ifndef CROSSFEED_CLI_H
#define CROSSFEED_CLI_H

#include <argp.h>
#include <signal.h>
#include <stdint.h>

/* A whole number from low to high; "4e8" is one too. Else argp_error (exit 2) naming --what, the text and the range. */
uint64_t cli_whole(const char *text, uint64_t low, uint64_t high, const char *what, struct argp_state *state);
double cli_number(const char *text, double low, double high, const char *what, struct argp_state *state);

/* Set once SIGINT or SIGTERM has come, after cli_catch_signals; SIGPIPE is ignored from then on. */
extern volatile sig_atomic_t cli_stop;
void cli_catch_signals(void);

#endif
