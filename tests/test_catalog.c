/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranking a catalogue: against predicting every item, and against sorting what was predicted. */
#include <math.h>
#include <stdio.h>

#include "world.h"

enum { N_USERS = 30, N = WORLD_ITEMS };

static melu_error err;

static struct world w;
static melu_workspace *ws;
static melu_user *user;
static melu_catalog *catalog;

static const uint32_t items[8] = {0, 1, 2, 3, 4, 5, 6, 7};
static const float ratings[8] = {5, 1, 3, 4, 2, 3, 5, 1};

static void open_all(void) {
  world_open(&w, NULL, N_USERS);
  WORLD_TRY(melu_workspace_new(&ws, w.model, 60, &err));
  WORLD_TRY(melu_user_new(&user, w.model, &err));
  WORLD_TRY(melu_catalog_new(&catalog, w.model, w.data, NULL, 0, &err));
}

static void close_all(void) {
  melu_catalog_free(catalog);
  melu_user_free(user);
  melu_workspace_free(ws);
  world_close(&w);
}

/* A user with n ratings; n = 60 has its first layer formed. */
static void adapt(size_t n) {
  uint32_t rated[60];
  float given[60];
  for (size_t i = 0; i < n; i++) {
    rated[i] = items[i % 8];
    given[i] = ratings[i % 8];
  }
  WORLD_TRY(melu_adapt(user, ws, w.model, w.data, NULL, rated, given, n, &err));
}

START_TEST(scores_are_predictions) {
  static const size_t n_ratings[] = {0, 1, 5, 60};
  for (size_t r = 0; r < 4; r++) {
    float scores[N], predicted[N];
    uint32_t all[N];
    for (uint32_t i = 0; i < N; i++) all[i] = i;
    adapt(n_ratings[r]);
    ck_assert_uint_eq(melu_catalog_n_items(catalog), N);
    WORLD_TRY(melu_catalog_score(scores, ws, catalog, user, &err));
    WORLD_TRY(melu_predict(predicted, ws, w.model, user, w.data, all, N, &err));
    for (size_t i = 0; i < N; i++)
      ck_assert_msg(fabs((double)scores[i] - (double)predicted[i]) < 1e-5 * (1 + fabs((double)predicted[i])),
                    "%zu ratings, item %zu: %.9g ranked, %.9g predicted", n_ratings[r], i, (double)scores[i],
                    (double)predicted[i]);
  }
}
END_TEST

/* More items than a block, some of them twice: equal scores, ranked by position. */
START_TEST(the_best_come_first) {
  enum { MANY = 250 };
  uint32_t chosen[MANY], top[MANY];
  float scores[MANY], best[MANY];
  melu_catalog *many;
  for (uint32_t i = 0; i < MANY; i++) chosen[i] = i * 7 % N;
  adapt(5);
  WORLD_TRY(melu_catalog_new(&many, w.model, w.data, chosen, MANY, &err));
  WORLD_TRY(melu_catalog_score(scores, ws, many, user, &err));
  for (size_t k = 0; k <= MANY; k += k < 12 ? 1 : 119) {
    size_t n = k;
    WORLD_TRY(melu_catalog_top(top, best, &n, ws, many, user, NULL, &err));
    ck_assert_uint_eq(n, k);
    size_t better = 0, known = 0;
    for (size_t i = 0; i < MANY; i++)
      if (k && (scores[i] > best[k - 1] || (scores[i] == best[k - 1] && chosen[i] < top[k - 1]))) better++;
    ck_assert_uint_le(better, k ? k - 1 : 0);
    for (size_t i = 0; i < k; i++) {
      for (size_t j = 0; j < MANY; j++)
        if (chosen[j] == top[i] && scores[j] == best[i]) {
          known++;
          break;
        }
      if (i) ck_assert(best[i - 1] > best[i] || (best[i - 1] == best[i] && top[i - 1] <= top[i]));
    }
    ck_assert_uint_eq(known, k);
  }
  melu_catalog_free(many);
}
END_TEST

static int keep_even(void *arg, uint32_t item) {
  ++*(size_t *)arg;
  return item % 2 == 0;
}

START_TEST(items_are_left_out) {
  uint32_t top[N], again[N];
  float scores[N];
  size_t n = N, calls = 0;
  adapt(3);
  WORLD_TRY(melu_catalog_top(top, scores, &n, ws, catalog, user, NULL, &err));
  ck_assert_uint_eq(n, N);
  const struct melu_top_options without = {.size = sizeof without, .exclude = top, .n_exclude = 2};
  n = N;
  WORLD_TRY(melu_catalog_top(again, scores, &n, ws, catalog, user, &without, &err));
  ck_assert_uint_eq(n, N - 2);
  ck_assert(memcmp(again, top + 2, n * sizeof *top) == 0);
  const struct melu_top_options even = {.size = sizeof even, .keep = keep_even, .keep_arg = &calls};
  n = N;
  WORLD_TRY(melu_catalog_top(again, scores, &n, ws, catalog, user, &even, &err));
  ck_assert_uint_eq(n, (N + 1) / 2);
  ck_assert_uint_eq(calls, N);
  for (size_t i = 0; i < n; i++) ck_assert_uint_eq(again[i] % 2, 0);
}
END_TEST

START_TEST(bad_input) {
  const uint32_t far[2] = {0, N};
  uint32_t top[2];
  float scores[N];
  size_t n = 2;
  melu_catalog *none = catalog;
  ck_assert_int_eq(melu_catalog_new(NULL, w.model, w.data, NULL, 0, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_new(&none, w.model, NULL, NULL, 0, &err), MELU_EINVAL);
  ck_assert_ptr_null(none);
  ck_assert_int_eq(melu_catalog_new(&none, w.model, w.data, far, 2, &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 1);
  ck_assert_int_eq(melu_catalog_score(NULL, ws, catalog, user, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_score(scores, ws, NULL, user, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_top(NULL, scores, &n, ws, catalog, user, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_top(top, NULL, &n, ws, catalog, user, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_catalog_top(top, scores, NULL, ws, catalog, user, NULL, &err), MELU_EINVAL);
  melu_catalog_free(NULL);
  ck_assert_uint_eq(melu_catalog_n_items(NULL), 0);

  WORLD_TRY(melu_catalog_new(&none, w.model, w.data, far, 0, &err)); /* no item is a catalogue too */
  WORLD_TRY(melu_catalog_top(top, scores, &n, ws, none, user, NULL, &err));
  ck_assert_uint_eq(n, 0);
  melu_catalog_free(none);

  float row[1];
  WORLD_TRY(melu_model_read(row, w.model, "b3", 0, 1, &err));
  WORLD_TRY(melu_model_write(w.model, "b3", 0, 1, row, &err));
  ck_assert_int_eq(melu_catalog_score(scores, ws, catalog, user, &err), MELU_ESTATE);
}
END_TEST

static Suite *suite(void) {
  Suite *s = suite_create("catalog");
  TCase *t = tcase_create("catalog");
  tcase_add_checked_fixture(t, open_all, close_all);
  tcase_add_test(t, scores_are_predictions);
  tcase_add_test(t, the_best_come_first);
  tcase_add_test(t, items_are_left_out);
  tcase_add_test(t, bad_input);
  suite_add_tcase(s, t);
  return s;
}

int main(void) {
  SRunner *runner = srunner_create(suite());
  srunner_run_all(runner, CK_ENV);
  const int n_failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return n_failed ? 1 : 0;
}
