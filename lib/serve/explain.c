/* SPDX-License-Identifier: BSD-3-Clause */
/* How a user's ratings pull a prediction. */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "meta/factors.h"
#include "model/embed.h"
#include "serve/factor_user.h"

/* The pulls of her n ratings, the arguments being checked; `plan` is for them. Returns what goes to `pulls`. */
static const real *explain_layers(melu_workspace *ws, const melu_user *user, const melu_dataset *data, uint32_t item,
                                  const struct melu__plan *plan) {
  const struct melu__support *told = &user->support;
  struct melu__scratch *s = &ws->scratch;
  real *slots[MELU__N_SLOTS];
  melu__workspace_refresh(ws);
  melu__scratch_slots(s, slots);
  melu__model_slots(slots, ws->model, ws->transposed);
  melu__embed_profile(ws->model, melu__support_profile(told), s->xu);
  melu__embed_many(ws->model, data, MELU_ITEM, ws->positions, told->n, s->xs);
  melu__embed(ws->model, data, MELU_ITEM, item, s->xq);
  for (size_t i = 0; i < told->n; i++) s->ys[i] = told->ratings[i];
  slots[MELU__SLOT_SCORES] = s->yq;
  melu__plan_run(plan, slots, NULL, s->arena);
  return s->yq;
}

melu_status melu_explain(float *pulls, melu_workspace *ws, const melu_model *model, const melu_user *user,
                         const melu_dataset *data, uint32_t item, melu_error *err) {
  melu_status status = melu__check_serving(model, user, ws, data, &item, 1, err);
  if (status) return status;
  const size_t n = user->support.n;
  const struct melu__plan *plan;
  size_t arena = 0;
  if (melu__adapts_items(model)) return melu__fail(err, MELU_EINVAL, "the model adapts items: it cannot explain");
  if (n && !pulls) return melu__fail(err, MELU_EINVAL, "pulls is NULL");
  status = melu__check_count(ws, n, err);
  for (size_t i = 0; i < n && !status; i++)
    status = melu__support_position(&ws->positions[i], &user->support, data, i, err);
  if (status || n == 0) return status;
  const size_t n_rows = melu__is_factors(model) ? melu__padded(n) : n;
  status = melu__task_plan_in(&plan, &arena, model, MELU__PLAN_EXPLAIN, n_rows, 0, err);
  if (status) return status;
  if (!melu__scratch_reserve(&ws->scratch, model, arena, 0, n_rows)) return melu__fail_memory(err);
  const real *found = melu__is_factors(model) ? melu__factor_explain(ws, user, data, item, plan)
                                              : explain_layers(ws, user, data, item, plan);
  const real unit = melu__is_factors(model) ? model->factors[MELU__F_SCALE][1] : 1;
  if (!isfinite((float)(unit * model->ctx->kernels->largest(n, found))))
    return melu__fail(err, MELU_EDIVERGED, "a pull is not finite: the weights are too large");
  for (size_t i = 0; i < n; i++) pulls[i] = (float)(unit * found[i]);
  return MELU_OK;
}
