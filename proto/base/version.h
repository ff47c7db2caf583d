/* version.h - the name and version that HELLO, cfg.json and --version give. */
#ifndef CROSSFEED_VERSION_H
#define CROSSFEED_VERSION_H

#define CROSSFEED_VERSION "0.1.0"
#define CROSSFEED_SOFTWARE "crossfeed " CROSSFEED_VERSION

#endif
