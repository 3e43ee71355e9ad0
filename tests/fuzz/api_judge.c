/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations that ask, judge and choose. */
#include <math.h>
#include <string.h>

#include "api.h"

enum { MOST = 8, JUDGING = EINVAL_ | ERANGE_ | ESCHEMA_ | ESTATE_ | ENOTFOUND_ | ELIMIT_ | EDIVERGED_ };

static int may_take(struct api *a, size_t cost) {
  if (a->budget < cost) return 0;
  a->budget -= cost;
  return 1;
}

static void ask(struct api *a) {
  const size_t user = api_pick(a, API_USER), owner = a->slots[API_USER][user].owner, wanted = api_below(a, MOST);
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  melu_workspace *ws = API_OBJECT(a, melu_workspace, API_WORKSPACE, api_pick_of(a, API_WORKSPACE, owner));
  uint32_t *items = api_memory(a, wanted, sizeof *items);
  float *gains = api_memory(a, wanted, sizeof *gains);
  struct melu_ask_options o = {.size = api_size(a, sizeof o)};
  o.n_items = api_below(a, MOST);
  o.items = api_ids(a, o.n_items, API_WORLD_ITEMS);
  o.n_targets = api_below(a, MOST);
  o.targets = api_ids(a, o.n_targets, API_WORLD_ITEMS);
  const size_t n_chances = o.items ? o.n_items : data ? melu_dataset_n_items(data) : 0;
  float *chances = api_memory(a, n_chances, sizeof *chances);
  for (size_t i = 0; i < n_chances; i++) chances[i] = api_seldom(a) ? -1 : (float)api_below(a, 5) / 4;
  o.chances = api_below(a, 3) ? NULL : chances;
  size_t n = wanted;
  api_watch(a, API_USER, user, 0);
  const melu_status status = API_CALL(a, JUDGING,
                                      melu_ask(items, gains, &n, ws, API_OBJECT(a, melu_model, API_MODEL, owner),
                                               API_OBJECT(a, melu_user, API_USER, user), data, &o, a->errp));
  FUZZ_NEEDS(status ? n == wanted : n <= wanted, "%zu questions of %zu", n, wanted);
  for (size_t i = 0; i < n && !status; i++)
    FUZZ_NEEDS(items[i] < melu_dataset_n_items(data) && gains[i] >= 0 && isfinite(gains[i]) &&
                   (i == 0 || gains[i - 1] >= gains[i]),
               "question %zu gains %g", i, (double)gains[i]);
}

static void candidates(struct api *a) {
  const size_t wanted = api_below(a, MOST), model = api_pick(a, API_MODEL);
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  uint32_t *items = api_memory(a, wanted, sizeof *items);
  double *scores = api_memory(a, wanted, sizeof *scores);
  struct melu_candidate_options o = {.size = api_size(a, sizeof o)};
  o.rule = (melu_candidate_rule)API_ONE_OF(a, int, 0, MELU_EXPECTED_ERROR, MELU_GRADIENT_NORM, 3);
  o.n_users = api_below(a, MOST);
  o.users = api_ids(a, o.n_users, API_WORLD_USERS);
  o.n_items = api_below(a, MOST);
  o.items = api_ids(a, o.n_items, API_WORLD_ITEMS);
  o.max_items = API_ONE_OF(a, size_t, 0, 1, 3, MELU_NONE);
  o.n_splits = API_ONE_OF(a, size_t, 1, 2, 0);
  size_t n = wanted;
  if (!may_take(a, 2)) return;
  const melu_status status = API_CALL(a, JUDGING,
                                      melu_candidates(items, api_seldom(a) ? NULL : scores, &n,
                                                      API_OBJECT(a, melu_model, API_MODEL, model), data, &o, a->errp));
  FUZZ_NEEDS(status ? n == wanted : n <= wanted, "%zu candidates of %zu", n, wanted);
  for (size_t i = 0; i < n && !status; i++)
    FUZZ_NEEDS(items[i] < melu_dataset_n_items(data) && isfinite(scores[i]), "candidate %zu", i);
}

static struct melu_evaluate_options draw_evaluation(struct api *a) {
  struct melu_evaluate_options o = {.size = api_size(a, sizeof o)};
  o.n_users = api_below(a, MOST);
  o.users = api_ids(a, o.n_users, API_WORLD_USERS);
  o.split = API_ONE_OF(a, uint64_t, 0, 1, UINT64_MAX);
  o.n_query = API_ONE_OF(a, size_t, 1, 2, 3, 0, SIZE_MAX);
  o.min_ratings = API_ONE_OF(a, size_t, 2, 0, 1, 3, SIZE_MAX);
  o.max_ratings = API_ONE_OF(a, size_t, 0, 4, MELU_NONE);
  o.max_support = API_ONE_OF(a, size_t, 0, 1, 2, MELU_NONE);
  o.history = api_seldom(a) ? API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA)) : NULL;
  o.intervals = API_ONE_OF(a, int, 0, 1, -1);
  o.max_history = API_ONE_OF(a, size_t, 0, 1, SIZE_MAX);
  return o;
}

