/* SPDX-License-Identifier: BSD-3-Clause */
/* Judging and choosing: users that are named, their history, clicks, intervals, and settings by users left out. */
#include <check.h>
#include <math.h>
#include <melu.h>

#include "run_suite.h"
#include "support.h"
#include "world.h"

enum { N_USERS = 60, N_QUERY = 2 };

static melu_error err;
static struct world world;
static melu_model *best;

static const struct melu_model_options shape = {.size = sizeof shape, .preset = "best", .seed = 1, .rank = 4};

static struct melu_evaluate_options how(void) {
  return (struct melu_evaluate_options){.size = sizeof(struct melu_evaluate_options), .n_query = N_QUERY};
}

static struct melu_fit_options fit_of(size_t n_epochs) {
  return (struct melu_fit_options){.size = sizeof(struct melu_fit_options), .n_epochs = n_epochs, .batch_tasks = 8};
}

static void setup(void) {
  const struct melu_fit_options fit = fit_of(5);
  world_open(&world, NULL, N_USERS);
  WORLD_TRY(melu_model_new(&best, world.ctx, melu_dataset_schema(world.data), &shape, &err));
  WORLD_TRY(melu_fit(best, world.data, &fit, &err));
}

static void teardown(void) {
  melu_model_free(best);
  world_close(&world);
}

/* -------------------------------------------------------------------------------------------------- judging */

START_TEST(users_by_name) {
  struct melu_evaluate_options one = how();
  struct melu_metrics all, each;
  double sum = 0, n = 0;
  WORLD_TRY(melu_evaluate(&all, best, world.data, &one, &err));
  for (uint32_t u = 0; u < N_USERS; u++) {
    one.users = &u;
    one.n_users = 1;
    const melu_status status = melu_evaluate(&each, best, world.data, &one, &err);
    if (status == MELU_ENOTFOUND) continue; /* too few ratings */
    ck_assert_int_eq(status, MELU_OK);
    ck_assert_uint_eq(each.n_users, 1);
    sum += each.mae;
    n++;
  }
  ck_assert(n == (double)all.n_users && fabs(sum / n - all.mae) < 1e-9);
  const uint32_t nobody = N_USERS;
  one.users = &nobody;
  ck_assert_int_eq(melu_evaluate(&each, best, world.data, &one, &err), MELU_ERANGE);
}
END_TEST

/* The ratings of a user in two sets: what is asked and adapted to, and what else is known of her. */
static melu_dataset *part_of(int is_history) {
  melu_dataset *data;
  struct melu_value values[2];
  WORLD_TRY(melu_dataset_new(&data, world.ctx, melu_dataset_schema(world.data), &err));
  for (uint32_t k = 0; k < WORLD_ITEMS; k++) {
    const uint32_t i = is_history ? WORLD_ITEMS - 1 - k : k; /* other positions, the same ids */
    WORLD_TRY(melu_dataset_item_values(values, world.data, i, &err));
    WORLD_TRY(melu_dataset_add_item(data, melu_dataset_item_id(world.data, i), values, NULL, &err));
  }
  const uint32_t *items;
  const float *ratings;
  uint32_t user = 0;
  while (melu_dataset_ratings(world.data, user, NULL, NULL) < 10) user++;
  const size_t n = melu_dataset_ratings(world.data, user, &items, &ratings);
  WORLD_TRY(melu_dataset_add_user(data, 1, NULL, NULL, &err));
  for (size_t k = 0; k < n; k++)
    if ((k >= n - 3) == is_history)
      WORLD_TRY(melu_dataset_add_rating(data, 1, melu_dataset_item_id(world.data, items[k]), ratings[k], &err));
  WORLD_TRY(melu_dataset_freeze(data, &err));
  return data;
}

