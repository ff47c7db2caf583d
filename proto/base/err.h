/* err.h - the one error value of the project.
 *
 * A function that can fail returns 0 or a negative code and fills `struct err` with the same code and one line for a
 * person that names the object and both values ("site 3: d_model 768, run has 1024"). Only main prints it and exits.
 * assert() is for programmer errors; input, memory and the outside world go through here. */
#ifndef CROSSFEED_ERR_H
#define CROSSFEED_ERR_H

enum err_code {
    ERR_OK = 0,
    ERR_INPUT = -1,    /* a file, frame or value from outside is wrong */
    ERR_SYSTEM = -2,   /* the operating system said no: open, write, bind, ... */
    ERR_MEMORY = -3,   /* out of memory, or a size that would overflow */
    ERR_MISMATCH = -4, /* two parties disagree: resume with another config, producer with other tokens */
    ERR_PEER = -5,     /* the other side is missing, silent, or broke the protocol */
    ERR_STOPPED = -6,  /* asked to stop (signal, END) before it was done */
    ERR_ABSENT = -7,   /* what was asked for is not here, but may be elsewhere: sequences that are not recorded */
    ERR_DAMAGED =
        -8, /* what came or was read is not what was sent or written: it was changed on the way, which is nobody's fault */
    ERR_OVERFLOW = -9, /* what was computed is infinite or NaN */
};

struct err {
    int code;          /* enum err_code; 0 = none */
    char message[512]; /* NUL-terminated, one line, no final newline; cut if longer */
};

/* Fills e with code and the formatted message. e may be NULL. */
void err_fill(struct err *e, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Fills e with ERR_SYSTEM and the formatted message, then ": " and strerror(saved_errno). e may be NULL. */
void err_fill_errno(struct err *e, int saved_errno, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* err_set(e, code, format, ...) calls err_fill and yields code, so that `return err_set(...)` reads well; err_errno(e,
 * saved_errno, format, ...) does so with err_fill_errno and ERR_SYSTEM. They are macros, so that the compiler and the
 * analysers see at each call that its result is not 0. */
#define err_set(e, code, ...)                     \
    __extension__({                               \
        const int err_set_code = (code);          \
        err_fill((e), err_set_code, __VA_ARGS__); \
        err_set_code;                             \
    })
#define err_errno(e, saved_errno, ...)                   \
    __extension__({                                      \
        err_fill_errno((e), (saved_errno), __VA_ARGS__); \
        (int)ERR_SYSTEM;                                 \
    })

/* Puts "prefix: " before the message already in e (context on the way up); returns e->code. */
int err_prefix(struct err *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
