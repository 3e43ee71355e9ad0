/* SPDX-License-Identifier: BSD-3-Clause */
/* Users of MELU_FACTORS models: a vector, and F'F + P, of which the spread of predictions comes. */
#ifndef MELU__FACTOR_USER_H
#define MELU__FACTOR_USER_H

#include "serve/user.h"

/* Finds the plans of a workspace and makes room. */
melu_status melu__factor_workspace_init(melu_workspace *ws, melu_error *err);

/* A user of whom nothing is known. */
void melu__factor_unknown(melu_user *user);

/* Room for the rows of n ratings. Returns 0 if there is no memory. */
int melu__factor_reserve_rows(melu_user *user, size_t n);

/* Makes ws->fresh of arguments that were checked, with the rows that the user has. */
void melu__factor_adapt(melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                        const struct melu__told *told);

/* Keeps the rows [n_known, n) of the last adaptation in the user, who has room for them. */
void melu__factor_keep_rows(melu_user *user, const melu_workspace *ws, size_t n_known, size_t n);

/* What her ratings' counts change in the score of an item, in units of the spread, as `plan` (EXPLAIN) has it and
 * through the sum of y; ws->positions are her items. In the scratch's yq. */
const real *melu__factor_explain(melu_workspace *ws, const melu_user *user, const melu_dataset *data, uint32_t item,
                                 const struct melu__plan *plan);

/* The sum of x'x over the rows x of n items, (melu__user_cols, melu__user_cols), to `moments`, which is zeros. */
void melu__factor_moments(real *moments, melu_workspace *ws, const melu_dataset *data, const uint32_t *items, size_t n);

/* By how much the sum of the targets' variances falls with an answer about each of n items, at most PREDICT_ROWS, as
 * `plan` (ASK) has it. `moments`: of the targets. */
void melu__factor_ask(real *gains, melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                      const uint32_t *items, size_t n, const real *moments, const struct melu__plan *plan);

/* The squared norm of the loss's gradient from one rating of a user with that profile, as `plan` (NORM) has it. */
double melu__factor_gradient(melu_workspace *ws, const melu_dataset *data, const struct melu_value *profile,
                             uint32_t item, float rating, const struct melu__plan *plan);

/* Predictions, or with `variances` the variances of the ratings around them. */
melu_status melu__factor_predict(float *out, melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                                 const uint32_t *items, size_t n, int variances, melu_error *err);

/* Items [0, n) of `items` as rows of a task. `rows`: so many to whole blocks of BLOCK, those beyond n being zeros;
 * `scratch`: BLOCK rows of item_width + melu__encoded_cols numbers; `plan`: ITEMS of BLOCK rows, its arena `arena`. */
void melu__factor_rows(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n, size_t block,
                       const struct melu__plan *plan, real *scratch, real *arena, real *rows, real *pooled);

#endif
