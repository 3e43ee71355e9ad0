/* SPDX-License-Identifier: BSD-3-Clause */
#include "serve/user.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "meta/overlap.h"
#include "model/embed.h"
#include "serve/factor_user.h"

#define MAX_SUPPORT 4096

/* -------------------------------------------------------------------------------------------------- life */

static size_t part_size(size_t n_numbers) {
  return melu__size_align(n_numbers, MELU__ALIGN / sizeof(real));
}

static int adapts_items(const melu_model *model) {
  return (model->options.adapt & MELU_ADAPT_ITEMS) != 0;
}

static size_t factors_size(const melu_model *model) {
  const size_t width = melu__user_cols(&model->options);
  return part_size(width) + width * width;
}

void melu__user_parts(real *parts[MELU__MAX_WEIGHTS], const melu_user *user) {
  const melu_model *model = user->model;
  size_t rows, cols;
  real *p = user->data;
  if (melu__is_factors(model)) {
    parts[0] = p;
    parts[1] = p + part_size(melu__user_cols(&model->options));
    return;
  }
  for (size_t i = 2; i < 2 * model->n_layers + 1; i++) {
    melu__weight_shape(model, i, &rows, &cols);
    parts[i] = p;
    p += part_size(rows * cols);
  }
  melu__weight_shape(model, 0, &rows, &cols);
  parts[0] = p;
  parts[1] = p + (user->n_support == MELU__FORMED ? 0 : user->n_support * rows);
}

/* The numbers that say something: the first layer's place may be larger. */
static size_t used_size(const melu_user *user) {
  if (melu__is_factors(user->model)) return factors_size(user->model);
  real *parts[MELU__MAX_WEIGHTS];
  size_t rows, cols;
  melu__user_parts(parts, user);
  melu__weight_shape(user->model, 0, &rows, &cols);
  const size_t first = user->n_support == MELU__FORMED ? rows * cols : user->n_support * (rows + cols);
  return (size_t)(parts[0] - user->data) + first;
}

static int user_init(melu_user *user, const melu_model *model) {
  size_t rows, cols;
  user->model = model;
  user->n_support = 0;
  if (melu__is_factors(model)) {
    user->n = factors_size(model);
  } else {
    for (size_t i = 2; i < 2 * model->n_layers + 1; i++) {
      melu__weight_shape(model, i, &rows, &cols);
      user->n += part_size(rows * cols);
    }
    melu__weight_shape(model, 0, &rows, &cols);
    if (model->options.adapt & MELU_ADAPT_HIDDEN) user->n += rows * cols;
  }
  user->data = melu__calloc(&model->ctx->allocator, user->n, sizeof *user->data);
  return user->data != NULL;
}

/* Without ratings and a profile the fast weights are the model's own. */
static void set_unknown(melu_user *user) {
  const melu_model *model = user->model;
  const struct melu__kernels *k = model->ctx->kernels;
  struct melu__mat from[MELU__MAX_WEIGHTS];
  real *to[MELU__MAX_WEIGHTS];
  melu__model_views(from, model);
  melu__user_parts(to, user);
  for (size_t i = 2; i < 2 * model->n_layers + 1; i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    const struct melu__cmat w = {from[i].p, from[i].ld};
    if (rows == 1)
      k->copy(rows, cols, w, (struct melu__mat){to[i], cols});
    else
      k->transpose(rows, cols, w, (struct melu__mat){to[i], rows});
  }
}

melu_status melu_user_new(melu_user **out, const melu_model *model, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!model) return melu__fail(err, MELU_EINVAL, "model is NULL");
  melu_user *user = melu__calloc(&model->ctx->allocator, 1, sizeof *user);
  if (!user) return melu__fail_memory(err);
  if (!user_init(user, model)) {
    melu__free(&model->ctx->allocator, user);
    return melu__fail_memory(err);
  }
  if (melu__is_factors(model))
    melu__factor_unknown(user);
  else
    set_unknown(user);
  *out = user;
  return MELU_OK;
}

void melu_user_free(melu_user *user) {
  if (!user) return;
  const struct melu_allocator *a = &user->model->ctx->allocator;
  melu__own_rows_free(&user->own, a);
  melu__free(a, user->data);
  melu__free(a, user);
}

