/* metrics_endpoint_absent.c - takes metrics_endpoint.c's place in a build without libmicrohttpd: --metrics-listen is
 * refused. */
#include "metrics_endpoint.h"

#include <stddef.h>

int metrics_endpoint_start(struct metrics_endpoint **m, const char *address, bool insecure, struct status *status,
                           struct err *e)
{
    (void)insecure, (void)status;
    *m = NULL;
    return err_set(e, ERR_INPUT,
                   "--metrics-listen %s: needs libmicrohttpd, and this program was built without it "
                   "(CROSSFEED_METRICS=OFF)",
                   address);
}

const char *metrics_endpoint_url(const struct metrics_endpoint *m)
{
    (void)m;
    return "";
}

void metrics_endpoint_stop(struct metrics_endpoint *m)
{
    (void)m; /* none was started */
}
