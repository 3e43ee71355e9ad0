/* SPDX-License-Identifier: BSD-3-Clause */
/* What training asks of the outer loop beside melu_meta_gradient. */
#ifndef MELU__OUTER_H
#define MELU__OUTER_H

#include "data/batch.h"
#include "model/gradient.h"

/* MELU_FACTORS: the sum over the batch's query rows x of e^2 / (1 + x (F'F + P)^-1 x'), e in units of the ratings'
 * spread. The gradient lends its memory and is empty afterwards. */
melu_status melu__noise(double *sum, melu_gradient *g, const melu_model *model, const melu_batch *batch,
                        melu_error *err);

#endif
