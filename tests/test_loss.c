/* SPDX-License-Identifier: BSD-3-Clause */
/* Losses of a query set against their formulas in long double: values, gradients by differences, far from and exactly
 * at zero; and rows of padding, which must not matter whatever is in them. */
#include "meta/loss.h"

#include <stdio.h>

#include "naive.h"
#include "naive_loss.h"
#include "run_suite.h"
#include "support.h"

enum { PREDICTION, RATING, WEIGHT, MOST = 24 };

static const int is_double = sizeof(real) == sizeof(double);

static const melu_loss kinds[] = {MELU_SQUARED, MELU_ABSOLUTE, MELU_HUBER, MELU_MIXED, MELU_LOGISTIC, MELU_PAIRWISE};
static const size_t sizes[] = {1, 2, 3, 7, 8, 9, MOST};

enum { N_KINDS = sizeof kinds / sizeof *kinds, N_SIZES = sizeof sizes / sizeof *sizes };

/* --------------------------------------------------------------------------------------------------- formulas */

struct query {
  melu_loss loss;
  size_t n;
  wide z[MOST], r[MOST], w[MOST];
};

static wide loss_of_pairs(const struct query *q) {
  wide sum = 0, n = 0, weight = 0;
  for (size_t i = 0; i < q->n; i++) {
    weight += q->w[i];
    for (size_t j = 0; j < q->n; j++)
      if (q->w[i] > 0 && q->w[j] > 0 && q->r[i] > q->r[j]) {
        sum += minus_log_sigmoid(q->z[i] - q->z[j]);
        n++;
      }
  }
  return n > 0 ? weight * sum / n : 0;
}

static wide formula(const struct query *q) {
  wide sum = 0;
  if (q->loss == MELU_PAIRWISE) return loss_of_pairs(q);
  for (size_t i = 0; i < q->n; i++)
    if (q->w[i] > 0) sum += q->w[i] * loss_of_row(q->loss, q->z[i], q->r[i]);
  return sum;
}

static wide difference(struct query *q, size_t i) {
  const wide at = q->z[i], h = 1e-8L * (1 + fabsl(at));
  q->z[i] = at + h;
  const wide above = formula(q);
  q->z[i] = at - h;
  const wide below = formula(q);
  q->z[i] = at;
  return (above - below) / (2 * h);
}

/* -------------------------------------------------------------------------------------------------- recordings */

struct result {
  double loss, gradient[MOST];
};

static struct matrix column(const wide *values, size_t n) {
  const struct matrix m = new_matrix(n, 1);
  for (size_t i = 0; i < n; i++) m.v[i] = (double)values[i];
  return m;
}

static struct result run(const struct query *q, const struct melu__kernels *kernels) {
  struct test_heap heap = {.fail_at = 0};
  const struct melu_allocator allocator = test_allocator(&heap);
  struct setting s = {.slot = {column(q->z, q->n), column(q->r, q->n), column(q->w, q->n)}};
  struct matrix values[2];
  struct result out;
  struct melu__tape t;
  melu__ref in[3], node[2];
  melu__tape_init(&t, &allocator);
  for (uint32_t i = 0; i < 3; i++) in[i] = melu__tape_input(&t, i, q->n, 1);
  node[0] = melu__loss(&t, q->loss, in[PREDICTION], in[RATING], in[WEIGHT], q->n);
  melu__tape_grad(&t, node[0], &in[PREDICTION], 1, &node[1]);
  plan_values(values, kernels, &t, node, 2, &s);
  out.loss = values[0].v[0];
  memcpy(out.gradient, values[1].v, q->n * sizeof *out.gradient);
  for (size_t i = 0; i < 2; i++) free(values[i].v);
  setting_free(&s);
  melu__tape_free(&t);
  return out;
}

/* A mean over pairs has one part in a million more of them. */
static double tolerance(const struct query *q) {
  const double rounding = is_double ? 1e-7 : 2e-5;
  return q->loss == MELU_PAIRWISE ? fmax(rounding, 2e-6) : rounding;
}

static void check_result(struct query *q, const char *what) {
  for (size_t k = 0; usable_kernels(k); k++) {
    const struct result got = run(q, usable_kernels(k));
    const double loss = (double)formula(q);
    ck_assert_msg(test_relative_error(got.loss, loss, 1) < tolerance(q), "%s, loss %d of %zu rows: %g, not %g", what,
                  (int)q->loss, q->n, got.loss, loss);
    for (size_t i = 0; i < q->n; i++) {
      const double expected = (double)difference(q, i);
      ck_assert_msg(test_relative_error(got.gradient[i], expected, 1) < tolerance(q),
                    "%s, loss %d of %zu rows: gradient %zu is %g, not %g", what, (int)q->loss, q->n, i, got.gradient[i],
                    expected);
    }
  }
}

/* Every third row is padding. */
static struct query random_query(melu_loss loss, size_t n) {
  struct query q = {.loss = loss, .n = n};
  uint64_t random = n + 100 * (uint64_t)loss;
  for (size_t i = 0; i < n; i++) {
    q.z[i] = random_number(&random);
    q.r[i] = loss == MELU_LOGISTIC ? random_below(&random, 2) : random_below(&random, 5);
    q.w[i] = i % 3 == 2 ? 0 : 0.25L + random_below(&random, 8) / 4.0L;
  }
  return q;
}

