/* SPDX-License-Identifier: BSD-3-Clause */
/* How ratings pull a prediction, against adapting again with a rating that counts more or less often: it counts c times
 * if it is given c times. Where the inner loop takes a mean, all ratings M times are the same as once, so that c can be
 * 1 + k / M, and differences tell the derivative. Where it takes sums, the score is a ratio of polynomials in c, which
 * a few whole c determine. */
#include <math.h>

#include "people.h"
#include "run_suite.h"

enum { COPIES = 20, FEWER_COPIES = 6, MOST_ROWS = 300, MOST_DEGREE = 3 };

static melu_error err;
static struct people p;

/* Scores are floats in both builds, which is what differences are off by. */
static const double rounding = 5e-6;
#ifdef MELU__DOUBLE
static const double tolerance = 5e-4;
#else
static const double tolerance = 1e-3;
#endif

/* ---------------------------------------------------------------------------------------------------- settings */

struct setting {
  struct melu_model_options options;
  size_t degree; /* of the polynomials; 0: the inner loop takes a mean */
};

#define LAYERS PEOPLE_LAYERS
#define FACTORS PEOPLE_FACTORS
#define STEPS PEOPLE_FACTORS, .rule = MELU_STEPS
#define ALL_BUT_ITEMS (MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN | MELU_ADAPT_USER)

static const struct setting settings[] = {
    {{LAYERS}, 0},
    {{LAYERS, .first_order = 1}, 0},
    {{LAYERS, .loss = MELU_ABSOLUTE}, 0},
    {{LAYERS, .loss = MELU_HUBER}, 0},
    {{LAYERS, .loss = MELU_MIXED}, 0},
    {{LAYERS, .loss = MELU_LOGISTIC}, 0},
    {{LAYERS, .loss = MELU_PAIRWISE}, 0},
    {{LAYERS, .adapt = MELU_ADAPT_HEAD}, 0},
    {{LAYERS, .adapt = MELU_ADAPT_HIDDEN, .multi_step = 1}, 0},
    {{PEOPLE_OPTIONS, .hidden = people_layers, .n_hidden = 2, .inner_lr = 100, .adapt = MELU_ADAPT_USER}, 0},
    {{LAYERS, .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_USER}, 0},
    {{LAYERS, .adapt = MELU_ADAPT_HIDDEN | MELU_ADAPT_USER, .loss = MELU_HUBER}, 0},
    {{LAYERS, .adapt = ALL_BUT_ITEMS}, 0},
    {{LAYERS, .rates = MELU_RATE_PER_TENSOR}, 0},
    {{LAYERS, .rates = MELU_RATE_PER_ENTRY}, 0},
    {{LAYERS, .adapt = ALL_BUT_ITEMS, .rates = MELU_RATE_PER_ENTRY, .loss = MELU_ABSOLUTE, .first_order = 1}, 0},
    {{PEOPLE_OPTIONS, .preset = "melu"}, 0},
    {{LAYERS, .rule = MELU_CLOSED_FORM}, 1},
    {{LAYERS, .rule = MELU_CLOSED_FORM, .learn_precision = 1}, 1},
    {{FACTORS}, 2},
    {{FACTORS, .history = -1}, 1},
    {{FACTORS, .learn_precision = 1}, 2},
    {{FACTORS, .loss = MELU_LOGISTIC, .history = -1}, 1},
    {{FACTORS, .loss = MELU_LOGISTIC}, 3}, /* no ratio of polynomials, but nearly */
    {{STEPS, .inner_steps = MELU_NONE}, 1},
    {{STEPS, .inner_steps = 1}, 2},
    {{STEPS, .inner_steps = 2}, 3},
    {{STEPS, .inner_steps = 2, .first_order = 1}, 3},
    {{STEPS, .inner_steps = 1, .history = -1}, 1},
    {{STEPS, .inner_steps = 2, .history = -1, .rates = MELU_RATE_PER_ENTRY}, 2},
    {{STEPS, .inner_steps = 1, .history = -1, .rates = MELU_RATE_PER_TENSOR, .loss = MELU_LOGISTIC}, 1},
    {{PEOPLE_OPTIONS, .preset = "best"}, 2},
};

enum { N_SETTINGS = sizeof settings / sizeof *settings };

/* Moves what enters a ReLU of MELU_LAYERS away from 0, where an inner step is not continuous, and the scores among the
 * ratings, so that there are errors of both signs. */
static void keep_from_kinks(void) {
  for (size_t i = 0; i < melu_model_n_params(p.model); i++) {
    struct melu_param param;
    float values[64 * 64];
    WORLD_TRY(melu_model_param(&param, p.model, i, &err));
    const size_t n = param.rows * param.cols;
    const int is_weight = param.name[0] == 'W' && param.rows > 1, is_bias = param.name[0] == 'b';
    if (!is_weight && !is_bias) continue;
    WORLD_TRY(melu_model_read(values, p.model, param.name, 0, param.rows, &err));
    for (size_t k = 0; k < n; k++) values[k] = is_weight ? values[k] * 0.4f : n == 1 ? 2.5f : k % 2 ? 1 : -1;
    WORLD_TRY(melu_model_write(p.model, param.name, 0, param.rows, values, &err));
  }
}

