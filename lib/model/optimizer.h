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

/* melu_optimizer_new of a model that may be sharded: the optimizer is of the rows that are stored. */
melu_status melu__optimizer_new(melu_optimizer **out, const melu_model *model,
                                const struct melu_optimizer_options *options, melu_error *err);

/* Options as they are in force; to give them once more changes nothing. Errors: as of melu_optimizer_new. */
melu_status melu__optimizer_options(struct melu_optimizer_options *o, const struct melu_optimizer_options *given,
                                    melu_error *err);

/* What an update has to know of the whole gradient. */
struct melu__size {
  double largest; /* no entry is larger */
  double squares; /* their sum, where the norm is clipped */
};

/* How many rows of a table an update changes, those that the gradient has or all of the share's slots, and which is the
 * k-th. */
size_t melu__optimizer_n_rows(const melu_optimizer *opt, const melu_gradient *g, const struct melu__share *share,
                              size_t table);
uint32_t melu__optimizer_row(const melu_optimizer *opt, const melu_gradient *g, const struct melu__share *share,
                             size_t table, size_t k);

/* Adds, where the norm is clipped, the sum of squares in each of the share's slots to by_slot[slot]. `g` has the table
 * rows of these slots alone. */
melu_status melu__optimizer_squares(const melu_optimizer *opt, const melu_gradient *g, const struct melu__share *share,
                                    double *by_slot, melu_error *err);

/* Whether every weight and moment will be finite after an update, by the bound on the model's weights, which may be too
 * large. */
int melu__optimizer_may_update(const melu_optimizer *opt, const struct melu__size *size);

/* melu_optimizer_step of the share's slots, after which all will be finite. */
void melu__optimizer_update(melu_optimizer *opt, melu_model *model, const melu_gradient *g,
                            const struct melu__share *share, const struct melu__size *size);

#endif
