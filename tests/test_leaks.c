/* SPDX-License-Identifier: BSD-3-Clause */
/* What a prediction may not depend on: the answers that are asked for, other people, the order of a file. And what it
 * must depend on: the answers that were given. */
#include <check.h>
#include <math.h>
#include <melu.h>
#include <stdlib.h>
#include <string.h>

#include "run_suite.h"

static melu_error err;

#define TRY(call)                                                                        \
  do {                                                                                   \
    const melu_status status_ = (call);                                                  \
    ck_assert_msg(status_ == MELU_OK, "%s: %s", melu_status_name(status_), err.message); \
  } while (0)

enum { N_ITEMS = 30, N_USERS = 60, N_RATINGS = 20, N_QUERY = 5 };

static melu_context *ctx;
static melu_schema *schema;

static uint32_t mixed(uint32_t x) {
  x = (x ^ x >> 16) * 0x45d9f3bu;
  x = (x ^ x >> 16) * 0x45d9f3bu;
  return x ^ x >> 16;
}

/* A user's taste is one of three kinds of items. */
static float rating_of(uint32_t user, uint32_t item) {
  const int likes = mixed(user) % 3 == item % 3;
  return (float)(likes ? 4 : 2) + (float)(mixed(user * 1000 + item) % 2);
}

static void setup(void) {
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "item", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = N_ITEMS, .width = 4},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 4, .width = 4}};
  TRY(melu_context_new(&ctx, NULL, &err));
  TRY(melu_schema_new(&schema, ctx, &err));
  for (size_t i = 0; i < 2; i++) TRY(melu_schema_add(schema, &fields[i], &err));
}

static void teardown(void) {
  melu_schema_free(schema);
  melu_context_free(ctx);
}

/* How a copy of the data differs. */
struct change {
  int flip_queries;   /* the answers that split 0 asks for are others */
  int flip_support;   /* those that it gives are random */
  int backwards;      /* users come in the reverse order */
  uint32_t only_user; /* 0: all */
};

static void add_user(melu_dataset *data, uint32_t user, const struct change *change) {
  const uint32_t age = user % 4;
  const struct melu_value value = {.ids = &age, .n_ids = 1};
  uint32_t order[N_RATINGS];
  int asked[N_RATINGS] = {0};
  TRY(melu_split_order(order, user, 0, N_RATINGS, &err));
  for (size_t k = N_RATINGS - N_QUERY; k < N_RATINGS; k++) asked[order[k]] = 1;
  TRY(melu_dataset_add_user(data, user, &value, NULL, &err));
  for (uint32_t k = 0; k < N_RATINGS; k++) {
    const uint32_t item = (user * 7 + k) % N_ITEMS;
    float rating = rating_of(user, item);
    if (asked[k] && change->flip_queries) rating = 6 - rating;
    if (!asked[k] && change->flip_support) rating = (float)(1 + mixed(user * 77 + k) % 5);
    TRY(melu_dataset_add_rating(data, user, item, rating, &err));
  }
}

static melu_dataset *new_data(uint32_t first_user, const struct change *change) {
  melu_dataset *data;
  TRY(melu_dataset_new(&data, ctx, schema, &err));
  for (uint32_t i = 0; i < N_ITEMS; i++) {
    const struct melu_value value = {.ids = &i, .n_ids = 1};
    TRY(melu_dataset_add_item(data, i, &value, NULL, &err));
  }
  for (uint32_t k = 0; k < N_USERS; k++) {
    const uint32_t user = first_user + (change->backwards ? N_USERS - 1 - k : k);
    if (!change->only_user || change->only_user == user) add_user(data, user, change);
  }
  TRY(melu_dataset_freeze(data, &err));
  return data;
}

static melu_model *new_model(const char *preset) {
  const struct change none = {0};
  melu_dataset *data = new_data(1, &none);
  melu_model *model;
  const struct melu_model_options options = {.size = sizeof options, .preset = preset, .seed = 3};
  const struct melu_optimizer_options adam = {.size = sizeof adam, .lr = 1e-2};
  const struct melu_fit_options fit = {
      .size = sizeof fit, .n_epochs = 40, .batch_tasks = 16, .n_query = N_QUERY, .optimizer = &adam};
  TRY(melu_model_new(&model, ctx, schema, &options, &err));
  TRY(melu_fit(model, data, &fit, &err));
  melu_dataset_free(data);
  return model;
}

