/* SPDX-License-Identifier: BSD-3-Clause */
/* A model's options, parameters and first values, and the limits on all of them. */
#include <float.h>
#include <stdio.h>

#include "base/rng.h"
#include "model/model.h"
#include "run_suite.h"
#include "support.h"
#include "world.h"

static melu_error err;
static melu_context *ctx;

static void open_context(void) {
  WORLD_TRY(melu_context_new(&ctx, NULL, &err));
}

static void close_context(void) {
  melu_context_free(ctx);
}

static void add(melu_schema *schema, const char *name, melu_owner owner, melu_field_kind kind, size_t n_values,
                size_t width) {
  const struct melu_field field = {
      .size = sizeof field, .name = name, .owner = owner, .kind = kind, .n_values = n_values, .width = width};
  WORLD_TRY(melu_schema_add(schema, &field, &err));
}

/* Users and items mixed: the model has items first. */
static melu_schema *make_schema(size_t n_tags) {
  melu_schema *schema;
  WORLD_TRY(melu_schema_new(&schema, ctx, &err));
  add(schema, "age", MELU_USER, MELU_ONE, 500, 40);
  add(schema, "price", MELU_ITEM, MELU_NUMERIC, 0, 3);
  add(schema, "tags", MELU_ITEM, MELU_MANY, n_tags, 50);
  add(schema, "pulse", MELU_USER, MELU_NUMERIC, 0, 1);
  add(schema, "maker", MELU_ITEM, MELU_ONE, 7, 32);
  return schema;
}

static melu_model *make_model_with(const melu_schema *schema, const struct melu_model_options *o) {
  melu_model *model;
  WORLD_TRY(melu_model_new(&model, ctx, schema, o, &err));
  return model;
}

static melu_model *make_model(const melu_schema *schema, uint64_t seed) {
  const struct melu_model_options o = {.size = sizeof o, .seed = seed};
  return make_model_with(schema, &o);
}

static float *values_of(const melu_model *model, const char *name, size_t *rows, size_t *cols) {
  for (size_t i = 0; i < melu_model_n_params(model); i++) {
    struct melu_param p;
    WORLD_TRY(melu_model_param(&p, model, i, &err));
    if (strcmp(p.name, name) != 0) continue;
    float *values = malloc(p.rows * p.cols * sizeof *values);
    ck_assert_ptr_nonnull(values);
    WORLD_TRY(melu_model_read(values, model, name, 0, p.rows, &err));
    *rows = p.rows;
    *cols = p.cols;
    return values;
  }
  ck_abort_msg("no parameter %s", name);
  return NULL;
}

/* ------------------------------------------------------------------------------------------------- parameters */

struct expected {
  const char *name;
  size_t rows, cols;
  int is_table;
};

/* The model has these n parameters, and measuring and describing say so too. */
static void check_params(const melu_model *model, const struct melu_model_options *o, const struct expected *expected,
                         size_t n) {
  size_t n_params, n_numbers, total = 0;
  struct melu__param described[32];
  WORLD_TRY(melu__model_measure(&n_params, &n_numbers, melu_model_schema(model), o, &err));
  ck_assert_uint_le(n, 32);
  ck_assert_uint_eq(melu_model_n_params(model), n);
  ck_assert_uint_eq(n_params, n);
  melu__model_describe(described, melu_model_schema(model), o);
  for (size_t i = 0; i < n; i++) {
    struct melu_param p;
    WORLD_TRY(melu_model_param(&p, model, i, &err));
    ck_assert_str_eq(p.name, expected[i].name);
    ck_assert_msg(p.rows == expected[i].rows && p.cols == expected[i].cols, "%s: (%zu, %zu)", p.name, p.rows, p.cols);
    ck_assert_int_eq(p.is_table, expected[i].is_table);
    total += p.rows * p.cols;
    ck_assert_str_eq(described[i].name, p.name);
    ck_assert(described[i].rows == p.rows && described[i].cols == p.cols && described[i].is_table == p.is_table);
    ck_assert_ptr_null(described[i].data);
    ck_assert_ptr_eq(melu__model_find(model, p.name), &model->params[i]);
  }
  ck_assert_uint_eq(n_numbers, total);
}

START_TEST(parameters_of_the_preset) {
  static const struct expected expected[] = {{"E.tags", 101, 50, 1}, {"E.maker", 8, 32, 1}, {"E.age", 501, 40, 1},
                                             {"W1", 64, 126, 0},     {"b1", 1, 64, 0},      {"W2", 64, 64, 0},
                                             {"b2", 1, 64, 0},       {"W3", 1, 64, 0},      {"b3", 1, 1, 0}};
  melu_schema *schema = make_schema(100);
  melu_model *model = make_model(schema, 0);
  melu_schema_free(schema); /* the model has a copy */
  check_params(model, NULL, expected, sizeof expected / sizeof *expected);
  ck_assert_uint_eq(model->item_width, 85);
  ck_assert_uint_eq(model->user_width, 41);
  ck_assert_uint_eq(melu_schema_n_fields(melu_model_schema(model), MELU_ITEM), 3);
  ck_assert_ptr_eq(melu__model_weight(model, 1), melu__model_find(model, "W2"));
  ck_assert_ptr_eq(melu__model_weight(model, 2) + 1, melu__model_find(model, "b3"));
  ck_assert_ptr_null(melu__model_find(model, "W4"));
  melu_model_free(model);
}
END_TEST

/* What the inner loop learns beside: rates of what it adapts, a precision where it solves. The item's part of the input
 * is 85 wide, the user's 41. */
