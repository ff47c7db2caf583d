/* zap.h - who may connect: the answers to ZeroMQ's authentication requests (RFC 27, "ZAP").
 *
 * ZeroMQ asks at inproc://zeromq.zap.01 about every client that got through the CURVE handshake, that is, one that knows the
 * trainer's public key and owns the key that it shows; only keys of the allow-list pass. Whatever else may ask (another domain, another mechanism)
 * is refused. The key becomes the User-Id of the client's messages. */
#ifndef CROSSFEED_ZAP_H
#define CROSSFEED_ZAP_H

#include <stddef.h>

#include "allow_list.h"
#include "curve_keys.h"

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_DOMAIN "crossfeed" /* not empty: with an empty domain ZeroMQ asks nobody and lets all in */

struct zap_request {
    char version[8], id[256], domain[64], address[64], mechanism[16];
    size_t id_size;
    char key[CURVE_KEY_SIZE]; /* "" if it showed none */
};

/* The next request at a REP socket bound to ZAP_ENDPOINT: 1 (r filled; zap_reply must follow) or 0 (none waiting). */
int zap_receive(void *socket, struct zap_request *r);

/* NULL: let it in; else why not. */
const char *zap_refusal(const struct zap_request *r, const struct allow_list *allowed);

void zap_reply(void *socket, const struct zap_request *r, const char *refusal);

#endif