/* All plans that adapting, predicting and ranking will ever need, so that none of them makes one. */
static melu_status find_plans(melu_workspace *ws, melu_error *err) {
  size_t arena = 0;
  melu_status status = MELU_OK;
  const struct melu_allocator *a = &ws->model->ctx->allocator;
  while (melu__keeps_rows(ws->model, ws->max_kept + 1)) ws->max_kept++;
  ws->adapt = melu__calloc(a, ws->max_support + 1, sizeof *ws->adapt);
  ws->predict = melu__calloc(a, (ws->max_kept + 2) * MELU__N_PIECES, sizeof *ws->predict);
  ws->rank = melu__calloc(a, ws->max_kept + 2, sizeof *ws->rank);
  if (!ws->adapt || !ws->predict || !ws->rank) return melu__fail_memory(err);
  for (size_t n = 0; n <= ws->max_support && !status; n++)
    status = melu__task_plan_in(&ws->adapt[n], &arena, ws->model, MELU__PLAN_ADAPT, n, 0, err);
  for (size_t row = 0; row < ws->max_kept + 2 && !status; row++) {
    const size_t n = row <= ws->max_kept ? row : MELU__FORMED;
    for (size_t i = 0; i < MELU__N_PIECES && !status; i++)
      status = melu__task_plan_in(&ws->predict[row * MELU__N_PIECES + i], &arena, ws->model, MELU__PLAN_PREDICT, n,
                                  MELU__PREDICT_ROWS >> i, err);
    if (!status)
      status = melu__task_plan_in(&ws->rank[row], &arena, ws->model, MELU__PLAN_RANK, n, MELU__RANK_ROWS, err);
  }
  if (status) return status;
  if (!melu__scratch_reserve(&ws->scratch, ws->model, arena, ws->max_support, MELU__PREDICT_ROWS))
    return melu__fail_memory(err);
  return MELU_OK;
}

melu_status melu_workspace_new(melu_workspace **out, const melu_model *model, size_t max_support, melu_error *err) {
  if (!out) return melu__fail(err, MELU_EINVAL, "out is NULL");
  *out = NULL;
  if (!model) return melu__fail(err, MELU_EINVAL, "model is NULL");
  if (max_support > MAX_SUPPORT)
    return melu__fail(err, MELU_ELIMIT, "max_support is %zu, above %d", max_support, MAX_SUPPORT);
  const struct melu_allocator *a = &model->ctx->allocator;
  melu_workspace *ws = melu__calloc(a, 1, sizeof *ws);
  if (!ws) return melu__fail_memory(err);
  ws->model = model;
  ws->max_support = max_support;
  melu_status status = MELU_OK;
  ws->transposed = melu__alloc(a, melu__transposed_size(model), sizeof *ws->transposed);
  if (!ws->transposed || !user_init(&ws->fresh, model)) status = melu__fail_memory(err);
  if (!status) status = melu__is_factors(model) ? melu__factor_workspace_init(ws, err) : find_plans(ws, err);
  if (status) {
    melu_workspace_free(ws);
    return status;
  }
  *out = ws;
  return MELU_OK;
}

void melu_workspace_free(melu_workspace *ws) {
  if (!ws) return;
  const struct melu_allocator *a = &ws->model->ctx->allocator;
  melu__scratch_free(&ws->scratch, ws->model);
  melu__free(a, ws->transposed);
  melu__free(a, ws->rows);
  melu__free(a, ws->encoding);
  melu__free(a, ws->pooled);
  melu__free(a, ws->moved);
  melu__own_rows_free(&ws->fresh.own, a);
  melu__free(a, ws->fresh.data);
  melu__free(a, ws->rank);
  melu__free(a, ws->predict);
  melu__free(a, ws->adapt);
  melu__free(a, ws);
}

/* ------------------------------------------------------------------------------------------------ adapting */

