/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/loss.h"

#define ROUNDING 0.01 /* of the absolute value at 0, squared */

static melu__ref square(struct melu__tape *t, melu__ref x) {
  return melu__tape_mul(t, x, x);
}

static melu__ref smooth_absolute(struct melu__tape *t, melu__ref e, size_t n) {
  return melu__tape_sqrt(t, melu__tape_add(t, square(t, e), melu__tape_const(t, n, 1, ROUNDING)));
}

/* e^2 - (|e| - 1)+^2: 2 |e| - 1 from 1 on. */
static melu__ref huber(struct melu__tape *t, melu__ref e, size_t n) {
  const melu__ref size = melu__tape_add(t, melu__tape_relu(t, e), melu__tape_relu(t, melu__tape_scale(t, e, -1)));
  const melu__ref above = melu__tape_relu(t, melu__tape_sub(t, size, melu__tape_const(t, n, 1, 1)));
  return melu__tape_sub(t, square(t, e), square(t, above));
}

/* -log sigmoid(z), and as much as makes it z larger where y = 0: -y log s(z) - (1 - y) log s(-z) = (1 - y) z - log
 * s(z). s(z) is 0 for z below -100 or so, so the logarithm is taken of s(|z|): -log s(z) = relu(-z) - log s(|z|). */
static melu__ref minus_log_sigmoid(struct melu__tape *t, melu__ref z) {
  const melu__ref size = melu__tape_add(t, melu__tape_relu(t, z), melu__tape_relu(t, melu__tape_scale(t, z, -1)));
  const melu__ref below = melu__tape_scale(t, melu__tape_sub(t, size, z), 0.5);
  return melu__tape_sub(t, below, melu__tape_log(t, melu__tape_sigmoid(t, size)));
}

static melu__ref logistic(struct melu__tape *t, melu__ref z, melu__ref y, size_t n) {
  const melu__ref not_y = melu__tape_sub(t, melu__tape_const(t, n, 1, 1), y);
  return melu__tape_add(t, melu__tape_mul(t, not_y, z), minus_log_sigmoid(t, z));
}

/* x_i - x_j as a matrix. */
static melu__ref differences(struct melu__tape *t, melu__ref x, size_t n) {
  const melu__ref ones = melu__tape_const(t, 1, n, 1), rows = melu__tape_matmul(t, x, ones, 0, 0);
  return melu__tape_sub(t, rows, melu__tape_transpose(t, rows));
}

/* Padding has weight 0 and takes part in no pair. */
static melu__ref pairwise(struct melu__tape *t, melu__ref s, melu__ref y, melu__ref weight, size_t n) {
  const melu__ref is_row = melu__tape_step(t, weight);
  const melu__ref are_rows = melu__tape_matmul(t, is_row, is_row, 0, 1);
  const melu__ref pairs = melu__tape_mul(t, are_rows, melu__tape_step(t, differences(t, y, n)));
  const melu__ref loss = melu__tape_mul(t, pairs, minus_log_sigmoid(t, differences(t, s, n)));
  const melu__ref n_pairs = melu__tape_add(t, melu__tape_sum_all(t, pairs), melu__tape_const(t, 1, 1, 1e-6));
  const melu__ref mean = melu__tape_mul(t, melu__tape_sum_all(t, loss), melu__tape_recip(t, n_pairs));
  return melu__tape_mul(t, mean, melu__tape_sum_all(t, weight));
}

melu__ref melu__loss(struct melu__tape *t, melu_loss loss, melu__ref prediction, melu__ref rating, melu__ref weight,
                     size_t n) {
  if (loss == MELU_PAIRWISE) return pairwise(t, prediction, rating, weight, n);
  const melu__ref e = melu__tape_sub(t, prediction, rating);
  melu__ref each = e;
  switch (loss) {
    case MELU_ABSOLUTE:
      each = smooth_absolute(t, e, n);
      break;
    case MELU_HUBER:
      each = huber(t, e, n);
      break;
    case MELU_MIXED:
      each = melu__tape_add(t, square(t, e), melu__tape_scale(t, smooth_absolute(t, e, n), 0.5));
      break;
    case MELU_LOGISTIC:
      each = logistic(t, prediction, rating, n);
      break;
    default:
      each = square(t, e);
  }
  return melu__tape_sum_all(t, melu__tape_mul(t, weight, each));
}
