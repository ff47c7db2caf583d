/* monitor.h - a socket's monitor: what ZeroMQ says of its connections. Beside link.c and guard.c, which use it. */
#ifndef CROSSFEED_MONITOR_H
#define CROSSFEED_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

/* The next event waiting at a PAIR socket that is connected to a monitor: one of ZMQ_EVENT_* and its value (an error, a
 * protocol error or a descriptor, as zmq_socket_monitor(3) says). false: none. */
bool monitor_next(void *monitor, unsigned *event, uint32_t *value);

#endif
