/* SPDX-License-Identifier: BSD-3-Clause */
/* The outer update's memory, for those who write it down; and the update in two parts, for a training of several ranks:
 * each updates the table rows and dense numbers of its own slots. */
#ifndef MELU__OPTIMIZER_H
#define MELU__OPTIMIZER_H

#include "base/slots.h"
#include "model/gradient.h"

struct melu_optimizer {
  const melu_model *model;
  struct melu_optimizer_options options; /* resolved: clip_value and clip_norm are INFINITY for none */
  uint64_t n_steps;
  real **m, **v;  /* first and second moments, one array per parameter; NULL for SGD */
  real *zero_row; /* as wide as the widest table: the gradient of an untouched row */
};

/* What an update has to know of the whole gradient. */
struct melu__size {
  double largest; /* no entry is larger */
  double squares; /* their sum, where the norm is clipped */
};

/* Adds, where the norm is clipped, the sum of squares in each of the share's slots to by_slot[slot]. `g` has the table
 * rows of these slots alone. */
melu_status melu__optimizer_squares(const melu_optimizer *opt, const melu_gradient *g, const struct melu__share *share,
                                    double *by_slot, melu_error *err);

/* melu_optimizer_step of the share's slots. Errors: MELU_EDIVERGED, which depends on *size alone, and the bound on the
 * model's weights. */
melu_status melu__optimizer_update(melu_optimizer *opt, melu_model *model, const melu_gradient *g,
                                   const struct melu__share *share, const struct melu__size *size, melu_error *err);

#endif
