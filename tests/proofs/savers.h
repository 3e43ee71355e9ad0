/* SPDX-License-Identifier: BSD-3-Clause */
/* Everything that the library writes as a file. Each saver has two states of the same thing to write, and each of them
 * the same bytes every time. */
#ifndef MELU_TESTS_SAVERS_H
#define MELU_TESTS_SAVERS_H

#include "proof.h"

struct saver {
  const char *name;
  melu_status (*save)(const struct scene *s, int state, const char *path, melu_error *err);
  /* Reads the file; the digest says which state was in it. Leaves the file as it is. */
  melu_status (*load)(unsigned char digest[MELU_DIGEST_BYTES], const struct scene *s, const char *path,
                      melu_error *err);
};

enum { N_SAVERS = 2 };
extern const struct saver savers[N_SAVERS];

/* A new model of the scene's options, in one of two states. */
melu_model *saver_model(const struct scene *s, int state);

/* Two epochs, with a checkpoint between them; or, if `resume`, what is left of them. */
melu_status saver_train(melu_model *model, const struct scene *s, const char *path, int resume, melu_error *err);

#endif
