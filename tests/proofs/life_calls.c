/* SPDX-License-Identifier: BSD-3-Clause */
/* What a life does with a model. */
#include <fenv.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "life_parts.h"

/* ----------------------------------------------------------------------------------------------------- serving */

/* The model that was prepared, and as a file again. */
void life_keep(struct life *l) {
  melu_error err;
  melu_model *copy;
  unsigned char digest[MELU_DIGEST_BYTES], again[MELU_DIGEST_BYTES];
  const struct life_path path = life_saved(l);
  LIVE_TRY(melu_model_load(&l->model, l->ctx, life_model_file(l->plan->folder, l->plan->setting).text, &err));
  LIVE_TRY(melu_model_save(l->model, path.text, &err));
  LIVE_TRY(melu_model_load(&copy, l->ctx, path.text, &err));
  LIVE_TRY(melu_model_digest(digest, l->model, &err));
  LIVE_TRY(melu_model_digest(again, copy, &err));
  if (fegetround() == FE_TONEAREST) /* else the last digit of an option may be another one */
    PROOF_NEEDS(memcmp(digest, again, sizeof again) == 0, "a model that was saved and loaded is another one");
  LIVE_TRY(melu_model_import(copy, path.text, &err));
  const struct proof_bytes bytes = proof_read_file(path.text);
  life_wrote(l, bytes.at, bytes.n);
  free(bytes.at);
  unlink(path.text);
  LIVE(melu_model_free(copy));
}

static const uint32_t job = 2, likes[3] = {1, 4, 4};
static const float age = 41;
static const struct melu_value profile[3] = {
    {.ids = &job, .n_ids = 1}, {.ids = likes, .n_ids = 3}, {.numbers = &age, .n_numbers = 1}};

/* Whether there are variances. */
static int is_ridge(const struct life *l) {
  const int setting = l->plan->setting;
  return setting == LIFE_FACTORS || setting == LIFE_CLICKS || setting == LIFE_BEST;
}

static void live_predict(const struct life *l) {
  melu_error err;
  uint32_t items[SCENE_ITEMS];
  float scores[SCENE_ITEMS];
  for (uint32_t i = 0; i < SCENE_ITEMS; i++) items[i] = i;
  LIVE_TRY(melu_predict(scores, l->ws, l->model, l->user, l->data, items, SCENE_ITEMS, &err));
  life_served(l, scores, SCENE_ITEMS);
  if (!is_ridge(l)) return;
  LIVE_TRY(melu_predict_variance(scores, l->ws, l->model, l->user, l->data, items, SCENE_ITEMS, &err));
  life_served(l, scores, SCENE_ITEMS);
}

/* In memory of just that size, and back. */
static void live_user_bytes(const struct life *l, melu_user_form form) {
  melu_error err;
  size_t n = 0;
  LIVE_TRY(melu_user_save(NULL, &n, l->ws, l->user, form, &err));
  unsigned char *bytes = malloc(n);
  PROOF_NEEDS(bytes, "no memory");
  LIVE_TRY(melu_user_save(bytes, &n, l->ws, l->user, form, &err));
  LIVE_TRY(melu_user_load(l->user, l->ws, l->model, l->data, bytes, n, &err));
  if (form == MELU_USER_COMPACT) life_wrote(l, bytes, n);
  free(bytes);
}