/* Predicts the queries of split 0 of one user of a data set, as melu_evaluate does. */
static void predict(float *scores, const melu_model *model, const melu_dataset *data, uint32_t id) {
  melu_workspace *ws;
  melu_user *user;
  uint32_t position, order[N_RATINGS], items[N_RATINGS];
  float ratings[N_RATINGS];
  const uint32_t *all_items;
  const float *all_ratings;
  struct melu_value profile;
  TRY(melu_workspace_new(&ws, model, N_RATINGS, &err));
  TRY(melu_user_new(&user, model, &err));
  TRY(melu_dataset_find_user(&position, data, id, &err));
  TRY(melu_dataset_user_values(&profile, data, position, &err));
  ck_assert_uint_eq(melu_dataset_ratings(data, position, &all_items, &all_ratings), N_RATINGS);
  TRY(melu_split_order(order, id, 0, N_RATINGS, &err));
  for (size_t k = 0; k < N_RATINGS; k++) {
    items[k] = all_items[order[k]];
    ratings[k] = all_ratings[order[k]];
  }
  const size_t n = N_RATINGS - N_QUERY;
  TRY(melu_adapt(user, ws, model, data, &profile, items, ratings, n, &err));
  TRY(melu_predict(scores, ws, model, user, data, items + n, N_QUERY, &err));
  melu_user_free(user);
  melu_workspace_free(ws);
}

static struct melu_metrics evaluate(const melu_model *model, const melu_dataset *data) {
  struct melu_metrics metrics;
  const struct melu_evaluate_options options = {.size = sizeof options, .n_query = N_QUERY};
  TRY(melu_evaluate(&metrics, model, data, &options, &err));
  return metrics;
}

static const char *const presets[] = {"melu", "best"};

/* Strangers are users 1001 and so on: training has not seen them. */
START_TEST(predictions_do_not_leak) {
  const struct change changes[] = {{0}, {.flip_queries = 1}, {.backwards = 1}, {.only_user = 1017}};
  melu_model *model = new_model(presets[_i]);
  float first[N_QUERY], scores[N_QUERY];
  for (size_t c = 0; c < sizeof changes / sizeof *changes; c++) {
    melu_dataset *data = new_data(1001, &changes[c]);
    predict(c ? scores : first, model, data, 1017);
    if (c) ck_assert_mem_eq(scores, first, sizeof first);
    melu_dataset_free(data);
  }
  melu_model_free(model);
}
END_TEST

START_TEST(support_matters) {
  const struct change none = {0}, random = {.flip_support = 1};
  melu_model *model = new_model(presets[_i]);
  melu_dataset *data = new_data(1001, &none), *misled = new_data(1001, &random);
  const double error = evaluate(model, data).mae, error_misled = evaluate(model, misled).mae;
  ck_assert_msg(error_misled > error + 0.1, "MAE %g, with random answers %g", error, error_misled);
  melu_dataset_free(misled);
  melu_dataset_free(data);
  melu_model_free(model);
}
END_TEST

/* The labels of the queries judge, and do nothing else: with others only the errors change. */
START_TEST(evaluation_uses_labels_to_judge) {
  const struct change none = {0}, flipped = {.flip_queries = 1}, backwards = {.backwards = 1};
  melu_model *model = new_model(presets[_i]);
  melu_dataset *data = new_data(1001, &none), *other = new_data(1001, &flipped), *reverse = new_data(1001, &backwards);
  const struct melu_metrics a = evaluate(model, data), b = evaluate(model, other), c = evaluate(model, reverse);
  ck_assert(fabs(a.mae - b.mae) > 1e-3);
  ck_assert(fabs(a.mae - c.mae) < 1e-12 && fabs(a.ndcg_paper[1] - c.ndcg_paper[1]) < 1e-12);
  melu_dataset_free(reverse);
  melu_dataset_free(other);
  melu_dataset_free(data);
  melu_model_free(model);
}
END_TEST

int main(void) {
  Suite *s = suite_create("leaks");
  TCase *tc = tcase_create("leaks");
  tcase_add_checked_fixture(tc, setup, teardown);
  tcase_set_timeout(tc, 120);
  tcase_add_loop_test(tc, predictions_do_not_leak, 0, 2);
  tcase_add_loop_test(tc, support_matters, 0, 2);
  tcase_add_loop_test(tc, evaluation_uses_labels_to_judge, 0, 2);
  suite_add_tcase(s, tc);
  return run_suite(s);
}
