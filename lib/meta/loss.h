/* SPDX-License-Identifier: BSD-3-Clause */
/* Losses of a query set, recorded on a tape. */
#ifndef MELU__LOSS_H
#define MELU__LOSS_H

#include "tape/tape.h"

/* The sum over rows of weight times loss: predictions, ratings and weights (n, 1). A weight of 0 leaves a row out.
 * MELU_PAIRWISE: the mean over pairs, times the sum of the weights. */
melu__ref melu__loss(struct melu__tape *tape, melu_loss loss, melu__ref prediction, melu__ref rating, melu__ref weight,
                     size_t n);

#endif