START_TEST(parameters_that_layers_learn_beside) {
  static const size_t hidden[2] = {4, 3};
  static const struct {
    struct melu_model_options o;
    size_t n;
    struct expected expected[6];
  } models[] = {{{.adapt = 15, .rates = MELU_RATE_PER_TENSOR, .inner_lr = 0.5},
                 8,
                 {{"rate.W1", 1, 1, 0}, {"rate.b1", 1, 1, 0}, {"rate.W2", 1, 1, 0}}},
                {{.adapt = MELU_ADAPT_HEAD | MELU_ADAPT_USER, .rates = MELU_RATE_PER_ENTRY, .inner_lr = 0.5},
                 3,
                 {{"rate.W3", 1, 3, 0}, {"rate.b3", 1, 1, 0}, {"rate.user", 1, 41, 0}}},
                {{.adapt = MELU_ADAPT_HIDDEN | MELU_ADAPT_ITEMS, .rates = MELU_RATE_PER_ENTRY, .inner_lr = 0.5},
                 5,
                 {{"rate.W1", 4, 126, 0},
                  {"rate.b1", 1, 4, 0},
                  {"rate.W2", 3, 4, 0},
                  {"rate.b2", 1, 3, 0},
                  {"rate.items", 1, 85, 0}}},
                {{.rule = MELU_CLOSED_FORM, .inner_lr = 0.5}, 1, {{"precision", 1, 4, 0}}}};
  melu_schema *schema = make_schema(100);
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    struct melu_model_options o = models[i].o;
    o.size = sizeof o;
    o.hidden = hidden;
    o.n_hidden = 2;
    melu_model *model = make_model_with(schema, &o);
    ck_assert_uint_eq(melu_model_n_params(model), 9 + models[i].n);
    for (size_t k = 0; k < 6 && models[i].expected[k].name; k++) {
      const struct expected *e = &models[i].expected[k];
      struct melu_param p;
      WORLD_TRY(melu_model_param(&p, model, 9 + k, &err));
      ck_assert_str_eq(p.name, e->name);
      ck_assert_msg(p.rows == e->rows && p.cols == e->cols && !p.is_table, "%s: (%zu, %zu)", p.name, p.rows, p.cols);
      float *v = values_of(model, p.name, &p.rows, &p.cols);
      const double value = o.rule == MELU_CLOSED_FORM ? log(exp(1) - 1) : 0.5; /* softplus(x) = 1; the inner rate */
      for (size_t j = 0; j < p.rows * p.cols; j++) ck_assert(test_relative_error(v[j], value, 1e-3) < 1e-6);
      free(v);
    }
    melu_model_free(model);
  }
  melu_schema_free(schema);
}
END_TEST