static void check_metrics(const struct melu_metrics *m) {
  FUZZ_NEEDS(isfinite(m->mae) && m->mae >= 0 && isfinite(m->mse) && m->mse >= 0 && isfinite(m->rmse), "errors");
  FUZZ_NEEDS(m->auc >= 0 && m->auc <= 1 && m->coverage >= 0 && m->coverage <= 1 && isfinite(m->log_loss), "shares");
}

static void evaluate(struct api *a) {
  struct melu_metrics m = {.n_users = 0};
  const melu_model *model = API_OBJECT(a, melu_model, API_MODEL, api_pick(a, API_MODEL));
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  const struct melu_evaluate_options o = draw_evaluation(a);
  if (!may_take(a, 2)) return;
  if (API_CALL(a, JUDGING, melu_evaluate(&m, model, data, api_seldom(a) ? NULL : &o, a->errp))) return;
  FUZZ_NEEDS(m.n_users > 0 && m.n_queries >= m.n_users, "nobody was judged");
  check_metrics(&m);
}

static void choose(struct api *a) {
  enum { TRAINING = JUDGING | ESTATE_ };
  const size_t n = api_below(a, 3);
  const melu_context *ctx = a->ctx[api_below(a, API_CONTEXTS)];
  const melu_dataset *data = API_OBJECT(a, melu_dataset, API_DATA, api_pick(a, API_DATA));
  struct melu_model_options *models = api_memory(a, n, sizeof *models);
  struct melu_fit_options *fits = api_memory(a, n, sizeof *fits);
  double *errors = api_memory(a, n, sizeof *errors);
  for (size_t i = 0; i < n; i++) {
    models[i] = api_model_options(a);
    models[i].size = sizeof *models; /* the array is stepped by it */
    fits[i] = api_fit_options(a);
    fits[i].n_validation_users = 0;
    fits[i].validation_users = NULL;
  }
  struct melu_choose_options o = {.size = api_size(a, sizeof o)};
  o.validation = API_ONE_OF(a, double, 0.4, 0.2, 0, 1, -1, NAN);
  o.seed = fuzz_byte(&a->in);
  const struct melu_evaluate_options how = draw_evaluation(a);
  if (api_below(a, 2)) o.evaluate = &how;
  size_t best = n;
  if (!may_take(a, 4 * n)) return;
  const melu_status status = API_CALL(a, TRAINING, melu_choose(&best, errors, ctx, data, models, fits, n, &o, a->errp));
  if (status) return;
  FUZZ_NEEDS(best < n && isfinite(errors[best]), "candidate %zu of %zu is the best", best, n);
  for (size_t i = 0; i < n; i++)
    FUZZ_NEEDS(i < best ? errors[i] > errors[best] : errors[i] >= errors[best], "candidate %zu is better", i);
}

static void measure(struct api *a) {
  struct melu_metrics m = {.n_users = 0};
  const size_t n = api_below(a, MOST);
  const float *scores = api_floats(a, n), *ratings = api_floats(a, n);
  const double low = api_number(a), high = api_number(a);
  const melu_status status =
      API_CALL(a, EINVAL_ | ERANGE_, melu_metrics_add(&m, scores, ratings, n, low, high, a->errp));
  FUZZ_NEEDS(status || (m.n_users == 1 && m.n_queries == n), "a user was not added");
  const struct melu_metrics before = m;
  if (API_CALL(a, EINVAL_ | ERANGE_, melu_metrics_clicks(&m, a->ctx[0], scores, ratings, n, a->errp)))
    FUZZ_NEEDS(memcmp(&before, &m, sizeof m) == 0, "metrics were changed by a failure");
  else
    FUZZ_NEEDS(m.auc >= 0 && m.auc <= 1 && m.log_loss >= 0, "auc %g, log loss %g", m.auc, m.log_loss);
}

static void split(struct api *a) {
  const size_t n = api_below(a, 12);
  uint32_t *order = api_memory(a, n, sizeof *order);
  unsigned seen = 0;
  const uint64_t id = api_id(a);
  const size_t claimed = api_seldom(a) ? 65537 : n;
  if (API_CALL(a, EINVAL_ | ERANGE_, melu_split_order(order, id, fuzz_byte(&a->in), claimed, a->errp))) return;
  for (size_t i = 0; i < n; i++) seen |= 1u << order[i];
  FUZZ_NEEDS(seen == (1u << n) - 1, "an order of others");
}

const api_op api_judge_ops[API_JUDGE_OPS] = {ask, candidates, evaluate, choose, measure, split};
