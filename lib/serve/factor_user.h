/* SPDX-License-Identifier: BSD-3-Clause */
/* Users of MELU_FACTORS models: a vector, and F'F + P, of which the spread of predictions comes. */
#ifndef MELU__FACTOR_USER_H
#define MELU__FACTOR_USER_H

#include "serve/user.h"

/* Finds the plans of a workspace and makes room. */
melu_status melu__factor_workspace_init(melu_workspace *ws, melu_error *err);

/* A user of whom nothing is known. */
void melu__factor_unknown(melu_user *user);

/* Makes ws->fresh of arguments that were checked. */
void melu__factor_adapt(melu_workspace *ws, const melu_dataset *data, const struct melu_value *profile,
                        const uint32_t *items, const float *ratings, size_t n);

/* Predictions, or with `variances` the variances of the ratings around them. */
melu_status melu__factor_predict(float *out, melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                                 const uint32_t *items, size_t n, int variances, melu_error *err);

/* Items [0, n) of `items` as rows of a task. `rows`: so many to whole blocks of BLOCK, those beyond n being zeros;
 * `scratch`: BLOCK rows of item_width + melu__encoded_cols numbers; `plan`: ITEMS of BLOCK rows, its arena `arena`. */
void melu__factor_rows(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n, size_t block,
                       const struct melu__plan *plan, real *scratch, real *arena, real *rows, real *pooled);

#endif
