/* SPDX-License-Identifier: BSD-3-Clause */
/* melu_metrics_add against a naive computation from the definitions, cases computed by hand, and its promises. */
#include <melu.h>

#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run_suite.h"

/* The same as melu_metrics_add's caller sees, computed the slow way: all users kept, sums divided at the end. */
enum { MAX_USERS = 40, MAX_QUERIES = 30 };

struct naive_user {
  size_t n;
  float scores[MAX_QUERIES], ratings[MAX_QUERIES];
};

static const size_t cuts[4] = {1, 3, 5, 10};

/* How many queries stand before query i when sorted by `key`, descending, ties by position. */
static size_t rank_of(const float *key, size_t n, size_t i) {
  size_t rank = 0;
  for (size_t j = 0; j < n; j++) rank += key[j] > key[i] || (key[j] == key[i] && j < i);
  return rank;
}

static double naive_dcg(const float *key, const struct naive_user *user, size_t cut, int paper) {
  double sum = 0;
  for (size_t i = 0; i < user->n; i++) {
    const size_t rank = rank_of(key, user->n, i);
    const double rating = (double)user->ratings[i];
    if (rank < cut) sum += (paper ? pow(2, rating) - 1 : rating) * log(2) / log((double)(rank + 2));
  }
  return sum;
}

static double naive_ndcg(const struct naive_user *user, size_t cut, int paper) {
  return naive_dcg(user->scores, user, cut, paper) / naive_dcg(user->ratings, user, cut, paper);
}

static double clip(double x, double low, double high) {
  return x < low ? low : x > high ? high : x;
}

static struct melu_metrics naive_metrics(const struct naive_user *users, size_t n_users, double low, double high) {
  struct melu_metrics sum = {.n_users = n_users};
  double all_squares = 0;
  for (size_t u = 0; u < n_users; u++) {
    double absolute = 0, squared = 0;
    for (size_t i = 0; i < users[u].n; i++) {
      const double e = clip((double)users[u].scores[i], low, high) - (double)users[u].ratings[i];
      absolute += e < 0 ? -e : e;
      squared += e * e;
    }
    const double n = (double)users[u].n;
    sum.n_queries += users[u].n;
    sum.mae += absolute / n / (double)n_users;
    sum.mse += squared / n / (double)n_users;
    sum.rmse_user += sqrt(squared / n) / (double)n_users;
    all_squares += squared;
    for (size_t c = 0; c < 4; c++) {
      sum.ndcg_paper[c] += naive_ndcg(&users[u], cuts[c], 1) / (double)n_users;
      sum.ndcg_linear[c] += naive_ndcg(&users[u], cuts[c], 0) / (double)n_users;
    }
  }
  sum.rmse = sqrt(sum.mse);
  sum.rmse_pooled = sqrt(all_squares / (double)sum.n_queries);
  return sum;
}

static void check_same(const struct melu_metrics *a, const struct melu_metrics *b, double tolerance) {
  ck_assert_uint_eq(a->n_users, b->n_users);
  ck_assert_uint_eq(a->n_queries, b->n_queries);
  ck_assert_double_eq_tol(a->mae, b->mae, tolerance);
  ck_assert_double_eq_tol(a->mse, b->mse, tolerance);
  ck_assert_double_eq_tol(a->rmse, b->rmse, tolerance);
  ck_assert_double_eq_tol(a->rmse_pooled, b->rmse_pooled, tolerance);
  ck_assert_double_eq_tol(a->rmse_user, b->rmse_user, tolerance);
  for (size_t c = 0; c < 4; c++) {
    ck_assert_double_eq_tol(a->ndcg_paper[c], b->ndcg_paper[c], tolerance);
    ck_assert_double_eq_tol(a->ndcg_linear[c], b->ndcg_linear[c], tolerance);
  }
}

/* Numbers of a fixed, portable sequence. */
static uint32_t draw(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return *state >> 16;
}

/* Users of 1 to 30 queries; scores on a coarse grid, so that ties are many, and beyond the rating range. */
static size_t random_users(struct naive_user *users, uint32_t *state) {
  const size_t n_users = 1 + draw(state) % MAX_USERS;
  for (size_t u = 0; u < n_users; u++) {
    users[u].n = 1 + draw(state) % MAX_QUERIES;
    for (size_t i = 0; i < users[u].n; i++) {
      users[u].scores[i] = (float)(draw(state) % 29) / 4 - 0.5f;
      users[u].ratings[i] = (float)(1 + draw(state) % 5);
    }
  }
  return n_users;
}

static void add(struct melu_metrics *metrics, const struct naive_user *user, double low, double high) {
  ck_assert_int_eq(melu_metrics_add(metrics, user->scores, user->ratings, user->n, low, high, NULL), MELU_OK);
}

START_TEST(equals_the_definitions) {
  struct naive_user users[MAX_USERS];
  uint32_t state = 1;
  for (int round = 0; round < 100; round++) {
    const size_t n_users = random_users(users, &state);
    struct melu_metrics metrics = {0};
    for (size_t u = 0; u < n_users; u++) add(&metrics, &users[u], 1, 5);
    const struct melu_metrics expected = naive_metrics(users, n_users, 1, 5);
    check_same(&metrics, &expected, 1e-12);
  }
}
END_TEST

