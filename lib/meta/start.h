/* SPDX-License-Identifier: BSD-3-Clause */
/* What a new model takes from the data before its first training. */
#ifndef MELU__START_H
#define MELU__START_H

#include "data/dataset.h"
#include "model/model.h"

/* MELU_FACTORS: mean and spread of the ratings by these users; which table names the items; zeros in all rows of tables
 * that none of the ratings leads to, which training will not touch. Errors: MELU_ENOMEM. */
melu_status melu__start(melu_model *model, const melu_dataset *data, const uint32_t *users, size_t n_users,
                        melu_error *err);

#endif