/* Whether the model can read these items. */
static melu_status check_readable(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n,
                                  melu_error *err) {
  if (!data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is not frozen");
  if (!melu__schema_equal(model->schema, data->schema))
    return melu__fail(err, MELU_ESCHEMA, "the data set has another schema than the model");
  const size_t n_items = melu_dataset_n_items(data);
  for (size_t i = 0; i < n; i++)
    if (items[i] >= n_items)
      return melu__fail_at(err, MELU_ERANGE, i, "items[%zu] is %lu, the data set has %zu items", i,
                           (unsigned long)items[i], n_items);
  return MELU_OK;
}

melu_status melu__check_items(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n,
                              melu_error *err) {
  if (adapts_items(model))
    return melu__fail(err, MELU_EINVAL, "a catalogue cannot rank for a model that adapts items: use melu_predict");
  return check_readable(model, data, items, n, err);
}

/* What adapt and predict check alike: handles that belong together, items that exist. */
static melu_status check_items(const melu_model *model, const melu_user *user, const melu_workspace *ws,
                               const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err) {
  if (!model || !user || !ws || !data)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !model ? "model" : !user ? "user" : !ws ? "workspace" : "data");
  if (user->model != model || ws->model != model)
    return melu__fail(err, MELU_EINVAL, "the %s was made for another model", ws->model != model ? "workspace" : "user");
  if (n && !items) return melu__fail(err, MELU_EINVAL, "items is NULL");
  return check_readable(model, data, items, n, err);
}

void melu__workspace_refresh(melu_workspace *ws) {
  if (ws->transposed_version == ws->model->version) return;
  melu__transpose_weights(ws->transposed, ws->model);
  ws->transposed_version = ws->model->version;
}

/* Makes room for what n items move, and computes how they overlap. */
static int prepare_items(melu_workspace *ws, const melu_dataset *data, const uint32_t *items, size_t n,
                         real *slots[MELU__N_SLOTS]) {
  const melu_model *model = ws->model;
  const struct melu__rated rated = {.items = items};
  const size_t n_moved = melu__size_mul(n, model->item_width);
  const size_t need = melu__size_add(n_moved, melu__overlap_size(model, n, n));
  if (!melu__own_rows_find(&ws->fresh.own, model, data, items, n) ||
      !melu__grow(&model->ctx->allocator, &ws->moved, &ws->moved_capacity, 0, need, sizeof *ws->moved))
    return 0;
  slots[MELU__SLOT_MOVED] = ws->moved;
  melu__overlap(slots + MELU__SLOT_OVERLAP_S, model, data, &rated, 0, n, n, ws->moved + n_moved);
  return 1;
}

static void run_adapt(melu_workspace *ws, size_t n, real *slots[MELU__N_SLOTS]) {
  real *parts[MELU__MAX_WEIGHTS];
  melu__workspace_refresh(ws);
  melu__scratch_slots(&ws->scratch, slots);
  melu__model_slots(slots, ws->model, ws->transposed);
  ws->fresh.n_support = melu__kept_rows(ws->model, n);
  melu__user_parts(parts, &ws->fresh);
  for (size_t i = 0; i < 2 * ws->model->n_layers + 1; i++) slots[MELU__SLOT_GRADS + i] = parts[i];
  melu__plan_run(ws->adapt[n], slots, NULL, ws->scratch.arena);
}

/* Returns 0 if there is no memory, which only MELU_ADAPT_ITEMS asks for. */
static int adapt_layers(melu_workspace *ws, const melu_dataset *data, const struct melu_value *profile,
                        const uint32_t *items, const float *ratings, size_t n) {
  const melu_model *model = ws->model;
  struct melu__scratch *s = &ws->scratch;
  real *slots[MELU__N_SLOTS];
  if (adapts_items(model) && !prepare_items(ws, data, items, n, slots)) return 0;
  if (profile)
    melu__embed_values(model, MELU_USER, profile, s->xu);
  else if (model->user_width)
    memset(s->xu, 0, model->user_width * sizeof *s->xu);
  melu__embed_many(model, data, MELU_ITEM, items, n, s->xs);
  for (size_t i = 0; i < n; i++) s->ys[i] = ratings[i];
  run_adapt(ws, n, slots);
  if (adapts_items(model)) melu__own_rows_move(&ws->fresh.own, model, data, items, n, ws->moved);
  return 1;
}

static int is_finite(const melu_user *user) {
  const struct melu__kernels *k = user->model->ctx->kernels;
  return isfinite(k->largest(used_size(user), user->data)) &&
         isfinite(k->largest(user->own.n_numbers, user->own.numbers));
}

/* Cannot fail: the memory for a user's own rows changes hands. */
static void replace(melu_user *user, melu_user *fresh) {
  const struct melu__own_rows own = user->own;
  user->own = fresh->own;
  fresh->own = own;
  user->n_support = fresh->n_support;
  memcpy(user->data, fresh->data, used_size(fresh) * sizeof *user->data);
}