/* ------------------------------------------------------------------------------------------ counting otherwise */

/* Her score of an item when each rating is given `all` times, but number i `some` times. */
static double score_with(const struct told *t, uint32_t item, size_t i, size_t all, size_t some) {
  uint32_t items[MOST_ROWS];
  float ratings[MOST_ROWS], score;
  size_t n = 0;
  for (size_t k = 0; k < t->n; k++)
    for (size_t copies = k == i ? some : all; copies > 0; copies--) {
      items[n] = t->items[k];
      ratings[n++] = t->ratings[k];
    }
  WORLD_TRY(melu_adapt(p.user, p.ws, p.model, p.data, t->profile, items, ratings, n, &err));
  WORLD_TRY(melu_predict(&score, p.ws, p.model, p.user, p.data, &item, 1, &err));
  return (double)score;
}

/* The derivative by differences of the fourth order. */
static double by_differences(const struct told *t, uint32_t item, size_t i, size_t copies) {
  const double near = score_with(t, item, i, copies, copies + 1) - score_with(t, item, i, copies, copies - 1);
  const double far = score_with(t, item, i, copies, copies + 2) - score_with(t, item, i, copies, copies - 2);
  return (double)copies * (8 * near - far) / 12;
}

/* The derivative at 1 of the ratio of polynomials through c = 0, 1, ..., 2 degree, as Thiele's continued fraction
 * a_0 + (c - 0) / (a_1 + (c - 1) / (a_2 + ...)). */
static double by_interpolation(const struct told *t, uint32_t item, size_t i, size_t degree) {
  double a[2 * MOST_DEGREE + 1], slope = 0;
  const size_t n = 2 * degree + 1;
  for (size_t c = 0; c < n; c++) a[c] = score_with(t, item, i, 1, c);
  for (size_t k = 1; k < n; k++)
    for (size_t c = k; c < n; c++) a[c] = (double)(c - (k - 1)) / (a[c] - a[k - 1]);
  double value = a[n - 1];
  for (size_t k = n - 1; k-- > 0;) {
    const double x = 1 - (double)k;
    slope = 1 / value - x * slope / (value * value);
    value = a[k] + x / value;
  }
  return slope;
}

static void explain(float *pulls, const melu_user *user, uint32_t item) {
  WORLD_TRY(melu_explain(pulls, p.ws, p.model, user, p.data, item, &err));
}

static void check_pulls(const struct setting *s, size_t n, size_t copies) {
  const struct told t = people_told(&p, n, n % 2);
  const uint32_t item = (uint32_t)(7 * n + 1) % PEOPLE_ITEMS;
  float pulls[PEOPLE_MOST];
  double want[PEOPLE_MOST], largest = 0, sum = 0;
  people_adapt(&p, p.user, &t);
  explain(pulls, p.user, item);
  for (size_t i = 0; i < n; i++) {
    want[i] = s->degree ? by_interpolation(&t, item, i, s->degree) : by_differences(&t, item, i, copies);
    largest = fmax(largest, fabs(want[i]));
    sum += (double)pulls[i];
  }
  const int is_mean = s->degree == 0; /* the same if all count twice: the pulls are in balance, and one alone has none */
  ck_assert_msg(largest > 1e-3 || (is_mean && n == 1), "%zu ratings: the largest pull is %g", n, largest);
  ck_assert_msg(fabs(sum) <= 1e-6 || !is_mean, "%zu ratings: the pulls sum to %g", n, sum);
  for (size_t i = 0; i < n; i++)
    ck_assert_msg(fabs((double)pulls[i] - want[i]) <= tolerance * largest + rounding,
                  "%zu ratings: number %zu pulls %.9g, in truth %.9g", n, i, (double)pulls[i], want[i]);
}

START_TEST(pulls_are_derivatives) {
  static const size_t few[] = {1, 2, 5, 9}, many[] = {32, 33, 40};
  people_open(&p, NULL, &settings[_i].options, 0, MOST_ROWS);
  keep_from_kinks();
  for (size_t k = 0; k < sizeof few / sizeof *few; k++) check_pulls(&settings[_i], few[k], COPIES);
  for (size_t k = 0; k < sizeof many / sizeof *many; k++) check_pulls(&settings[_i], many[k], FEWER_COPIES);
  people_close(&p);
}
END_TEST

int main(void) {
  Suite *s = suite_create("explain");
  TCase *t = tcase_create("explain");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, pulls_are_derivatives, 0, N_SETTINGS);
  suite_add_tcase(s, t);
  return run_suite(s);
}
