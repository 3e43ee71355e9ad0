/* SPDX-License-Identifier: BSD-3-Clause */
/* The next best question. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/number.h"
#include "meta/factors.h"
#include "serve/factor_user.h"

struct question {
  uint32_t item;
  float gain;
};

/* What is asked, about what, to predict what. */
struct asking {
  melu_workspace *ws;
  const melu_user *user;
  const melu_dataset *data;
  uint32_t *items; /* those that may be asked about, and */
  float *chances;  /* that she can answer */
  const uint32_t *targets;
  size_t n, n_targets;
  struct question *questions; /* (n) */
};

static void free_asking(struct asking *q) {
  const struct melu_allocator *a = &q->ws->model->ctx->allocator;
  melu__free(a, q->items);
  melu__free(a, q->chances);
  melu__free(a, q->questions);
}

/* The candidates: those that were given, or all that she did not rate. */
static melu_status find_items(struct asking *q, const struct melu_ask_options *o, melu_error *err) {
  const struct melu_allocator *a = &q->ws->model->ctx->allocator;
  const size_t most = o->items ? o->n_items : melu_dataset_n_items(q->data);
  q->items = melu__alloc(a, most, sizeof *q->items);
  q->chances = melu__alloc(a, most, sizeof *q->chances);
  q->questions = melu__alloc(a, most, sizeof *q->questions);
  if (!q->items || !q->chances || !q->questions) return melu__fail_memory(err);
  for (size_t i = 0; i < most; i++) {
    const uint32_t item = o->items ? o->items[i] : (uint32_t)i;
    const float chance = o->chances ? o->chances[i] : 1;
    if (!(chance >= 0 && chance <= 1))
      return melu__fail_at(err, MELU_ERANGE, i, "chances[%zu] is %s, outside [0, 1]", i,
                           melu__number_show((double)chance, 6).text);
    const struct melu__support *told = &q->user->support;
    if (!o->items && melu__support_find(told, melu_dataset_item_id(q->data, item)) != told->n) continue;
    q->items[q->n] = item;
    q->chances[q->n++] = chance;
  }
  q->targets = o->targets ? o->targets : q->items;
  q->n_targets = o->targets ? o->n_targets : q->n;
  return MELU_OK;
}

/* ------------------------------------------------------------------------------------- variances that fall */

static melu_status gains_of_variance(struct asking *q, melu_error *err) {
  const melu_model *model = q->ws->model;
  const size_t width = melu__user_cols(&model->options);
  const struct melu__plan *plan;
  size_t arena = 0;
  const melu_status status = melu__task_plan_in(&plan, &arena, model, MELU__PLAN_ASK, 0, MELU__PREDICT_ROWS, err);
  if (status) return status;
  real *moments = melu__calloc(&model->ctx->allocator, width * width, sizeof *moments);
  if (!moments || !melu__scratch_reserve(&q->ws->scratch, model, arena, 0, 0)) {
    melu__free(&model->ctx->allocator, moments);
    return melu__fail_memory(err);
  }
  melu__factor_moments(moments, q->ws, q->data, q->targets, q->n_targets);
  for (size_t done = 0; done < q->n; done += MELU__PREDICT_ROWS) {
    real gains[MELU__PREDICT_ROWS];
    const size_t n = q->n - done < MELU__PREDICT_ROWS ? q->n - done : MELU__PREDICT_ROWS;
    melu__factor_ask(gains, q->ws, q->user, q->data, q->items + done, n, moments, plan);
    for (size_t i = 0; i < n; i++) q->questions[done + i].gain = (float)(gains[i] / (real)q->n_targets);
  }
  melu__free(&model->ctx->allocator, moments);
  return MELU_OK;
}

/* --------------------------------------------------------------------------------------- answers tried out */

static double trial_step(const melu_model *model) {
  return (model->options.rating_max - model->options.rating_min) / 4;
}

/* The answer that is tried: off the prediction, towards the middle of the range. */
static float trial(const melu_model *model, float score) {
  const struct melu_model_options *o = &model->options;
  const double y = melu__expected_rating(model, score), step = trial_step(model);
  return (float)(y > (o->rating_min + o->rating_max) / 2 ? y - step : y + step);
}

/* A user who can be changed, and what is predicted of her before and after. */
struct trials {
  melu_user *user;
  uint32_t *items; /* hers and one more */
  float *ratings, *before, *after;
};

