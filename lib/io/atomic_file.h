/* SPDX-License-Identifier: BSD-3-Clause */
/* A file that appears whole or not at all: it is written under another name in the same folder, forced to the disk, and
 * renamed over the old one. */
#ifndef MELU__ATOMIC_FILE_H
#define MELU__ATOMIC_FILE_H

#include <melu.h>

#include "base/context.h"

struct melu__atomic_file {
  const melu_context *ctx;
  const char *path; /* borrowed */
  char *temporary;  /* its name, NULL if there is none to remove */
  int fd;
  int folder; /* opened before anything is changed, so that nothing but forcing it to the disk can fail at the end */
};

/* Creates "<path>.tmp-<pid>-<n>" with a first free n, to be accessed as of open; writes its name, for which there is
 * room if there is room for MELU__TEMPORARY_SUFFIX characters behind the path. Returns 0 or errno. */
#define MELU__TEMPORARY_SUFFIX 48
int melu__open_temporary(int *fd, char *name, size_t room, const char *path, int access);

/* Removes a file. Returns 0 or errno. */
int melu__remove_file(const char *path);

/* Each returns MELU_EIO or MELU_ENOMEM on failure, after which only melu__atomic_abandon is left to call. */
melu_status melu__atomic_open(struct melu__atomic_file *file, const melu_context *ctx, const char *path,
                              melu_error *err);
melu_status melu__atomic_write(struct melu__atomic_file *file, const void *bytes, size_t n_bytes, melu_error *err);
melu_status melu__atomic_commit(struct melu__atomic_file *file, melu_error *err);

/* Closes what is open and removes what is left of the temporary file; after a commit there is none. */
void melu__atomic_abandon(struct melu__atomic_file *file);

#endif
