/* cli.c - see cli.h. */
#include "cli.h"

#include <stdlib.h>

uint64_t cli_whole(const char *text, uint64_t low, uint64_t high, const char *what, struct argp_state *state)
{
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= (double)low && x <= (double)high) || x != (double)(uint64_t)x)
        argp_error(state, "--%s '%s': must be a whole number from %llu to %llu", what, text, (unsigned long long)low,
                   (unsigned long long)high);
    return (uint64_t)x;
}

double cli_number(const char *text, double low, double high, const char *what, struct argp_state *state)
{
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= low && x <= high))
        argp_error(state, "--%s '%s': must be a number from %g to %g", what, text, low, high);
    return x;
}

volatile sig_atomic_t cli_stop;

static void on_signal(int number)
{
    (void)number;
    cli_stop = 1;
}

void cli_catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}