void life_serve(struct life *l) {
  melu_error err;
  static const float stars[8] = {4, 2, 5, 1, 3, 5, 2, 4}, clicks[8] = {1, 0, 1, 0, 1, 1, 0, 1};
  static const uint32_t items[8] = {0, 7, 14, 21, 28, 35, 2, 9};
  const float *ratings = l->options->loss == MELU_LOGISTIC ? clicks : stars;
  float pulls[9], gains[3];
  uint32_t asked[3];
  size_t n_asked = 3;
  LIVE_TRY(melu_user_new(&l->user, l->model, &err));
  LIVE_TRY(melu_workspace_new(&l->ws, l->model, SCENE_MOST, &err));
  live_predict(l);
  for (size_t n = 0; n <= 8; n += 4) {
    LIVE_TRY(melu_adapt(l->user, l->ws, l->model, l->data, profile, items, ratings, n, &err));
    live_predict(l);
  }
  LIVE_TRY(melu_user_rate(l->user, l->ws, l->model, l->data, 30, 1, &err));
  LIVE_TRY(melu_user_rate(l->user, l->ws, l->model, l->data, 31, 1, &err));
  LIVE_TRY(melu_user_forget(l->user, l->ws, l->model, l->data, 30, &err));
  live_user_bytes(l, MELU_USER_COMPACT);
  live_user_bytes(l, MELU_USER_READY);
  live_predict(l);
  LIVE_TRY(melu_ask(asked, gains, &n_asked, l->ws, l->model, l->user, l->data, NULL, &err));
  life_served(l, gains, n_asked);
  if (l->plan->setting == LIFE_ITEMS) return; /* there is no explaining then, and no catalogue */
  LIVE_TRY(melu_explain(pulls, l->ws, l->model, l->user, l->data, 3, &err));
  life_served(l, pulls, melu_user_ratings(l->user, NULL, NULL));
}

static int keep_odd(void *arg, uint32_t item) {
  (void)arg;
  return item % 2;
}

void life_rank(const struct life *l) {
  melu_error err;
  melu_catalog *catalog;
  const struct melu_top_options odd = {.size = sizeof odd, .keep = keep_odd};
  static const uint32_t gone[2] = {5, 6}, put[2] = {8, 9}, numbers[2] = {55, 56};
  const melu_user *users[2] = {l->user, l->user};
  uint32_t items[10];
  float scores[SCENE_ITEMS + 2];
  size_t n = 5, each[2];
  LIVE_TRY(melu_catalog_new(&catalog, l->model, l->data, NULL, 0, &err));
  LIVE_TRY(melu_catalog_remove(catalog, gone, 2, &err));
  LIVE_TRY(melu_catalog_put(catalog, l->data, put, numbers, 2, &err));
  LIVE_TRY(melu_catalog_score(scores, l->ws, catalog, l->user, &err));
  life_served(l, scores, melu_catalog_n_items(catalog));
  LIVE_TRY(melu_catalog_score_list(scores, l->ws, catalog, l->user, numbers, 2, &err));
  life_served(l, scores, 2);
  LIVE_TRY(melu_catalog_top(items, scores, &n, l->ws, catalog, l->user, &odd, &err));
  life_served(l, scores, n);
  LIVE_TRY(melu_catalog_top_users(items, scores, each, 5, l->ws, catalog, users, 2, NULL, &err));
  life_served(l, scores, 10);
  LIVE(melu_catalog_free(catalog));
}

void life_ask(const struct life *l) {
  melu_error err;
  static const float scores[4] = {-1, 0.5, 2, 1}, labels[4] = {0, 1, 1, 0};
  struct melu_metrics metrics = {.n_users = 0};
  for (int rule = MELU_EXPECTED_ERROR; rule <= MELU_GRADIENT_NORM; rule++) {
    const struct melu_candidate_options options = {
        .size = sizeof options, .rule = (melu_candidate_rule)rule, .n_splits = 2};
    uint32_t items[4];
    double gains[4];
    size_t n = 4;
    LIVE_TRY(melu_candidates(items, gains, &n, l->model, l->data, &options, &err));
    life_trained(l, gains, n);
  }
  LIVE_TRY(melu_metrics_add(&metrics, scores, labels, 4, 0, 1, &err));
  LIVE_TRY(melu_metrics_clicks(&metrics, l->ctx, scores, labels, 4, &err));
  life_trained(l, &metrics.log_loss, 1);
}

/* ---------------------------------------------------------------------------------------------------- training */

/* The squared error, as a host's own loss. */
static int own_loss(void *arg, size_t task, const float *scores, const float *ratings, size_t n, double *loss,
                    float *slopes) {
  (void)arg, (void)task;
  *loss = 0;
  for (size_t i = 0; i < n; i++) {
    const float e = scores[i] - ratings[i];
    *loss += (double)(e * e) / (double)n;
    slopes[i] = 2 * e / (float)n;
  }
  return 0;
}

