/* link_say.c - messages of text alone: an ERROR about a lease, a REJECT or BYE with its reason; see link.h. The text may name files, or
 * what somebody else has said: it is escaped, and cut after a whole character, because the other side refuses what is not plain UTF-8. */
#include "link.h"
#include "text.h"

void link_send_error(struct link *l, const struct link_peer *peer, uint64_t lease, const char *code, const char *text)
{
    struct message m = {.type = MESSAGE_ERROR, .error.lease = lease};
    text_escape(m.error.code, sizeof m.error.code, code);
    text_escape(m.error.text, sizeof m.error.text, text);
    link_send(l, peer, &m, NULL);
}

void link_send_text(struct link *l, const struct link_peer *peer, enum message_type type, const char *reason)
{
    struct message m = {.type = type};
    text_escape(m.text.reason, sizeof m.text.reason, reason);
    link_send(l, peer, &m, NULL);
}