/* An item's row is [phi (3), o, y (5)], a user's (5). */
START_TEST(parameters_of_factors) {
  static const size_t hidden[1] = {6};
  static const struct expected most[] = {
      {"E.tags", 101, 9, 1}, {"E.maker", 8, 9, 1},   {"E.age", 501, 5, 1}, {"scale", 1, 2, 0}, {"noise", 1, 1, 0},
      {"names", 1, 2, 0},    {"new", 1, 3, 0},       {"prior", 1, 5, 0},   {"pool", 6, 5, 0},  {"pool_rated", 6, 5, 0},
      {"shrink", 1, 1, 0},   {"precision", 1, 5, 0}, {"rate", 1, 5, 0},    {"H1", 6, 3, 0},    {"h1", 1, 6, 0},
      {"H2", 3, 6, 0},       {"N.item", 3, 9, 0},    {"N.user", 1, 5, 0}};
  static const struct expected least[] = {{"E.name", 5, 9, 1},   {"scale", 1, 2, 0}, {"noise", 1, 1, 0},
                                          {"names", 1, 1, 0},    {"new", 1, 3, 0},   {"prior", 1, 5, 0},
                                          {"precision", 1, 5, 0}};
  struct melu_model_options o = {.size = sizeof o,
                                 .preset = "best",
                                 .hidden = hidden,
                                 .n_hidden = 1,
                                 .rank = 3,
                                 .rule = MELU_STEPS,
                                 .rates = MELU_RATE_PER_ENTRY};
  melu_schema *schema = make_schema(100);
  melu_model *model = make_model_with(schema, &o);
  check_params(model, &o, most, sizeof most / sizeof *most);
  ck_assert_uint_eq(model->n_tables, 3);
  for (size_t k = 0; k < MELU__N_FACTOR_PARAMS; k++) { /* all of them, in this order */
    ck_assert_ptr_eq(model->factors[k], model->params[model->n_tables + k].data);
    ck_assert_uint_eq(model->factor_weight[k], k);
  }
  melu_model_free(model);
  o.rates = MELU_RATE_PER_TENSOR;
  model = make_model_with(schema, &o);
  ck_assert_uint_eq(melu__model_find(model, "rate")->cols, 1);
  melu_model_free(model);
  melu_schema_free(schema);

  WORLD_TRY(melu_schema_new(&schema, ctx, &err));
  add(schema, "name", MELU_ITEM, MELU_ONE, 4, 1); /* its width does not matter */
  o = (struct melu_model_options){.size = sizeof o, .preset = "best", .n_hidden = MELU_NONE, .rank = 3, .history = -1};
  model = make_model_with(schema, &o);
  check_params(model, &o, least, sizeof least / sizeof *least);
  ck_assert_ptr_null(model->factors[MELU__F_POOL]);
  ck_assert_uint_eq(model->factor_weight[MELU__F_POOL], UINT32_MAX);
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

static void check_refused(const melu_schema *schema, const struct melu_model_options *o, melu_status expected,
                          const char *says) {
  melu_model *model = (melu_model *)&err;
  ck_assert_int_eq(melu_model_new(&model, ctx, schema, o, &err), expected);
  ck_assert_ptr_null(model);
  ck_assert_msg(strstr(err.message, says) != NULL, "%s", err.message);
}

/* A schema has what the options are about. */
START_TEST(options_that_ask_for_fields) {
  const struct melu_model_options factors = {.size = sizeof factors, .preset = "best"},
                                  user = {.size = sizeof user, .adapt = MELU_ADAPT_USER},
                                  items = {.size = sizeof items, .adapt = MELU_ADAPT_ITEMS};
  melu_schema *schema;
  char name[8] = "item0";
  WORLD_TRY(melu_schema_new(&schema, ctx, &err));
  add(schema, "price", MELU_ITEM, MELU_NUMERIC, 0, 1);
  check_refused(schema, &user, MELU_EINVAL, "MELU_ADAPT_USER");
  add(schema, "age", MELU_USER, MELU_ONE, 3, 1);
  melu_model_free(make_model_with(schema, &user));
  check_refused(schema, &factors, MELU_EINVAL, "MELU_FACTORS"); /* which know items by their ids */
  check_refused(schema, &items, MELU_EINVAL, "MELU_ADAPT_ITEMS");
  for (int i = 0; i < MELU__MAX_ADAPTED_FIELDS; i++) {
    snprintf(name, sizeof name, "i%d", i);
    add(schema, name, MELU_ITEM, i % 2 ? MELU_MANY : MELU_ONE, 1, 1);
    melu_model_free(make_model_with(schema, &items));
    melu_model_free(make_model_with(schema, &factors));
  }
  add(schema, "another", MELU_ITEM, MELU_ONE, 1, 1);
  check_refused(schema, &items, MELU_ELIMIT, "MELU_ADAPT_ITEMS");
  melu_model_free(make_model_with(schema, &factors));
  melu_schema_free(schema);
}
END_TEST

START_TEST(fields_of_numbers_alone) {
  melu_schema *schema;
  melu_model *model;
  WORLD_TRY(melu_schema_new(&schema, ctx, &err));
  ck_assert_int_eq(melu_model_new(&model, ctx, schema, NULL, &err), MELU_EINVAL); /* nothing goes in */
  ck_assert_ptr_null(model);
  add(schema, "x", MELU_USER, MELU_NUMERIC, 0, 2);
  const size_t hidden[1] = {1};
  const struct melu_model_options o = {.size = sizeof o, .hidden = hidden, .n_hidden = 1};
  WORLD_TRY(melu_model_new(&model, ctx, schema, &o, &err));
  ck_assert_uint_eq(melu_model_n_params(model), 4);
  ck_assert_uint_eq(model->n_tables, 0);
  ck_assert_uint_eq(melu__model_weight(model, 0)->cols, 2);
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

/* ---------------------------------------------------------------------------------------------- first values */

/* Mean, variance and largest magnitude of the first n values. */
static void check_moments(const float *values, size_t n, double variance, double largest) {
  double sum = 0, squares = 0, most = 0;
  for (size_t i = 0; i < n; i++) {
    sum += values[i];
    squares += (double)values[i] * values[i];
    if (fabs(values[i]) > most) most = fabs(values[i]);
  }
  const double mean = sum / (double)n;
  ck_assert_msg(fabs(mean) < 5 * sqrt(variance / (double)n), "mean %g", mean);
  ck_assert_msg(fabs(squares / (double)n / variance - 1) < 8 / sqrt((double)n), "variance %g", squares / (double)n);
  if (largest > 0)
    ck_assert_msg(most <= largest * (1 + FLT_EPSILON) && most > largest * (1 - 10 / (double)n), "up to %g, not %g",
                  most, largest);
}

START_TEST(first_values_are_distributed_as_promised) {
  melu_schema *schema = make_schema(100);
  melu_model *model = make_model(schema, 3);
  size_t rows, cols;
  float *v = values_of(model, "E.age", &rows, &cols);
  check_moments(v, (rows - 1) * cols, 1, 0);
  for (size_t j = 0; j < cols; j++) ck_assert(v[(rows - 1) * cols + j] == 0); /* an unknown id says nothing yet */
  free(v);
  v = values_of(model, "E.tags", &rows, &cols);
  check_moments(v, (rows - 1) * cols, 0.1 * 0.1 / 3, 0.1); /* 1/sqrt(100) */
  for (size_t j = 0; j < cols; j++) ck_assert(v[(rows - 1) * cols + j] == 0);
  free(v);
  v = values_of(model, "W1", &rows, &cols);
  check_moments(v, rows * cols, 1.0 / 126 / 3, 1 / sqrt(126));
  free(v);
  v = values_of(model, "b1", &rows, &cols); /* by the inputs of its layer, not by its own size */
  check_moments(v, cols, 1.0 / 126 / 3, 1 / sqrt(126));
  free(v);
  v = values_of(model, "W2", &rows, &cols);
  check_moments(v, rows * cols, 1.0 / 64 / 3, 1 / sqrt(64));
  free(v);
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

static void check_constant(const melu_model *model, const char *name, size_t first, size_t n, double value) {
  size_t rows, cols;
  float *v = values_of(model, name, &rows, &cols);
  ck_assert_uint_le(first + n, rows * cols);
  for (size_t i = first; i < first + n; i++)
    ck_assert_msg(test_relative_error(v[i], value, 1e-3) < 1e-6, "%s: %zu is %g, not %g", name, i, v[i], value);
  free(v);
}

static size_t n_numbers_of(const melu_model *model, const char *name) {
  const struct melu__param *p = melu__model_find(model, name);
  return p->rows * p->cols;
}

/* Items of many fields: small vectors, no offset, smaller y, and nothing of an unknown id. */
static void check_item_table(const melu_model *model, const char *name, uint32_t number) {
  const size_t rank = model->options.rank;
  size_t rows, cols;
  float *v = values_of(model, name, &rows, &cols), *parts[2];
  for (int k = 0; k < 2; k++) ck_assert_ptr_nonnull(parts[k] = malloc(rows * cols * sizeof **parts));
  size_t n[2] = {0, 0};
  for (uint32_t r = 0; r + 1 < rows; r++) {
    struct melu__rng rng = melu__rng(model->options.seed, MELU__RNG_INIT, number, r);
    for (size_t j = 0; j < cols; j++) {
      const double drawn = 0.05 * melu__rng_normal(&rng) * (j < rank ? 1 : j == rank ? 0 : 0.2);
      ck_assert(test_relative_error(v[r * cols + j], drawn, 1e-6) < 1e-6);
      if (j != rank) parts[j > rank][n[j > rank]++] = v[r * cols + j];
    }
  }
  check_moments(parts[0], n[0], 0.05 * 0.05, 0);
  check_moments(parts[1], n[1], 0.01 * 0.01, 0);
  check_constant(model, name, (rows - 1) * cols, cols, 0);
  free(parts[0]);
  free(parts[1]);
  free(v);
}

START_TEST(first_values_of_factors) {
  static const char *const zeros[] = {"E.age", "names", "pool", "pool_rated", "h1", "N.item", "N.user"};
  const struct melu_model_options o = {.size = sizeof o,
                                       .preset = "best",
                                       .seed = 11,
                                       .inner_lr = 0.3,
                                       .rating_min = -2,
                                       .rating_max = 10,
                                       .rule = MELU_STEPS,
                                       .rates = MELU_RATE_PER_ENTRY};
  melu_schema *schema = make_schema(100);
  melu_model *model = make_model_with(schema, &o);
  check_item_table(model, "E.tags", 0);
  check_item_table(model, "E.maker", 1);
  for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++)
    check_constant(model, zeros[i], 0, n_numbers_of(model, zeros[i]), 0);
  check_constant(model, "scale", 0, 1, 4); /* the middle of the range */
  check_constant(model, "scale", 1, 1, 3); /* a quarter of its width */
  check_constant(model, "noise", 0, 1, 0.5);
  check_constant(model, "prior", 0, 49, 0);
  check_constant(model, "shrink", 0, 1, log(exp(5) - 1)); /* softplus(x) = log(1 + exp(x)) = 5 */
  check_constant(model, "precision", 0, 48, log(exp(1) - 1));
  check_constant(model, "precision", 48, 1, log(exp(5) - 1));
  check_constant(model, "rate", 0, 50, 0.3);
  size_t rows, cols;
  float *v = values_of(model, "H1", &rows, &cols);
  check_moments(v, rows * cols, 0.1 * 0.1, 0);
  free(v);
  v = values_of(model, "H2", &rows, &cols);
  check_moments(v, rows * cols, 0.01 * 0.01, 0);
  free(v);
  /* What new items are taken for was found by trials, and may be found anew: less is believed of them, but of the kind.
   */
  float change[3], prior[50], precision[50];
  WORLD_TRY(melu_model_read(change, model, "new", 0, 1, &err));
  WORLD_TRY(melu_model_read(prior, model, "prior", 0, 1, &err));
  WORLD_TRY(melu_model_read(precision, model, "precision", 0, 1, &err));
  ck_assert(change[0] > -1 && change[0] < 0 && change[1] > -1 && change[1] <= 0 && change[2] >= 0);
  ck_assert(fabsf(prior[49]) < 1 && precision[49] > 1 && precision[49] < 100);
  ck_assert(model->largest == (real)melu__model_largest(model));
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

/* Clicks have a logit, and no scale but its own. */
START_TEST(first_values_of_logistic) {
  const struct melu_model_options o = {.size = sizeof o,
                                       .preset = "best",
                                       .rule = MELU_STEPS,
                                       .rates = MELU_RATE_PER_TENSOR,
                                       .loss = MELU_LOGISTIC,
                                       .rating_min = 2,
                                       .rating_max = 6};
  melu_schema *schema = make_schema(4);
  melu_model *model = make_model_with(schema, &o);
  check_constant(model, "scale", 0, 1, 0);
  check_constant(model, "scale", 1, 1, 1);
  check_constant(model, "rate", 0, 1, 0.1);
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

/* A value is drawn from seed, parameter and row, so that a file or a machine may have the rows in any order. */
START_TEST(a_value_depends_on_seed_parameter_and_row) {
  const uint64_t seed = 0x123456789abcdefu;
  melu_schema *schema = make_schema(100), *longer = make_schema(400);
  melu_model *model = make_model(schema, seed), *same = make_model(schema, seed), *other = make_model(schema, seed + 1),
             *larger = make_model(longer, seed);
  size_t n, m, rows, cols;
  float *a = world_weights(model, &n), *b = world_weights(same, &m), *c = world_weights(other, &m);
  ck_assert(memcmp(a, b, n * sizeof *a) == 0);
  ck_assert(memcmp(a, c, n * sizeof *a) != 0);
  free(a);
  free(b);
  free(c);

  float *tags = values_of(model, "E.tags", &rows, &cols);
  for (uint32_t r = 0; r + 1 < rows; r++) {
    struct melu__rng rng = melu__rng(seed, MELU__RNG_INIT, 0, r);
    for (size_t j = 0; j < cols; j++)
      ck_assert(tags[r * cols + j] == (float)((2 * melu__rng_unit(&rng) - 1) * (1 / sqrt(100))));
  }
  float *more = values_of(larger, "E.tags", &rows, &cols); /* sqrt(400) is twice sqrt(100) */
  for (size_t i = 0; i < 100 * cols; i++) ck_assert(more[i] == tags[i] / 2);
  free(tags);
  free(more);
  a = values_of(model, "E.age", &rows, &cols);
  for (uint32_t r = 0; r + 1 < rows; r++) {
    struct melu__rng rng = melu__rng(seed, MELU__RNG_INIT, 2, r);
    for (size_t j = 0; j < cols; j++) ck_assert(a[r * cols + j] == (float)melu__rng_normal(&rng));
  }
  b = values_of(larger, "E.age", &rows, &cols); /* what comes before it does not matter */
  ck_assert(memcmp(a, b, rows * cols * sizeof *a) == 0);
  free(a);
  free(b);
  melu_model_free(model);
  melu_model_free(same);
  melu_model_free(other);
  melu_model_free(larger);
  melu_schema_free(schema);
  melu_schema_free(longer);
}
END_TEST

/* A vocabulary may be empty: the unknown row is all there is. */
START_TEST(a_field_whose_vocabulary_is_empty) {
  for (int kind = MELU_ONE; kind <= MELU_MANY; kind++) {
    melu_schema *schema;
    WORLD_TRY(melu_schema_new(&schema, ctx, &err));
    add(schema, "learnt", MELU_ITEM, (melu_field_kind)kind, 0, 2);
    melu_model *model;
    ck_assert_int_eq(melu_model_new(&model, ctx, schema, NULL, &err), MELU_ESTATE); /* still open */
    ck_assert_ptr_null(model);
    melu__schema_close(schema);
    model = make_model(schema, 1);
    size_t rows, cols;
    float *v = values_of(model, "E.learnt", &rows, &cols);
    ck_assert(rows == 1 && cols == 2 && v[0] == 0 && v[1] == 0);
    free(v);
    melu_model_free(model);
    melu_schema_free(schema);
  }
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- options */

static struct melu_model_options options_of(const melu_model *model) {
  struct melu_model_options o = {.size = sizeof o};
  WORLD_TRY(melu_model_get_options(&o, model, &err));
  return o;
}

static void check_options(const melu_model *model, const struct melu_model_options *expected) {
  const struct melu_model_options o = options_of(model), *e = expected;
  ck_assert_uint_eq(o.size, sizeof o);
  ck_assert_str_eq(o.preset, e->preset);
  ck_assert_uint_eq(o.seed, e->seed);
  ck_assert_uint_eq(o.n_hidden, e->n_hidden);
  if (o.n_hidden != MELU_NONE) ck_assert(memcmp(o.hidden, e->hidden, o.n_hidden * sizeof *o.hidden) == 0);
  ck_assert_uint_eq(o.inner_steps, e->inner_steps);
  ck_assert(o.inner_lr == e->inner_lr && o.rating_min == e->rating_min && o.rating_max == e->rating_max);
  ck_assert_int_eq(o.first_order, e->first_order);
  ck_assert_uint_eq(o.network, e->network);
  ck_assert_uint_eq(o.rank, e->rank);
  ck_assert_uint_eq(o.rule, e->rule);
  ck_assert_uint_eq(o.adapt, e->adapt);
  ck_assert_uint_eq(o.rates, e->rates);
  ck_assert_uint_eq(o.loss, e->loss);
  ck_assert_int_eq(o.multi_step, e->multi_step);
  ck_assert_int_eq(o.history, e->history);
  ck_assert_int_eq(o.learn_precision, e->learn_precision);
}

static const size_t melu_hidden[] = {64, 64}, best_hidden[] = {96};
static const struct melu_model_options melu = {.preset = "melu",
                                               .hidden = melu_hidden,
                                               .n_hidden = 2,
                                               .inner_steps = 5,
                                               .inner_lr = 0.01,
                                               .rating_min = 1,
                                               .rating_max = 5,
                                               .network = MELU_LAYERS,
                                               .rank = 48,
                                               .rule = MELU_STEPS,
                                               .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN,
                                               .rates = MELU_RATE_FIXED,
                                               .loss = MELU_SQUARED,
                                               .multi_step = -1,
                                               .history = -1,
                                               .learn_precision = -1},
                                       best = {.preset = "best",
                                               .hidden = best_hidden,
                                               .n_hidden = 1,
                                               .inner_steps = 5,
                                               .inner_lr = 0.1,
                                               .rating_min = 1,
                                               .rating_max = 5,
                                               .network = MELU_FACTORS,
                                               .rank = 48,
                                               .rule = MELU_CLOSED_FORM,
                                               .adapt = MELU_ADAPT_HEAD,
                                               .rates = MELU_RATE_FIXED,
                                               .loss = MELU_MIXED,
                                               .multi_step = -1,
                                               .history = 1,
                                               .learn_precision = -1};

START_TEST(options_are_resolved) {
  melu_schema *schema = make_schema(4);
  struct melu_model_options o = {.size = sizeof o, .preset = "best"}, expected = melu;
  melu_model *model = make_model_with(schema, NULL);
  check_options(model, &melu);
  melu_model_free(model);
  model = make_model_with(schema, &o);
  check_options(model, &best);
  melu_model_free(model);

  size_t hidden[8] = {3, 1, 4, 1, 5, 9, 2, 6};
  const size_t kept[8] = {3, 1, 4, 1, 5, 9, 2, 6};
  char preset[] = "melu";
  o = (struct melu_model_options){.size = sizeof o,
                                  .preset = preset,
                                  .seed = UINT64_MAX,
                                  .hidden = hidden,
                                  .n_hidden = 8,
                                  .inner_steps = MELU_NONE,
                                  .inner_lr = 1e-300,
                                  .first_order = -7,
                                  .rating_max = 0.5,
                                  .multi_step = 7};
  model = make_model_with(schema, &o);
  memset(hidden, 0, sizeof hidden); /* all was copied */
  memset(preset, 'x', sizeof preset - 1);
  expected.seed = UINT64_MAX;
  expected.hidden = kept;
  expected.n_hidden = 8;
  expected.inner_steps = MELU_NONE;
  expected.inner_lr = 1e-300;
  expected.first_order = 1;
  expected.rating_min = 0;
  expected.rating_max = 0.5;
  expected.multi_step = 1;
  check_options(model, &expected);
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

/* What was not said follows from what was. */
START_TEST(options_that_follow_from_others) {
  melu_schema *schema = make_schema(4);
  struct melu_model_options o = {.size = sizeof o, .rule = MELU_CLOSED_FORM}, expected = melu;
  melu_model *model = make_model_with(schema, &o);
  expected.rule = MELU_CLOSED_FORM;
  expected.adapt = MELU_ADAPT_HEAD;
  check_options(model, &expected);
  melu_model_free(model);

  o = (struct melu_model_options){.size = sizeof o, .loss = MELU_LOGISTIC};
  model = make_model_with(schema, &o);
  expected = melu;
  expected.loss = MELU_LOGISTIC;
  expected.rating_min = 0;
  expected.rating_max = 1;
  check_options(model, &expected);
  melu_model_free(model);

  o = (struct melu_model_options){
      .size = sizeof o, .preset = "best", .n_hidden = MELU_NONE, .multi_step = -1, .history = -5, .learn_precision = 9};
  model = make_model_with(schema, &o);
  expected = best;
  expected.n_hidden = MELU_NONE;
  expected.history = -1;
  expected.learn_precision = 1;
  check_options(model, &expected);
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

/* What melu_model_get_options says can be given to melu_model_new, and makes the same model. */
START_TEST(options_make_the_same_model_again) {
  static const size_t one[1] = {5};
  const size_t size = sizeof(struct melu_model_options);
  const struct melu_model_options given[] = {
      {.size = size},
      {.size = size, .preset = "best", .seed = 3},
      {.size = size, .inner_steps = MELU_NONE, .loss = MELU_PAIRWISE, .rates = MELU_RATE_PER_TENSOR, .multi_step = 1},
      {.size = size, .adapt = MELU_ADAPT_USER | MELU_ADAPT_ITEMS, .rates = MELU_RATE_PER_ENTRY, .loss = MELU_HUBER},
      {.size = size, .hidden = one, .n_hidden = 1, .rule = MELU_CLOSED_FORM, .loss = MELU_ABSOLUTE},
      {.size = size, .preset = "best", .n_hidden = MELU_NONE, .rank = 255, .history = -1, .loss = MELU_LOGISTIC},
      {.size = size,
       .preset = "best",
       .hidden = one,
       .n_hidden = 1,
       .rank = 1,
       .rule = MELU_STEPS,
       .rates = MELU_RATE_PER_TENSOR,
       .multi_step = 1,
       .learn_precision = 1},
      {.size = size, .preset = "best", .network = MELU_LAYERS, .history = -1},
      {.size = size, .hidden = one, .n_hidden = 1, .network = MELU_FACTORS, .adapt = MELU_ADAPT_HEAD, .history = 1}};
  melu_schema *schema = make_schema(4);
  for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
    size_t n, m;
    melu_model *first = make_model_with(schema, &given[i]);
    const struct melu_model_options o = options_of(first);
    melu_model *second = make_model_with(schema, &o);
    check_options(second, &o);
    ck_assert_uint_eq(melu_model_n_params(first), melu_model_n_params(second));
    float *a = world_weights(first, &n), *b = world_weights(second, &m);
    ck_assert_msg(n == m && memcmp(a, b, n * sizeof *a) == 0, "model %zu", i);
    free(a);
    free(b);
    melu_model_free(first);
    melu_model_free(second);
  }
  melu_schema_free(schema);
}
END_TEST

START_TEST(options_of_another_size) {
  struct {
    struct melu_model_options known;
    uint64_t later;
  } larger = {.known = {.size = sizeof larger, .seed = 5}};
  struct melu_model_options smaller = {.size = offsetof(struct melu_model_options, hidden), .seed = 6};
  smaller.n_hidden = 77; /* beyond its size: not read */
  melu_schema *schema = make_schema(4);
  melu_model *model;
  WORLD_TRY(melu_model_new(&model, ctx, schema, &larger.known, &err));
  memset(&larger, 0xff, sizeof larger);
  larger.known.size = sizeof larger;
  WORLD_TRY(melu_model_get_options(&larger.known, model, &err));
  ck_assert(larger.known.size == sizeof larger && larger.known.seed == 5 && larger.later == 0);
  smaller.inner_steps = 1234;
  WORLD_TRY(melu_model_get_options(&smaller, model, &err));
  ck_assert(smaller.seed == 5 && smaller.inner_steps == 1234 && smaller.n_hidden == 77);
  melu_model_free(model);
  smaller.seed = 6;
  WORLD_TRY(melu_model_new(&model, ctx, schema, &smaller, &err));
  ck_assert_uint_eq(model->options.seed, 6);
  ck_assert_uint_eq(model->options.n_hidden, 2);

  larger.later = 1;
  melu_model *none = model;
  ck_assert_int_eq(melu_model_new(&none, ctx, schema, &larger.known, &err), MELU_EINVAL);
  ck_assert_ptr_null(none);
  smaller.size = 0;
  ck_assert_int_eq(melu_model_new(&none, ctx, schema, &smaller, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_get_options(&smaller, model, &err), MELU_EINVAL);
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

START_TEST(options_out_of_range) {
  static const size_t hidden[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, zero[2] = {4, 0}, wide[1] = {65537};
  const size_t size = sizeof(struct melu_model_options);
  const struct {
    struct melu_model_options o;
    melu_status status;
    const char *says;
  } bad[] = {
      {{.size = size, .preset = "mule"}, MELU_EINVAL, "\"mule\""},
      {{.size = size, .preset = ""}, MELU_EINVAL, "preset"},
      {{.size = size, .n_hidden = 2}, MELU_EINVAL, "hidden is NULL"},
      {{.size = size, .hidden = hidden}, MELU_EINVAL, "n_hidden is 0"},
      {{.size = size, .hidden = hidden, .n_hidden = 9}, MELU_EINVAL, "n_hidden is 9"},
      {{.size = size, .hidden = hidden, .n_hidden = MELU_NONE}, MELU_EINVAL, "n_hidden is 0, not in 1 .. 8"},
      {{.size = size, .preset = "best", .hidden = hidden, .n_hidden = 2}, MELU_EINVAL, "n_hidden is 2, not in 0 .. 1"},
      {{.size = size, .preset = "best", .hidden = wide, .n_hidden = 1}, MELU_EINVAL, "hidden[0] is 65537"},
      {{.size = size, .hidden = zero, .n_hidden = 2}, MELU_EINVAL, "hidden[1] is 0"},
      {{.size = size, .hidden = wide, .n_hidden = 1}, MELU_EINVAL, "hidden[0] is 65537"},
      {{.size = size, .inner_steps = 65}, MELU_ELIMIT, "inner_steps is 65"},
      {{.size = size, .inner_lr = -1}, MELU_EINVAL, "inner_lr is -1"},
      {{.size = size, .inner_lr = INFINITY}, MELU_EINVAL, "inner_lr"},
      {{.size = size, .inner_lr = NAN}, MELU_EINVAL, "inner_lr"},
      {{.size = size, .rating_min = 5, .rating_max = 5}, MELU_EINVAL, "5 to 5"},
      {{.size = size, .rating_min = 5, .rating_max = 1}, MELU_EINVAL, "5 to 1"},
      {{.size = size, .rating_max = INFINITY}, MELU_EINVAL, "ratings"},
      {{.size = size, .rating_min = -INFINITY}, MELU_EINVAL, "ratings"},
      {{.size = size, .rating_min = NAN, .rating_max = 5}, MELU_EINVAL, "ratings"},
      {{.size = size, .network = (melu_network)3}, MELU_EINVAL, "network is 3"},
      {{.size = size, .rule = (melu_rule)3}, MELU_EINVAL, "rule is 3"},
      {{.size = size, .rates = (melu_rates)4}, MELU_EINVAL, "rates is 4"},
      {{.size = size, .loss = (melu_loss)7}, MELU_EINVAL, "loss is 7"},
      {{.size = size, .loss = (melu_loss)-1}, MELU_EINVAL, "loss is"},
      {{.size = size, .adapt = 16}, MELU_EINVAL, "adapt is 16"},
      {{.size = size, .rank = 256}, MELU_EINVAL, "rank is 256"},
      {{.size = size, .preset = "best", .rank = MELU_NONE}, MELU_EINVAL, "rank"},
      /* what excludes each other */
      {{.size = size, .network = MELU_FACTORS, .n_hidden = MELU_NONE, .adapt = 3},
       MELU_EINVAL,
       "adapts the head alone"},
      {{.size = size, .preset = "best", .adapt = 3}, MELU_EINVAL, "adapts the head alone"},
      {{.size = size, .preset = "best", .adapt = MELU_ADAPT_USER}, MELU_EINVAL, "adapts the head alone"},
      {{.size = size, .preset = "best", .rule = MELU_STEPS, .adapt = 9}, MELU_EINVAL, "FACTORS adapts the head alone"},
      {{.size = size, .rule = MELU_CLOSED_FORM, .adapt = 3}, MELU_EINVAL, "CLOSED_FORM adapts the head alone"},
      {{.size = size, .rule = MELU_CLOSED_FORM, .multi_step = 1}, MELU_EINVAL, "no steps and no rates"},
      {{.size = size, .rule = MELU_CLOSED_FORM, .rates = MELU_RATE_PER_TENSOR}, MELU_EINVAL, "no steps and no rates"},
      {{.size = size, .preset = "best", .rates = MELU_RATE_PER_ENTRY}, MELU_EINVAL, "no steps and no rates"},
      {{.size = size, .rule = MELU_CLOSED_FORM, .loss = MELU_LOGISTIC}, MELU_EINVAL, "is for MELU_FACTORS"},
      {{.size = size, .history = 1}, MELU_EINVAL, "history is for MELU_FACTORS"},
      {{.size = size, .preset = "best", .network = MELU_LAYERS}, MELU_EINVAL, "history is for MELU_FACTORS"},
      {{.size = size, .learn_precision = 1}, MELU_EINVAL, "learn_precision is for MELU_FACTORS"},
  };
  melu_schema *schema = make_schema(4);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    melu_model *model = (melu_model *)&err;
    ck_assert_int_eq(melu_model_new(&model, ctx, schema, &bad[i].o, NULL), bad[i].status);
    const melu_status status = melu_model_new(&model, ctx, schema, &bad[i].o, &err);
    ck_assert_msg(status == bad[i].status, "%zu: %s", i, melu_status_name(status));
    ck_assert_int_eq(err.status, status);
    ck_assert_ptr_null(model);
    ck_assert_msg(strstr(err.message, bad[i].says) != NULL, "%zu: %s", i, err.message);
  }
  melu_schema_free(schema);
}
END_TEST

/* ----------------------------------------------------------------------------------------------------- limits */

#define FITS (SIZE_MAX > UINT32_MAX ? MELU_OK : MELU_ELIMIT) /* more than 2^32 numbers */

START_TEST(sizes_without_reason) {
  static const struct {
    size_t n_values, width, n_fields;
    melu_status status;
  } sizes[] = {
      {0x7fffffff, 1, 1, MELU_OK},         /* 2^31 rows */
      {0x7fffffff, 511, 1, FITS},          /* just below 2^40 numbers */
      {0x7fffffff, 512, 1, MELU_ELIMIT},   /* 2^40 */
      {0x7fffffff, 4096, 200, MELU_ELIMIT} /* more than 2^50 */
  };
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    size_t n_params = 0, n_numbers = 0;
    melu_schema *schema;
    WORLD_TRY(melu_schema_new(&schema, ctx, &err));
    for (size_t i = 0; i < sizes[s].n_fields; i++) {
      char name[24];
      snprintf(name, sizeof name, "f%zu", i);
      add(schema, name, MELU_ITEM, MELU_ONE, sizes[s].n_values, sizes[s].width);
    }
    const melu_status status = melu__model_measure(&n_params, &n_numbers, schema, NULL, &err);
    ck_assert_msg(status == sizes[s].status, "%zu: %s", s, melu_status_name(status));
    if (status) {
      melu_model *model = (melu_model *)&err;
      ck_assert_int_eq(melu_model_new(&model, ctx, schema, NULL, &err), status);
      ck_assert_ptr_null(model);
    } else {
      ck_assert_uint_eq(n_params, 7);
      ck_assert_uint_eq(n_numbers, ((size_t)1 << 31) * sizes[s].width + (sizes[s].width + 1) * 64 + 65 * 64 + 65);
    }
    melu_schema_free(schema);
  }
}
END_TEST

/* Of MELU_FACTORS the rank decides, not the widths. */
START_TEST(ranks_without_reason) {
  static const struct {
    size_t rank;
    melu_status status;
  } ranks[] = {{254, FITS}, {255, MELU_ELIMIT}};
  melu_schema *schema;
  WORLD_TRY(melu_schema_new(&schema, ctx, &err));
  add(schema, "name", MELU_ITEM, MELU_ONE, 0x7fffffff, 4096);
  for (size_t i = 0; i < 2; i++) {
    const struct melu_model_options o = {.size = sizeof o, .preset = "best", .rank = ranks[i].rank};
    size_t n_params, n_numbers;
    ck_assert_int_eq(melu__model_measure(&n_params, &n_numbers, schema, &o, &err), ranks[i].status);
  }
  melu_schema_free(schema);
}
END_TEST

static void fail_every_allocation(const struct melu_model_options *options) {
  melu_schema *schema = make_schema(4);
  size_t n_reference;
  melu_model *reference = make_model_with(schema, options);
  float *expected = world_weights(reference, &n_reference);
  for (int from_there_on = 0; from_there_on < 2; from_there_on++) {
    melu_status status = MELU_ENOMEM;
    size_t n = 1;
    for (; status == MELU_ENOMEM; n++) {
      struct test_heap heap = {0};
      const struct melu_allocator allocator = test_allocator(&heap);
      const struct melu_context_options o = {.size = sizeof o, .allocator = &allocator};
      melu_context *own;
      melu_model *model = (melu_model *)&heap;
      WORLD_TRY(melu_context_new(&own, &o, &err));
      heap.fail_at = heap.made + n;
      heap.from_there_on = from_there_on;
      status = melu_model_new(&model, own, schema, options, &err);
      ck_assert((status == MELU_OK) == (model != NULL));
      heap.fail_at = 0;
      if (status) WORLD_TRY(melu_model_new(&model, own, schema, options, &err)); /* the cause is gone */
      size_t m;
      float *values = world_weights(model, &m);
      ck_assert(m == n_reference && memcmp(values, expected, m * sizeof *values) == 0);
      free(values);
      melu_model_free(model);
      melu_context_free(own);
      ck_assert_uint_eq(heap.live, 0);
    }
    ck_assert_int_eq(status, MELU_OK);
    ck_assert_uint_gt(n, 10);
  }
  free(expected);
  melu_model_free(reference);
  melu_schema_free(schema);
}

START_TEST(every_allocation_fails_once) {
  const struct melu_model_options o = {.size = sizeof o, .preset = "best"};
  fail_every_allocation(NULL);
  fail_every_allocation(&o);
}
END_TEST

/* ---------------------------------------------------------------------------------------------- read and write */

START_TEST(rows_are_read_and_written) {
  melu_schema *schema = make_schema(4);
  melu_model *model = make_model(schema, 0);
  float rows[3 * 32], back[3 * 32];
  size_t n, m, n_rows, cols;
  float *before = values_of(model, "E.maker", &n_rows, &cols);
  for (size_t i = 0; i < 96; i++) rows[i] = (float)i - 0.1f;
  WORLD_TRY(melu_model_write(model, "E.maker", 5, 3, rows, &err)); /* the unknown row too */
  WORLD_TRY(melu_model_read(back, model, "E.maker", 5, 3, &err));
  ck_assert(memcmp(rows, back, sizeof rows) == 0);
  float *after = values_of(model, "E.maker", &n_rows, &cols);
  ck_assert(memcmp(before, after, 5 * 32 * sizeof *before) == 0);
  ck_assert(memcmp(after + 5 * 32, rows, sizeof rows) == 0);
  WORLD_TRY(melu_model_read(back, model, "b3", 0, 1, &err));
  WORLD_TRY(melu_model_read(back, model, "E.maker", 8, 0, &err)); /* no rows, at the very end */
  WORLD_TRY(melu_model_write(model, "E.maker", 8, 0, rows, &err));
  free(before);
  free(after);

  before = world_weights(model, &n);
  static const float wrong[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < 3; i++) {
    rows[40] = wrong[i];
    ck_assert_int_eq(melu_model_write(model, "E.maker", 0, 3, rows, &err), MELU_ERANGE);
    ck_assert_uint_eq(err.index, 40);
    ck_assert_msg(strstr(err.message, "E.maker") != NULL, "%s", err.message);
  }
  after = world_weights(model, &m); /* nothing was written, not even what came before */
  ck_assert(n == m && memcmp(before, after, n * sizeof *before) == 0);
  free(before);
  free(after);
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

START_TEST(bad_arguments) {
  melu_schema *schema = make_schema(4);
  melu_model *model = make_model(schema, 0), *none = model;
  struct melu_model_options o = {.size = sizeof o};
  struct melu_param p;
  float values[64] = {0};
  ck_assert_int_eq(melu_model_new(NULL, ctx, schema, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_new(&none, NULL, schema, NULL, &err), MELU_EINVAL);
  ck_assert_ptr_null(none);
  none = model;
  ck_assert_int_eq(melu_model_new(&none, ctx, NULL, NULL, &err), MELU_EINVAL);
  ck_assert_ptr_null(none);
  ck_assert_int_eq(melu_model_get_options(NULL, model, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_get_options(&o, NULL, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_param(NULL, model, 0, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_param(&p, NULL, 0, &err), MELU_EINVAL);
  ck_assert_int_eq(melu_model_param(&p, model, 9, &err), MELU_ERANGE);
  ck_assert_uint_eq(err.index, 9);
  ck_assert_int_eq(melu_model_param(&p, model, SIZE_MAX, &err), MELU_ERANGE);
  ck_assert_ptr_null(melu_model_schema(NULL));
  ck_assert_uint_eq(melu_model_n_params(NULL), 0);
  melu_model_free(NULL);

  for (int writes = 0; writes < 2; writes++) {
#define ACCESS(values, model, name, first, n)                     \
  (writes ? melu_model_write(model, name, first, n, values, &err) \
          : melu_model_read(values, model, name, first, n, &err))
    ck_assert_int_eq(ACCESS(NULL, model, "b1", 0, 1), MELU_EINVAL);
    ck_assert_int_eq(ACCESS(values, NULL, "b1", 0, 1), MELU_EINVAL);
    ck_assert_int_eq(ACCESS(values, model, NULL, 0, 1), MELU_EINVAL);
    ck_assert_int_eq(ACCESS(values, model, "b9", 0, 1), MELU_ENOTFOUND);
    ck_assert_msg(strstr(err.message, "b9") != NULL, "%s", err.message);
    ck_assert_int_eq(ACCESS(values, model, "E.price", 0, 1), MELU_ENOTFOUND); /* numbers have no table */
    ck_assert_int_eq(ACCESS(values, model, "", 0, 1), MELU_ENOTFOUND);
    ck_assert_int_eq(ACCESS(values, model, "b1", 0, 2), MELU_ERANGE);
    ck_assert_int_eq(ACCESS(values, model, "b1", 2, 0), MELU_ERANGE);
    ck_assert_int_eq(ACCESS(values, model, "E.maker", 7, 2), MELU_ERANGE);
    ck_assert_int_eq(ACCESS(values, model, "E.maker", 1, SIZE_MAX), MELU_ERANGE); /* the sum wraps around */
    ck_assert_int_eq(ACCESS(values, model, "E.maker", SIZE_MAX, 2), MELU_ERANGE);
  }
  melu_model_free(model);
  melu_schema_free(schema);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      parameters_of_the_preset,
      parameters_that_layers_learn_beside,
      parameters_of_factors,
      options_that_ask_for_fields,
      fields_of_numbers_alone,
      first_values_are_distributed_as_promised,
      first_values_of_factors,
      first_values_of_logistic,
      a_value_depends_on_seed_parameter_and_row,
      a_field_whose_vocabulary_is_empty,
      options_are_resolved,
      options_that_follow_from_others,
      options_make_the_same_model_again,
      options_of_another_size,
      options_out_of_range,
      sizes_without_reason,
      ranks_without_reason,
      every_allocation_fails_once,
      rows_are_read_and_written,
      bad_arguments,
  };
  Suite *s = suite_create("model");
  TCase *t = tcase_create("model");
  tcase_set_timeout(t, 120);
  tcase_add_checked_fixture(t, open_context, close_context);
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) tcase_add_test(t, tests[i]);
  suite_add_tcase(s, t);
  return run_suite(s);
}
