/* SPDX-License-Identifier: BSD-3-Clause */
/* Judging a model by its predictions for users that it adapts to. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "data/batch.h"
#include "model/model.h"
#include "serve/evaluate.h"
#include "serve/user.h"

enum { PIECE = 256 }; /* users between two reports of progress */

/* One thread's part. */
struct judge {
  melu_workspace *workspace;
  melu_user *user;
  uint32_t *order, *items; /* as long as the longest list of ratings */
  float *ratings;
  uint32_t *known; /* with history: what a user is adapted to, items and ratings */
  float *known_ratings;
  struct melu_value *profile; /* one value per user field */
};

struct evaluation {
  const melu_context *ctx;
  const melu_model *model;
  const melu_dataset *data;
  struct melu_evaluate_options options;
  uint32_t *users;                          /* the eligible ones */
  size_t n_users, longest, longest_history; /* lists of ratings */
  float *scores, *truth, *variances;        /* (n_users, n_query); variances: NULL if they are not wanted */
  melu_status *status;                      /* of each user */
  struct judge *judges;                     /* one per thread */
  size_t n_judges;
  size_t first; /* of the users that are judged in this piece */
};

melu_status melu__evaluate_options(struct melu_evaluate_options *o, const struct melu_evaluate_options *given,
                                   melu_error *err) {
  const melu_status status = melu__options(o, sizeof *o, given, "melu_evaluate_options", err);
  if (status) return status;
  if (o->n_query == 0) o->n_query = 10;
  if (o->min_ratings == 0) o->min_ratings = melu__size_add(o->n_query, 3);
  if (o->max_ratings == 0) o->max_ratings = 100;
  if (o->n_query > MELU__MAX_ROWS)
    return melu__fail(err, MELU_ELIMIT, "n_query is %zu, above %u", o->n_query, MELU__MAX_ROWS);
  o->max_support = o->max_support == 0 ? SIZE_MAX : o->max_support == MELU_NONE ? 0 : o->max_support;
  if (o->min_ratings < o->n_query)
    return melu__fail(err, MELU_EINVAL, "min_ratings is %zu, fewer than the %zu query ratings", o->min_ratings,
                      o->n_query);
  return MELU_OK;
}

static melu_status find_users(struct evaluation *e, melu_error *err) {
  const struct melu_evaluate_options *o = &e->options;
  const size_t n_all = melu_dataset_n_users(e->data), n = o->users ? o->n_users : n_all;
  e->users = melu__alloc(&e->ctx->allocator, n, sizeof *e->users);
  if (!e->users) return melu__fail_memory(err);
  for (size_t i = 0; i < n; i++) {
    const uint32_t u = o->users ? o->users[i] : (uint32_t)i;
    if (u >= n_all)
      return melu__fail_at(err, MELU_ERANGE, i, "users[%zu] is %lu, the data set has %zu users", i, (unsigned long)u,
                           n_all);
    const size_t n_ratings = melu_dataset_ratings(e->data, u, NULL, NULL);
    if (n_ratings < o->min_ratings || n_ratings > o->max_ratings) continue;
    e->users[e->n_users++] = u;
    if (n_ratings > e->longest) e->longest = n_ratings;
  }
  if (e->n_users) return MELU_OK;
  return melu__fail(err, MELU_ENOTFOUND, "no user has between %zu and %zu ratings", o->min_ratings, o->max_ratings);
}

/* The longest list of ratings in the history, as far as it counts. */
static melu_status measure_history(struct evaluation *e, melu_error *err) {
  const melu_dataset *h = e->options.history;
  if (!h) return MELU_OK;
  if (!h->frozen) return melu__fail(err, MELU_ESTATE, "the history is not frozen");
  for (uint32_t u = 0; u < melu_dataset_n_users(h); u++) {
    const size_t n = melu_dataset_ratings(h, u, NULL, NULL);
    if (n > e->longest_history) e->longest_history = n;
  }
  return MELU_OK;
}