static melu_status try_all(struct asking *q, struct trials *t, melu_error *err) {
  const melu_model *model = q->ws->model;
  const struct melu__support *told = &q->user->support;
  const size_t n = told->n;
  const double step = trial_step(model);
  const struct melu__told more = {
      .profile = melu__support_profile(told), .items = t->items, .ratings = t->ratings, .n = n + 1};
  melu_status status = melu_predict(t->before, q->ws, model, q->user, q->data, q->targets, q->n_targets, err);
  for (size_t i = 0; i < n && !status; i++) {
    status = melu__support_position(&t->items[i], told, q->data, i, err);
    t->ratings[i] = told->ratings[i];
  }
  for (size_t i = 0; i < q->n && !status; i++) {
    double sum = 0;
    float score;
    t->items[n] = q->items[i];
    status = melu_predict(&score, q->ws, model, q->user, q->data, &q->items[i], 1, err);
    t->ratings[n] = trial(model, score);
    if (!status) status = melu__adapt_user(t->user, q->ws, q->data, &more, err);
    if (!status) status = melu_predict(t->after, q->ws, model, t->user, q->data, q->targets, q->n_targets, err);
    for (size_t k = 0; k < q->n_targets && !status; k++) {
      const double change = ((double)t->after[k] - t->before[k]) / step;
      sum += change * change;
    }
    q->questions[i].gain = (float)(sum / (double)q->n_targets);
  }
  return status;
}

static melu_status gains_of_trials(struct asking *q, melu_error *err) {
  const melu_model *model = q->ws->model;
  const struct melu_allocator *a = &model->ctx->allocator;
  const size_t n = q->user->support.n + 1;
  struct trials t = {.items = melu__alloc(a, n, sizeof *t.items),
                     .ratings = melu__alloc(a, n, sizeof *t.ratings),
                     .before = melu__alloc(a, q->n_targets, sizeof *t.before),
                     .after = melu__alloc(a, q->n_targets, sizeof *t.after)};
  melu_status status = melu__check_count(q->ws, n, err);
  if (!status) status = melu_user_new(&t.user, model, err);
  if (!status && !(t.items && t.ratings && t.before && t.after)) status = melu__fail_memory(err);
  if (!status) status = try_all(q, &t, err);
  melu_user_free(t.user);
  melu__free(a, t.items);
  melu__free(a, t.ratings);
  melu__free(a, t.before);
  melu__free(a, t.after);
  return status;
}

/* -------------------------------------------------------------------------------------------------- asking */

static int better(const void *a, const void *b) {
  const struct question *x = a, *y = b;
  if (x->gain != y->gain) return x->gain > y->gain ? -1 : 1;
  return (x->item > y->item) - (x->item < y->item);
}

static melu_status rank_questions(struct asking *q, melu_error *err) {
  const melu_model *model = q->ws->model;
  const melu_status status = melu__has_variances(model) ? gains_of_variance(q, err) : gains_of_trials(q, err);
  if (status) return status;
  for (size_t i = 0; i < q->n; i++) {
    struct question *question = &q->questions[i];
    question->item = q->items[i];
    question->gain *= q->chances[i];
    if (!isfinite(question->gain))
      return melu__fail(err, MELU_EDIVERGED, "a gain is not finite: the weights are too large");
  }
  qsort(q->questions, q->n, sizeof *q->questions, better);
  return MELU_OK;
}

melu_status melu_ask(uint32_t *items, float *gains, size_t *n, melu_workspace *ws, const melu_model *model,
                     const melu_user *user, const melu_dataset *data, const struct melu_ask_options *options,
                     melu_error *err) {
  struct melu_ask_options o;
  struct asking q = {.ws = ws, .user = user, .data = data};
  melu_status status = melu__options(&o, sizeof o, options, "melu_ask_options", err);
  if (!status) status = melu__check_serving(model, user, ws, data, o.items, o.items ? o.n_items : 0, err);
  if (!status) status = melu__check_serving(model, user, ws, data, o.targets, o.targets ? o.n_targets : 0, err);
  if (status) return status;
  if (!n || (*n && !items)) return melu__fail(err, MELU_EINVAL, "%s is NULL", n ? "items" : "n");
  if ((!o.items && o.n_items) || (!o.targets && o.n_targets))
    return melu__fail(err, MELU_EINVAL, "options: a list is NULL, its length is not 0");
  status = find_items(&q, &o, err);
  if (!status && q.n && q.n_targets) status = rank_questions(&q, err);
  if (!status) {
    const size_t n_found = q.n_targets ? q.n : 0;
    if (*n > n_found) *n = n_found;
    for (size_t i = 0; i < *n; i++) {
      items[i] = q.questions[i].item;
      if (gains) gains[i] = q.questions[i].gain;
    }
  }
  free_asking(&q);
  return status;
}
