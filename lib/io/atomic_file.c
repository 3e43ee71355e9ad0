/* SPDX-License-Identifier: BSD-3-Clause */
#include "io/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "io/interrupted.h"

enum { MAX_TRIES = 1000 };

static melu_status fail(const struct melu__atomic_file *file, const char *step, int error, melu_error *err) {
  return melu__fail_errno(err, MELU_EIO, error, "cannot %s \"%.100s\"", step, file->path);
}

/* A rename over a device or a pipe would put a file where it was. */
static melu_status check_replaceable(const struct melu__atomic_file *file, melu_error *err) {
  struct stat info;
  int failed;
  do failed = stat(file->path, &info);
  while (melu__interrupted(failed));
  if (failed) return errno == ENOENT ? MELU_OK : fail(file, "look at", errno, err);
  if (S_ISREG(info.st_mode)) return MELU_OK;
  return melu__fail(err, MELU_EIO, "\"%.100s\" exists and is no regular file", file->path);
}

/* Returns 0 or errno. `name`: room for the folder's name. */
static int open_folder(struct melu__atomic_file *file, char *name, size_t room) {
  const char *slash = strrchr(file->path, '/');
  const size_t n = slash && slash != file->path ? (size_t)(slash - file->path) : 1;
  snprintf(name, room, "%.*s", (int)n, slash ? file->path : ".");
  do file->folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  while (melu__interrupted(file->folder));
  return file->folder < 0 ? errno : 0;
}

int melu__open_temporary(int *fd, char *name, size_t room, const char *path, int access) {
  for (int i = 0; i < MAX_TRIES; i++) {
    snprintf(name, room, "%s.tmp-%ld-%d", path, (long)getpid(), i);
    do *fd = open(name, access | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    while (melu__interrupted(*fd));
    if (*fd >= 0) return 0;
    if (errno != EEXIST) return errno;
  }
  return EEXIST;
}

int melu__remove_file(const char *path) {
  int failed;
  do failed = unlink(path);
  while (melu__interrupted(failed));
  return failed ? errno : 0;
}

melu_status melu__atomic_open(struct melu__atomic_file *file, const melu_context *ctx, const char *path,
                              melu_error *err) {
  const size_t room = strlen(path) + MELU__TEMPORARY_SUFFIX;
  *file = (struct melu__atomic_file){.ctx = ctx, .path = path, .fd = -1, .folder = -1};
  melu_status status = check_replaceable(file, err);
  if (status) return status;
  char *name = melu__alloc(&ctx->allocator, room, 1);
  if (!name) return melu__fail_memory(err);
  int error = open_folder(file, name, room);
  if (error) status = fail(file, "open the folder of", error, err);
  if (!status) error = melu__open_temporary(&file->fd, name, room, path, O_WRONLY);
  if (!status && error) status = fail(file, "create a temporary file for", error, err);
  if (!status) {
    file->temporary = name;
    return MELU_OK;
  }
  melu__free(&ctx->allocator, name);
  melu__atomic_abandon(file);
  return status;
}

melu_status melu__atomic_write(struct melu__atomic_file *file, const void *bytes, size_t n_bytes, melu_error *err) {
  const char *at = bytes;
  while (n_bytes > 0) {
    const ssize_t n = write(file->fd, at, n_bytes);
    if (melu__interrupted(n)) continue;
    if (n <= 0) return fail(file, "write", n < 0 ? errno : EIO, err);
    at += n;
    n_bytes -= (size_t)n;
  }
  return MELU_OK;
}

/* 0 or errno. */
static int force(int fd) {
  int failed;
  do failed = fsync(fd);
  while (melu__interrupted(failed));
  return failed ? errno : 0;
}

melu_status melu__atomic_commit(struct melu__atomic_file *file, melu_error *err) {
  int failed, error = force(file->fd);
  if (error) return fail(file, "force to the disk", error, err);
  failed = close(file->fd);
  file->fd = -1;
  if (failed && errno != EINTR) return fail(file, "close", errno, err);
  do failed = rename(file->temporary, file->path);
  while (melu__interrupted(failed));
  if (failed) return fail(file, "put in place", errno, err);
  melu__free(&file->ctx->allocator, file->temporary);
  file->temporary = NULL;
  /* The rename is only sure to survive a power cut once the folder itself is on the disk. */
  error = force(file->folder);
  if (error == 0 || error == EINVAL) return MELU_OK; /* a file system that has nothing to force */
  return fail(file, "force to the disk the folder of", error, err);
}

void melu__atomic_abandon(struct melu__atomic_file *file) {
  if (file->fd >= 0) close(file->fd);
  if (file->temporary) {
    melu__remove_file(file->temporary);
    melu__free(&file->ctx->allocator, file->temporary);
  }
  if (file->folder >= 0) close(file->folder);
  file->fd = file->folder = -1;
  file->temporary = NULL;
}
