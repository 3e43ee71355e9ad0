/* SPDX-License-Identifier: BSD-3-Clause */
/* Evidence candidates by the norm of the inner loop's gradient and by popularity (MeLU, section 3.3). */
#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "meta/overlap.h"
#include "model/embed.h"
#include "serve/candidates.h"
#include "serve/factor_user.h"

/* The squared norm of the first gradient that the inner loop has from one rating of a user with that profile. */
static double layers_gradient(melu_workspace *ws, const melu_dataset *data, const struct melu_value *profile,
                              uint32_t item, float rating, const struct melu__plan *plan) {
  const struct melu__rated rated = {.items = &item};
  struct melu__scratch *s = &ws->scratch;
  real *slots[MELU__N_SLOTS], square;
  melu__workspace_refresh(ws);
  melu__scratch_slots(s, slots);
  melu__model_slots(slots, ws->model, ws->transposed);
  melu__embed_profile(ws->model, profile, s->xu);
  melu__embed(ws->model, data, MELU_ITEM, item, s->xs);
  if (melu__adapts_items(ws->model))
    melu__overlap(slots + MELU__SLOT_OVERLAP_S, ws->model, data, &rated, 0, 1, 1, ws->moved);
  s->ys[0] = rating;
  slots[MELU__SLOT_LOSS] = &square;
  melu__plan_run(plan, slots, NULL, s->arena);
  return (double)square;
}

static melu_status take_norms(struct melu__search *s, size_t u, struct melu__asker *a, melu_error *err) {
  const uint32_t *items;
  const float *ratings;
  const size_t n = melu__search_ratings(s, u, &items, &ratings);
  (void)melu_dataset_user_values(a->profile, s->data, s->users[u], NULL); /* she is there */
  for (size_t i = 0; i < n; i++) {
    const double square = (melu__is_factors(s->model) ? melu__factor_gradient : layers_gradient)(
        a->workspace, s->data, a->profile, items[i], ratings[i], s->norm);
    if (!isfinite(square))
      return melu__fail(err, MELU_EDIVERGED, "a gradient is not finite: the weights are too large");
    s->said[s->start[u] + i] = sqrt(square);
  }
  return MELU_OK;
}

static int better(const void *a, const void *b) {
  const struct melu__candidate *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return (x->item > y->item) - (x->item < y->item);
}

/* From 0 for the least to 1 for the most; 1 where all are alike. */
static double scaled(double x, double least, double most) {
  return most > least ? (x - least) / (most - least) : 1;
}

melu_status melu__choose_by_norm(uint32_t *items, double *scores, struct melu__search *s, melu_error *err) {
  size_t arena = 0;
  const int is_factors = melu__is_factors(s->model);
  melu_status status =
      melu__task_plan_in(&s->norm, &arena, s->model, MELU__PLAN_NORM, !is_factors, (size_t)is_factors, err);
  const size_t overlap = melu__adapts_items(s->model) ? melu__overlap_size(s->model, 1, 1) : 0;
  for (size_t i = 0; i < s->n_askers && !status; i++) {
    melu_workspace *ws = s->askers[i].workspace;
    if (!melu__scratch_reserve(&ws->scratch, s->model, arena, 1, 1) ||
        !melu__grow(&s->model->ctx->allocator, &ws->moved, &ws->moved_capacity, 0, overlap, sizeof *ws->moved))
      status = melu__fail_memory(err);
  }
  s->n_total = s->n_users;
  if (!status) status = melu__search_users(s, take_norms, err);
  if (status) return status;
  melu__search_sum(s);
  double least = INFINITY, most = -INFINITY;
  const struct melu__candidate *all = s->candidates; /* most rated first */
  for (size_t c = 0; c < s->n_candidates; c++) {
    s->candidates[c].score /= all[c].n_ratings;
    least = fmin(least, all[c].score);
    most = fmax(most, all[c].score);
  }
  const double fewest = all[s->n_candidates - 1].n_ratings, highest = all[0].n_ratings;
  for (size_t c = 0; c < s->n_candidates; c++)
    s->candidates[c].score = scaled(all[c].score, least, most) * scaled(all[c].n_ratings, fewest, highest);
  qsort(s->candidates, s->n_candidates, sizeof *s->candidates, better);
  for (size_t i = 0; i < s->n_wanted; i++) {
    items[i] = s->candidates[i].item;
    scores[i] = s->candidates[i].score;
  }
  return MELU_OK;
}
