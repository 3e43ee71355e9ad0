/* SPDX-License-Identifier: BSD-3-Clause */
/* Adapting, predicting and evaluating: against what the public parts say about each other. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "meta/overlap.h"
#include "run_suite.h"
#include "world.h"

enum { N_USERS = 30 };

static melu_error err;

static struct world w;
static melu_workspace *ws;
static melu_user *user;

static void open_all(void) {
  world_open(&w, NULL, N_USERS);
  WORLD_TRY(melu_workspace_new(&ws, w.model, 8, &err));
  WORLD_TRY(melu_user_new(&user, w.model, &err));
}

static void close_all(void) {
  melu_user_free(user);
  melu_workspace_free(ws);
  world_close(&w);
}

static const uint32_t items[9] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
static const float ratings[9] = {5, 1, 3, 4, 2, 3, 5, 1, 2};

/* The query loss of the outer loop is the squared error of what adapt and predict say. */
START_TEST(predictions_have_the_loss_of_the_batch) {
  for (uint32_t u = 0; u < N_USERS; u++) {
    const uint32_t *rated, support[3] = {2, 0, 1}, query[1] = {3};
    const float *given;
    struct melu_value age;
    melu_gradient *g;
    melu_batch *batch;
    float score;
    melu_dataset_ratings(w.data, u, &rated, &given);
    WORLD_TRY(melu_batch_new(&batch, w.ctx, w.data, &err));
    WORLD_TRY(melu_batch_add(batch, u, support, 3, query, 1, &err));
    WORLD_TRY(melu_gradient_new(&g, w.model, &err));
    WORLD_TRY(melu_meta_gradient(g, w.model, batch, &err));
    WORLD_TRY(melu_dataset_user_values(&age, w.data, u, &err));
    WORLD_TRY(melu_adapt(user, ws, w.model, w.data, &age, rated, given, 3, &err));
    WORLD_TRY(melu_predict(&score, ws, w.model, user, w.data, rated + 3, 1, &err));
    const double e = (double)score - (double)given[3];
    ck_assert_double_eq_tol(melu_gradient_loss(g, NULL), e * e, 1e-4 * (1 + e * e));
    melu_gradient_free(g);
    melu_batch_free(batch);
  }
}
END_TEST

#define REFUSED(call, part)                                                       \
  do {                                                                            \
    ck_assert_int_eq(call, MELU_EINVAL);                                          \
    ck_assert_msg(strstr(err.message, part) != NULL, "message: %s", err.message); \
  } while (0)

START_TEST(arguments_that_are_not_there) {
  melu_user *other = NULL;
  melu_workspace *space = NULL;
  melu_catalog *catalog = NULL;
  REFUSED(melu_user_new(NULL, w.model, &err), "out is NULL");
  REFUSED(melu_user_new(&other, NULL, &err), "model is NULL");
  REFUSED(melu_workspace_new(NULL, w.model, 1, &err), "out is NULL");
  REFUSED(melu_workspace_new(&space, NULL, 1, &err), "model is NULL");
  REFUSED(melu_catalog_new(NULL, w.model, w.data, NULL, 0, &err), "out is NULL");
  REFUSED(melu_catalog_new(&catalog, NULL, w.data, NULL, 0, &err), "model is NULL");
  REFUSED(melu_catalog_new(&catalog, w.model, NULL, NULL, 0, &err), "data is NULL");
  REFUSED(melu_adapt(user, ws, w.model, w.data, NULL, NULL, ratings, 1, &err), "items is NULL");
  REFUSED(melu_adapt(user, ws, w.model, w.data, NULL, items, NULL, 1, &err), "ratings is NULL");
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, 2, &err));
  REFUSED(melu_predict(NULL, ws, w.model, user, w.data, items, 1, &err), "scores is NULL");
  REFUSED(melu_predict_variance(NULL, ws, w.model, user, w.data, items, 1, &err), "variances is NULL");
  REFUSED(melu_predict_variance(NULL, NULL, w.model, user, w.data, items, 1, &err), "workspace is NULL");
  REFUSED(melu_predict_variance(NULL, ws, w.model, user, w.data, NULL, 0, &err), "variances are for MELU_FACTORS");
  WORLD_TRY(melu_predict(NULL, ws, w.model, user, w.data, NULL, 0, &err));
  ck_assert(!other && !space && !catalog);
}
END_TEST