/* Adapts by hand, with the history behind the support set. */
static double error_by_hand(const melu_dataset *data, const melu_dataset *history) {
  uint32_t order[WORLD_ITEMS], items[2 * WORLD_ITEMS];
  float ratings[2 * WORLD_ITEMS], scores[N_QUERY], truth[N_QUERY];
  const uint32_t *own, *old;
  const float *own_ratings, *old_ratings;
  melu_workspace *ws;
  melu_user *user;
  struct melu_metrics metrics = {0};
  const size_t n = melu_dataset_ratings(data, 0, &own, &own_ratings), n_support = n - N_QUERY;
  const size_t n_old = melu_dataset_ratings(history, 0, &old, &old_ratings);
  WORLD_TRY(melu_split_order(order, 1, 0, n, &err));
  for (size_t k = 0; k < n_support; k++) items[k] = own[order[k]], ratings[k] = own_ratings[order[k]];
  for (size_t k = 0; k < n_old; k++) {
    WORLD_TRY(melu_dataset_find_item(&items[n_support + k], data, melu_dataset_item_id(history, old[k]), &err));
    ratings[n_support + k] = old_ratings[k];
  }
  WORLD_TRY(melu_workspace_new(&ws, best, 2 * WORLD_ITEMS, &err));
  WORLD_TRY(melu_user_new(&user, best, &err));
  WORLD_TRY(melu_adapt(user, ws, best, data, NULL, items, ratings, n_support + n_old, &err));
  for (size_t k = 0; k < N_QUERY; k++)
    items[k] = own[order[n_support + k]], truth[k] = own_ratings[order[n_support + k]];
  WORLD_TRY(melu_predict(scores, ws, best, user, data, items, N_QUERY, &err));
  WORLD_TRY(melu_metrics_add(&metrics, scores, truth, N_QUERY, 1, 5, &err));
  melu_user_free(user);
  melu_workspace_free(ws);
  return metrics.mae;
}

START_TEST(history_joins_the_support_set) {
  melu_dataset *data = part_of(0), *history = part_of(1);
  struct melu_evaluate_options with = how();
  struct melu_metrics alone, both, capped;
  WORLD_TRY(melu_evaluate(&alone, best, data, &with, &err));
  with.history = history;
  WORLD_TRY(melu_evaluate(&both, best, data, &with, &err));
  ck_assert(fabs(both.mae - error_by_hand(data, history)) < 1e-5);
  ck_assert(fabs(both.mae - alone.mae) > 1e-5);
  with.max_history = 1;
  WORLD_TRY(melu_evaluate(&capped, best, data, &with, &err));
  ck_assert(fabs(capped.mae - both.mae) > 1e-6 && fabs(capped.mae - alone.mae) > 1e-6);
  melu_dataset_free(history);
  melu_dataset_free(data);
}
END_TEST

static melu_dataset *new_history(size_t n_users) {
  melu_dataset *history;
  WORLD_TRY(melu_dataset_new(&history, world.ctx, world.schema, &err));
  if (n_users) world_fill(history, n_users);
  return history;
}

/* Who has no history is judged as without; a list may be longer than those that are judged. */
START_TEST(histories_of_others) {
  melu_dataset *data = part_of(0), *hers = new_history(N_USERS), *of_others = new_history(1);
  struct melu_evaluate_options with = how();
  struct melu_metrics alone, metrics;
  WORLD_TRY(melu_evaluate(&alone, best, data, &with, &err));
  with.history = hers;
  with.max_history = 1000;
  WORLD_TRY(melu_evaluate(&metrics, best, data, &with, &err));
  ck_assert(metrics.mae != alone.mae);
  with.history = of_others;
  WORLD_TRY(melu_evaluate(&metrics, best, data, &with, &err));
  ck_assert(metrics.mae == alone.mae);
  melu_dataset_free(of_others);
  melu_dataset_free(hers);
  melu_dataset_free(data);
}
END_TEST

/* A user who rated nothing, one who rated something that is not there, and a data set that is still open. */
START_TEST(histories_without_sense) {
  const uint32_t users[2] = {0, 1};
  struct melu_evaluate_options with = how();
  struct melu_metrics alone, metrics;
  with.users = users;
  with.n_users = 2;
  WORLD_TRY(melu_evaluate(&alone, best, world.data, &with, &err));
  for (uint64_t rater = 2; rater-- > 0;) {
    melu_dataset *history = new_history(0);
    WORLD_TRY(melu_dataset_add_item(history, 999, NULL, NULL, &err));
    for (uint64_t u = 0; u < 3; u++) WORLD_TRY(melu_dataset_add_user(history, u, NULL, NULL, &err));
    WORLD_TRY(melu_dataset_add_rating(history, rater ? 2 : 1, 999, 3, &err));
    with.history = history;
    ck_assert_int_eq(melu_evaluate(&metrics, best, world.data, &with, &err), MELU_ESTATE);
    WORLD_TRY(melu_dataset_freeze(history, &err));
    if (rater) {
      WORLD_TRY(melu_evaluate(&metrics, best, world.data, &with, &err));
      ck_assert(metrics.mae == alone.mae);
    } else {
      ck_assert_int_eq(melu_evaluate(&metrics, best, world.data, &with, NULL), MELU_ENOTFOUND);
      ck_assert_int_eq(melu_evaluate(&metrics, best, world.data, &with, &err), MELU_ENOTFOUND);
      ck_assert_msg(strstr(err.message, "user 1: ") == err.message, "%s", err.message);
    }
    melu_dataset_free(history);
  }
}
END_TEST

