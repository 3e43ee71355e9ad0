/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls about files that fail, each in turn: what proof 3 does with whatever makes them. */
#ifndef MELU_TESTS_IO_FAULTS_H
#define MELU_TESTS_IO_FAULTS_H

#include "calls.h"
#include "proof.h"

struct io_figures {
  size_t n_runs, n_kinds[CALL_KINDS]; /* faults, and which calls they were */
};
extern struct io_figures figures;

/* Does something with each of its calls failing in turn. `n`: its calls when nothing fails. */
void fail_each(size_t n, void (*try_fault)(void *arg, struct call_fault fault), void *arg);

/* The call that was to fail; none if transfers were short. */
const struct call *call_hit(const struct call_fault *f);

/* The outcome that docs/file-format.md promises. */
enum outcome { REFUSED, DONE, BETWEEN };
enum outcome outcome_of(const struct call *c, const struct call_fault *f);
void check_status(melu_status status, const melu_error *err, enum outcome want, const struct call_fault *f,
                  const char *what);

/* For messages: what went wrong, until the next call. */
const char *describe(const char *who, const struct call_fault *f);

size_t n_descriptors(void);
size_t files_in(const char *folder);

/* Whether a file may be left that could not be removed; removes what a failing unlink had to leave. */
int may_leave(void);
void remove_temporary(const char *folder);

#endif
