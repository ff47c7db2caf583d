/* socket_bytes.h - how much ZeroMQ holds of what came over a connection.
 *
 * No option of ZeroMQ bounds that: it keeps a message of endlessly many parts until its last part comes, whatever the high-water mark (1.15 GB
 * measured at a limit of 1 MiB). But it can be worked out for TCP: what the kernel received, less what still lies there and what ZeroMQ has
 * handed over. */
#ifndef CROSSFEED_SOCKET_BYTES_H
#define CROSSFEED_SOCKET_BYTES_H

#include <stdint.h>

/* Returns the bytes that ZeroMQ holds of the connection fd, of which it has handed over `given` (on the wire). Returns 0 if the kernel does
 * not say: of a Unix socket, or of what is no socket. */
uint64_t socket_bytes_held(int fd, uint64_t given);

#endif