/* A history that is not all there names its owner, whatever comes behind what is missing. */
START_TEST(histories_with_more_than_what_is_missing) {
  const uint32_t user = 1;
  struct melu_evaluate_options with = how();
  struct melu_metrics metrics;
  melu_dataset *history = new_history(0);
  WORLD_TRY(melu_dataset_add_user(history, 1, NULL, NULL, &err));
  for (uint64_t i = 0; i < 4; i++) {
    WORLD_TRY(melu_dataset_add_item(history, 997 + i, NULL, NULL, &err));
    WORLD_TRY(melu_dataset_add_rating(history, 1, 997 + i, 3, &err));
  }
  WORLD_TRY(melu_dataset_freeze(history, &err));
  with.users = &user;
  with.n_users = 1;
  with.history = history;
  ck_assert_int_eq(melu_evaluate(&metrics, best, world.data, &with, &err), MELU_ENOTFOUND);
  ck_assert_msg(strstr(err.message, "user 1: ") == err.message, "%s", err.message);
  melu_dataset_free(history);
}
END_TEST

/* More ratings than can be put into an order, and more users than are judged between two reports. */
START_TEST(judging_many) {
  enum { MOST_RATINGS = 65536, MANY_USERS = 300 };
  struct melu_evaluate_options with = how();
  struct melu_metrics metrics;
  melu_dataset *data;
  WORLD_TRY(melu_dataset_new(&data, world.ctx, world.schema, &err));
  WORLD_TRY(melu_dataset_add_item(data, 1, NULL, NULL, &err));
  for (uint32_t u = 0; u < MANY_USERS; u++) {
    WORLD_TRY(melu_dataset_add_user(data, u, NULL, NULL, &err));
    for (uint32_t k = 0; k < (u == 290 ? MOST_RATINGS + 1 : 5); k++)
      WORLD_TRY(melu_dataset_add_rating(data, u, 1, (float)(1 + k % 5), &err));
  }
  WORLD_TRY(melu_dataset_freeze(data, &err));
  with.max_support = 4;
  WORLD_TRY(melu_evaluate(&metrics, best, data, &with, &err));
  ck_assert_uint_eq(metrics.n_users, MANY_USERS - 1);
  with.max_ratings = SIZE_MAX;
  ck_assert_int_eq(melu_evaluate(&metrics, best, data, &with, &err), MELU_ERANGE);
  ck_assert_msg(strstr(err.message, "user 290: ") == err.message, "%s", err.message);
  melu_dataset_free(data);
}
END_TEST

/* Scores are finite, but what the steps make of a few ratings is not. */
START_TEST(judging_what_diverges) {
  const struct melu_model_options steep = {.size = sizeof steep, .inner_lr = 1e38};
  const struct melu_evaluate_options with = how();
  struct melu_metrics metrics = {.n_users = 77};
  melu_model *model;
  WORLD_TRY(melu_model_new(&model, world.ctx, melu_dataset_schema(world.data), &steep, &err));
  ck_assert_int_eq(melu_evaluate(&metrics, model, world.data, &with, &err), MELU_EDIVERGED);
  ck_assert_msg(strncmp(err.message, "user ", 5) == 0, "%s", err.message);
  melu_model_free(model);
  /* Or they are not, of items that nobody is adapted to. */
  float row[16];
  struct melu_evaluate_options cold = how();
  cold.max_support = MELU_NONE;
  for (size_t i = 0; i < 16; i++) row[i] = 3e38f;
  WORLD_TRY(melu_evaluate(&(struct melu_metrics){0}, best, world.data, &cold, &err));
  WORLD_TRY(melu_model_write(best, "E.genre", 2, 1, row, &err));
  ck_assert_int_eq(melu_evaluate(&metrics, best, world.data, &cold, &err), MELU_EDIVERGED);
  ck_assert_uint_eq(metrics.n_users, 77);
}
END_TEST

