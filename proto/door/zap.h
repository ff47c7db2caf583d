/* zap.h - answers ZeroMQ's authentication requests (RFC 27, "ZAP"): who may connect.
 *
 * ZeroMQ asks at inproc://zeromq.zap.01 about every client that got through the CURVE handshake, that is, one that knows the trainer's
 * public key and owns the key that it shows. Only keys on the allow-list pass; requests of another domain or mechanism are refused. The
 * key becomes the User-Id of the client's messages. */
#ifndef CROSSFEED_ZAP_H
#define CROSSFEED_ZAP_H

#include <stddef.h>

#include "allow_list.h"
#include "curve_keys.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_DOMAIN "crossfeed" /* it must not be empty: with an empty domain ZeroMQ asks nobody and lets all in */

struct zap_request {
    char version[8], id[256], domain[64], address[64], mechanism[16];
    size_t id_size;
    char key[CURVE_KEY_SIZE]; /* "" if the client showed none */
};

/* Takes the next request at a REP socket bound to ZAP_ENDPOINT. Returns 1 if there was one: r is filled, and zap_reply must follow.
 * Returns 0 if none is waiting. */
int zap_receive(void *socket, struct zap_request *r);

/* Returns NULL if the client may come in, else why it may not. */
const char *zap_refusal(const struct zap_request *r, const struct allow_list *allowed);

/* Answers the request. refusal: NULL lets the client in. */
void zap_reply(void *socket, const struct zap_request *r, const char *refusal);

#endif