static melu_status make_judge(struct judge *j, const struct evaluation *e, melu_error *err) {
  const struct melu_allocator *a = &e->ctx->allocator;
  size_t max_support = e->longest - e->options.n_query;
  if (max_support > e->options.max_support) max_support = e->options.max_support;
  const size_t max_history = e->options.max_history ? e->options.max_history : SIZE_MAX;
  max_support = melu__size_add(max_support, e->longest_history < max_history ? e->longest_history : max_history);
  j->known = melu__alloc(a, max_support, sizeof *j->known);
  j->known_ratings = melu__alloc(a, max_support, sizeof *j->known_ratings);
  if (!j->known || !j->known_ratings) return melu__fail_memory(err);
  melu_status status = melu_workspace_new(&j->workspace, e->model, max_support, err);
  if (!status) status = melu_user_new(&j->user, e->model, err);
  if (status) return status;
  const size_t longest = e->longest > e->longest_history ? e->longest : e->longest_history;
  j->order = melu__alloc(a, longest, sizeof *j->order);
  j->items = melu__alloc(a, e->longest, sizeof *j->items);
  j->ratings = melu__alloc(a, e->longest, sizeof *j->ratings);
  j->profile = melu__alloc(a, melu_schema_n_fields(e->model->schema, MELU_USER), sizeof *j->profile);
  return j->order && j->items && j->ratings && j->profile ? MELU_OK : melu__fail_memory(err);
}

static void free_judge(struct judge *j, const struct melu_allocator *a) {
  melu_workspace_free(j->workspace);
  melu_user_free(j->user);
  melu__free(a, j->order);
  melu__free(a, j->items);
  melu__free(a, j->ratings);
  melu__free(a, j->profile);
  melu__free(a, j->known);
  melu__free(a, j->known_ratings);
}

/* Adds a user's history to her n known ratings. */
static melu_status add_history(const struct evaluation *e, uint64_t id, struct judge *j, size_t *n, melu_error *err) {
  const melu_dataset *h = e->options.history;
  const uint32_t *items;
  const float *ratings;
  uint32_t user;
  if (!h || melu_dataset_find_user(&user, h, id, NULL)) return MELU_OK;
  const size_t all = melu_dataset_ratings(h, user, &items, &ratings);
  const size_t used = e->options.max_history && all > e->options.max_history ? e->options.max_history : all;
  melu_status status = all ? melu_split_order(j->order, id, 0, all, err) : MELU_OK;
  for (size_t k = 0; k < used && !status; k++, ++*n) {
    const uint32_t at = j->order[k];
    status = melu_dataset_find_item(&j->known[*n], e->data, melu_dataset_item_id(h, items[at]), err);
    j->known_ratings[*n] = ratings[at];
  }
  return status;
}

/* Adapts to the support set of the i-th user and predicts the query set. */
static melu_status judge_user(struct evaluation *e, size_t i, struct judge *j, melu_error *err) {
  const size_t n_query = e->options.n_query;
  const uint32_t user = e->users[i], *items;
  const float *ratings;
  const size_t n = melu_dataset_ratings(e->data, user, &items, &ratings), n_rest = n - n_query;
  const size_t n_support = n_rest < e->options.max_support ? n_rest : e->options.max_support;
  melu_status status = melu_split_order(j->order, melu_dataset_user_id(e->data, user), e->options.split, n, err);
  if (!status) status = melu_dataset_user_values(j->profile, e->data, user, err);
  if (status) return status;
  for (size_t k = 0; k < n; k++) {
    j->items[k] = items[j->order[k]];
    j->ratings[k] = ratings[j->order[k]];
  }
  for (size_t k = 0; k < n_query; k++) e->truth[i * n_query + k] = j->ratings[n_rest + k];
  size_t n_known = n_support;
  memcpy(j->known, j->items, n_support * sizeof *j->known);
  memcpy(j->known_ratings, j->ratings, n_support * sizeof *j->known_ratings);
  status = add_history(e, melu_dataset_user_id(e->data, user), j, &n_known, err);
  if (status) return status;
  const struct melu__told told = {.profile = j->profile, .items = j->known, .ratings = j->known_ratings, .n = n_known};
  status = melu__adapt_user(j->user, j->workspace, e->data, &told, err);
  if (status) return status;
  status =
      melu_predict(e->scores + i * n_query, j->workspace, e->model, j->user, e->data, j->items + n_rest, n_query, err);
  if (status || !e->variances) return status;
  return melu_predict_variance(e->variances + i * n_query, j->workspace, e->model, j->user, e->data, j->items + n_rest,
                               n_query, err);
}

/* The same again, for the message, which is to say who it was about. */
static melu_status judge_again(struct evaluation *e, size_t i, melu_error *err) {
  melu_error inner = {0};
  const melu_status status = judge_user(e, i, &e->judges[0], &inner);
  if (!status) return melu__fail_memory(err); /* nothing else fails once and not again */
  if (!err) return status;
  *err = inner;
  snprintf(err->message, sizeof err->message, "user %" PRIu64 ": %.190s", melu_dataset_user_id(e->data, e->users[i]),
           inner.message);
  return status;
}

