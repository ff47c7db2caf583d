/* link_say.c - messages of text alone: an ERROR about a lease, a REJECT or BYE with its reason; see link.h. */
#include <stdio.h>

#include "link.h"

void link_send_error(struct link *l, const struct link_peer *peer, uint64_t lease, const char *code, const char *text)
{
    struct message m = {.type = MESSAGE_ERROR, .error.lease = lease};
    snprintf(m.error.code, sizeof m.error.code, "%s", code);
    snprintf(m.error.text, sizeof m.error.text, "%s", text);
    link_send(l, peer, &m, NULL);
}

void link_send_text(struct link *l, const struct link_peer *peer, enum message_type type, const char *reason)
{
    struct message m = {.type = type};
    snprintf(m.text.reason, sizeof m.text.reason, "%s", reason);
    link_send(l, peer, &m, NULL);
}
