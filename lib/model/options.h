/* SPDX-License-Identifier: BSD-3-Clause */
/* A model's options: the presets, and what an option that was not given means. */
#ifndef MELU__OPTIONS_H
#define MELU__OPTIONS_H

#include <melu.h>

#define MELU__MAX_HIDDEN 8
#define MELU__MAX_STEPS 64
#define MELU__MAX_RANK 255
#define MELU__MAX_ADAPTED_FIELDS 8 /* fields of ids that MELU_ADAPT_ITEMS may move */

/* Fills in what is not given, and checks the rest. `hidden` receives the widths, and o->hidden points to it; no steps,
 * no hidden layer and switches that are off are 0, switches that are on 1. */
melu_status melu__model_options(struct melu_model_options *o, size_t hidden[MELU__MAX_HIDDEN],
                                const struct melu_model_options *given, melu_error *err);

/* The reverse: options as a host would give them. */
struct melu_model_options melu__options_given(const struct melu_model_options *o);

/* What a preset trains with. */
struct melu__training {
  size_t n_epochs, batch_tasks, n_query, max_ratings, max_support; /* as of melu_fit_options */
  double lr;
  int random_support, cosine;
  double prior_vectors, prior_offsets, prior_pooled, prior_dense;
};
const struct melu__training *melu__preset_training(const struct melu_model_options *o);

#endif
