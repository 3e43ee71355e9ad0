/* SPDX-License-Identifier: BSD-3-Clause */
/* What a new model takes from the data before its first training. */
#ifndef MELU__START_H
#define MELU__START_H

#include "meta/source.h"
#include "model/model.h"

/* MELU_FACTORS: mean and spread of the ratings by those who are trained on; which table names the items; zeros in all
 * rows of tables that none of the ratings leads to, which training will not touch. The source was not put in order yet.
 * On error the model is as before. Errors: MELU_ENOMEM, and those of reading files. */
melu_status melu__start(melu_model *model, struct melu__source *source, melu_error *err);

#endif
