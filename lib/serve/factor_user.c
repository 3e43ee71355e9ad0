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
  const struct melu__kernels *k = model->ctx->kernels;
  const size_t width = melu__user_cols(&model->options);
  real *parts[MELU__MAX_WEIGHTS], precision[MELU__MAX_RANK + 2];
  const struct melu__cmat given = {model->factors[MELU__F_PRECISION], width}, from = {precision, width};
  const struct melu__mat to = {precision, width};
  melu__user_parts(parts, user);
  memcpy(parts[0], model->factors[MELU__F_PRIOR], width * sizeof *parts[0]);
  memset(parts[1], 0, width * width * sizeof *parts[1]);
  /* melu__softplus by the same kernels: she has the bits of one who was adapted to nothing. */
  k->scale(1, width, -1, given, to);
  k->sigmoid(1, width, from, to);
  k->log(1, width, from, to);
  for (size_t j = 0; j < width; j++) parts[1][j * width + j] = (real)-melu__curvature(model) * precision[j];
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

/* A user's encoded numbers are the sum of y, and from here on the rows. */
static size_t first_row(const melu_model *model) {
  return melu__size_align(melu__user_cols(&model->options), MELU__ALIGN / sizeof(real));
}

int melu__factor_reserve_rows(melu_user *user, size_t n) {
  const size_t first = first_row(user->model), ld = melu__task_row(user->model);
  return melu__grow(&user->model->ctx->allocator, &user->encoded, &user->encoded_capacity,
                    user->n_rows ? first + user->n_rows * ld : 0, melu__size_add(first, melu__size_mul(n, ld)),
                    sizeof *user->encoded);
}

void melu__factor_keep_rows(melu_user *user, const melu_workspace *ws, size_t n_known, size_t n) {
  const size_t ld = melu__task_row(user->model), width = melu__user_cols(&user->model->options);
  memcpy(user->encoded, ws->pooled, width * sizeof *user->encoded);
  memcpy(user->encoded + first_row(user->model) + n_known * ld, ws->rows + n_known * ld,
         (n - n_known) * ld * sizeof *user->encoded);
  user->n_rows = n;
}

/* The support set's rows and the sum of their y, of which the user has the first ones. */
static void gather_rows(melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                        const struct melu__told *told) {
  const size_t ld = melu__task_row(ws->model), width = melu__user_cols(&ws->model->options), n_known = told->n_known;
  memset(ws->pooled, 0, width * sizeof *ws->pooled);
  memset(ws->rows + told->n * ld, 0, (melu__padded(told->n) - told->n) * ld * sizeof *ws->rows);
  if (n_known) {
    memcpy(ws->pooled, user->encoded, width * sizeof *ws->pooled);
    memcpy(ws->rows, user->encoded + first_row(ws->model), n_known * ld * sizeof *ws->rows);
  }
  if (n_known == told->n) return; /* of no rating, items may be NULL */
  rows_of(ws, data, told->items + n_known, told->n - n_known, ws->rows + n_known * ld, ws->pooled);
}

/* The model, and m_u. */
static void user_slots(melu_workspace *ws, const struct melu_value *profile, real *slots[MELU__N_SLOTS]) {
  real *row = ws->pooled + melu__user_cols(&ws->model->options);
  melu__workspace_refresh(ws);
  melu__model_slots(slots, ws->model, ws->transposed);
  melu__embed_profile(ws->model, profile, ws->scratch.xu);
  slots[MELU__SLOT_XU] = ws->scratch.xu;
  slots[MELU__SLOT_ROW] = row;
  melu__plan_run(ws->profile, slots, NULL, ws->scratch.arena);
}

/* All inputs of a task but the query row's. */
static void task_slots(melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                       const struct melu__told *told, real *slots[MELU__N_SLOTS]) {
  const size_t n = told->n;
  const real *scale = ws->model->factors[MELU__F_SCALE];
  real *ys = ws->scratch.ys;
  user_slots(ws, told->profile, slots);
  gather_rows(ws, user, data, told);
  for (size_t i = 0; i < melu__padded(n); i++) ys[i] = i < n ? (told->ratings[i] - scale[0]) / scale[1] : 0;
  slots[MELU__SLOT_XS] = ws->rows;
  slots[MELU__SLOT_ZS] = ws->rows + melu__user_cols(&ws->model->options);
  slots[MELU__SLOT_YS] = ys;
  slots[MELU__SLOT_POOLED] = ws->pooled;
}

void melu__factor_adapt(melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                        const struct melu__told *told) {
  real *slots[MELU__N_SLOTS], *parts[MELU__MAX_WEIGHTS];
  task_slots(ws, user, data, told, slots);
  melu__user_parts(parts, &ws->fresh);
  slots[MELU__SLOT_GRADS] = parts[0];
  slots[MELU__SLOT_GRADS + 1] = parts[1];
  ws->fresh.n_support = told->n;
  melu__plan_run(ws->adapt[melu__padded(told->n) / MELU__FACTOR_ROWS], slots, NULL, ws->scratch.arena);
}

/* Where a block of query rows goes: behind those of the support set. */
static real *query_rows(const melu_workspace *ws) {
  return ws->rows + melu__size_align(ws->max_support, MELU__PREDICT_ROWS) * melu__task_row(ws->model);
}