/* What is predicted for an item does not depend on what else is asked for, nor on the workspace. */
START_TEST(predictions_are_independent) {
  enum { N = 100 };
  uint32_t many[N];
  float together[N], alone;
  melu_workspace *other;
  for (uint32_t i = 0; i < N; i++) many[i] = i * 5 % WORLD_ITEMS;
  WORLD_TRY(melu_workspace_new(&other, w.model, 3, &err));
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, 5, &err));
  WORLD_TRY(melu_predict(together, ws, w.model, user, w.data, many, N, &err));
  for (uint32_t i = 0; i < N; i++) {
    WORLD_TRY(melu_predict(&alone, other, w.model, user, w.data, &many[i], 1, &err));
    ck_assert_msg(alone == together[i], "item %u: %.9g alone, %.9g among others", many[i], (double)alone,
                  (double)together[i]);
  }
  melu_workspace_free(other);
}
END_TEST

/* A workspace keeps what it derived from the model's weights, but not beyond their next change. */
START_TEST(a_workspace_follows_its_model) {
  float old, fresh;
  for (int change = 0; change < 2; change++) {
    melu_workspace *other;
    WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, 5, &err));
    if (change == 0) {
      float weights[8 * 8];
      struct melu_param p;
      for (size_t i = 0; i < melu_model_n_params(w.model); i++) {
        WORLD_TRY(melu_model_param(&p, w.model, i, &err));
        if (strcmp(p.name, "W1") == 0) break;
      }
      WORLD_TRY(melu_model_read(weights, w.model, "W1", 0, p.rows, &err));
      for (size_t i = 0; i < p.rows * p.cols; i++) weights[i] = -weights[i];
      WORLD_TRY(melu_model_write(w.model, "W1", 0, p.rows, weights, &err));
    } else {
      const struct melu_fit_options once = {.size = sizeof once, .n_epochs = 1, .n_query = 2, .min_ratings = 4};
      WORLD_TRY(melu_fit(w.model, w.data, &once, &err));
    }
    WORLD_TRY(melu_workspace_new(&other, w.model, 8, &err));
    WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, 5, &err));
    WORLD_TRY(melu_predict(&old, ws, w.model, user, w.data, items, 1, &err));
    WORLD_TRY(melu_adapt(user, other, w.model, w.data, NULL, items, ratings, 5, &err));
    WORLD_TRY(melu_predict(&fresh, other, w.model, user, w.data, items, 1, &err));
    ck_assert_msg(old == fresh, "%.9g, with a new workspace %.9g", (double)old, (double)fresh);
    melu_workspace_free(other);
  }
}
END_TEST

START_TEST(support_pulls_predictions) {
  float before, after;
  const uint32_t liked[2] = {0, 3};
  const float five[2] = {5, 5};
  WORLD_TRY(melu_predict(&before, ws, w.model, user, w.data, liked, 1, &err));
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, liked, five, 2, &err));
  WORLD_TRY(melu_predict(&after, ws, w.model, user, w.data, liked, 1, &err));
  ck_assert_msg(fabs((double)after - 5) < fabs((double)before - 5), "%g before, %g after two ratings of 5",
                (double)before, (double)after);
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, NULL, NULL, 0, &err)); /* a stranger again */
  WORLD_TRY(melu_predict(&after, ws, w.model, user, w.data, liked, 1, &err));
  ck_assert_float_eq_tol(before, after, 1e-5f);
}
END_TEST