START_TEST(judging_refuses) {
  const struct melu_field more = {.size = sizeof more, .name = "more", .owner = MELU_USER, .n_values = 2, .width = 1};
  melu_schema *schema;
  melu_dataset *strange;
  WORLD_TRY(melu_schema_new(&schema, world.ctx, &err));
  world_fields(schema);
  WORLD_TRY(melu_schema_add(schema, &more, &err));
  WORLD_TRY(melu_dataset_new(&strange, world.ctx, schema, &err));
  WORLD_TRY(melu_dataset_freeze(strange, &err));
  melu_dataset *open = new_history(0);
  struct melu_evaluate_options with = how();
  struct melu_metrics metrics;
  ck_assert_int_eq(melu_evaluate(&metrics, best, open, &with, &err), MELU_ESTATE);
  ck_assert_int_eq(melu_evaluate(&metrics, best, strange, &with, &err), MELU_ESCHEMA);
  melu_dataset_free(strange);
  melu_schema_free(schema);
  with.n_query = SIZE_MAX / 2;
  ck_assert_int_eq(melu_evaluate(&metrics, best, world.data, &with, &err), MELU_ELIMIT);
  with = how();
  with.max_ratings = 5;
  with.min_ratings = 5;
  WORLD_TRY(melu_evaluate(&metrics, best, world.data, &with, &err)); /* some have five */
  with.size = 3;
  ck_assert_int_eq(melu_evaluate(&metrics, best, world.data, &with, &err), MELU_EINVAL);
  melu_dataset_free(open);
}
END_TEST

/* Intervals of a model whose noise is as good as nothing cover nothing, and those of one that is all noise everything.
 */
START_TEST(coverage) {
  struct melu_evaluate_options with = how();
  struct melu_metrics metrics;
  const float noises[] = {1e-12f, 1e6f};
  with.intervals = 1;
  WORLD_TRY(melu_evaluate(&metrics, best, world.data, &with, &err));
  ck_assert(metrics.coverage > 0.5 && metrics.coverage < 0.98);
  for (int i = 0; i < 2; i++) {
    WORLD_TRY(melu_model_write(best, "noise", 0, 1, &noises[i], &err));
    WORLD_TRY(melu_evaluate(&metrics, best, world.data, &with, &err));
    ck_assert(metrics.coverage == i);
  }
  ck_assert_int_eq(melu_evaluate(&metrics, world.model, world.data, &with, &err), MELU_EINVAL);
}
END_TEST

