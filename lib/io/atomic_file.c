/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

enum { MAX_TRIES = 1000, SUFFIX = 48 };

static melu_status fail(const struct melu__atomic_file *file, const char *step, int error, melu_error *err) {
  return melu__fail_errno(err, MELU_EIO, error, "cannot %s \"%.100s\"", step, file->path);
}

/* A rename over a device or a pipe would put a file where it was. */
static int is_replaceable(const char *path) {
  struct stat info;
  return stat(path, &info) != 0 || S_ISREG(info.st_mode);
}

melu_status melu__atomic_open(struct melu__atomic_file *file, const melu_context *ctx, const char *path,
                              melu_error *err) {
  const size_t room = strlen(path) + SUFFIX;
  *file = (struct melu__atomic_file){.ctx = ctx, .path = path, .fd = -1};
  if (!is_replaceable(path)) return melu__fail(err, MELU_EIO, "\"%.100s\" exists and is no regular file", path);
  char *name = melu__alloc(&ctx->allocator, room, 1);
  if (!name) return melu__fail_memory(err);
  int error = EEXIST;
  for (int i = 0; i < MAX_TRIES && file->fd < 0 && error == EEXIST; i++) {
    snprintf(name, room, "%s.tmp-%ld-%d", path, (long)getpid(), i);
    file->fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    error = file->fd < 0 ? errno : 0;
  }
  if (file->fd < 0) {
    melu__free(&ctx->allocator, name);
    return fail(file, "create a temporary file for", error, err);
  }
  file->temporary = name;
  return MELU_OK;
}

melu_status melu__atomic_write(struct melu__atomic_file *file, const void *bytes, size_t n_bytes, melu_error *err) {
  const char *at = bytes;
  while (n_bytes > 0) {
    const ssize_t n = write(file->fd, at, n_bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail(file, "write", n < 0 ? errno : EIO, err);
    at += n;
    n_bytes -= (size_t)n;
  }
  return MELU_OK;
}

/* The rename is only sure to survive a power cut once the folder itself is on the disk. */
static int sync_folder(char *path) {
  char *slash = strrchr(path, '/');
  const char *folder = slash == path ? "/" : slash ? path : ".";
  if (slash && slash != path) *slash = '\0';
  const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = fsync(fd) != 0 ? errno : 0;
  close(fd);
  return error == EINVAL ? 0 : error; /* a file system that has nothing to force */
}

melu_status melu__atomic_commit(struct melu__atomic_file *file, melu_error *err) {
  if (fsync(file->fd) != 0) return fail(file, "force to the disk", errno, err);
  const int closed = close(file->fd);
  file->fd = -1;
  if (closed != 0) return fail(file, "close", errno, err);
  if (rename(file->temporary, file->path) != 0) return fail(file, "put in place", errno, err);
  const int error = sync_folder(file->temporary);
  melu__free(&file->ctx->allocator, file->temporary);
  file->temporary = NULL;
  return error ? fail(file, "force to the disk the folder of", error, err) : MELU_OK;
}

void melu__atomic_abandon(struct melu__atomic_file *file) {
  if (file->fd >= 0) close(file->fd);
  if (file->temporary) {
    unlink(file->temporary);
    melu__free(&file->ctx->allocator, file->temporary);
  }
  file->fd = -1;
  file->temporary = NULL;
}
