/* SPDX-License-Identifier: BSD-3-Clause */
/* An adapted user, and the scratch that adapting and predicting take. */
#ifndef MELU__USER_H
#define MELU__USER_H

#include "meta/task.h"

/* Fast weights in the layout of the model's decision layers, but the first layer: W1 is its item columns only, and b1
 * is xu W1u' + b1, what the user adds to every row. */
struct melu_user {
  const melu_model *model;
  real *data; /* all of it, one after another */
  size_t n;
};

struct melu_workspace {
  const melu_model *model;
  size_t max_support;
  const struct melu__plan **adapt;   /* by number of support rows, 0 .. max_support */
  const struct melu__plan **predict; /* by number of rows, 0 .. MELU__PREDICT_ROWS */
  struct melu__scratch scratch;
  real *transposed;           /* the weights' transposes, as they were at that version of the model */
  uint64_t transposed_version;
  melu_user fresh; /* a user in the making: an old one is only replaced by a finished one */
};

/* Items are predicted in pieces of at most so many rows. */
#define MELU__PREDICT_ROWS 32

#endif