static void run_user(void *arg, size_t index, size_t thread) {
  struct evaluation *e = arg;
  e->status[e->first + index] = judge_user(e, e->first + index, &e->judges[thread], NULL);
}

static melu_status prepare(struct evaluation *e, melu_error *err) {
  const struct melu_allocator *a = &e->ctx->allocator;
  melu_status status = find_users(e, err);
  if (!status) status = measure_history(e, err);
  if (status) return status;
  const size_t n_scores = melu__size_mul(e->n_users, e->options.n_query);
  e->scores = melu__alloc(a, n_scores, sizeof *e->scores);
  e->truth = melu__alloc(a, n_scores, sizeof *e->truth);
  if (e->options.intervals) {
    e->variances = melu__alloc(a, n_scores, sizeof *e->variances);
    if (!e->variances) return melu__fail_memory(err);
  }
  e->status = melu__alloc(a, e->n_users, sizeof *e->status);
  e->judges = melu__calloc(a, e->ctx->runner.n_threads, sizeof *e->judges);
  if (!e->scores || !e->truth || !e->status || !e->judges) return melu__fail_memory(err);
  e->n_judges = e->ctx->runner.n_threads;
  for (size_t i = 0; i < e->n_judges && !status; i++) status = make_judge(&e->judges[i], e, err);
  return status;
}

static melu_status judge_all(struct evaluation *e, melu_error *err) {
  const struct melu_runner *runner = &e->ctx->runner;
  for (e->first = 0; e->first < e->n_users;) {
    const size_t n = e->n_users - e->first < PIECE ? e->n_users - e->first : PIECE;
    runner->run(runner->arg, run_user, e, n);
    for (size_t i = e->first; i < e->first + n; i++)
      if (e->status[i]) return judge_again(e, i, err);
    e->first += n;
    const struct melu_progress progress = {.phase = "evaluate", .done = e->first, .total = e->n_users};
    const melu_status status = melu__progress(e->ctx, &progress, err);
    if (status) return status;
  }
  return MELU_OK;
}

/* 1.2816 standard deviations to both sides. */
static double coverage(const struct evaluation *e, size_t n) {
  size_t inside = 0;
  for (size_t i = 0; i < n; i++)
    inside += fabs((double)e->scores[i] - e->truth[i]) <= 1.2815515655446004 * sqrt(e->variances[i]);
  return (double)inside / (double)n;
}

static melu_status add_up(struct melu_metrics *out, const struct evaluation *e, melu_error *err) {
  const size_t n_query = e->options.n_query;
  const struct melu_model_options *o = &e->model->options;
  for (size_t i = 0; i < e->n_users; i++) /* of finite scores and ratings */
    (void)melu_metrics_add(out, e->scores + i * n_query, e->truth + i * n_query, n_query, o->rating_min, o->rating_max,
                           NULL);
  const size_t n = e->n_users * n_query;
  if (o->loss == MELU_LOGISTIC) return melu_metrics_clicks(out, e->ctx, e->scores, e->truth, n, err);
  if (e->variances) out->coverage = coverage(e, n);
  return MELU_OK;
}

melu_status melu_evaluate(struct melu_metrics *out, const melu_model *model, const melu_dataset *data,
                          const struct melu_evaluate_options *options, melu_error *err) {
  struct evaluation e = {.model = model, .data = data};
  struct melu_metrics metrics = {0};
  if (!out || !model || !data)
    return melu__fail(err, MELU_EINVAL, "%s is NULL", !out ? "out" : !model ? "model" : "data");
  melu_status status = melu__evaluate_options(&e.options, options, err);
  if (!status) status = melu__check_whole(model, err);
  if (status) return status;
  if (!data->frozen) return melu__fail(err, MELU_ESTATE, "the data set is not frozen");
  if (!melu__schema_equal(model->schema, data->schema))
    return melu__fail(err, MELU_ESCHEMA, "the data set has another schema than the model");
  e.ctx = model->ctx;
  const struct melu_allocator *a = &e.ctx->allocator;
  status = prepare(&e, err);
  if (!status) status = judge_all(&e, err);
  if (!status) status = add_up(&metrics, &e, err);
  if (!status) *out = metrics;
  for (size_t i = 0; i < e.n_judges; i++) free_judge(&e.judges[i], a);
  melu__free(a, e.judges);
  melu__free(a, e.status);
  melu__free(a, e.variances);
  melu__free(a, e.truth);
  melu__free(a, e.scores);
  melu__free(a, e.users);
  return status;
}
