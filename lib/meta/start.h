/* SPDX-License-Identifier: BSD-3-Clause */
/* What a new model takes from the data before its first training. */
#ifndef MELU__START_H
#define MELU__START_H

#include "base/mail.h"
#include "meta/source.h"
#include "model/model.h"

/* Of all ratings that are trained on. */
struct melu__ratings {
  double n, sum, squares;
};

/* MELU_FACTORS: mean and spread of the ratings; which table names the items; zeros in all rows of tables that none of
 * the ratings leads to, which training will not touch. `mail`: NULL if there is one rank; else the call is collective.
 * Errors: MELU_ENOMEM, and the source's. */
melu_status melu__start(melu_model *model, const struct melu__source *source, const struct melu__ratings *ratings,
                        struct melu__mail *mail, melu_error *err);

#endif
