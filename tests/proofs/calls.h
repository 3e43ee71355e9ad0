/* SPDX-License-Identifier: BSD-3-Clause */
/* What the library asks of the system about files. A program with calls.c and the linker's --wrap of each of these
 * calls records them, and can make them fail. */
#ifndef MELU_TESTS_CALLS_H
#define MELU_TESTS_CALLS_H

#include <stddef.h>

enum call_kind {
  CALL_STAT,
  CALL_OPEN,
  CALL_FSTAT,
  CALL_READ,
  CALL_WRITE,
  CALL_FSYNC,
  CALL_RENAME,
  CALL_UNLINK,
  CALL_CLOSE,
  CALL_KINDS
};
extern const char *const call_names[CALL_KINDS];

#define CALL_NO_FILE ((size_t)-1)

struct call {
  enum call_kind kind;
  char *path, *to;      /* of those that have one; `to`: of a rename */
  int flags;            /* of an open */
  size_t file;          /* of a call by descriptor: which call opened it; CALL_NO_FILE if that was not recorded */
  unsigned char *bytes; /* that were written */
  size_t n;             /* transferred */
  int failed;
};

/* What is to go wrong. */
struct call_fault {
  size_t at;         /* call number 1, 2, ...; 0: none */
  int error;         /* its errno; 0: if it transfers bytes, it transfers one */
  int from_there_on; /* all later calls too */
  size_t most;       /* bytes that any call transfers; 0: as many as it is asked for */
};

/* Between begin and end calls are recorded; end keeps what was recorded, until the next begin. What fails does nothing,
 * but for close, which closes. Nothing is forced to the disk: no power is cut here, and forcing takes long. */
void calls_begin(struct call_fault fault);
void calls_end(void);

/* What was recorded. */
const struct call *calls_recorded(size_t *n);

/* Whether a call by descriptor has to do with a folder; with a file that something was written to. */
int call_is_of_folder(const struct call *c);
int call_is_of_written(const struct call *c);

#endif
