/* monitor.c - see monitor.h. An event has two frames: its number and value, and the endpoint, which is not used. */
#include "monitor.h"

#include <string.h>

#include <zmq.h>

bool monitor_next(void *monitor, unsigned *event, uint32_t *value)
{
    unsigned char frame[6]; /* u16 event, u32 value */
    char endpoint[256];
    int got;
    while ((got = zmq_recv(monitor, frame, sizeof frame, ZMQ_DONTWAIT)) >= 0) {
        uint16_t number;
        memcpy(&number, frame, sizeof number);
        memcpy(value, frame + sizeof number, sizeof *value);
        *event = number;
        zmq_recv(monitor, endpoint, sizeof endpoint, ZMQ_DONTWAIT);
        if (got == sizeof frame)
            return true;
    }
    return false;
}