START_TEST(clicks) {
  enum { N = 200 };
  float scores[N], labels[N];
  uint64_t random = 5;
  double pairs = 0, won = 0, loss = 0;
  struct melu_metrics metrics = {0};
  for (int i = 0; i < N; i++) {
    scores[i] = (float)(world_random(&random) % 9) - 4; /* many ties */
    labels[i] = world_random(&random) % 3 == 0;
    loss -= log(1 / (1 + exp(labels[i] > 0 ? -scores[i] : scores[i])));
  }
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++)
      if (labels[i] > labels[j]) {
        pairs++;
        won += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
      }
  WORLD_TRY(melu_metrics_clicks(&metrics, world.ctx, scores, labels, N, &err));
  ck_assert(fabs(metrics.auc - won / pairs) < 1e-12 && fabs(metrics.log_loss - loss / N) < 1e-9);
  scores[3] = 1000; /* no overflow */
  WORLD_TRY(melu_metrics_clicks(&metrics, world.ctx, scores, labels, N, &err));
  ck_assert(isfinite(metrics.log_loss));
  for (int i = 0; i < N; i++) labels[i] = 1;
  WORLD_TRY(melu_metrics_clicks(&metrics, world.ctx, scores, labels, N, &err));
  ck_assert(metrics.auc == 0.5);
  scores[0] = NAN;
  ck_assert_int_eq(melu_metrics_clicks(&metrics, world.ctx, scores, labels, N, &err), MELU_ERANGE);
  scores[0] = 0;
  labels[4] = INFINITY;
  ck_assert_int_eq(melu_metrics_clicks(&metrics, world.ctx, scores, labels, N, &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 4);
  ck_assert_int_eq(melu_metrics_clicks(&metrics, world.ctx, scores, labels, 0, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_metrics_clicks(NULL, world.ctx, scores, labels, N, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_metrics_clicks(&metrics, NULL, scores, labels, N, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_metrics_clicks(&metrics, world.ctx, NULL, labels, N, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_metrics_clicks(&metrics, world.ctx, scores, NULL, N, &err), MELU_EINVAL);
  ck_assert(metrics.auc == 0.5); /* and nothing was changed */
}
END_TEST

/* ------------------------------------------------------------------------------------------------- choosing */

static melu_status choose(size_t *chosen, double *errors, const struct world *w,
                          const struct melu_model_options *models, const struct melu_fit_options *fits, size_t n) {
  const struct melu_evaluate_options judging = how();
  const struct melu_choose_options options = {
      .size = sizeof options, .validation = 0.3, .seed = 2, .evaluate = &judging};
  return melu_choose(chosen, errors, w->ctx, w->data, models, fits, n, &options, &err);
}

/* Candidates: one that begins far away and hardly learns, one that is near from the start, the same again. */
START_TEST(chooses_the_better_one) {
  const struct melu_model_options far = {.size = sizeof far, .preset = "melu", .seed = 1};
  const struct melu_model_options models[] = {far, shape, shape};
  struct melu_fit_options fits[] = {fit_of(1), fit_of(8), fit_of(8)};
  fits[0].n_query = N_QUERY;
  double errors[3], again[3];
  size_t chosen = 9;
  WORLD_TRY(choose(&chosen, errors, &world, models, fits, 3));
  ck_assert_uint_eq(chosen, 1);
  ck_assert(errors[0] > errors[1] && errors[1] == errors[2]);
  struct world other;
  const struct melu_context_options threads = {.size = sizeof threads, .n_threads = 3};
  world_open(&other, &threads, N_USERS);
  WORLD_TRY(choose(&chosen, again, &other, models, fits, 3));
  ck_assert_mem_eq(again, errors, sizeof errors);
  world_close(&other);
}
END_TEST

/* A host that was built for a later version has larger structs. */
START_TEST(arrays_of_larger_options) {
  struct later_model {
    struct melu_model_options known;
    uint64_t unknown;
  } models[2] = {{.known = shape}, {.known = shape}};
  struct later_fit {
    struct melu_fit_options known;
    uint64_t unknown;
  } fits[2] = {{.known = fit_of(1)}, {.known = fit_of(8)}};
  const struct melu_fit_options plain_fits[2] = {fit_of(1), fit_of(8)};
  const struct melu_model_options plain_models[2] = {shape, shape};
  const struct melu_evaluate_options judging = how();
  const struct melu_choose_options options = {.size = sizeof options, .validation = 0.3, .evaluate = &judging};
  double errors[2], plain[2];
  size_t chosen;
  for (size_t i = 0; i < 2; i++) {
    models[i].known.size = sizeof models[i];
    fits[i].known.size = sizeof fits[i];
  }
  WORLD_TRY(melu_choose(&chosen, plain, world.ctx, world.data, plain_models, plain_fits, 2, &options, &err));
  WORLD_TRY(melu_choose(&chosen, errors, world.ctx, world.data, &models[0].known, &fits[0].known, 2, &options, &err));
  ck_assert(plain[0] != plain[1] && errors[0] == plain[0] && errors[1] == plain[1]);
}
END_TEST

/* A candidate that diverges loses; if all do, that is an error. */
START_TEST(chooses_none_that_diverges) {
  const struct melu_model_options models[] = {shape, shape};
  const struct melu_optimizer_options wild = {.size = sizeof wild, .lr = 1e18, .clip_value = -1};
  struct melu_fit_options fits[] = {fit_of(8), fit_of(2)};
  double errors[2];
  size_t chosen = 9;
  fits[0].optimizer = &wild;
  WORLD_TRY(choose(&chosen, errors, &world, models, fits, 2));
  ck_assert_uint_eq(chosen, 1);
  ck_assert(isinf(errors[0]) && isfinite(errors[1]));
  chosen = 9;
  ck_assert_int_eq(choose(&chosen, errors, &world, models, fits, 1), MELU_EDIVERGED);
  ck_assert_uint_eq(chosen, 9);
}
END_TEST

/* Who has more ratings than the judging allows is not drawn: among users of whom each has one more than the next, only
 * one is left. */
START_TEST(chooses_by_who_may_be_judged) {
  const struct melu_fit_options fit = fit_of(1);
  const struct melu_evaluate_options four = {.size = sizeof four,
                                             .n_query = N_QUERY,
                                             .min_ratings = 4,
                                             .max_ratings = 4},
                                     none = {
                                         .size = sizeof none, .n_query = N_QUERY, .min_ratings = 40, .max_ratings = 41};
  struct melu_choose_options options = {.size = sizeof options, .validation = 0.9, .evaluate = &four};
  double error;
  size_t chosen = 9;
  WORLD_TRY(melu_choose(&chosen, &error, world.ctx, world.data, &shape, &fit, 1, &options, &err));
  ck_assert(chosen == 0 && isfinite(error));
  options.evaluate = &none;
  ck_assert_int_eq(melu_choose(&chosen, &error, world.ctx, world.data, &shape, &fit, 1, &options, &err),
                   MELU_ENOTFOUND);
}
END_TEST

START_TEST(refuses) {
  const struct melu_fit_options fit = fit_of(1), old_fit = {.size = 3};
  const struct melu_evaluate_options judging = how();
  const struct melu_choose_options usual = {.size = sizeof usual, .evaluate = &judging};
  const struct melu_choose_options half = {.size = sizeof half, .validation = 1};
  const uint32_t user = 0;
  size_t chosen = 9;
  const struct melu_choose_options negative = {.size = sizeof negative, .validation = -0.1}, old = {.size = 3};
  const struct melu_evaluate_options long_query = {.size = sizeof long_query, .n_query = SIZE_MAX / 2};
  const struct melu_evaluate_options one_user = {.size = sizeof one_user, .users = &user}, older = {.size = 3};
  const struct melu_choose_options long_queries = {.size = sizeof long_queries, .evaluate = &long_query};
  const struct melu_choose_options named = {.size = sizeof named, .evaluate = &one_user};
  const struct melu_choose_options unsized = {.size = sizeof unsized, .evaluate = &older};
  melu_dataset *open = new_history(0);
  ck_assert_int_eq(melu_choose(&chosen, NULL, NULL, world.data, &shape, &fit, 1, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, NULL, &shape, &fit, 1, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, NULL, &fit, 1, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, NULL, 1, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &old_fit, 1, &usual, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, open, &shape, &fit, 1, NULL, &err), MELU_ESTATE);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &fit, 1, &negative, &err), MELU_ERANGE);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &fit, 1, &old, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &fit, 1, &unsized, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &fit, 1, &long_queries, &err),
                   MELU_ELIMIT);
  melu_dataset_free(open);
  ck_assert_int_eq(melu_choose(NULL, NULL, world.ctx, world.data, &shape, &fit, 1, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &fit, 0, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &fit, 1, &half, &err), MELU_ERANGE);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &fit, 1, &named, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_choose(&chosen, NULL, world.ctx, world.data, &shape, &fit, 1, NULL, &err), MELU_ENOTFOUND);
  ck_assert_uint_eq(chosen, 9);
}
END_TEST

