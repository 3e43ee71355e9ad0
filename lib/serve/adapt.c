/* SPDX-License-Identifier: BSD-3-Clause */
/* Adapting: all ratings at once, or one more, one other, one less. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "meta/overlap.h"
#include "model/embed.h"
#include "serve/factor_user.h"

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
static int adapt_layers(melu_workspace *ws, const melu_dataset *data, const struct melu__told *told) {
  const melu_model *model = ws->model;
  struct melu__scratch *s = &ws->scratch;
  real *slots[MELU__N_SLOTS];
  if (melu__adapts_items(model) && !prepare_items(ws, data, told->items, told->n, slots)) return 0;
  melu__embed_profile(model, told->profile, s->xu);
  melu__embed_many(model, data, MELU_ITEM, told->items, told->n, s->xs);
  for (size_t i = 0; i < told->n; i++) s->ys[i] = told->ratings[i];
  run_adapt(ws, told->n, slots);
  if (melu__adapts_items(model)) melu__own_rows_move(&ws->fresh.own, model, data, told->items, told->n, ws->moved);
  return 1;
}

void melu__user_replace(melu_user *user, melu_user *fresh) {
  const struct melu__own_rows own = user->own;
  user->own = fresh->own;
  fresh->own = own;
  user->n_support = fresh->n_support;
  user->version = user->model->version;
  memcpy(user->data, fresh->data, melu__user_size(fresh) * sizeof *user->data);
}

melu_status melu__adapt_user(melu_user *user, melu_workspace *ws, const melu_dataset *data,
                             const struct melu__told *told, melu_error *err) {
  if (melu__is_factors(user->model))
    melu__factor_adapt(ws, user, data, told);
  else if (!adapt_layers(ws, data, told))
    return melu__fail_memory(err);
  if (!melu__user_is_finite(&ws->fresh))
    return melu__fail(err, MELU_EDIVERGED, "the inner loop diverged: a fast weight is not finite");
  melu__user_replace(user, &ws->fresh);
  return MELU_OK;
}

melu_status melu__adapt_and_keep(melu_user *user, melu_workspace *ws, const melu_dataset *data,
                                 const struct melu__told *told, melu_error *err) {
  if (melu__is_factors(user->model) && !melu__factor_reserve_rows(user, told->n)) return melu__fail_memory(err);
  const melu_status status = melu__adapt_user(user, ws, data, told, err);
  if (!status && melu__is_factors(user->model)) melu__factor_keep_rows(user, ws, told->n_known, told->n);
  return status;
}

melu_status melu__check_count(const melu_workspace *ws, size_t n, melu_error *err) {
  if (n <= ws->max_support) return MELU_OK;
  return melu__fail(err, MELU_ELIMIT, "%zu ratings, the workspace was made for %zu", n, ws->max_support);
}

melu_status melu_adapt(melu_user *user, melu_workspace *ws, const melu_model *model, const melu_dataset *data,
                       const struct melu_value *profile, const uint32_t *items, const float *ratings, size_t n,
                       melu_error *err) {
  melu_status status = melu__check_serving(model, user, ws, data, items, n, err);
  if (!status) status = melu__check_count(ws, n, err);
  if (status) return status;
  if (n && !ratings) return melu__fail(err, MELU_EINVAL, "ratings is NULL");
  for (size_t i = 0; i < n; i++)
    if (!isfinite(ratings[i])) return melu__fail_at(err, MELU_ERANGE, i, "ratings[%zu] is not finite", i);
  if (profile && (status = melu__values_check(model->schema, MELU_USER, NULL, profile, err))) return status;

  const struct melu__told told = {.profile = profile, .items = items, .ratings = ratings, .n = n};
  if (!melu__support_reserve(&user->support, &model->ctx->allocator, profile, n)) return melu__fail_memory(err);
  status = melu__adapt_and_keep(user, ws, data, &told, err);
  if (status) return status;
  melu__support_set_profile(&user->support, profile);
  melu__support_set_ratings(&user->support, data, items, ratings, n);
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------------- a rating more */

/* How many of her ratings' rows need not be encoded again. */
static size_t known_rows(const melu_user *user) {
  return melu__is_factors(user->model) && user->version == user->model->version ? user->n_rows : 0;
}

/* Adapts her to the first n of her ratings, n_known of which are rows of hers already. */
static melu_status adapt_again(melu_user *user, melu_workspace *ws, const melu_dataset *data, size_t n, size_t n_known,
                               melu_error *err) {
  struct melu__support *s = &user->support;
  for (size_t i = n_known; i < n; i++) {
    const melu_status status = melu__support_position(&ws->positions[i], s, data, i, err);
    if (status) return status;
  }
  const struct melu__told told = {
      .profile = melu__support_profile(s), .items = ws->positions, .ratings = s->ratings, .n = n, .n_known = n_known};
  return melu__adapt_and_keep(user, ws, data, &told, err);
}

melu_status melu_user_rate(melu_user *user, melu_workspace *ws, const melu_model *model, const melu_dataset *data,
                           uint32_t item, float rating, melu_error *err) {
  melu_status status = melu__check_serving(model, user, ws, data, &item, 1, err);
  if (status) return status;
  if (!isfinite(rating)) return melu__fail(err, MELU_ERANGE, "the rating is not finite");
  struct melu__support *s = &user->support;
  const uint64_t id = melu_dataset_item_id(data, item);
  const size_t place = melu__support_find(s, id), n = place == s->n ? s->n + 1 : s->n;
  status = melu__check_count(ws, n, err);
  if (status) return status;
  if (!melu__support_reserve(s, &model->ctx->allocator, melu__support_profile(s), n)) return melu__fail_memory(err);
  const float before = place < s->n ? s->ratings[place] : rating;
  const size_t n_known = known_rows(user);
  s->items[place] = id;
  s->ratings[place] = rating;
  status = adapt_again(user, ws, data, n, n_known, err);
  if (status)
    s->ratings[place] = before;
  else
    s->n = n;
  return status;
}

melu_status melu_user_forget(melu_user *user, melu_workspace *ws, const melu_model *model, const melu_dataset *data,
                             uint32_t item, melu_error *err) {
  melu_status status = melu__check_serving(model, user, ws, data, &item, 1, err);
  if (status) return status;
  struct melu__support *s = &user->support;
  const size_t place = melu__support_find(s, melu_dataset_item_id(data, item)), n = s->n;
  if (place == n) return melu__fail(err, MELU_ENOTFOUND, "the user did not rate item %lu", (unsigned long)item);
  status = melu__check_count(ws, n - 1, err);
  if (status) return status;
  melu__support_to_end(s, place);
  status = adapt_again(user, ws, data, n - 1, 0, err);
  if (status)
    melu__support_from_end(s, place);
  else
    s->n = n - 1;
  return status;
}

size_t melu_user_ratings(const melu_user *user, const uint64_t **items, const float **ratings) {
  const struct melu__support *s = user ? &user->support : NULL;
  if (items) *items = s ? s->items : NULL;
  if (ratings) *ratings = s ? s->ratings : NULL;
  return s ? s->n : 0;
}