melu_status melu_adapt(melu_user *user, melu_workspace *ws, const melu_model *model, const melu_dataset *data,
                       const struct melu_value *profile, const uint32_t *items, const float *ratings, size_t n,
                       melu_error *err) {
  if (ws && n > ws->max_support)
    return melu__fail(err, MELU_ELIMIT, "%zu ratings, the workspace was made for %zu", n, ws->max_support);
  melu_status status = check_items(model, user, ws, data, items, n, err);
  if (status) return status;
  if (n && !ratings) return melu__fail(err, MELU_EINVAL, "ratings is NULL");
  for (size_t i = 0; i < n; i++)
    if (!isfinite(ratings[i])) return melu__fail_at(err, MELU_ERANGE, i, "ratings[%zu] is not finite", i);
  if (profile && (status = melu__values_check(model->schema, MELU_USER, NULL, profile, err))) return status;

  if (melu__is_factors(model))
    melu__factor_adapt(ws, data, profile, items, ratings, n);
  else if (!adapt_layers(ws, data, profile, items, ratings, n))
    return melu__fail_memory(err);
  if (!is_finite(&ws->fresh))
    return melu__fail(err, MELU_EDIVERGED, "the inner loop diverged: a fast weight is not finite");
  replace(user, &ws->fresh);
  return MELU_OK;
}

/* ---------------------------------------------------------------------------------------------- predicting */

void melu__user_slots(real *slots[MELU__N_SLOTS], const melu_user *user) {
  real *parts[MELU__MAX_WEIGHTS];
  melu__user_parts(parts, user);
  slots[MELU__SLOT_WEIGHTS] = slots[MELU__SLOT_GRADS] = parts[0];
  if (melu__is_factors(user->model)) return;
  slots[MELU__SLOT_XT] = parts[1];
  for (size_t i = 2; i < 2 * user->model->n_layers + 1; i++) slots[MELU__SLOT_WEIGHTS + i] = parts[i];
}

size_t melu__workspace_row(const melu_workspace *ws, const melu_user *user) {
  if (melu__is_factors(user->model)) return 0;
  return user->n_support == MELU__FORMED ? ws->max_kept + 1 : user->n_support;
}

melu_status melu_predict(float *scores, melu_workspace *ws, const melu_model *model, const melu_user *user,
                         const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err) {
  const melu_status status = check_items(model, user, ws, data, items, n, err);
  if (status) return status;
  if (n && !scores) return melu__fail(err, MELU_EINVAL, "scores is NULL");
  if (melu__is_factors(model)) return melu__factor_predict(scores, ws, user, data, items, n, 0, err);
  const size_t row = melu__workspace_row(ws, user);
  struct melu__scratch *s = &ws->scratch;
  real *slots[MELU__N_SLOTS], piece[MELU__PREDICT_ROWS];
  melu__workspace_refresh(ws);
  melu__scratch_slots(s, slots);
  melu__model_slots(slots, model, ws->transposed);
  melu__user_slots(slots, user);
  slots[MELU__SLOT_SCORES] = piece;
  for (size_t done = 0, halvings = 0; done < n;) {
    const size_t n_rows = MELU__PREDICT_ROWS >> halvings;
    if (n_rows > n - done) {
      halvings++;
      continue;
    }
    melu__embed_many(model, data, MELU_ITEM, items + done, n_rows, s->xq);
    melu__own_rows_add(&user->own, model, data, items + done, n_rows, s->xq);
    melu__plan_run(ws->predict[row * MELU__N_PIECES + halvings], slots, NULL, s->arena);
    if (!isfinite(model->ctx->kernels->largest(n_rows, piece)))
      return melu__fail_at(err, MELU_EDIVERGED, done, "a score is not finite: the weights are too large");
    for (size_t i = 0; i < n_rows; i++) scores[done + i] = (float)piece[i];
    done += n_rows;
  }
  return MELU_OK;
}

melu_status melu_predict_variance(float *variances, melu_workspace *ws, const melu_model *model, const melu_user *user,
                                  const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err) {
  const melu_status status = check_items(model, user, ws, data, items, n, err);
  if (status) return status;
  if (n && !variances) return melu__fail(err, MELU_EINVAL, "variances is NULL");
  if (!melu__is_factors(model) || model->options.rule != MELU_CLOSED_FORM)
    return melu__fail(err, MELU_EINVAL, "variances are for MELU_FACTORS with MELU_CLOSED_FORM");
  return melu__factor_predict(variances, ws, user, data, items, n, 1, err);
}
