/* SPDX-License-Identifier: BSD-3-Clause */
#include "calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proof.h"

enum { MOST_DESCRIPTORS = 1024 };

const char *const call_names[CALL_KINDS] = {"stat",  "open",   "fstat",  "read", "write",
                                            "fsync", "rename", "unlink", "close"};

static struct {
  int on;
  struct call_fault fault;
  struct call *at;
  size_t n, room;
  size_t file_of[MOST_DESCRIPTORS];
} recorded;

/* ------------------------------------------------------------------------------------------------- recording */

void calls_begin(struct call_fault fault) {
  for (size_t i = 0; i < recorded.n; i++) {
    free(recorded.at[i].path);
    free(recorded.at[i].to);
    free(recorded.at[i].bytes);
  }
  recorded.n = 0;
  recorded.fault = fault;
  for (size_t i = 0; i < MOST_DESCRIPTORS; i++) recorded.file_of[i] = CALL_NO_FILE;
  recorded.on = 1;
}

void calls_end(void) {
  recorded.on = 0;
}

const struct call *calls_recorded(size_t *n) {
  *n = recorded.n;
  return recorded.at;
}

int call_is_of_folder(const struct call *c) {
  return c->file != CALL_NO_FILE && recorded.at[c->file].flags & O_DIRECTORY;
}

int call_is_of_written(const struct call *c) {
  for (size_t i = 0; i < recorded.n; i++)
    if (recorded.at[i].kind == CALL_WRITE && recorded.at[i].file == c->file) return 1;
  return 0;
}

static char *copy(const char *text) {
  return text ? (char *)proof_copy(text, strlen(text) + 1).at : NULL;
}

/* A new record; NULL if nothing is recorded. */
static struct call *record(enum call_kind kind, const char *path, const char *to, int fd) {
  if (!recorded.on) return NULL;
  PROOF_NEEDS(fd < MOST_DESCRIPTORS, "more descriptors than there is room for");
  if (recorded.n == recorded.room) {
    recorded.room = 2 * recorded.room + 100;
    recorded.at = realloc(recorded.at, recorded.room * sizeof *recorded.at);
    PROOF_NEEDS(recorded.at, "no memory");
  }
  struct call *c = &recorded.at[recorded.n++];
  *c = (struct call){
      .kind = kind, .path = copy(path), .to = copy(to), .file = fd < 0 ? CALL_NO_FILE : recorded.file_of[fd]};
  return c;
}

/* Whether this call is to fail. */
static int fails(struct call *c) {
  const struct call_fault *f = &recorded.fault;
  if (!c || !f->error || !f->at || (f->from_there_on ? recorded.n < f->at : recorded.n != f->at)) return 0;
  errno = f->error;
  return c->failed = 1;
}

static size_t transferred(const struct call *c, size_t n) {
  const struct call_fault *f = &recorded.fault;
  if (!c) return n;
  if (recorded.n == f->at && !f->error && n > 1) return 1;
  return f->most && n > f->most ? f->most : n;
}

/* ------------------------------------------------------------------------------------------------- the calls */

#define WRAPPED(type, name, parameters) \
  type __real_##name parameters;        \
  type __wrap_##name parameters;        \
  type __wrap_##name parameters

/* The GNU C library has other names for the calls that know of large files, which meson asks for. */
#ifdef __GLIBC__
#define REAL(name) __real_##name##64
#define WRAP(name) __wrap_##name##64
#else
#define REAL(name) __real_##name
#define WRAP(name) __wrap_##name
#endif
#define WRAPPED_LARGE(type, name, parameters) \
  type REAL(name) parameters;                 \
  type WRAP(name) parameters;                 \
  type WRAP(name)                             \
  parameters

WRAPPED_LARGE(int, stat, (const char *path, struct stat *info)) {
  return fails(record(CALL_STAT, path, NULL, -1)) ? -1 : REAL(stat)(path, info);
}

WRAPPED_LARGE(int, open, (const char *path, int flags, ...)) {
  mode_t mode = 0;
  if (flags & O_CREAT) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  struct call *c = record(CALL_OPEN, path, NULL, -1);
  if (c) c->flags = flags;
  const int fd = fails(c) ? -1 : REAL(open)(path, flags, mode);
  if (c) c->failed = fd < 0;
  if (c && fd >= 0 && fd < MOST_DESCRIPTORS) recorded.file_of[fd] = (size_t)(c - recorded.at);
  return fd;
}

WRAPPED_LARGE(int, fstat, (int fd, struct stat *info)) {
  return fails(record(CALL_FSTAT, NULL, NULL, fd)) ? -1 : REAL(fstat)(fd, info);
}

WRAPPED(ssize_t, read, (int fd, void *bytes, size_t n)) {
  struct call *c = record(CALL_READ, NULL, NULL, fd);
  if (fails(c)) return -1;
  const ssize_t got = __real_read(fd, bytes, transferred(c, n));
  if (c && got > 0) c->n = (size_t)got;
  return got;
}

/* Reading and writing anywhere in a file are no kinds of their own. */
WRAPPED_LARGE(ssize_t, pread, (int fd, void *bytes, size_t n, off_t at)) {
  struct call *c = record(CALL_READ, NULL, NULL, fd);
  return fails(c) ? -1 : REAL(pread)(fd, bytes, transferred(c, n), at);
}

WRAPPED_LARGE(ssize_t, pwrite, (int fd, const void *bytes, size_t n, off_t at)) {
  struct call *c = record(CALL_WRITE, NULL, NULL, fd);
  return fails(c) ? -1 : REAL(pwrite)(fd, bytes, transferred(c, n), at);
}

WRAPPED(ssize_t, write, (int fd, const void *bytes, size_t n)) {
  struct call *c = record(CALL_WRITE, NULL, NULL, fd);
  if (fails(c)) return -1;
  const ssize_t put = __real_write(fd, bytes, transferred(c, n));
  if (c && put > 0) {
    c->n = (size_t)put;
    c->bytes = proof_copy(bytes, c->n).at;
  }
  return put;
}

WRAPPED(int, fsync, (int fd)) {
  struct call *c = record(CALL_FSYNC, NULL, NULL, fd);
  if (!c) return __real_fsync(fd);
  return fails(c) || fcntl(fd, F_GETFD) < 0 ? -1 : 0;
}

WRAPPED(int, rename, (const char *from, const char *to)) {
  return fails(record(CALL_RENAME, from, to, -1)) ? -1 : __real_rename(from, to);
}

WRAPPED(int, unlink, (const char *path)) {
  return fails(record(CALL_UNLINK, path, NULL, -1)) ? -1 : __real_unlink(path);
}

/* One that fails has closed all the same, as Linux does. */
WRAPPED(int, close, (int fd)) {
  struct call *c = record(CALL_CLOSE, NULL, NULL, fd);
  const int closed = __real_close(fd);
  if (c) recorded.file_of[fd] = CALL_NO_FILE;
  return fails(c) ? -1 : closed;
}