static void live_own_loop(const struct life *l, melu_model *model) {
  melu_error err;
  melu_batch *batch;
  melu_gradient *gradient;
  melu_optimizer *optimizer;
  static const uint32_t support[6] = {0, 1, 2, 3, 4, 5}, query[4] = {6, 7, 8, 9};
  struct melu_param param;
  const double *losses;
  LIVE_TRY(melu_batch_new(&batch, l->ctx, l->data, &err));
  for (uint32_t u = 0; u < 3; u++) LIVE_TRY(melu_batch_add(batch, u, support, 6, query, 4, &err));
  LIVE_TRY(melu_gradient_new(&gradient, model, &err));
  LIVE_TRY(melu_optimizer_new(&optimizer, model, NULL, &err));
  for (int own = 0; own < 2; own++) {
    if (own)
      LIVE_TRY(melu_meta_gradient_of(gradient, model, batch, own_loss, NULL, &err));
    else
      LIVE_TRY(melu_meta_gradient(gradient, model, batch, &err));
    const double loss = melu_gradient_loss(gradient, &losses);
    life_trained(l, &loss, 1);
    life_trained(l, losses, 3);
    LIVE_TRY(melu_optimizer_step(optimizer, model, gradient, &err));
    LIVE_TRY(melu_optimizer_set_lr(optimizer, 1e-4, &err));
  }
  LIVE_TRY(melu_model_param(&param, model, 0, &err));
  float *values = malloc(param.rows * param.cols * sizeof *values);
  uint32_t *rows = malloc(param.rows * sizeof *rows);
  PROOF_NEEDS(values && rows, "no memory");
  LIVE_TRY(melu_gradient_read(values, gradient, param.name, &err));
  LIVE_TRY(melu_gradient_read_rows(rows, values, gradient, param.name, &err));
  free(values);
  free(rows);
  LIVE(melu_optimizer_free(optimizer));
  LIVE(melu_gradient_free(gradient));
  LIVE(melu_batch_clear(batch));
  LIVE(melu_batch_free(batch));
}

static void live_judge(const struct life *l, const melu_model *model, double *mae) {
  melu_error err;
  const struct melu_evaluate_options judge = {
      .size = sizeof judge, .n_query = 3, .min_ratings = 4, .intervals = is_ridge(l)};
  struct melu_metrics metrics;
  LIVE_TRY(melu_evaluate(&metrics, model, l->data, &judge, &err));
  *mae = metrics.mae;
}

void life_train(const struct life *l) {
  melu_error err;
  melu_model *model;
  const struct melu_optimizer_options adam = {.size = sizeof adam, .lr = 1e-3};
  struct melu_fit_options fit = {.size = sizeof fit, .n_epochs = 2, .batch_tasks = 4, .n_query = 3, .min_ratings = 4};
  const struct melu_evaluate_options judge = {.size = sizeof judge, .n_query = 3, .min_ratings = 4};
  const struct melu_choose_options choose = {.size = sizeof choose, .validation = 0.25, .evaluate = &judge};
  const struct life_path path = life_saved(l);
  size_t best;
  double mae, errors[1];
  if (l->plan->setting != LIFE_WIDE) {
    LIVE_TRY(melu_choose(&best, errors, l->ctx, l->data, l->options, &fit, 1, &choose, &err));
    life_trained(l, errors, 1);
  }
  fit.optimizer = &adam;
  fit.validation = 0.25;
  fit.checkpoint = path.text;
  LIVE_TRY(melu_model_new(&model, l->ctx, melu_dataset_schema(l->data), l->options, &err));
  LIVE_TRY(melu_fit(model, l->data, &fit, &err));
  fit.resume = 1; /* from the second epoch, to the same end */
  LIVE_TRY(melu_fit(model, l->data, &fit, &err));
  unlink(path.text);
  live_judge(l, model, &mae);
  life_trained(l, &mae, 1);
  live_own_loop(l, model);
  LIVE(melu_model_free(model));
}
