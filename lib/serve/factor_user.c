/* SPDX-License-Identifier: BSD-3-Clause */
#include "serve/factor_user.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "meta/factors.h"
#include "model/embed.h"

/* -------------------------------------------------------------------------------------------------- life */

void melu__factor_unknown(melu_user *user) {
  const melu_model *model = user->model;
  const size_t width = melu__user_cols(&model->options);
  real *parts[MELU__MAX_WEIGHTS];
  melu__user_parts(parts, user);
  memcpy(parts[0], model->factors[MELU__F_PRIOR], width * sizeof *parts[0]);
  memset(parts[1], 0, width * width * sizeof *parts[1]);
  for (size_t j = 0; j < width; j++)
    parts[1][j * width + j] = (real)(melu__curvature(model) * log1p(exp((double)model->factors[MELU__F_PRECISION][j])));
}

melu_status melu__factor_workspace_init(melu_workspace *ws, melu_error *err) {
  const melu_model *model = ws->model;
  const struct melu_allocator *a = &model->ctx->allocator;
  const size_t n_adapt = melu__padded(ws->max_support) / MELU__FACTOR_ROWS + 1;
  size_t arena = 0;
  melu_status status = MELU_OK;
  ws->adapt = melu__calloc(a, n_adapt, sizeof *ws->adapt);
  ws->rank = melu__calloc(a, 1, sizeof *ws->rank);
  if (!ws->adapt || !ws->rank) return melu__fail_memory(err);
  for (size_t i = 0; i < n_adapt && !status; i++)
    status = melu__task_plan_in(&ws->adapt[i], &arena, ws->model, MELU__PLAN_ADAPT, i * MELU__FACTOR_ROWS, 0, err);
  if (!status) status = melu__task_plan_in(&ws->rank[0], &arena, ws->model, MELU__PLAN_RANK, 0, MELU__RANK_ROWS, err);
  if (!status) status = melu__task_plan_in(&ws->items, &arena, ws->model, MELU__PLAN_ITEMS, 0, MELU__PREDICT_ROWS, err);
  if (!status) status = melu__task_plan_in(&ws->profile, &arena, ws->model, MELU__PLAN_USERS, 0, 1, err);
  if (!status)
    status = melu__task_plan_in(&ws->scores, &arena, ws->model, MELU__PLAN_PREDICT, 0, MELU__PREDICT_ROWS, err);
  if (!status)
    status = melu__task_plan_in(&ws->spread, &arena, ws->model, MELU__PLAN_SPREAD, 0, MELU__PREDICT_ROWS, err);
  if (status) return status;
  /* XS holds all support rows, to whole blocks of encoded items; XQ one such block. */
  const size_t ld = melu__task_row(model), cols = model->item_width + melu__encoded_cols(model);
  const size_t n_rows = melu__size_align(ws->max_support, MELU__PREDICT_ROWS);
  ws->rows = melu__calloc(a, melu__size_mul(melu__size_add(n_rows, MELU__PREDICT_ROWS), ld), sizeof *ws->rows);
  ws->encoding = melu__calloc(a, MELU__PREDICT_ROWS * cols, sizeof *ws->encoding);
  ws->pooled = melu__calloc(a, 2 * melu__user_cols(&model->options), sizeof *ws->pooled);
  if (!ws->rows || !ws->encoding || !ws->pooled ||
      !melu__scratch_reserve(&ws->scratch, model, arena, melu__padded(ws->max_support), 0))
    return melu__fail_memory(err);
  return MELU_OK;
}

/* ---------------------------------------------------------------------------------------------------- rows */

void melu__factor_rows(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n, size_t block,
                       const struct melu__plan *plan, real *scratch, real *arena, real *rows, real *pooled) {
  const size_t ld = melu__task_row(model), cols = melu__encoded_cols(model), width = model->item_width;
  real *slots[MELU__N_SLOTS], *x = scratch, *z = scratch + block * width;
  struct melu__mat views[MELU__MAX_WEIGHTS];
  melu__model_views(views, model);
  for (size_t i = 0; i < melu__n_weights(model); i++) slots[MELU__SLOT_WEIGHTS + i] = views[i].p;
  slots[MELU__SLOT_XS] = x;
  slots[MELU__SLOT_ZS] = z;
  for (size_t done = 0; done < n; done += block) {
    const size_t n_items = n - done < block ? n - done : block;
    melu__embed_many(model, data, MELU_ITEM, items + done, n_items, x);
    memset(x + n_items * width, 0, (block - n_items) * width * sizeof *x);
    melu__plan_run(plan, slots, NULL, arena);
    for (size_t i = 0; i < n_items; i++) {
      melu__set_task_row(model, z + i * cols, rows + (done + i) * ld);
      if (pooled) melu__add_to_pool(model, z + i * cols, pooled);
    }
    memset(rows + (done + n_items) * ld, 0, (block - n_items) * ld * sizeof *rows);
  }
}

