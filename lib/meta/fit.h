/* SPDX-License-Identifier: BSD-3-Clause */
/* A training that is under way, and how it is written down. */
#ifndef MELU__FIT_H
#define MELU__FIT_H

#include "meta/source.h"
#include "model/optimizer.h"
#include "model/prior.h"
#include "model/undo.h"

struct melu__fit {
  const melu_context *ctx;
  melu_model *model;
  struct melu__source *source;
  struct melu_fit_options options;
  struct melu_optimizer_options optimizer_options; /* as given, but for lr */
  size_t n_users, n_left_out;                      /* of the source: who is trained on, and who is left out */
  struct melu__episodes episodes;
  melu_batch *batch;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  struct melu__prior prior;
  struct melu__undo undo; /* of the last update */
  uint64_t n_done;        /* tasks so far: says the epoch, and how far it got */
  uint64_t n_resumed;     /* of these, before it was resumed */
  int stopping;           /* was cancelled, and ends with the next checkpoint */
  double loss_sum;        /* of the epoch so far */
  double validation, best_validation;
  uint32_t best_epoch;
  real *best;                               /* all parameters as they were after that epoch */
  char identity[2 * MELU_DIGEST_BYTES + 1]; /* of data and users, if there is a checkpoint */
};

/* Sets `identity`, before the users are put in order. */
void melu__fit_identify(struct melu__fit *f);

/* Writes the state before the next update to options.checkpoint. Errors: MELU_EIO, MELU_ELIMIT, MELU_ENOMEM. */
melu_status melu__fit_save(const struct melu__fit *f, melu_error *err);

/* Takes the state from that file, if there is one; else, and on error, all is as before. Errors: as of melu_model_load,
 * and MELU_ESCHEMA (of another model), MELU_EINVAL (of another training). */
melu_status melu__fit_resume(struct melu__fit *f, melu_error *err);

#endif