/* An unknown id and a missing value are two things: the unknown row is all zeros before training, and not after it. */
START_TEST(unknown_and_missing) {
  float scores[2];
  const uint32_t unknown = MELU_UNKNOWN;
  const float row[3] = {1, -2, 3};
  const struct melu_value profiles[2] = {{.ids = &unknown, .n_ids = 1}, {.n_ids = 0}};
  for (int trained = 0; trained < 2; trained++) {
    for (int i = 0; i < 2; i++) {
      WORLD_TRY(melu_adapt(user, ws, w.model, w.data, &profiles[i], items, ratings, 2, &err));
      WORLD_TRY(melu_predict(&scores[i], ws, w.model, user, w.data, items, 1, &err));
    }
    ck_assert((scores[0] != scores[1]) == trained);
    WORLD_TRY(melu_model_write(w.model, "E.age", 5, 1, row, &err));
  }
}
END_TEST

START_TEST(bad_input_leaves_the_user_alone) {
  float before[8], after[8], bad[2] = {3, (float)NAN};
  const uint32_t far[3] = {0, 1, WORLD_ITEMS}, five = 5;
  const struct melu_value wrong = {.ids = &five, .n_ids = 1};
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, 4, &err));
  WORLD_TRY(melu_predict(before, ws, w.model, user, w.data, items, 8, &err));

  ck_assert_int_eq(melu_adapt(user, ws, w.model, w.data, NULL, far, ratings, 3, &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 2);
  ck_assert_msg(strstr(err.message, "items[2]") && strstr(err.message, "12"), "%s", err.message);
  ck_assert_int_eq(melu_adapt(user, ws, w.model, w.data, NULL, items, bad, 2, &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 1);
  ck_assert_int_eq(melu_adapt(user, ws, w.model, w.data, &wrong, items, ratings, 2, &err), MELU_ERANGE);
  ck_assert_msg(strstr(err.message, "age") != NULL, "%s", err.message);
  ck_assert_int_eq(melu_adapt(user, ws, w.model, w.data, NULL, items, ratings, 9, &err), MELU_ELIMIT);
  ck_assert_int_eq(melu_adapt(NULL, ws, w.model, w.data, NULL, items, ratings, 2, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_adapt(user, NULL, w.model, w.data, NULL, items, ratings, 2, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_adapt(user, ws, NULL, w.data, NULL, items, ratings, 2, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_adapt(user, ws, w.model, NULL, NULL, items, ratings, 2, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_adapt(user, ws, w.model, w.data, NULL, NULL, ratings, 2, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_adapt(user, ws, w.model, w.data, NULL, items, NULL, 2, NULL), MELU_EINVAL);
  ck_assert_int_eq(melu_predict(NULL, ws, w.model, user, w.data, items, 2, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_predict(after, ws, w.model, user, w.data, far, 3, &err), MELU_ERANGE);

  const float huge[2] = {3e38f, -3e38f};
  ck_assert_int_eq(melu_adapt(user, ws, w.model, w.data, NULL, items, huge, 2, &err), MELU_EDIVERGED);

  WORLD_TRY(melu_predict(after, ws, w.model, user, w.data, items, 8, &err));
  ck_assert(memcmp(before, after, sizeof before) == 0);

  melu_workspace *none;
  ck_assert_int_eq(melu_workspace_new(&none, w.model, 100000, &err), MELU_ELIMIT);
  ck_assert_ptr_null(none);
  melu_user *nobody;
  ck_assert_int_eq(melu_user_new(&nobody, NULL, &err), MELU_EINVAL);
  ck_assert_ptr_null(nobody);
}
END_TEST

/* ------------------------------------------------------------------------------------------------ threads */

static const struct melu_evaluate_options few = {.size = sizeof few, .n_query = 2, .min_ratings = 4};

static void *adapt_often(void *result) {
  melu_workspace *own_ws;
  melu_user *own_user;
  float *scores = result;
  if (melu_workspace_new(&own_ws, w.model, 8, NULL) || melu_user_new(&own_user, w.model, NULL)) return NULL;
  for (int i = 0; i < 200; i++) {
    if (melu_adapt(own_user, own_ws, w.model, w.data, NULL, items, ratings, (size_t)(i % 8) + 1, NULL)) return NULL;
    if (melu_predict(scores, own_ws, w.model, own_user, w.data, items, 8, NULL)) return NULL;
  }
  melu_user_free(own_user);
  melu_workspace_free(own_ws);
  return result;
}

START_TEST(one_model_many_threads) {
  pthread_t threads[8];
  float scores[8][8];
  void *done;
  for (int i = 0; i < 8; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, adapt_often, scores[i]), 0);
  for (int i = 0; i < 8; i++) {
    ck_assert_int_eq(pthread_join(threads[i], &done), 0);
    ck_assert_ptr_eq(done, scores[i]);
    ck_assert(memcmp(scores[0], scores[i], sizeof scores[0]) == 0);
  }
}
END_TEST

/* --------------------------------------------------------------------------------------------- evaluation */

/* The same done by hand: split, adapt, predict, add up. */
static struct melu_metrics by_hand(uint64_t split, size_t max_support) {
  struct melu_metrics m = {0};
  for (uint32_t u = 0; u < N_USERS; u++) {
    uint32_t order[16], rated[16];
    float given[16], scores[2];
    const uint32_t *all;
    const float *all_given;
    struct melu_value age;
    const size_t n = melu_dataset_ratings(w.data, u, &all, &all_given);
    WORLD_TRY(melu_split_order(order, melu_dataset_user_id(w.data, u), split, n, &err));
    for (size_t i = 0; i < n; i++) {
      rated[i] = all[order[i]];
      given[i] = all_given[order[i]];
    }
    melu_workspace *own;
    WORLD_TRY(melu_workspace_new(&own, w.model, 16, &err));
    WORLD_TRY(melu_dataset_user_values(&age, w.data, u, &err));
    WORLD_TRY(
        melu_adapt(user, own, w.model, w.data, &age, rated, given, n - 2 < max_support ? n - 2 : max_support, &err));
    WORLD_TRY(melu_predict(scores, own, w.model, user, w.data, rated + n - 2, 2, &err));
    WORLD_TRY(melu_metrics_add(&m, scores, given + n - 2, 2, 1, 5, &err));
    melu_workspace_free(own);
  }
  return m;
}

START_TEST(evaluate_does_what_a_host_would) {
  const size_t limits[] = {MELU_NONE, 1, 3, 0}, counts[] = {0, 1, 3, 100};
  for (uint64_t split = 0; split < 3; split++)
    for (int i = 0; i < 4; i++) {
      struct melu_metrics m;
      struct melu_evaluate_options o = few;
      o.split = split;
      o.max_support = limits[i];
      WORLD_TRY(melu_evaluate(&m, w.model, w.data, &o, &err));
      const struct melu_metrics want = by_hand(split, counts[i]);
      ck_assert_uint_eq(m.n_users, N_USERS);
      ck_assert_double_eq_tol(m.mae, want.mae, 1e-6);
      ck_assert_double_eq_tol(m.rmse, want.rmse, 1e-6);
      ck_assert_double_eq_tol(m.ndcg_paper[1], want.ndcg_paper[1], 1e-6);
    }
}
END_TEST

/* Five lists of ids; 5 is unknown. */
static const uint32_t lists[5][3] = {{1, 2, 2}, {3, 2, 1}, {4, 4, 4}, {0, 4, 2}, {5, 5, 1}};

/* Items with those lists, each so many times one after the other, and turned. */
static melu_dataset *data_of_lists(size_t times) {
  const struct melu_field field = {
      .size = sizeof field, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 5, .width = 3};
  melu_schema *schema;
  melu_dataset *data;
  uint32_t *ids = malloc(3 * times * sizeof *ids);
  ck_assert_ptr_nonnull(ids);
  WORLD_TRY(melu_schema_new(&schema, w.ctx, &err));
  WORLD_TRY(melu_schema_add(schema, &field, &err));
  WORLD_TRY(melu_dataset_new(&data, w.ctx, schema, &err));
  for (uint32_t item = 0; item < 5; item++) {
    const struct melu_value value = {.ids = ids, .n_ids = 3 * times};
    for (size_t i = 0; i < 3 * times; i++) {
      const uint32_t id = lists[item][(i + item) % 3];
      ids[i] = id == 5 ? MELU_UNKNOWN : id;
    }
    WORLD_TRY(melu_dataset_add_item(data, item, &value, NULL, &err));
  }
  WORLD_TRY(melu_dataset_freeze(data, &err));
  melu_schema_free(schema);
  free(ids);
  return data;
}

/* A schema without fields of users: who gives a profile and who gives none are told the same. */
START_TEST(users_without_fields) {
  const struct melu_field field = {.size = sizeof field, .name = "self", .owner = MELU_ITEM, .n_values = 4};
  const struct melu_value profile[1] = {{0}};
  melu_schema *schema;
  melu_dataset *data;
  WORLD_TRY(melu_schema_new(&schema, w.ctx, &err));
  WORLD_TRY(melu_schema_add(schema, &field, &err));
  WORLD_TRY(melu_dataset_new(&data, w.ctx, schema, &err));
  for (uint32_t i = 0; i < 4; i++) {
    const struct melu_value self = {.ids = &i, .n_ids = 1};
    WORLD_TRY(melu_dataset_add_item(data, i, &self, NULL, &err));
  }
  WORLD_TRY(melu_dataset_freeze(data, &err));
  for (int network = MELU_LAYERS; network <= MELU_FACTORS; network++) {
    const struct melu_model_options o = {.size = sizeof o, .preset = network == MELU_FACTORS ? "best" : "melu"};
    float scores[2][4];
    melu_model *model;
    melu_workspace *space;
    melu_user *somebody;
    WORLD_TRY(melu_model_new(&model, w.ctx, schema, &o, &err));
    WORLD_TRY(melu_workspace_new(&space, model, 3, &err));
    WORLD_TRY(melu_user_new(&somebody, model, &err));
    for (int i = 0; i < 2; i++) {
      WORLD_TRY(melu_adapt(somebody, space, model, data, i ? profile : NULL, items, ratings, 3, &err));
      WORLD_TRY(melu_predict(scores[i], space, model, somebody, data, items, 4, &err));
    }
    ck_assert_mem_eq(scores[0], scores[1], sizeof scores[0]);
    melu_user_free(somebody);
    melu_workspace_free(space);
    melu_model_free(model);
  }
  melu_dataset_free(data);
  melu_schema_free(schema);
}
END_TEST

/* The user is sound, but the item has a number that makes the score of it none. */
START_TEST(scores_that_are_not_finite) {
  const struct melu_model_options o = {.size = sizeof o, .preset = "best", .rank = 2};
  melu_model *model;
  melu_workspace *space;
  melu_user *somebody;
  float scores[4] = {0}, row[16];
  struct melu_param p = {0};
  WORLD_TRY(melu_model_new(&model, w.ctx, melu_dataset_schema(w.data), &o, &err));
  WORLD_TRY(melu_model_param(&p, model, 0, &err));
  ck_assert_str_eq(p.name, "E.genre");
  for (size_t i = 0; i < 16; i++) row[i] = 3e38f;
  WORLD_TRY(melu_model_write(model, p.name, 2, 1, row, &err)); /* of items 2, 4, 5 ... and of no other */
  WORLD_TRY(melu_workspace_new(&space, model, 3, &err));
  WORLD_TRY(melu_user_new(&somebody, model, &err));
  const uint32_t good[2] = {0, 3}, some[4] = {0, 3, 0, 2};
  WORLD_TRY(melu_adapt(somebody, space, model, w.data, NULL, good, ratings, 2, &err));
  WORLD_TRY(melu_predict(scores, space, model, somebody, w.data, good, 2, &err));
  ck_assert_int_eq(melu_predict(scores, space, model, somebody, w.data, some, 4, &err), MELU_EDIVERGED);
  ck_assert_uint_eq(err.index, 3);
  melu_user_free(somebody);
  melu_workspace_free(space);
  melu_model_free(model);
}
END_TEST

/* Lists of 300,000 ids overlap by as much as lists of 3; they would take hours if each id of one were compared with
 * each of the other. */
START_TEST(long_lists_overlap_as_short_ones) {
  static const size_t times[] = {1, 2, 21, 22, 100, 100000}; /* 63 ids, and 66 */
  const struct melu_model_options options = {.size = sizeof options,
                                             .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN | MELU_ADAPT_ITEMS};
  for (size_t t = 0; t < sizeof times / sizeof *times; t++) {
    melu_dataset *data = data_of_lists(times[t]);
    melu_model *model;
    real overlaps[5][5], *slot;
    WORLD_TRY(melu_model_new(&model, w.ctx, melu_dataset_schema(data), &options, &err));
    melu__overlap(&slot, model, data, &(struct melu__rated){.items = items}, 0, 5, 5, overlaps[0]);
    ck_assert_ptr_eq(slot, overlaps[0]);
    for (int a = 0; a < 5; a++)
      for (int b = 0; b < 5; b++) {
        int n = 0;
        for (int i = 0; i < 9; i++) n += lists[a][i / 3] == lists[b][i % 3];
        ck_assert_double_eq_tol((double)overlaps[a][b], n / 9.0, 1e-6);
      }
    melu_model_free(model);
    melu_dataset_free(data);
  }
}
END_TEST

static int refuse(void *arg, const struct melu_progress *p) {
  (void)arg;
  return strcmp(p->phase, "evaluate") == 0;
}

START_TEST(evaluate_refuses_and_stops) {
  struct melu_metrics m = {.n_users = 77};
  struct melu_evaluate_options o = few;
  o.min_ratings = 1000;
  ck_assert_int_eq(melu_evaluate(&m, w.model, w.data, &o, &err), MELU_ENOTFOUND);
  o.min_ratings = 1;
  ck_assert_int_eq(melu_evaluate(&m, w.model, w.data, &o, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_evaluate(NULL, w.model, w.data, &few, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_evaluate(&m, NULL, w.data, &few, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_evaluate(&m, w.model, NULL, &few, &err), MELU_EINVAL);
  struct world other;
  const struct melu_context_options options = {.size = sizeof options, .progress = refuse};
  world_open(&other, &options, N_USERS);
  ck_assert_int_eq(melu_evaluate(&m, other.model, other.data, &few, &err), MELU_ECANCELED);
  ck_assert_uint_eq(m.n_users, 77);
  world_close(&other);
}
END_TEST

int main(void) {
  Suite *s = suite_create("user");
  TCase *t = tcase_create("adapting");
  tcase_add_checked_fixture(t, open_all, close_all);
  tcase_add_test(t, predictions_have_the_loss_of_the_batch);
  tcase_add_test(t, predictions_are_independent);
  tcase_add_test(t, a_workspace_follows_its_model);
  tcase_add_test(t, support_pulls_predictions);
  tcase_add_test(t, unknown_and_missing);
  tcase_add_test(t, bad_input_leaves_the_user_alone);
  tcase_add_test(t, arguments_that_are_not_there);
  tcase_add_test(t, one_model_many_threads);
  tcase_add_test(t, evaluate_does_what_a_host_would);
  tcase_add_test(t, evaluate_refuses_and_stops);
  tcase_add_test(t, long_lists_overlap_as_short_ones);
  tcase_add_test(t, users_without_fields);
  tcase_add_test(t, scores_that_are_not_finite);
  suite_add_tcase(s, t);
  return run_suite(s);
}