START_TEST(order_of_users_does_not_matter) {
  struct naive_user users[MAX_USERS];
  uint32_t state = 2;
  for (int round = 0; round < 50; round++) {
    const size_t n_users = random_users(users, &state);
    struct melu_metrics forward = {0}, backward = {0};
    for (size_t u = 0; u < n_users; u++) {
      add(&forward, &users[u], 1, 5);
      add(&backward, &users[n_users - 1 - u], 1, 5);
    }
    check_same(&forward, &backward, 1e-12);
  }
}
END_TEST

START_TEST(a_case_computed_by_hand) {
  /* Ranked 3, 5, 1, and ideally 5, 3, 1. Errors of the clipped scores: 1 (5 for 6.5), 0, 4. */
  const float scores[3] = {6.5f, 5, 5}, ratings[3] = {3, 5, 1};
  struct melu_metrics m = {0};
  const float clipped_low[2] = {-3, 2}, low_ratings[2] = {1, 4};
  ck_assert_int_eq(melu_metrics_add(&m, scores, ratings, 3, 1, 5, NULL), MELU_OK);
  ck_assert_double_eq_tol(m.mae, 2, 1e-15);
  ck_assert_double_eq_tol(m.mse, 20.0 / 3, 1e-15);
  ck_assert_double_eq_tol(m.rmse, sqrt(20.0 / 3), 1e-15);
  ck_assert_double_eq_tol(m.ndcg_paper[0], 7.0 / 31, 1e-15);
  ck_assert_double_eq_tol(m.ndcg_linear[0], 3.0 / 5, 1e-15);
  const double second = 0.63092975357145743710;
  ck_assert_double_eq_tol(m.ndcg_paper[1], (7 + 31 * second + 0.5) / (31 + 7 * second + 0.5), 1e-15);
  ck_assert_double_eq_tol(m.ndcg_linear[1], (3 + 5 * second + 0.5) / (5 + 3 * second + 0.5), 1e-15);
  ck_assert_double_eq(m.ndcg_paper[2], m.ndcg_paper[1]); /* three queries: the later cuts are the same */
  ck_assert_double_eq(m.ndcg_linear[3], m.ndcg_linear[1]);
  /* A second user, with errors 0 (1 for -3) and 2. */
  ck_assert_int_eq(melu_metrics_add(&m, clipped_low, low_ratings, 2, 1, 5, NULL), MELU_OK);
  ck_assert_uint_eq(m.n_users, 2);
  ck_assert_uint_eq(m.n_queries, 5);
  ck_assert_double_eq_tol(m.mae, 1.5, 1e-15);
  ck_assert_double_eq_tol(m.mse, (20.0 / 3 + 2) / 2, 1e-14);
  ck_assert_double_eq_tol(m.rmse_user, (sqrt(20.0 / 3) + sqrt(2)) / 2, 1e-14);
  ck_assert_double_eq_tol(m.rmse_pooled, sqrt(24.0 / 5), 1e-14);
}
END_TEST

START_TEST(one_query) {
  const float score = 2.25f, rating = 4;
  struct melu_metrics m = {0};
  ck_assert_int_eq(melu_metrics_add(&m, &score, &rating, 1, 1, 5, NULL), MELU_OK);
  ck_assert_double_eq(m.mae, 1.75);
  ck_assert_double_eq(m.mse, 1.75 * 1.75);
  ck_assert_double_eq(m.rmse, 1.75);
  ck_assert_double_eq(m.rmse_user, 1.75);
  ck_assert_double_eq(m.rmse_pooled, 1.75);
  for (size_t c = 0; c < 4; c++) {
    ck_assert_double_eq(m.ndcg_paper[c], 1);
    ck_assert_double_eq(m.ndcg_linear[c], 1);
  }
}
END_TEST

START_TEST(ties_keep_the_order_of_the_queries) {
  const float equal[4] = {3, 3, 3, 3}, falling[4] = {5, 4, 2, 1}, rising[4] = {1, 2, 4, 5};
  struct melu_metrics best = {0}, worst = {0};
  ck_assert_int_eq(melu_metrics_add(&best, equal, falling, 4, 1, 5, NULL), MELU_OK);
  ck_assert_int_eq(melu_metrics_add(&worst, equal, rising, 4, 1, 5, NULL), MELU_OK);
  ck_assert_double_eq(best.ndcg_paper[0], 1);
  ck_assert_double_eq(best.ndcg_linear[3], 1);
  ck_assert_double_eq_tol(worst.ndcg_paper[0], 1.0 / 31, 1e-15);
  ck_assert_double_eq_tol(worst.ndcg_linear[0], 1.0 / 5, 1e-15);
}
END_TEST

START_TEST(ranking_is_by_scores_before_clipping) {
  const float scores[3] = {6, 7, 8}, ratings[3] = {1, 2, 5};
  struct melu_metrics m = {0};
  ck_assert_int_eq(melu_metrics_add(&m, scores, ratings, 3, 1, 5, NULL), MELU_OK);
  ck_assert_double_eq(m.ndcg_paper[3], 1);
  ck_assert_double_eq_tol(m.mae, 7.0 / 3, 1e-15);
}
END_TEST

