/* SPDX-License-Identifier: BSD-3-Clause */
/* Gaussian priors on the parameters: what melu_fit adds to a gradient. */
#ifndef MELU__PRIOR_H
#define MELU__PRIOR_H

#include "model/gradient.h"

struct melu__prior {
  const melu_model *model;
  double vectors, offsets, pooled, dense; /* as of melu_fit_options; 0: none */
  double n_ratings;
  uint64_t step;
  uint32_t **last; /* per table and row: the step of its last update */
};

/* Returns 0 if there is no memory; the prior is then to be freed all the same. */
int melu__prior_init(struct melu__prior *p, const melu_model *model);
void melu__prior_free(struct melu__prior *p);

/* Adds the gradient of the priors to that of the mean loss over ratings: to the table rows that it has, and to the
 * dense numbers of the share's slots. A row that the last k - 1 updates did not touch has k shares of it. */
void melu__prior_add(struct melu__prior *p, melu_gradient *g, const struct melu__share *share);

#endif
