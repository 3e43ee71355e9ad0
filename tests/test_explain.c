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
static const double tolerance = 4e-3;
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
  /* A mean is the same if all count twice: the pulls are in balance, and one alone has none. */
  const int is_mean = s->degree == 0;
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

/* -------------------------------------------------------------------------------------------------- any user */

static const struct melu_model_options kinds[] = {{LAYERS}, {FACTORS}, {STEPS}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

static melu_user *new_user(void) {
  melu_user *user;
  WORLD_TRY(melu_user_new(&user, p.model, &err));
  return user;
}

/* Told at once, bit by bit, written down and read again, in other data: the same pulls, to the last bit. */
START_TEST(pulls_do_not_depend_on_how_she_was_made) {
  enum { N = 37, FIRST = 11 };
  const uint32_t item = 50, elsewhere = item - FIRST;
  float pulls[N], again[N];
  unsigned char bytes[1 << 16];
  people_open(&p, NULL, &kinds[_i], 0, N);
  struct told t = people_told(&p, N, 1);
  for (uint32_t i = 0; i < N; i++) t.items[i] = 2 * i; /* she can correct, not repeat */
  melu_user *other = new_user();
  people_adapt(&p, p.user, &t);
  explain(pulls, p.user, item);
  explain(again, p.user, item);
  ck_assert_mem_eq(pulls, again, sizeof pulls);

  WORLD_TRY(melu_adapt(other, p.ws, p.model, p.data, t.profile, t.items, t.ratings, N / 2, &err));
  for (size_t i = N / 2; i < N; i++)
    WORLD_TRY(melu_user_rate(other, p.ws, p.model, p.data, t.items[i], t.ratings[i], &err));
  explain(again, other, item);
  ck_assert_mem_eq(pulls, again, sizeof pulls);

  melu_dataset *turned = people_new_data(&p, FIRST, PEOPLE_ITEMS);
  WORLD_TRY(melu_explain(again, p.ws, p.model, p.user, turned, elsewhere, &err));
  ck_assert_mem_eq(pulls, again, sizeof pulls);
  for (int form = MELU_USER_COMPACT; form <= MELU_USER_READY; form++) {
    size_t n = sizeof bytes;
    WORLD_TRY(melu_user_save(bytes, &n, p.ws, p.user, (melu_user_form)form, &err));
    WORLD_TRY(melu_user_load(other, p.ws, p.model, turned, bytes, n, &err));
    WORLD_TRY(melu_explain(again, p.ws, p.model, other, turned, elsewhere, &err));
    ck_assert_mem_eq(pulls, again, sizeof pulls);
  }
  melu_dataset_free(turned);
  melu_user_free(other);
  people_close(&p);
}
END_TEST

/* Asking leaves no trace in her, and the workspace goes on. */
START_TEST(explaining_changes_nothing) {
  enum { N = 9 };
  float pulls[N], before[PEOPLE_ITEMS], after[PEOPLE_ITEMS];
  uint32_t all[PEOPLE_ITEMS];
  for (uint32_t i = 0; i < PEOPLE_ITEMS; i++) all[i] = i;
  people_open(&p, NULL, &kinds[_i], 0, N);
  const struct told t = people_told(&p, N, 1);
  people_adapt(&p, p.user, &t);
  WORLD_TRY(melu_predict(before, p.ws, p.model, p.user, p.data, all, PEOPLE_ITEMS, &err));
  explain(pulls, p.user, 3);
  ck_assert_uint_eq(melu_user_ratings(p.user, NULL, NULL), N);
  WORLD_TRY(melu_predict(after, p.ws, p.model, p.user, p.data, all, PEOPLE_ITEMS, &err));
  ck_assert_mem_eq(before, after, sizeof before);
  people_adapt(&p, p.user, &t);
  WORLD_TRY(melu_predict(after, p.ws, p.model, p.user, p.data, all, PEOPLE_ITEMS, &err));
  ck_assert_mem_eq(before, after, sizeof before);
  people_close(&p);
}
END_TEST

START_TEST(who_told_nothing_has_no_pulls) {
  float pull = 77;
  people_open(&p, NULL, &kinds[_i], 0, 4);
  explain(&pull, p.user, 3);
  const struct told t = people_told(&p, 0, 1);
  people_adapt(&p, p.user, &t);
  explain(&pull, p.user, 3);
  explain(NULL, p.user, 3);
  ck_assert(pull == 77);
  people_close(&p);
}
END_TEST

START_TEST(without_steps_nothing_pulls) {
  static const struct melu_model_options options = {PEOPLE_OPTIONS, .hidden = people_layers, .n_hidden = 2,
                                                    .inner_steps = MELU_NONE};
  float pulls[9];
  people_open(&p, NULL, &options, 0, 9);
  const struct told t = people_told(&p, 9, 1);
  people_adapt(&p, p.user, &t);
  explain(pulls, p.user, 3);
  for (size_t i = 0; i < 9; i++) ck_assert(pulls[i] == 0);
  people_close(&p);
}
END_TEST

/* ------------------------------------------------------------------------------------------------- bad input */

enum { N_TOLD = 3 };
static float untouched[N_TOLD];

static void check_refusal(melu_status want, const melu_user *user, melu_workspace *ws, const melu_dataset *data,
                          uint32_t item) {
  for (size_t i = 0; i < N_TOLD; i++) untouched[i] = 77;
  ck_assert_int_eq(melu_explain(untouched, ws, p.model, user, data, item, NULL), want);
  ck_assert_int_eq(melu_explain(untouched, ws, p.model, user, data, item, &err), want);
  ck_assert_int_eq(err.status, want);
  for (size_t i = 0; i < N_TOLD; i++) ck_assert(untouched[i] == 77);
}

static void check_other_handles(void) {
  struct melu_model_options o = {.size = sizeof o};
  melu_model *other;
  melu_user *stranger;
  melu_workspace *ws, *small;
  WORLD_TRY(melu_model_get_options(&o, p.model, &err));
  WORLD_TRY(melu_model_new(&other, p.ctx, p.schema, &o, &err));
  WORLD_TRY(melu_user_new(&stranger, other, &err));
  WORLD_TRY(melu_workspace_new(&ws, other, N_TOLD, &err));
  WORLD_TRY(melu_workspace_new(&small, p.model, N_TOLD - 1, &err));
  check_refusal(MELU_EINVAL, stranger, p.ws, p.data, 0);
  check_refusal(MELU_EINVAL, p.user, ws, p.data, 0);
  check_refusal(MELU_ELIMIT, p.user, small, p.data, 0);
  melu_workspace_free(small);
  melu_workspace_free(ws);
  melu_user_free(stranger);
  melu_model_free(other);
}

static void check_other_data(const struct told *t) {
  melu_schema *schema;
  melu_dataset *open, *foreign, *lacking = people_new_data(&p, t->items[N_TOLD - 1] + 1, PEOPLE_ITEMS / 2);
  check_refusal(MELU_ENOTFOUND, p.user, p.ws, lacking, 0);
  ck_assert_uint_eq(err.index, 0);
  WORLD_TRY(melu_dataset_new(&open, p.ctx, p.schema, &err));
  check_refusal(MELU_ESTATE, p.user, p.ws, open, 0);
  WORLD_TRY(melu_schema_new(&schema, p.ctx, &err));
  world_fields(schema);
  WORLD_TRY(melu_dataset_new(&foreign, p.ctx, schema, &err));
  world_fill(foreign, 1);
  check_refusal(MELU_ESCHEMA, p.user, p.ws, foreign, 0);
  melu_dataset_free(foreign);
  melu_schema_free(schema);
  melu_dataset_free(open);
  melu_dataset_free(lacking);
}

START_TEST(bad_input_is_refused) {
  people_open(&p, NULL, &kinds[_i], 0, N_TOLD);
  const struct told t = people_told(&p, N_TOLD, 1);
  people_adapt(&p, p.user, &t);
  check_refusal(MELU_EINVAL, NULL, p.ws, p.data, 0);
  check_refusal(MELU_EINVAL, p.user, NULL, p.data, 0);
  check_refusal(MELU_EINVAL, p.user, p.ws, NULL, 0);
  check_refusal(MELU_ERANGE, p.user, p.ws, p.data, PEOPLE_ITEMS);
  ck_assert_int_eq(melu_explain(untouched, p.ws, NULL, p.user, p.data, 0, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_explain(NULL, p.ws, p.model, p.user, p.data, 0, &err), MELU_EINVAL);
  check_other_handles();
  check_other_data(&t);
  explain(untouched, p.user, 0);
  people_close(&p);
}
END_TEST

START_TEST(own_rows_are_not_explained) {
  static const struct melu_model_options options = {LAYERS, .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_ITEMS};
  people_open(&p, NULL, &options, 0, N_TOLD);
  const struct told t = people_told(&p, N_TOLD, 1);
  people_adapt(&p, p.user, &t);
  check_refusal(MELU_EINVAL, p.user, p.ws, p.data, 0);
  people_close(&p);
}
END_TEST

/* Every parameter zero but the vectors of two items and the scale. */
static void write_two_vectors(float of_told, float of_item) {
  const float scale[2] = {3, 1e38f};
  for (size_t i = 0; i < melu_model_n_params(p.model); i++) {
    struct melu_param param;
    WORLD_TRY(melu_model_param(&param, p.model, i, &err));
    float *values = calloc(param.rows * param.cols, sizeof *values);
    ck_assert_ptr_nonnull(values);
    if (strcmp(param.name, "E.self") == 0) {
      values[param.cols] = of_told;
      values[3 * param.cols] = of_item;
    }
    WORLD_TRY(melu_model_write(p.model, param.name, 0, param.rows, values, &err));
    free(values);
  }
  WORLD_TRY(melu_model_write(p.model, "scale", 0, 1, scale, &err));
}

/* Two answers that cancel out, each of which pulls further than a float goes. */
START_TEST(what_is_not_finite_is_refused) {
  static const struct melu_model_options options = {FACTORS, .history = -1};
  const uint32_t told[2] = {1, 1}, item = 3;
  const float ratings[2] = {3e38f, -3e38f};
  float score;
  people_open(&p, NULL, &options, 0, N_TOLD);
  write_two_vectors(1, 100);
  WORLD_TRY(melu_adapt(p.user, p.ws, p.model, p.data, NULL, told, ratings, 2, &err));
  WORLD_TRY(melu_predict(&score, p.ws, p.model, p.user, p.data, &item, 1, &err));
  check_refusal(MELU_EDIVERGED, p.user, p.ws, p.data, item);
  write_two_vectors(1, 1);
  WORLD_TRY(melu_adapt(p.user, p.ws, p.model, p.data, NULL, told, ratings, 2, &err));
  explain(untouched, p.user, item);
  ck_assert(isfinite(untouched[0]) && untouched[0] > 0);
  people_close(&p);
}
END_TEST

/* Each request in turn is refused, in a world where no plan was made before. */
START_TEST(no_memory_leaves_all_as_it_was) {
  size_t n_refused = 0;
  for (int failed = 1; failed; n_refused += (size_t)failed) {
    float before, after;
    const uint32_t item = 5;
    people_open(&p, NULL, &kinds[_i], 0, N_TOLD);
    const struct told t = people_told(&p, N_TOLD, 1);
    people_adapt(&p, p.user, &t);
    WORLD_TRY(melu_predict(&before, p.ws, p.model, p.user, p.data, &item, 1, &err));
    for (size_t i = 0; i < N_TOLD; i++) untouched[i] = 77;
    p.heap.fail_at = p.heap.made + n_refused + 1;
    const melu_status status = melu_explain(untouched, p.ws, p.model, p.user, p.data, item, &err);
    failed = p.heap.made >= p.heap.fail_at;
    p.heap.fail_at = 0;
    ck_assert_int_eq(status, failed ? MELU_ENOMEM : MELU_OK);
    for (size_t i = 0; i < N_TOLD; i++) ck_assert((untouched[i] == 77) == failed);
    WORLD_TRY(melu_predict(&after, p.ws, p.model, p.user, p.data, &item, 1, &err));
    ck_assert(before == after);
    explain(untouched, p.user, item);
    people_close(&p);
  }
  ck_assert_uint_gt(n_refused, 3);
}
END_TEST

int main(void) {
  Suite *s = suite_create("explain");
  TCase *t = tcase_create("explain");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, pulls_are_derivatives, 0, N_SETTINGS);
  tcase_add_loop_test(t, pulls_do_not_depend_on_how_she_was_made, 0, N_KINDS);
  tcase_add_loop_test(t, explaining_changes_nothing, 0, N_KINDS);
  tcase_add_loop_test(t, who_told_nothing_has_no_pulls, 0, N_KINDS);
  tcase_add_test(t, without_steps_nothing_pulls);
  tcase_add_loop_test(t, bad_input_is_refused, 0, N_KINDS);
  tcase_add_test(t, own_rows_are_not_explained);
  tcase_add_test(t, what_is_not_finite_is_refused);
  tcase_add_loop_test(t, no_memory_leaves_all_as_it_was, 0, N_KINDS);
  suite_add_tcase(s, t);
  return run_suite(s);
}
