/* monitor.h - reads a socket's monitor, by which ZeroMQ tells what becomes of the socket's connections. */
#ifndef CROSSFEED_MONITOR_H
#define CROSSFEED_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

/* Takes the next event at a PAIR socket that is connected to a monitor: one of ZMQ_EVENT_* and its value (an error, a protocol error or a
 * descriptor, as zmq_socket_monitor(3) says). Returns false if none is waiting. */
bool monitor_next(void *monitor, unsigned *event, uint32_t *value);

#endif