static void rows_of(melu_workspace *ws, const melu_dataset *data, const uint32_t *items, size_t n, real *rows,
                    real *pooled) {
  melu__factor_rows(ws->model, data, items, n, MELU__PREDICT_ROWS, ws->items, ws->encoding, ws->scratch.arena, rows,
                    pooled);
}

/* ------------------------------------------------------------------------------------------------ adapting */

void melu__factor_adapt(melu_workspace *ws, const melu_dataset *data, const struct melu_value *profile,
                        const uint32_t *items, const float *ratings, size_t n) {
  const melu_model *model = ws->model;
  const size_t width = melu__user_cols(&model->options);
  const real *scale = model->factors[MELU__F_SCALE];
  real *slots[MELU__N_SLOTS], *parts[MELU__MAX_WEIGHTS], *row = ws->pooled + width, *ys = ws->scratch.ys;
  melu__workspace_refresh(ws);
  melu__model_slots(slots, model, ws->transposed);
  melu__user_parts(parts, &ws->fresh);
  if (profile)
    melu__embed_values(model, MELU_USER, profile, ws->scratch.xu);
  else
    memset(ws->scratch.xu, 0, model->user_width * sizeof *ws->scratch.xu);
  slots[MELU__SLOT_XU] = ws->scratch.xu;
  slots[MELU__SLOT_ROW] = row;
  melu__plan_run(ws->profile, slots, NULL, ws->scratch.arena);
  memset(ws->pooled, 0, width * sizeof *ws->pooled);
  rows_of(ws, data, items, n, ws->rows, ws->pooled);
  for (size_t i = 0; i < melu__padded(n); i++) ys[i] = i < n ? (ratings[i] - scale[0]) / scale[1] : 0;
  slots[MELU__SLOT_XS] = ws->rows;
  slots[MELU__SLOT_ZS] = ws->rows + width;
  slots[MELU__SLOT_YS] = ys;
  slots[MELU__SLOT_POOLED] = ws->pooled;
  slots[MELU__SLOT_GRADS] = parts[0];
  slots[MELU__SLOT_GRADS + 1] = parts[1];
  ws->fresh.n_support = n;
  melu__plan_run(ws->adapt[melu__padded(n) / MELU__FACTOR_ROWS], slots, NULL, ws->scratch.arena);
}

/* ---------------------------------------------------------------------------------------------- predicting */

/* What the plans make, in units of the host's ratings: x is a score, or x (F'F + P)^-1 x'. */
static real score_of(const melu_model *model, real x) {
  const real *scale = model->factors[MELU__F_SCALE];
  return scale[0] + scale[1] * x;
}

static real variance_of(const melu_model *model, real x, real is_new) {
  const real *scale = model->factors[MELU__F_SCALE], noise = *model->factors[MELU__F_NOISE];
  if (model->options.loss == MELU_LOGISTIC) return (real)melu__curvature(model) * x;
  return scale[1] * scale[1] * noise * (1 + x + is_new * model->factors[MELU__F_NEW][2]);
}

melu_status melu__factor_predict(float *out, melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                                 const uint32_t *items, size_t n, int variances, melu_error *err) {
  const melu_model *model = ws->model;
  const size_t ld = melu__task_row(model);
  real *slots[MELU__N_SLOTS], *parts[MELU__MAX_WEIGHTS], piece[MELU__PREDICT_ROWS];
  real *rows = ws->rows + melu__size_align(ws->max_support, MELU__PREDICT_ROWS) * melu__task_row(model);
  melu__user_parts(parts, user);
  slots[MELU__SLOT_XQ] = rows;
  slots[MELU__SLOT_ZQ] = rows + melu__user_cols(&model->options);
  slots[MELU__SLOT_GRADS] = parts[0];
  slots[MELU__SLOT_GRADS + 1] = parts[1];
  slots[MELU__SLOT_SCORES] = piece;
  for (size_t done = 0; done < n; done += MELU__PREDICT_ROWS) {
    const size_t n_rows = n - done < MELU__PREDICT_ROWS ? n - done : MELU__PREDICT_ROWS;
    rows_of(ws, data, items + done, n_rows, rows, NULL);
    melu__plan_run(variances ? ws->spread : ws->scores, slots, NULL, ws->scratch.arena);
    if (!isfinite(model->ctx->kernels->largest(n_rows, piece)))
      return melu__fail_at(err, MELU_EDIVERGED, done, "a score is not finite: the weights are too large");
    for (size_t i = 0; i < n_rows; i++)
      out[done + i] = (float)(variances ? variance_of(model, piece[i], rows[i * ld + model->options.rank + 1])
                                        : score_of(model, piece[i]));
  }
  return MELU_OK;
}
