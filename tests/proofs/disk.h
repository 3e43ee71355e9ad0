/* SPDX-License-Identifier: BSD-3-Clause */
/* What a disk may hold after the power failed in the midst of recorded calls (calls.h): no more than POSIX promises.
 * Before a file was forced to the disk each sector of what was written is there, or not, or in part, and the file may
 * be of any length up to its own, with zeros or other files' bytes in what was not written. Before a folder was forced
 * to the disk each of its changes may be there or not, whatever the order and whatever the state of the files. A rename
 * is there or not, but not by halves. */
#ifndef MELU_TESTS_DISK_H
#define MELU_TESTS_DISK_H

#include "base/rng.h"
#include "calls.h"
#include "proof.h"

enum { DISK_NAMES = 8 };

/* The recorded calls that succeeded, as they change a disk. */
struct disk {
  struct disk_change *changes;
  size_t n;
  const char *path;       /* the file that there may have been before, */
  struct proof_bytes old; /* with these bytes; NULL: there was none */
};

void disk_open(struct disk *d, const char *path, struct proof_bytes old);
void disk_close(struct disk *d);

/* Files by name; bytes are to be freed. */
struct disk_files {
  struct disk_file {
    const char *path; /* the disk's */
    struct proof_bytes bytes;
  } at[DISK_NAMES];
  size_t n;
};

/* What is found if the power fails after the first n changes, one of many possibilities. */
void disk_crash(struct disk_files *found, const struct disk *d, size_t n, struct melu__rng *rng);
void disk_files_free(struct disk_files *files);

/* NULL if there is no such file. */
const struct proof_bytes *disk_file(const struct disk_files *files, const char *path);

#endif