const real *melu__factor_explain(melu_workspace *ws, const melu_user *user, const melu_dataset *data, uint32_t item,
                                 const struct melu__plan *plan) {
  const struct melu__support *s = &user->support;
  const melu_model *model = ws->model;
  const size_t width = melu__user_cols(&model->options), cols = melu__encoded_cols(model);
  const struct melu__told told = {
      .profile = melu__support_profile(s), .items = ws->positions, .ratings = s->ratings, .n = s->n};
  real *slots[MELU__N_SLOTS], by_pooled[MELU__MAX_RANK + 2], *pulls = ws->scratch.yq, *query = query_rows(ws);
  task_slots(ws, user, data, &told, slots);
  rows_of(ws, data, &item, 1, query, NULL);
  slots[MELU__SLOT_XQ] = query;
  slots[MELU__SLOT_ZQ] = query + width;
  slots[MELU__SLOT_SCORES] = pulls;
  slots[MELU__SLOT_GRAD_POOLED] = by_pooled;
  melu__plan_run(plan, slots, NULL, ws->scratch.arena);
  for (size_t i = 0; i < s->n; i++) {
    const size_t in_block = i % MELU__PREDICT_ROWS, n_left = s->n - i;
    if (in_block == 0) /* what an item's encoding is besides its row is not kept */
      rows_of(ws, data, ws->positions + i, n_left < MELU__PREDICT_ROWS ? n_left : MELU__PREDICT_ROWS, query, NULL);
    const real *y = ws->encoding + MELU__PREDICT_ROWS * model->item_width + in_block * cols + model->options.rank + 1;
    for (size_t j = 0; j < width; j++) pulls[i] += by_pooled[j] * y[j];
  }
  return pulls;
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
  real *rows = query_rows(ws);
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
    for (size_t i = 0; i < n_rows; i++) {
      out[done + i] = (float)(variances ? variance_of(model, piece[i], rows[i * ld + model->options.rank + 1])
                                        : score_of(model, piece[i]));
      if (!isfinite(out[done + i]))
        return melu__fail_at(err, MELU_EDIVERGED, done + i, "a score is not finite: the weights are too large");
    }
  }
  return MELU_OK;
}

/* -------------------------------------------------------------------------------------------------- asking */

double melu__factor_gradient(melu_workspace *ws, const melu_dataset *data, const struct melu_value *profile,
                             uint32_t item, float rating, const struct melu__plan *plan) {
  const real *scale = ws->model->factors[MELU__F_SCALE];
  real *slots[MELU__N_SLOTS], *query = query_rows(ws), y = (rating - scale[0]) / scale[1], square;
  user_slots(ws, profile, slots);
  rows_of(ws, data, &item, 1, query, NULL);
  slots[MELU__SLOT_XQ] = query;
  slots[MELU__SLOT_ZQ] = query + melu__user_cols(&ws->model->options);
  slots[MELU__SLOT_YQ] = &y;
  slots[MELU__SLOT_LOSS] = &square;
  melu__plan_run(plan, slots, NULL, ws->scratch.arena);
  return (double)square;
}

void melu__factor_moments(real *moments, melu_workspace *ws, const melu_dataset *data, const uint32_t *items,
                          size_t n) {
  const size_t ld = melu__task_row(ws->model), width = melu__user_cols(&ws->model->options);
  real *rows = query_rows(ws);
  for (size_t done = 0; done < n; done += MELU__PREDICT_ROWS) {
    const size_t n_rows = n - done < MELU__PREDICT_ROWS ? n - done : MELU__PREDICT_ROWS;
    rows_of(ws, data, items + done, n_rows, rows, NULL);
    ws->model->ctx->kernels->gemm(1, 0, width, width, n_rows, 1, (struct melu__cmat){rows, ld},
                                  (struct melu__cmat){rows, ld}, 1, (struct melu__mat){moments, width});
  }
}

void melu__factor_ask(real *gains, melu_workspace *ws, const melu_user *user, const melu_dataset *data,
                      const uint32_t *items, size_t n, const real *moments, const struct melu__plan *plan) {
  const melu_model *model = ws->model;
  const int is_logistic = model->options.loss == MELU_LOGISTIC;
  const real spread = model->factors[MELU__F_SCALE][1], noise = *model->factors[MELU__F_NOISE];
  const real unit = is_logistic ? (real)melu__curvature(model) : spread * spread * noise;
  real *slots[MELU__N_SLOTS], *parts[MELU__MAX_WEIGHTS], *rows = query_rows(ws);
  rows_of(ws, data, items, n, rows, NULL);
  melu__workspace_refresh(ws);
  melu__model_slots(slots, model, ws->transposed);
  melu__user_parts(parts, user);
  slots[MELU__SLOT_XQ] = rows;
  slots[MELU__SLOT_TARGETS] = (real *)moments; /* plans write to their outputs alone */
  slots[MELU__SLOT_GRADS + 1] = parts[1];
  slots[MELU__SLOT_SCORES] = gains;
  melu__plan_run(plan, slots, NULL, ws->scratch.arena);
  for (size_t i = 0; i < n; i++) gains[i] *= unit;
}
