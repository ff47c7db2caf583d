/* status_writer.h - the thread that writes status.json into the run's folder every STATUS_EVERY_MS.
 *
 * Nothing but this thread waits for the disk: neither the ingest thread nor the training step, however slow the disk is. The file is
 * replaced by a rename, so that readers see a whole one at any moment. It is not synced to the disk, because after a crash of the machine
 * nobody wants to know how things were before, and a sync would wait for the checkpoint that is being written. If the folder cannot be
 * written, that is said once and the run goes on. */
#ifndef CROSSFEED_STATUS_WRITER_H
#define CROSSFEED_STATUS_WRITER_H

#include "err.h"

#define STATUS_EVERY_MS 2000

struct status;
struct ingest;
struct status_writer;

/* Starts the thread, which writes FOLDER/status.json at once, and from then on into that folder, whatever name it has. The writer borrows the status until it is stopped. */
int status_writer_start(struct status_writer **w, struct status *status, const char *folder, struct err *e);

/* From now on each status.json has a snapshot of the ingest, which the writer borrows until it is stopped. */
void status_writer_watch(struct status_writer *w, struct ingest *in);

/* Writes the file for the last time, with a last snapshot of the ingest, ends the thread and frees the writer. If the disk does not take the
 * file within some seconds, that is said and the thread left behind, which then uses nothing but its own. w may be NULL. */
void status_writer_stop(struct status_writer *w);

#endif
