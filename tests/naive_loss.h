/* SPDX-License-Identifier: BSD-3-Clause */
/* The losses of one row that melu.h gives, in long double. */
#ifndef MELU_TESTS_NAIVE_LOSS_H
#define MELU_TESTS_NAIVE_LOSS_H

#include <math.h>
#include <melu.h>

typedef long double wide;

/* -log sigmoid(x) */
static inline wide minus_log_sigmoid(wide x) {
  return x > 0 ? log1pl(expl(-x)) : log1pl(expl(x)) - x;
}

/* Of a score z and a rating r. Pairs are no rows. */
static inline wide loss_of_row(melu_loss loss, wide z, wide r) {
  const wide e = z - r, absolute = sqrtl(e * e + 0.01L);
  switch (loss) {
    case MELU_ABSOLUTE:
      return absolute;
    case MELU_HUBER:
      return fabsl(e) < 1 ? e * e : 2 * fabsl(e) - 1;
    case MELU_MIXED:
      return e * e + absolute / 2;
    case MELU_LOGISTIC:
      return r * minus_log_sigmoid(z) + (1 - r) * minus_log_sigmoid(-z);
    default:
      return e * e;
  }
}

#endif
