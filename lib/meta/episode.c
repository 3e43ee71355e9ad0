/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/episode.h"

#include "base/rng.h"

/* Of episodes with a support set of random size: without one, and with the largest. */
#define SHARE_EMPTY 0.15
#define SHARE_FULL 0.15

static size_t smaller(size_t a, size_t b) {
  return a < b ? a : b;
}

melu_status melu__episode_add(const struct melu__episodes *e, melu_batch *batch, uint32_t user, uint64_t key,
                              uint32_t epoch, melu_error *err) {
  const size_t n = melu_dataset_ratings(batch->data, user, NULL, NULL);
  struct melu__rng rng = melu__rng(e->seed, MELU__RNG_EPISODE | (uint32_t)(key >> 32) << 8, epoch, (uint32_t)key);
  size_t n_query = e->n_query;
  for (uint32_t i = 0; i < n; i++) e->positions[i] = i;
  melu__rng_shuffle(&rng, e->positions, n);
  if (e->random_support) n_query = smaller(n_query, n < 6 ? 1 : n / 3);
  size_t n_support = smaller(n - n_query, e->max_support);
  if (e->random_support) {
    const double kind = melu__rng_unit(&rng);
    if (kind < SHARE_EMPTY)
      n_support = 0;
    else if (kind >= SHARE_EMPTY + SHARE_FULL)
      n_support = melu__rng_below(&rng, (uint32_t)n_support + 1);
  }
  return melu_batch_add(batch, user, e->positions + n_query, n_support, e->positions, n_query, err);
}
