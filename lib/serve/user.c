/* SPDX-License-Identifier: BSD-3-Clause */
#include "serve/user.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "model/embed.h"

enum { W1_USER = 1 };

#define MAX_SUPPORT 4096

/* -------------------------------------------------------------------------------------------------- life */

static size_t weights_size(const melu_model *model) {
  size_t n = 0, rows, cols;
  for (size_t i = 0; i < 2 * model->n_layers + 1; i++) {
    melu__weight_shape(model, i, &rows, &cols);
    if (i != W1_USER) n += rows * cols;
  }
  return n;
}

static void user_views(struct melu__mat views[MELU__MAX_WEIGHTS], const melu_user *user) {
  real *p = user->data;
  for (size_t i = 0; i < 2 * user->model->n_layers + 1; i++) {
    size_t rows, cols;
    melu__weight_shape(user->model, i, &rows, &cols);
    views[i] = (struct melu__mat){i == W1_USER ? NULL : p, cols};
    if (i != W1_USER) p += rows * cols;
  }
}

static int user_init(melu_user *user, const melu_model *model) {
  user->model = model;
  user->n = weights_size(model);
  user->data = melu__calloc(&model->ctx->allocator, user->n, sizeof *user->data);
  return user->data != NULL;
}

/* Without ratings and a profile the fast weights are the model's own. */
static void set_unknown(melu_user *user) {
  const melu_model *model = user->model;
  struct melu__mat from[MELU__MAX_WEIGHTS], to[MELU__MAX_WEIGHTS];
  real *data[2 * (MELU__MAX_HIDDEN + 1)];
  for (size_t i = 0; i < 2 * model->n_layers; i++) data[i] = model->params[model->n_tables + i].data;
  melu__weight_views(from, model, data);
  user_views(to, user);
  for (size_t i = 0; i < 2 * model->n_layers + 1; i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    if (i != W1_USER) model->ctx->kernels->copy(rows, cols, (struct melu__cmat){from[i].p, from[i].ld}, to[i]);
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
  set_unknown(user);
  *out = user;
  return MELU_OK;
}

void melu_user_free(melu_user *user) {
  if (!user) return;
  const struct melu_allocator *a = &user->model->ctx->allocator;
  melu__free(a, user->data);
  melu__free(a, user);
}

/* All plans that adapt and predict will ever need, so that neither makes one. */
static melu_status find_plans(melu_workspace *ws, melu_error *err) {
  size_t arena = 0;
  for (size_t n = 0; n <= ws->max_support; n++) {
    const melu_status status = melu__task_plan(&ws->adapt[n], ws->model, MELU__PLAN_ADAPT, n, 0, err);
    if (status) return status;
    if (melu__plan_arena_size(ws->adapt[n]) > arena) arena = melu__plan_arena_size(ws->adapt[n]);
  }
  for (size_t n = 1; n <= MELU__PREDICT_ROWS; n++) {
    const melu_status status = melu__task_plan(&ws->predict[n], ws->model, MELU__PLAN_PREDICT, 0, n, err);
    if (status) return status;
    if (melu__plan_arena_size(ws->predict[n]) > arena) arena = melu__plan_arena_size(ws->predict[n]);
  }
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
  ws->adapt = melu__calloc(a, max_support + 1, sizeof *ws->adapt);
  ws->predict = melu__calloc(a, MELU__PREDICT_ROWS + 1, sizeof *ws->predict);
  melu_status status = MELU_OK;
  ws->transposed = melu__alloc(a, melu__transposed_size(model), sizeof *ws->transposed);
  if (!ws->adapt || !ws->predict || !ws->transposed || !user_init(&ws->fresh, model)) status = melu__fail_memory(err);
  if (!status) status = find_plans(ws, err);
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
  melu__free(a, ws->fresh.data);
  melu__free(a, ws->predict);
  melu__free(a, ws->adapt);
  melu__free(a, ws);
}

/* ------------------------------------------------------------------------------------------------ adapting */

/* What adapt and predict check alike: handles that belong together, items that exist. */
static melu_status check_items(const melu_model *model, const melu_user *user, const melu_workspace *ws,
                               const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err) {
  if (!model || !user || !ws || !data)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !model ? "model" : !user ? "user" : !ws ? "workspace" : "data");
  if (user->model != model || ws->model != model)
    return melu__fail(err, MELU_EINVAL, "the %s was made for another model", ws->model != model ? "workspace" : "user");
  if (n && !items) return melu__fail(err, MELU_EINVAL, "items is NULL");
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

static int all_finite(const real *x, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!isfinite(x[i])) return 0;
  return 1;
}

static void user_slots(real **slots, const melu_user *user) {
  struct melu__mat views[MELU__MAX_WEIGHTS];
  user_views(views, user);
  for (size_t i = 0; i < 2 * user->model->n_layers + 1; i++) slots[i] = views[i].p;
}

static void run_adapt(melu_workspace *ws, size_t n) {
  const melu_model *model = ws->model;
  real *slots[MELU__N_SLOTS];
  if (ws->transposed_version != model->version) {
    melu__transpose_weights(ws->transposed, model);
    ws->transposed_version = model->version;
  }
  melu__scratch_slots(&ws->scratch, slots);
  melu__model_slots(slots, model, ws->transposed);
  user_slots(slots + MELU__SLOT_GRADS, &ws->fresh);
  melu__plan_run(ws->adapt[n], slots, NULL, ws->scratch.arena);
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

  struct melu__scratch *s = &ws->scratch;
  if (profile)
    melu__embed_values(model, MELU_USER, profile, s->xu);
  else if (model->user_width)
    memset(s->xu, 0, model->user_width * sizeof *s->xu);
  for (size_t i = 0; i < n; i++) {
    melu__embed(model, data, MELU_ITEM, items[i], s->xs + i * model->item_width);
    s->ys[i] = ratings[i];
  }
  run_adapt(ws, n);
  if (!all_finite(ws->fresh.data, ws->fresh.n))
    return melu__fail(err, MELU_EDIVERGED, "the inner loop diverged: a fast weight is not finite");
  memcpy(user->data, ws->fresh.data, user->n * sizeof *user->data);
  return MELU_OK;
}

melu_status melu_predict(float *scores, melu_workspace *ws, const melu_model *model, const melu_user *user,
                         const melu_dataset *data, const uint32_t *items, size_t n, melu_error *err) {
  const melu_status status = check_items(model, user, ws, data, items, n, err);
  if (status) return status;
  if (n && !scores) return melu__fail(err, MELU_EINVAL, "scores is NULL");
  struct melu__scratch *s = &ws->scratch;
  real *slots[MELU__N_SLOTS], rows[MELU__PREDICT_ROWS];
  melu__scratch_slots(s, slots);
  user_slots(slots + MELU__SLOT_WEIGHTS, user);
  slots[MELU__SLOT_SCORES] = rows;
  for (size_t done = 0; done < n;) {
    const size_t piece = n - done < MELU__PREDICT_ROWS ? n - done : MELU__PREDICT_ROWS;
    for (size_t i = 0; i < piece; i++)
      melu__embed(model, data, MELU_ITEM, items[done + i], s->xq + i * model->item_width);
    melu__plan_run(ws->predict[piece], slots, NULL, s->arena);
    if (!all_finite(rows, piece))
      return melu__fail_at(err, MELU_EDIVERGED, done, "a score is not finite: the weights are too large");
    for (size_t i = 0; i < piece; i++) scores[done + i] = (float)rows[i];
    done += piece;
  }
  return MELU_OK;
}