/* Clicks are chosen by the logarithmic loss. */
START_TEST(chooses_by_the_loss_of_clicks) {
  struct melu_model_options click = shape;
  const struct melu_fit_options fit = fit_of(2);
  const struct melu_evaluate_options judging = how();
  struct melu_choose_options options = {.size = sizeof options, .validation = 0.3, .seed = 2, .evaluate = &judging};
  struct world w = world;
  double error;
  size_t chosen = 9;
  click.loss = MELU_LOGISTIC;
  WORLD_TRY(melu_dataset_new(&w.data, w.ctx, w.schema, &err));
  for (uint32_t i = 0; i < WORLD_ITEMS; i++) WORLD_TRY(melu_dataset_add_item(w.data, i, NULL, NULL, &err));
  for (uint32_t u = 0; u < 20; u++) {
    WORLD_TRY(melu_dataset_add_user(w.data, u, NULL, NULL, &err));
    for (uint32_t i = 0; i < 8; i++) WORLD_TRY(melu_dataset_add_rating(w.data, u, i, (float)(i % 2), &err));
  }
  WORLD_TRY(melu_dataset_freeze(w.data, &err));
  WORLD_TRY(melu_choose(&chosen, NULL, w.ctx, w.data, &click, &fit, 1, &options, &err));
  WORLD_TRY(melu_choose(&chosen, &error, w.ctx, w.data, &click, &fit, 1, &options, &err));
  ck_assert(chosen == 0 && error > 0 && error < 2);
  melu_dataset_free(w.data);
}
END_TEST

