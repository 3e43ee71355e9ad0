/* SPDX-License-Identifier: BSD-3-Clause */
#include "serve/user.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/embed.h"
#include "serve/factor_user.h"

/* -------------------------------------------------------------------------------------------------- life */

static size_t part_size(size_t n_numbers) {
  return melu__size_align(n_numbers, MELU__ALIGN / sizeof(real));
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

size_t melu__user_size(const melu_user *user) {
  if (melu__is_factors(user->model)) return factors_size(user->model);
  real *parts[MELU__MAX_WEIGHTS];
  size_t rows, cols;
  melu__user_parts(parts, user);
  melu__weight_shape(user->model, 0, &rows, &cols);
  const size_t first = user->n_support == MELU__FORMED ? rows * cols : user->n_support * (rows + cols);
  return (size_t)(parts[0] - user->data) + first;
}

int melu__user_init(melu_user *user, const melu_model *model) {
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
  user->version = model->version;
  user->data = melu__calloc(&model->ctx->allocator, user->n, sizeof *user->data);
  return user->data && melu__support_init(&user->support, &model->ctx->allocator, model->schema);
}

void melu__user_destroy(melu_user *user) {
  const struct melu_allocator *a = &user->model->ctx->allocator;
  melu__own_rows_free(&user->own, a);
  melu__support_free(&user->support, a);
  melu__free(a, user->encoded);
  melu__free(a, user->data);
}

int melu__user_is_finite(const melu_user *user) {
  const struct melu__kernels *k = user->model->ctx->kernels;
  return isfinite(k->largest(melu__user_size(user), user->data)) &&
         isfinite(k->largest(user->own.n_numbers, user->own.numbers));
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
  const melu_status status = melu__check_whole(model, err);
  if (status) return status;
  melu_user *user = melu__calloc(&model->ctx->allocator, 1, sizeof *user);
  if (!user) return melu__fail_memory(err);
  if (!melu__user_init(user, model)) {
    melu_user_free(user);
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
  melu__user_destroy(user);
  melu__free(a, user);
}

melu_status melu__check_readable(const melu_model *model, const melu_dataset *data, const uint32_t *items, size_t n,
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
  if (melu__adapts_items(model))
    return melu__fail(err, MELU_EINVAL, "a catalogue cannot rank for a model that adapts items: use melu_predict");
  return melu__check_readable(model, data, items, n, err);
}

melu_status melu__check_serving(const melu_model *model, const melu_user *user, const melu_workspace *ws,
                                const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err) {
  if (!model || !user || !ws || !data)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !model ? "model" : !user ? "user" : !ws ? "workspace" : "data");
  if (user->model != model || ws->model != model)
    return melu__fail(err, MELU_EINVAL, "the %s was made for another model", ws->model != model ? "workspace" : "user");
  if (n && !items) return melu__fail(err, MELU_EINVAL, "items is NULL");
  return melu__check_readable(model, data, items, n, err);
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

double melu__expected_rating(const melu_model *model, float score) {
  return model->options.loss == MELU_LOGISTIC ? 1 / (1 + exp(-(double)score)) : (double)score;
}

melu_status melu_predict(float *scores, melu_workspace *ws, const melu_model *model, const melu_user *user,
                         const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err) {
  const melu_status status = melu__check_serving(model, user, ws, data, items, n, err);
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
  const melu_status status = melu__check_serving(model, user, ws, data, items, n, err);
  if (status) return status;
  if (n && !variances) return melu__fail(err, MELU_EINVAL, "variances is NULL");
  if (!melu__has_variances(model))
    return melu__fail(err, MELU_EINVAL, "variances are for MELU_FACTORS with MELU_CLOSED_FORM");
  return melu__factor_predict(variances, ws, user, data, items, n, 1, err);
}
