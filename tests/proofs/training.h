/* SPDX-License-Identifier: BSD-3-Clause */
/* A training of 200 updates, which may end and go on anywhere. */
#ifndef MELU_TESTS_TRAINING_H
#define MELU_TESTS_TRAINING_H

#include "proof.h"

enum { TRAINING_UPDATES = 200 };

struct training {
  const struct scene *scene;
  const char *start, *checkpoint; /* files: the model as it is before; what is resumed, NULL: nothing */
  size_t every;                   /* updates between checkpoints; 0: an epoch */
  size_t n_threads;
  size_t stop_at; /* cancelled after this update; 0: never */
};

/* Makes or resumes it. If it came to its end or was cancelled, `digest` is that of the model. */
melu_status training_run(unsigned char digest[MELU_DIGEST_BYTES], const struct training *t, melu_error *err);

#endif