/* ------------------------------------------------------------------------------------------------------- tests */

START_TEST(losses_are_their_formulas) {
  for (size_t i = 0; i < N_SIZES; i++) {
    struct query q = random_query(kinds[_i], sizes[i]);
    check_result(&q, "random");
  }
}
END_TEST

/* The same bits, and no gradient of the padding. */
START_TEST(padding_does_not_matter) {
  static const wide rubbish[][2] = {{0, 0}, {3, 3}, {-7, 1}, {1e6L, -1e6L}, {-1e6L, 1}, {1e6L, 5}};
  for (size_t i = 2; i < N_SIZES; i++) {
    struct query q = random_query(kinds[_i], sizes[i]);
    const struct result before = run(&q, usable_kernels(0));
    for (size_t k = 0; k < sizeof rubbish / sizeof *rubbish; k++) {
      for (size_t row = 2; row < q.n; row += 3) {
        q.z[row] = rubbish[k][0];
        q.r[row] = rubbish[k][1];
      }
      const struct result after = run(&q, usable_kernels(0));
      ck_assert_msg(after.loss == before.loss, "%g with other padding, not %g", after.loss, before.loss);
      for (size_t row = 0; row < q.n; row++)
        ck_assert(after.gradient[row] == (row % 3 == 2 ? 0 : before.gradient[row]));
    }
  }
}
END_TEST

/* At a prediction that hits the rating, and where Huber's loss changes its form. */
START_TEST(errors_of_zero_and_one) {
  struct query q = {.loss = kinds[_i], .n = 5, .r = {2, 2, 2, 2, 2}, .z = {2, 3, 1, 2.5L, 1.5L}, .w = {1, 1, 1, 1, 1}};
  if (kinds[_i] != MELU_LOGISTIC) check_result(&q, "at the rating");
}
END_TEST

/* Scores of zero are what a model of clicks has before it knows anything. */
START_TEST(clicks_at_zero) {
  struct query q = {.loss = MELU_LOGISTIC, .n = 3, .r = {0, 1, 1}, .z = {0, 0, 0.5L}, .w = {1, 1, 2}};
  check_result(&q, "at zero");
}
END_TEST

/* And equal ones, what it has where it knows no difference. */
START_TEST(pairs_of_equal_scores) {
  struct query q = {.loss = MELU_PAIRWISE, .n = 4, .r = {1, 2, 3, 3}, .z = {1, 1, 1, 2}, .w = {1, 1, 1, 1}};
  check_result(&q, "equal scores");
}
END_TEST

static const wide far[] = {20, 50, 88, 89, 100, 104, 200, 700, 1e4L};

enum { N_FAR = sizeof far / sizeof *far };

/* Sure and right costs nothing, sure and wrong as much as it is sure. */
START_TEST(sure_clicks) {
  for (size_t i = 0; i < N_FAR; i++) {
    struct query q = {
        .loss = MELU_LOGISTIC, .n = 4, .r = {0, 1, 0, 1}, .z = {-far[i], far[i], far[i], -far[i]}, .w = {1, 1, 1, 1}};
    check_result(&q, "sure");
  }
}
END_TEST

START_TEST(sure_pairs) {
  for (size_t i = 0; i < N_FAR; i++) {
    struct query q = {.loss = MELU_PAIRWISE, .n = 3, .r = {1, 3, 2}, .z = {far[i], 0, -far[i]}, .w = {1, 1, 1}};
    check_result(&q, "sure");
  }
}
END_TEST

START_TEST(large_errors_are_finite) {
  for (size_t i = 0; i < N_FAR; i++) {
    const struct query q = {.loss = kinds[_i], .n = 2, .r = {1, 0}, .z = {-far[i], far[i]}, .w = {1, 1}};
    const struct result got = run(&q, usable_kernels(0));
    ck_assert(isfinite(got.loss) && got.loss > 0);
    ck_assert(isfinite(got.gradient[0]) && got.gradient[0] < 0);
    ck_assert(isfinite(got.gradient[1]) && got.gradient[1] > 0);
  }
}
END_TEST

/* No pair differs: nothing to learn. */
START_TEST(only_ties) {
  for (size_t i = 0; i < N_SIZES; i++) {
    struct query q = random_query(MELU_PAIRWISE, sizes[i]);
    for (size_t k = 0; k < q.n; k++) q.r[k] = k % 3 == 2 ? (wide)k : 3;
    const struct result got = run(&q, usable_kernels(0));
    ck_assert(got.loss == 0);
    for (size_t k = 0; k < q.n; k++) ck_assert(got.gradient[k] == 0);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("loss");
  TCase *t = tcase_create("losses");
  tcase_add_loop_test(t, losses_are_their_formulas, 0, N_KINDS);
  tcase_add_loop_test(t, padding_does_not_matter, 0, N_KINDS);
  tcase_add_loop_test(t, errors_of_zero_and_one, 0, N_KINDS);
  tcase_add_test(t, clicks_at_zero);
  tcase_add_test(t, pairs_of_equal_scores);
  tcase_add_test(t, sure_clicks);
  tcase_add_test(t, sure_pairs);
  tcase_add_loop_test(t, large_errors_are_finite, 0, N_KINDS);
  tcase_add_test(t, only_ties);
  suite_add_tcase(suite, t);
  return run_suite(suite);
}
