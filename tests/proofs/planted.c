/* SPDX-License-Identifier: BSD-3-Clause */
#include "planted.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N_PIECES = 3, PIECE = 700 };

const char *const flaw_names[N_FLAWS] = {"nothing",
                                         "a failed write that is ignored",
                                         "a failed close that is ignored",
                                         "a short write that is taken for a whole one",
                                         "a save that gives up when a signal comes",
                                         "a temporary file that is left",
                                         "a descriptor that is left open",
                                         "an error without its reason",
                                         "a file that is written in place",
                                         "a file that is not forced to the disk",
                                         "a folder that is not forced to the disk",
                                         "a file that is forced after it was put in place"};

static enum flaw flaw;

/* Calls again what a signal interrupted; `result` is below 0 if it failed. */
#define CALL(result, call) \
  do (result) = (call);    \
  while ((result) < 0 && errno == EINTR && flaw != GIVES_UP_WHEN_INTERRUPTED)

static melu_status fail(melu_error *err, const char *what) {
  const int error = errno;
  *err = (melu_error){.status = MELU_EIO, .sys_errno = error};
  snprintf(err->message, sizeof err->message, "%s: %s", what, flaw == SAYS_NOT_WHY ? "no" : strerror(error));
  return MELU_EIO;
}

static int write_bytes(int fd, const char *bytes, size_t n) {
  while (n > 0) {
    ssize_t put;
    CALL(put, write(fd, bytes, n));
    if (put < 0) return flaw == IGNORES_FAILED_WRITES ? 0 : -1;
    if (flaw == TRUSTS_WRITES_TO_BE_WHOLE) return 0;
    bytes += put;
    n -= (size_t)put;
  }
  return 0;
}

/* Closes the file, whatever happens. */
static int write_and_close(int fd, int state) {
  char bytes[PIECE];
  int failed = 0;
  memset(bytes, state ? 'n' : 'o', sizeof bytes);
  for (int i = 0; i < N_PIECES && failed >= 0; i++) failed = write_bytes(fd, bytes, sizeof bytes);
  if (failed >= 0 && flaw != DOES_NOT_FORCE_THE_FILE && flaw != FORCES_TOO_LATE) CALL(failed, fsync(fd));
  if (failed < 0 && flaw == LEAVES_A_DESCRIPTOR) return -1;
  const int error = errno, closed = close(fd);
  if (failed < 0) errno = error;
  return failed < 0 || (closed < 0 && errno != EINTR && flaw != IGNORES_FAILED_CLOSE) ? -1 : 0;
}

/* Closes the descriptor, whatever happens. */
static int force(int fd) {
  int failed;
  CALL(failed, fsync(fd));
  const int error = errno;
  close(fd);
  errno = error;
  return failed;
}

static int force_late(const char *path) {
  int fd;
  CALL(fd, open(path, O_RDONLY));
  return fd < 0 ? -1 : force(fd);
}

static melu_status save(const struct scene *s, int state, const char *path, melu_error *err) {
  char temporary[160];
  int fd, folder, failed = -1;
  snprintf(temporary, sizeof temporary, "%s%s", path, flaw == WRITES_IN_PLACE ? "" : ".tmp-planted");
  CALL(folder, open(s->folder, O_RDONLY | O_DIRECTORY));
  if (folder < 0) return fail(err, "open the folder");
  CALL(fd, open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666));
  if (fd >= 0) failed = write_and_close(fd, state);
  if (failed >= 0 && flaw != WRITES_IN_PLACE) CALL(failed, rename(temporary, path));
  if (failed < 0) {
    const melu_status status = fail(err, "save");
    if (fd >= 0 && flaw != LEAVES_ITS_TEMPORARY_FILE) CALL(failed, unlink(temporary));
    close(folder);
    return status;
  }
  if (flaw == FORCES_TOO_LATE && force_late(path) < 0) return fail(err, "late");
  if (flaw == DOES_NOT_FORCE_THE_FOLDER)
    close(folder);
  else if (force(folder) < 0)
    return fail(err, "the folder of the file");
  return MELU_OK;
}

static melu_status load(unsigned char digest[MELU_DIGEST_BYTES], const struct scene *s, const char *path,
                        melu_error *err) {
  (void)s;
  (void)err;
  struct proof_bytes b = proof_read_file(path);
  int is_whole = b.n == (size_t)N_PIECES * PIECE;
  for (size_t i = 0; i < b.n; i++) is_whole &= b.at[i] == b.at[0];
  memset(digest, is_whole ? b.at[0] : 0, MELU_DIGEST_BYTES);
  free(b.at);
  return is_whole ? MELU_OK : MELU_EFORMAT;
}

const struct saver *planted_saver(enum flaw planted) {
  static const struct saver saver = {"what was planted", save, load};
  flaw = planted;
  return &saver;
}