/* A call in a small world whose memory is counted from there on. */
static melu_status judge_with(struct test_heap *heap, int choosing, const struct melu_model_options *model) {
  const struct melu_allocator allocator = test_allocator(heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
  const struct melu_model_options models[] = {*model, *model};
  const struct melu_fit_options fits[] = {fit_of(1), fit_of(1)};
  const struct melu_evaluate_options judging = how();
  const struct melu_choose_options half = {.size = sizeof half, .validation = 0.5, .evaluate = &judging};
  const size_t fail_at = heap->fail_at;
  struct melu_evaluate_options with = how();
  struct melu_metrics metrics;
  struct world w;
  size_t chosen = 9;
  double errors[2] = {-1, -1};
  melu_status status;
  heap->fail_at = 0;
  world_open(&w, &options, 6);
  melu_model_free(w.model);
  WORLD_TRY(melu_model_new(&w.model, w.ctx, melu_dataset_schema(w.data), model, &err));
  const size_t before = heap->made;
  heap->fail_at = fail_at ? before + fail_at : 0;
  with.history = w.data;
  with.intervals = model->preset != NULL;
  if (choosing)
    status = melu_choose(&chosen, errors, w.ctx, w.data, models, fits, 2, &half, &err);
  else
    status = melu_evaluate(&metrics, w.model, w.data, &with, &err);
  heap->made -= before;
  ck_assert(chosen == (choosing && !status ? 0 : 9));
  for (int i = 0; i < 2; i++) ck_assert_int_eq(errors[i] == -1, !choosing || status);
  world_close(&w);
  ck_assert_uint_eq(heap->live, 0);
  return status;
}

/* Judging at every request for memory, choosing at some; once, and from there on. Models that adapt items ask while
 * they judge, and may not be refused when they are asked again who it was. */
START_TEST(no_memory) {
  static const struct melu_model_options kinds[] = {{.size = sizeof *kinds, .preset = "best", .rank = 2},
                                                    {.size = sizeof *kinds, .adapt = 15, .inner_steps = 1}};
  const struct melu_model_options *kind = &kinds[_i / 4];
  const int choosing = _i / 2 % 2, from_there_on = _i % 2;
  for (size_t n = 1;; n += choosing ? 1 + n / 8 : 1) {
    struct test_heap heap = {.fail_at = n, .from_there_on = from_there_on};
    const melu_status status = judge_with(&heap, choosing, kind);
    if (!status && heap.made < n) break;
    ck_assert_int_eq(status, MELU_ENOMEM);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("choose");
  TCase *tc = tcase_create("choose");
  tcase_add_checked_fixture(tc, setup, teardown);
  tcase_set_timeout(tc, 120);
  tcase_add_test(tc, users_by_name);
  tcase_add_test(tc, history_joins_the_support_set);
  tcase_add_test(tc, histories_of_others);
  tcase_add_test(tc, histories_without_sense);
  tcase_add_test(tc, histories_with_more_than_what_is_missing);
  tcase_add_test(tc, judging_many);
  tcase_add_test(tc, judging_what_diverges);
  tcase_add_test(tc, judging_refuses);
  tcase_add_test(tc, coverage);
  tcase_add_test(tc, clicks);
  tcase_add_test(tc, chooses_the_better_one);
  tcase_add_test(tc, arrays_of_larger_options);
  tcase_add_test(tc, chooses_none_that_diverges);
  tcase_add_test(tc, chooses_by_who_may_be_judged);
  tcase_add_test(tc, refuses);
  tcase_add_test(tc, chooses_by_the_loss_of_clicks);
  tcase_add_loop_test(tc, no_memory, 0, 6); /* choosing is the same for both kinds */
  suite_add_tcase(s, tc);
  return run_suite(s);
}
