/* SPDX-License-Identifier: BSD-3-Clause */
/* A thread's scratch. */
#include "base/error.h"
#include "serve/catalog.h"
#include "serve/factor_user.h"

#define MAX_SUPPORT 4096

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
  melu_status status = melu__check_whole(model, err);
  if (status) return status;
  const struct melu_allocator *a = &model->ctx->allocator;
  melu_workspace *ws = melu__calloc(a, 1, sizeof *ws);
  if (!ws) return melu__fail_memory(err);
  ws->model = model;
  ws->max_support = max_support;
  ws->gathered =
      melu__calloc(a, melu__size_mul(MELU__RANK_ROWS, melu__rank_x(model) + melu__rank_z(model)), sizeof *ws->gathered);
  ws->ranking = melu__alloc(a, 1, melu__ranking_size());
  ws->positions = melu__alloc(a, max_support, sizeof *ws->positions);
  ws->transposed = melu__alloc(a, melu__transposed_size(model), sizeof *ws->transposed);
  if (!ws->gathered || !ws->ranking || !ws->positions || !ws->transposed || !melu__user_init(&ws->fresh, model))
    status = melu__fail_memory(err);
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
  melu__free(a, ws->gathered);
  melu__free(a, ws->ranking);
  melu__free(a, ws->positions);
  melu__free(a, ws->transposed);
  melu__free(a, ws->rows);
  melu__free(a, ws->encoding);
  melu__free(a, ws->pooled);
  melu__free(a, ws->moved);
  if (ws->fresh.model) melu__user_destroy(&ws->fresh);
  melu__free(a, ws->rank);
  melu__free(a, ws->predict);
  melu__free(a, ws->adapt);
  melu__free(a, ws);
}

void melu__workspace_refresh(melu_workspace *ws) {
  if (ws->transposed_version == ws->model->version) return;
  melu__transpose_weights(ws->transposed, ws->model);
  ws->transposed_version = ws->model->version;
}

size_t melu__workspace_row(const melu_workspace *ws, const melu_user *user) {
  if (melu__is_factors(user->model)) return 0;
  return user->n_support == MELU__FORMED ? ws->max_kept + 1 : user->n_support;
}