START_TEST(no_gain_to_be_had_counts_as_one) {
  const float scores[2] = {1, 2}, zeros[2] = {0, 0}, negative[2] = {-1, -2}, mixed[2] = {0, 3};
  struct melu_metrics m = {0}, n = {0}, mix = {0};
  ck_assert_int_eq(melu_metrics_add(&m, scores, zeros, 2, 0, 5, NULL), MELU_OK);
  ck_assert_int_eq(melu_metrics_add(&n, scores, negative, 2, -2, 5, NULL), MELU_OK);
  ck_assert_int_eq(melu_metrics_add(&mix, scores, mixed, 2, 0, 5, NULL), MELU_OK);
  for (size_t c = 0; c < 4; c++) {
    ck_assert_double_eq(m.ndcg_paper[c], 1);
    ck_assert_double_eq(m.ndcg_linear[c], 1);
    ck_assert_double_eq(n.ndcg_paper[c], 1);
    ck_assert_double_eq(n.ndcg_linear[c], 1);
    ck_assert_double_eq(mix.ndcg_linear[c], 1);
  }
}
END_TEST

START_TEST(the_largest_ratings_do_not_overflow) {
  const float scores[2] = {-FLT_MAX, FLT_MAX}, ratings[2] = {FLT_MAX, -FLT_MAX}, large[2] = {2000, 1999};
  struct melu_metrics m = {0}, other = {0};
  ck_assert_int_eq(melu_metrics_add(&m, scores, ratings, 2, -(double)FLT_MAX, (double)FLT_MAX, NULL), MELU_OK);
  ck_assert(isfinite(m.mse) && isfinite(m.rmse_pooled) && isfinite(m.ndcg_linear[3]));
  ck_assert_double_eq(m.ndcg_paper[0], 0);
  ck_assert_int_eq(melu_metrics_add(&other, scores, large, 2, 0, 2000, NULL), MELU_OK);
  ck_assert_double_eq_tol(other.ndcg_paper[0], 0.5, 1e-15);
}
END_TEST

static void check_refused(const float *scores, const float *ratings, size_t n, double low, double high,
                          melu_status status, uint64_t index) {
  struct melu_metrics m, before;
  memset(&m, 0, sizeof m);
  const float first = 3;
  ck_assert_int_eq(melu_metrics_add(&m, &first, &first, 1, 1, 5, NULL), MELU_OK);
  memcpy(&before, &m, sizeof m);
  melu_error err = {0};
  ck_assert_int_eq(melu_metrics_add(&m, scores, ratings, n, low, high, &err), status);
  ck_assert_int_eq(err.status, status);
  ck_assert_uint_eq(err.index, index);
  ck_assert(err.message[0] != '\0');
  ck_assert_int_eq(melu_metrics_add(&m, scores, ratings, n, low, high, NULL), status);
  ck_assert(memcmp(&m, &before, sizeof m) == 0);
}

START_TEST(bad_arguments_change_nothing) {
  const float good[3] = {1, 2, 3}, nan_at_1[3] = {1, NAN, 3}, inf_at_2[3] = {1, 2, -INFINITY};
  check_refused(NULL, good, 3, 1, 5, MELU_EINVAL, 0);
  check_refused(good, NULL, 3, 1, 5, MELU_EINVAL, 0);
  check_refused(good, good, 0, 1, 5, MELU_EINVAL, 0);
  check_refused(good, good, 3, 5, 1, MELU_EINVAL, 0);
  check_refused(good, good, 3, (double)NAN, 5, MELU_EINVAL, 0);
  check_refused(nan_at_1, good, 3, 1, 5, MELU_ERANGE, 1);
  check_refused(good, nan_at_1, 3, 1, 5, MELU_ERANGE, 1);
  check_refused(inf_at_2, good, 3, 1, 5, MELU_ERANGE, 2);
  check_refused(good, inf_at_2, 3, 1, 5, MELU_ERANGE, 2);
  melu_error err = {0};
  ck_assert_int_eq(melu_metrics_add(NULL, good, good, 3, 1, 5, &err), MELU_EINVAL);
  ck_assert_int_eq(err.status, MELU_EINVAL);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("metrics");
  TCase *tests = tcase_create("metrics");
  tcase_add_test(tests, equals_the_definitions);
  tcase_add_test(tests, order_of_users_does_not_matter);
  tcase_add_test(tests, a_case_computed_by_hand);
  tcase_add_test(tests, one_query);
  tcase_add_test(tests, ties_keep_the_order_of_the_queries);
  tcase_add_test(tests, ranking_is_by_scores_before_clipping);
  tcase_add_test(tests, no_gain_to_be_had_counts_as_one);
  tcase_add_test(tests, the_largest_ratings_do_not_overflow);
  tcase_add_test(tests, bad_arguments_change_nothing);
  suite_add_tcase(suite, tests);
  return run_suite(suite);
}
