/* SPDX-License-Identifier: BSD-3-Clause */
/* Episodes: which of a user's ratings are the support set, and which the query set. Draws depend on seed, epoch and
 * the user's key alone. */
#ifndef MELU__EPISODE_H
#define MELU__EPISODE_H

#include "data/batch.h"

struct melu__episodes {
  uint64_t seed;
  size_t n_query, max_support;
  int random_support;
  uint32_t *positions; /* scratch, as long as the longest list of ratings */
};

/* Appends an episode of a user with more than one rating (random_support), or more than n_query, to the batch. Of `key`
 * the lowest 56 bits count. Errors: MELU_ENOMEM. */
melu_status melu__episode_add(const struct melu__episodes *e, melu_batch *batch, uint32_t user, uint64_t key,
                              uint32_t epoch, melu_error *err);

#endif
