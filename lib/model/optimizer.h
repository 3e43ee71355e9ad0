/* SPDX-License-Identifier: BSD-3-Clause */
/* The outer update's memory, for those who write it down. */
#ifndef MELU__OPTIMIZER_H
#define MELU__OPTIMIZER_H

#include "model/model.h"

struct melu_optimizer {
  const melu_model *model;
  struct melu_optimizer_options options; /* resolved: clip_value and clip_norm are INFINITY for none */
  uint64_t n_steps;
  real **m, **v;  /* first and second moments, one array per parameter; NULL for SGD */
  real *zero_row; /* as wide as the widest table: the gradient of an untouched row */
};

#endif
