/* SPDX-License-Identifier: BSD-3-Clause */
/* Training as MELU_FACTORS is trained: episodes, what the first training sets, priors, the schedule of the learning
 * rate, users left out for validation, the noise. Mostly by what the weights are afterwards. */
#include "meta/episode.h"

#include <stdio.h>

#include "model/gradient.h"
#include "model/prior.h"
#include "naive.h"
#include "run_suite.h"
#include "support.h"

enum { RANK = 3, WIDTH = RANK + 2, COLS = RANK + 1 + WIDTH, N_ITEMS = 20, N_RATED = 15, N_USERS = 12, NOBODY = 1000 };

static const int is_double = sizeof(real) == sizeof(double);
static melu_error err;

#define TRY(call)                                                                        \
  do {                                                                                   \
    const melu_status status_ = (call);                                                  \
    ck_assert_msg(status_ == MELU_OK, "%s: %s", melu_status_name(status_), err.message); \
  } while (0)

/* ----------------------------------------------------------------------------------------------------- world */

enum ratings { STARS, CLICKS, ALL_THREE };

struct world_of {
  enum ratings ratings;
  size_t hidden, user_numbers; /* 0: none, 2 */
  melu_rule rule;
  melu_loss loss;
  int is_layers;
  uint32_t changed; /* 1 + the user with other ratings; 0: none */
  int in_pairs;     /* two items have one row of "self" */
};

struct world {
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
};

static void add_fields(melu_schema *schema, size_t user_numbers) {
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .n_values = N_ITEMS, .width = 4},
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 5, .width = 2},
      {.size = sizeof *fields, .name = "size", .owner = MELU_ITEM, .kind = MELU_NUMERIC},
      {.size = sizeof *fields, .name = "job", .owner = MELU_USER, .n_values = 3, .width = 3},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .width = user_numbers}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) TRY(melu_schema_add(schema, &fields[i], &err));
}

static size_t n_ratings_of(uint32_t u) {
  return u < N_USERS ? 5 + u : 1;
}

static uint32_t item_of(uint32_t u, uint32_t k) {
  return (3 * u + k) % N_RATED;
}

static float rating_of(const struct world_of *of, uint32_t u, uint32_t k) {
  uint64_t random = 100 * u + k;
  uint32_t stars = 1 + (random_below(&random, 5) + random_below(&random, 5) * item_of(u, k)) % 5;
  if (of->ratings == ALL_THREE) return 3;
  if (of->changed == u + 1) stars = stars % 5 + 1;
  return (float)(of->ratings == CLICKS ? stars > 3 : stars);
}

/* Items from N_RATED on have a tag of their own and are never rated; the last user has a job of her own and one rating,
 * too few to train on. */
static void fill(melu_dataset *data, const struct world_of *of) {
  for (uint32_t i = 0; i < N_ITEMS; i++) {
    const uint32_t tags[2] = {i < N_RATED ? i % 3 : 3, i % 3};
    const float size = (float)(i % 4) / 4;
    const uint32_t self = of->in_pairs ? i / 2 : i;
    const struct melu_value values[3] = {
        {.ids = &self, .n_ids = 1}, {.ids = tags, .n_ids = 1 + i % 2}, {.numbers = &size, .n_numbers = 1}};
    TRY(melu_dataset_add_item(data, i, values, NULL, &err));
  }
  for (uint32_t u = 0; u <= N_USERS; u++) {
    const uint32_t job = u < N_USERS ? u % 2 : 2;
    const float age[2] = {(float)(u % 5) / 4, 0.5f};
    const struct melu_value values[2] = {{.ids = &job, .n_ids = 1},
                                         {.numbers = age, .n_numbers = of->user_numbers ? of->user_numbers : 2}};
    TRY(melu_dataset_add_user(data, u, values, NULL, &err));
    for (uint32_t k = 0; k < n_ratings_of(u); k++)
      TRY(melu_dataset_add_rating(data, u, item_of(u, k), rating_of(of, u, k), &err));
  }
  TRY(melu_dataset_freeze(data, &err));
}

static melu_model *new_model(const struct world *w, const struct world_of *of) {
  melu_model *model;
  const size_t layer = 5;
  struct melu_model_options options = {.size = sizeof options,
                                       .preset = "best",
                                       .seed = 5,
                                       .hidden = &of->hidden,
                                       .n_hidden = of->hidden ? 1 : MELU_NONE,
                                       .rank = RANK,
                                       .rule = of->rule,
                                       .loss = of->loss};
  if (of->is_layers)
    options = (struct melu_model_options){.size = sizeof options, .hidden = &layer, .n_hidden = 1, .inner_steps = 1};
  TRY(melu_model_new(&model, w->ctx, melu_dataset_schema(w->data), &options, &err));
  return model;
}

static void open_world(struct world *w, const struct world_of *of, const struct melu_context_options *options) {
  TRY(melu_context_new(&w->ctx, options, &err));
  TRY(melu_schema_new(&w->schema, w->ctx, &err));
  add_fields(w->schema, of->user_numbers ? of->user_numbers : 2);
  TRY(melu_dataset_new(&w->data, w->ctx, w->schema, &err));
  fill(w->data, of);
  w->model = new_model(w, of);
}

static void close_world(struct world *w) {
  melu_model_free(w->model);
  melu_dataset_free(w->data);
  melu_schema_free(w->schema);
  melu_context_free(w->ctx);
}

/* ----------------------------------------------------------------------------------------------------- weights */

static size_t n_numbers(const struct melu__param *p) {
  return p->rows * p->cols;
}

/* All parameters, one after another; to be freed. */
static real *weights_of(const melu_model *model) {
  size_t n = 0;
  for (size_t i = 0; i < model->n_params; i++) n += n_numbers(&model->params[i]);
  real *all = test_memory(n, sizeof *all), *at = all;
  for (size_t i = 0; i < model->n_params; at += n_numbers(&model->params[i]), i++)
    memcpy(at, model->params[i].data, n_numbers(&model->params[i]) * sizeof *at);
  return all;
}

/* How far the weights are from those, at most. The noise is not trained, but measured. */
static double distance(const melu_model *model, const real *from) {
  double largest = 0;
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    for (size_t k = 0; k < n_numbers(p); k++, from++)
      if (strcmp(p->name, "noise") != 0) largest = fmax(largest, fabs((double)p->data[k] - (double)*from));
  }
  return largest;
}

static const struct melu__param *param(const melu_model *model, const char *name) {
  const struct melu__param *p = melu__model_find(model, name);
  ck_assert_msg(p != NULL, "the model has no %s", name);
  return p;
}

static double number(const melu_model *model, const char *name, size_t k) {
  return (double)param(model, name)->data[k];
}

static int is_zero(const struct melu__param *p, size_t row) {
  for (size_t j = 0; j < p->cols; j++)
    if (p->data[row * p->cols + j] != 0) return 0;
  return 1;
}

/* One epoch, one update of all users. */
static struct melu_fit_options small_fit(void) {
  return (struct melu_fit_options){.size = sizeof(struct melu_fit_options), .n_epochs = 1, .n_query = 4, .seed = 3};
}

static void without_priors(struct melu_fit_options *fit) {
  fit->prior_vectors = fit->prior_offsets = fit->prior_pooled = fit->prior_dense = -1;
}

/* With steps that change nothing. */
static struct melu_fit_options still_fit(void) {
  static const struct melu_optimizer_options smallest = {.size = sizeof smallest, .kind = MELU_SGD, .lr = 1e-300};
  struct melu_fit_options fit = small_fit();
  fit.optimizer = &smallest;
  without_priors(&fit);
  return fit;
}

/* --------------------------------------------------------------------------------------------------- episodes */

/* Users with so many ratings. */
static const uint32_t lengths[] = {2, 3, 4, 5, 6, 7, 10, 31, 31};

enum { N_LENGTHS = sizeof lengths / sizeof *lengths, LONGEST = 31, N_DRAWS = 20000 };

struct drawing {
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_batch *batch;
  struct melu__episodes episodes;
  uint32_t positions[LONGEST];
};

static void open_drawing(struct drawing *d, float rating) {
  const struct melu_field field = {.size = sizeof field, .name = "x", .owner = MELU_ITEM, .n_values = 1};
  TRY(melu_context_new(&d->ctx, NULL, &err));
  TRY(melu_schema_new(&d->schema, d->ctx, &err));
  TRY(melu_schema_add(d->schema, &field, &err));
  TRY(melu_dataset_new(&d->data, d->ctx, d->schema, &err));
  TRY(melu_dataset_add_item(d->data, 0, NULL, NULL, &err));
  for (uint32_t u = 0; u < N_LENGTHS; u++) TRY(melu_dataset_add_user(d->data, u, NULL, NULL, &err));
  for (uint32_t u = 0; u < N_LENGTHS; u++)
    for (uint32_t k = 0; k < lengths[u]; k++) TRY(melu_dataset_add_rating(d->data, u, 0, rating, &err));
  TRY(melu_dataset_freeze(d->data, &err));
  TRY(melu_batch_new(&d->batch, d->ctx, d->data, &err));
  d->episodes = (struct melu__episodes){
      .seed = 7, .n_query = 8, .max_support = 20, .random_support = 1, .positions = d->positions};
}

static void close_drawing(struct drawing *d) {
  melu_batch_free(d->batch);
  melu_dataset_free(d->data);
  melu_schema_free(d->schema);
  melu_context_free(d->ctx);
}

/* The episode, which is the batch's only task. */
static const struct melu__task *draw(struct drawing *d, uint32_t user, uint32_t epoch) {
  melu_batch_clear(d->batch);
  TRY(melu__episode_add(&d->episodes, d->batch, user, user, epoch, &err));
  ck_assert_uint_eq(melu_batch_n_tasks(d->batch), 1);
  ck_assert_uint_eq(d->batch->tasks[0].user, user);
  return &d->batch->tasks[0];
}

static size_t min(size_t a, size_t b) {
  return a < b ? a : b;
}

/* Of different ratings of the user, in sizes that may be. */
static void check_episode(const struct drawing *d, const struct melu__task *t) {
  const size_t n = lengths[t->user], third = n < 6 ? 1 : n / 3;
  unsigned char met[LONGEST] = {0};
  const size_t n_query = d->episodes.random_support ? min(d->episodes.n_query, third) : d->episodes.n_query;
  const size_t most = min(n - n_query, d->episodes.max_support);
  if (t->n_query != n_query || t->n_support > most) ck_abort_msg("%u and %u of %zu", t->n_support, t->n_query, n);
  if (!d->episodes.random_support) ck_assert_uint_eq(t->n_support, most);
  for (size_t i = 0; i < (size_t)t->n_support + t->n_query; i++) {
    const uint32_t position = d->batch->positions[t->start + i];
    if (position >= n || met[position]++) ck_abort_msg("position %u of %zu", position, n);
  }
}

START_TEST(episodes_are_parts_of_a_user) {
  struct drawing d;
  open_drawing(&d, 3);
  for (uint32_t u = 0; u < N_LENGTHS; u++)
    for (uint32_t epoch = 0; epoch < 200; epoch++) check_episode(&d, draw(&d, u, epoch));
  close_drawing(&d);
}
END_TEST

START_TEST(episodes_of_given_size) {
  struct drawing d;
  open_drawing(&d, 3);
  d.episodes.random_support = 0;
  d.episodes.n_query = 5;
  for (uint32_t u = 0; u < N_LENGTHS; u++)
    for (uint32_t epoch = 0; epoch < 50 && lengths[u] >= 5; epoch++) check_episode(&d, draw(&d, u, epoch));
  d.episodes.max_support = SIZE_MAX;
  check_episode(&d, draw(&d, N_LENGTHS - 1, 0));
  ck_assert_uint_eq(d.batch->tasks[0].n_support, LONGEST - 5);
  close_drawing(&d);
}
END_TEST

static void check_share(size_t count, double share, const char *what, size_t i) {
  const double sd = sqrt(share * (1 - share) / N_DRAWS), got = (double)count / N_DRAWS;
  ck_assert_msg(fabs(got - share) < 4.5 * sd, "%s %zu: in %g of the episodes, not in %g", what, i, got, share);
}

/* None in 3 of 20, all in 3 of 20, else each size as often as another. */
START_TEST(sizes_of_support_sets) {
  static const uint32_t users[] = {0, 6, 7};
  struct drawing d;
  open_drawing(&d, 3);
  for (size_t i = 0; i < sizeof users / sizeof *users; i++) {
    const size_t n = lengths[users[i]], most = min(n - (n < 6 ? 1 : n / 3 < 8 ? n / 3 : 8), 20);
    size_t count[LONGEST + 1] = {0};
    for (uint32_t epoch = 0; epoch < N_DRAWS; epoch++) count[draw(&d, users[i], epoch)->n_support]++;
    for (size_t k = 0; k <= most; k++)
      check_share(count[k], 0.7 / (double)(most + 1) + (k == 0 || k == most ? 0.15 : 0), "size", k);
  }
  close_drawing(&d);
}
END_TEST

START_TEST(each_rating_is_asked_as_often) {
  struct drawing d;
  size_t asked[LONGEST] = {0};
  open_drawing(&d, 3);
  for (uint32_t epoch = 0; epoch < N_DRAWS; epoch++) {
    const struct melu__task *t = draw(&d, 7, epoch);
    for (size_t k = 0; k < t->n_query; k++) asked[d.batch->positions[t->start + t->n_support + k]]++;
  }
  for (size_t k = 0; k < LONGEST; k++) check_share(asked[k], 8.0 / LONGEST, "rating", k);
  close_drawing(&d);
}
END_TEST

static int is_same_draw(const struct drawing *a, const struct drawing *b) {
  return a->batch->n_positions == b->batch->n_positions &&
         memcmp(a->batch->positions, b->batch->positions, a->batch->n_positions * sizeof *a->batch->positions) == 0;
}

/* On nothing but seed, epoch and user: not on ratings, on what was drawn before, or what the scratch holds. */
START_TEST(draws_depend_on_seed_epoch_and_user) {
  struct drawing a, b;
  size_t n_same[3] = {0};
  open_drawing(&a, 3);
  open_drawing(&b, 5);
  for (uint32_t u = 6; u < N_LENGTHS; u++)
    for (uint32_t epoch = 0; epoch < 100; epoch++) {
      draw(&a, u, epoch);
      draw(&b, 0, epoch);
      for (size_t k = 0; k < LONGEST; k++) b.positions[k] = 99;
      draw(&b, u, epoch);
      ck_assert(is_same_draw(&a, &b));
      draw(&b, u, epoch + 1);
      n_same[0] += (size_t)is_same_draw(&a, &b);
      b.episodes.seed++;
      draw(&b, u, epoch);
      n_same[1] += (size_t)is_same_draw(&a, &b);
      b.episodes.seed--;
      draw(&b, u == 7 ? 8 : 7, epoch);
      n_same[2] += (size_t)is_same_draw(&a, &b);
    }
  for (size_t k = 0; k < 3; k++) ck_assert_uint_lt(n_same[k], 10);
  close_drawing(&a);
  close_drawing(&b);
}
END_TEST

/* ---------------------------------------------------------------------------------------- the first training */

static void check_scale(const struct world *w, const struct world_of *of) {
  double sum = 0, squares = 0, n = 0;
  for (uint32_t u = 0; u < N_USERS; u++)
    for (uint32_t k = 0; k < n_ratings_of(u); k++, n++) {
      sum += (double)rating_of(of, u, k);
      squares += (double)rating_of(of, u, k) * (double)rating_of(of, u, k);
    }
  const double mean = sum / n, spread = sqrt(squares / n - mean * mean);
  ck_assert_double_eq_tol(number(w->model, "scale", 0), mean, 1e-6 * mean);
  ck_assert_double_eq_tol(number(w->model, "scale", 1), spread, 1e-6 * spread);
}

static int is_trained_on(const char *table, size_t row) {
  if (strcmp(table, "E.self") == 0) return row < N_RATED;
  return strcmp(table, "E.tags") == 0 ? row < 3 : row < 2;
}

/* Makes all table rows say something. */
static void fill_tables(melu_model *model) {
  for (size_t i = 0; i < model->n_tables; i++)
    for (size_t k = 0; k < n_numbers(&model->params[i]); k++) model->params[i].data[k] = (real)(k % 7 + 1) / 16;
}

START_TEST(first_training_looks_at_the_data) {
  const struct world_of of = {.hidden = 4};
  const struct melu_fit_options fit = still_fit();
  struct world w;
  open_world(&w, &of, NULL);
  fill_tables(w.model);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  check_scale(&w, &of);
  for (size_t i = 0; i < w.model->n_tables; i++) {
    const struct melu__param *p = &w.model->params[i];
    for (size_t row = 0; row < p->rows; row++) {
      ck_assert_msg(is_zero(p, row) == !is_trained_on(p->name, row), "row %zu of %s", row, p->name);
      for (size_t j = 0; j < p->cols && is_trained_on(p->name, row); j++)
        ck_assert(p->data[row * p->cols + j] == (real)((row * p->cols + j) % 7 + 1) / 16);
    }
  }
  close_world(&w);
}
END_TEST

START_TEST(second_training_does_not) {
  const struct world_of of = {.hidden = 4};
  const struct melu_fit_options fit = still_fit();
  const float scale[2] = {2, 3};
  float row[COLS];
  struct world w;
  open_world(&w, &of, NULL);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  for (size_t j = 0; j < COLS; j++) row[j] = (float)j;
  TRY(melu_model_write(w.model, "E.self", N_RATED, 1, row, &err));
  TRY(melu_model_write(w.model, "scale", 0, 1, scale, &err));
  real *before = weights_of(w.model);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  ck_assert(distance(w.model, before) < 1e-200);
  free(before);
  close_world(&w);
}
END_TEST

/* A field names items if no two of those that are rated have a value of it in common. */
START_TEST(first_training_finds_names) {
  for (int in_pairs = 0; in_pairs < 2; in_pairs++) {
    const struct world_of of = {.hidden = 4, .in_pairs = in_pairs};
    const struct melu_fit_options fit = still_fit();
    struct world w;
    open_world(&w, &of, NULL);
    TRY(melu_fit(w.model, w.data, &fit, &err));
    ck_assert(number(w.model, "names", 0) == !in_pairs);
    ck_assert(number(w.model, "names", 1) == 0); /* "tags" */
    close_world(&w);
  }
}
END_TEST

/* Clicks stay as they are; that there are few of them is what is known of a user of whom nothing is known. */
START_TEST(first_training_on_clicks) {
  const struct world_of of = {.ratings = CLICKS, .loss = MELU_LOGISTIC};
  const struct melu_fit_options fit = still_fit();
  struct world w;
  double sum = 0, n = 0;
  open_world(&w, &of, NULL);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  for (uint32_t u = 0; u < N_USERS; u++)
    for (uint32_t k = 0; k < n_ratings_of(u); k++, n++) sum += (double)rating_of(&of, u, k);
  ck_assert(number(w.model, "scale", 0) == 0 && number(w.model, "scale", 1) == 1);
  ck_assert_double_eq_tol(number(w.model, "prior", RANK), log(sum / (n - sum)), 1e-6);
  close_world(&w);
}
END_TEST

START_TEST(ratings_that_are_all_the_same) {
  const struct world_of of = {.ratings = ALL_THREE};
  struct melu_fit_options fit = small_fit();
  struct world w;
  fit.n_epochs = 5;
  open_world(&w, &of, NULL);
  const double spread = number(w.model, "scale", 1);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  ck_assert(number(w.model, "scale", 0) == 3 && number(w.model, "scale", 1) == spread);
  close_world(&w);
}
END_TEST

/* What is measured is no weight: it does not decay. */
START_TEST(decay_leaves_the_scale_alone) {
  const struct world_of of = {.hidden = 4};
  const struct melu_optimizer_options decaying = {
      .size = sizeof decaying, .kind = MELU_ADAMW, .lr = 0.01, .weight_decay = 0.5};
  struct melu_fit_options fit = small_fit();
  struct world w;
  fit.n_epochs = 10;
  fit.optimizer = &decaying;
  open_world(&w, &of, NULL);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  check_scale(&w, &of);
  close_world(&w);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------ priors */

static const struct world_of shapes[] = {
    {.hidden = 4},
    {.hidden = 0},
    {.hidden = COLS},                 /* H2 is as wide as an item's row */
    {.hidden = 1},                    /* H1 has one row */
    {.hidden = 4, .user_numbers = 1}, /* N.user has one row */
    {.is_layers = 1},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_STEPS = 6, MOST_PARAMS = 20 };

/* All of them, each alone, and none. */
static const struct melu__prior all_strengths[] = {
    {.vectors = 4, .offsets = 3, .pooled = 2, .dense = 1, .n_ratings = 50},
    {.vectors = 4, .n_ratings = 50},
    {.offsets = 3, .n_ratings = 50},
    {.pooled = 2, .n_ratings = 50},
    {.dense = 1, .n_ratings = 50},
    {.n_ratings = 50}};
static struct melu__prior strengths; /* the test's */

enum { N_STRENGTHS = sizeof all_strengths / sizeof *all_strengths };

static double strength_of_item(size_t col) {
  return col < RANK ? strengths.vectors : col == RANK ? strengths.offsets : strengths.pooled;
}

/* Of a column of a parameter. Biases, what is no weight, and means have none. */
static double strength(const melu_model *model, const char *name, size_t col) {
  static const char *const dense[] = {"N.user", "pool", "pool_rated", "H1", "H2"};
  if (model->options.network == MELU_LAYERS)
    return name[0] == 'E' ? strengths.vectors : name[0] == 'W' ? strengths.dense : 0;
  if (strcmp(name, "E.self") == 0 || strcmp(name, "E.tags") == 0 || strcmp(name, "N.item") == 0)
    return strength_of_item(col);
  if (strcmp(name, "E.job") == 0) return strengths.vectors;
  for (size_t i = 0; i < sizeof dense / sizeof *dense; i++)
    if (strcmp(name, dense[i]) == 0) return strengths.dense;
  return 0;
}

static void fill_model(melu_model *model) {
  uint64_t random = 9;
  for (size_t i = 0; i < model->n_params; i++)
    for (size_t k = 0; k < n_numbers(&model->params[i]); k++)
      model->params[i].data[k] = (real)(random_number(&random) / 8 + 0.01);
  if (model->options.network == MELU_FACTORS) param(model, "scale")->data[1] = 1;
  model->version++;
}

/* A gradient of user number `user` alone, or of all. */
static void some_gradient(melu_gradient *g, const struct world *w, uint32_t user) {
  melu_batch *batch;
  const uint32_t support[2] = {0, 1}, query[2] = {2, 3};
  TRY(melu_batch_new(&batch, w->ctx, w->data, &err));
  for (uint32_t u = 0; u < N_USERS; u++)
    if (u == user || user == NOBODY) TRY(melu_batch_add(batch, u, support, 2, query, 2, &err));
  TRY(melu_meta_gradient(g, w->model, batch, &err));
  melu_batch_free(batch);
}

/* Updates since the last one of each row. */
struct waiting {
  size_t step, last[MOST_PARAMS][N_ITEMS + 1];
};

static void check_added(const melu_gradient *g, size_t i, const real *before, struct waiting *t) {
  const struct melu__param *p = &g->model->params[i];
  const struct melu__gradient_part part = melu__gradient_part(g, i);
  for (size_t k = 0; k < part.n * p->cols; k++) {
    const size_t row = part.rows ? part.rows[k / p->cols] : k / p->cols, col = k % p->cols;
    const double shares = p->is_table ? (double)(t->step - t->last[i][row]) : 1;
    const double expected =
        2 * strength(g->model, p->name, col) / strengths.n_ratings * shares * (double)p->data[row * p->cols + col];
    const double added = (double)part.values[k] - (double)before[k];
    ck_assert_msg(fabs(added - expected) <= (is_double ? 1e-14 : 1e-6) * (fabs((double)before[k]) + fabs(expected)),
                  "%s (%zu, %zu), %g shares: %g was added, not %g", p->name, row, col, shares, added, expected);
    ck_assert(fabs((double)part.values[k]) <= (double)g->largest);
  }
  for (size_t k = 0; part.rows && k < part.n; k++) t->last[i][part.rows[k]] = t->step;
}

/* A row's prior has a share for each update since its last one, and the first. */
START_TEST(priors_are_their_formulas) {
  static const uint32_t users[N_STEPS] = {0, 3, 3, 0, NOBODY, 7};
  const struct melu__share whole = {1, {0, 1}};
  struct world w;
  struct waiting t = {0};
  melu_gradient *g;
  strengths = all_strengths[_i % N_STRENGTHS];
  struct melu__prior prior = strengths;
  open_world(&w, &shapes[_i / N_STRENGTHS], NULL);
  fill_model(w.model);
  ck_assert_uint_le(w.model->n_params, MOST_PARAMS);
  TRY(melu_gradient_new(&g, w.model, &err));
  ck_assert(melu__prior_init(&prior, w.model));
  for (t.step = 1; t.step <= N_STEPS; t.step++) {
    real *before[MOST_PARAMS];
    some_gradient(g, &w, users[t.step - 1]);
    for (size_t i = 0; i < w.model->n_params; i++) {
      const struct melu__gradient_part part = melu__gradient_part(g, i);
      before[i] = test_memory(part.n * w.model->params[i].cols, sizeof **before);
      if (part.n) memcpy(before[i], part.values, part.n * w.model->params[i].cols * sizeof **before);
    }
    melu__prior_add(&prior, g, &whole);
    for (size_t i = 0; i < w.model->n_params; i++) check_added(g, i, before[i], &t);
    for (size_t i = 0; i < w.model->n_params; i++) free(before[i]);
  }
  melu__prior_free(&prior);
  melu_gradient_free(g);
  close_world(&w);
}
END_TEST

/* A strong prior pulls the weights to zero. */
START_TEST(priors_shrink) {
  const struct world_of of = {.hidden = 4};
  double size[2] = {0};
  for (int strong = 0; strong < 2; strong++) {
    struct world w;
    struct melu_fit_options fit = small_fit();
    fit.n_epochs = 60;
    without_priors(&fit);
    if (strong) fit.prior_vectors = 1e4;
    open_world(&w, &of, NULL);
    TRY(melu_fit(w.model, w.data, &fit, &err));
    for (size_t k = 0; k < N_RATED * COLS; k++)
      if (k % COLS < RANK) size[strong] += fabs(number(w.model, "E.self", k));
    close_world(&w);
  }
  ck_assert_msg(size[1] < size[0] / 4, "%g without, %g with a prior", size[0], size[1]);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- progress */

enum { MOST_EPOCHS = 100 };

/* What was reported, and when to stop. */
struct reports {
  size_t n, stop_after;               /* calls; 0: never */
  uint64_t last_epoch;                /* 1-based */
  double validation[MOST_EPOCHS + 1]; /* after each epoch but the last one */
};

static int listen(void *arg, const struct melu_progress *progress) {
  struct reports *r = arg;
  ck_assert_uint_le(progress->epoch, MOST_EPOCHS);
  r->last_epoch = progress->epoch;
  r->validation[progress->epoch - 1] = progress->validation;
  return ++r->n == r->stop_after;
}

/* A model of its own, trained; *weights are to be freed. */
static melu_status train(real **weights, struct reports *reports, const struct world_of *of,
                         const struct melu_fit_options *fit) {
  const struct melu_context_options options = {.size = sizeof options, .progress = listen, .progress_arg = reports};
  struct world w;
  open_world(&w, of, &options);
  const melu_status status = melu_fit(w.model, w.data, fit, &err);
  *weights = weights_of(w.model);
  close_world(&w);
  return status;
}

/* How far the update number k of n moved a weight at most: the rate times the size at which gradients are clipped. */
static double size_of_update(size_t k, size_t n, int cosine) {
  const struct world_of of = {.hidden = 4};
  const struct melu_optimizer_options clipped = {
      .size = sizeof clipped, .kind = MELU_SGD, .lr = 10, .clip_value = 1e-3};
  struct melu_fit_options fit = small_fit();
  struct world w;
  struct reports reports = {.stop_after = k};
  const struct melu_context_options options = {.size = sizeof options, .progress = listen, .progress_arg = &reports};
  real *before = NULL;
  fit.n_epochs = n;
  fit.cosine = cosine ? 1 : -1;
  fit.optimizer = &clipped;
  without_priors(&fit);
  if (k == 1) {
    const struct melu_fit_options still = still_fit();
    TRY(train(&before, &(struct reports){0}, &of, &still));
  } else {
    ck_assert_int_eq(train(&before, &(struct reports){.stop_after = k - 1}, &of, &fit), MELU_ECANCELED);
  }
  open_world(&w, &of, &options);
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_ECANCELED);
  const double moved = distance(w.model, before);
  free(before);
  close_world(&w);
  return moved / 10 / 1e-3;
}

/* Up in a tenth, then down to a hundredth. */
START_TEST(rates_follow_a_cosine) {
  enum { N = 30 };
  double rate[N + 1];
  for (size_t k = 1; k <= N; k++) rate[k] = size_of_update(k, N, 1);
  ck_assert_msg(rate[1] > 0.2 && rate[1] < 0.4, "it begins at %g", rate[1]);
  ck_assert(rate[2] > rate[1] && rate[3] > rate[2]);
  ck_assert_msg(rate[4] > 0.9 && rate[4] < 1.001, "%g after a tenth", rate[4]);
  for (size_t k = 5; k <= N; k++) ck_assert_msg(rate[k] < rate[k - 1], "%g after %g", rate[k], rate[k - 1]);
  ck_assert_msg(rate[N / 2 + 1] > 0.45 && rate[N / 2 + 1] < 0.55, "%g half way", rate[N / 2 + 1]);
  ck_assert_msg(rate[N] > 0.0099 && rate[N] < 0.015, "%g at the end", rate[N]);
}
END_TEST

START_TEST(rates_stay) {
  for (size_t k = 1; k <= 10; k += 3) ck_assert_double_eq_tol(size_of_update(k, 10, 0), 1, 1e-3);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- validation */

/* Which users have no influence is found by changing the ratings of each: as many as are to be left out. */
START_TEST(users_left_out_have_no_influence) {
  struct melu_fit_options fit = small_fit();
  size_t n_without = 0;
  struct world w;
  fit.validation = 0.25;
  const struct world_of as_is = {.hidden = 4};
  open_world(&w, &as_is, NULL);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  for (uint32_t u = 0; u < N_USERS; u++) {
    struct world_of of = as_is;
    real *weights;
    of.changed = u + 1;
    TRY(train(&weights, &(struct reports){0}, &of, &fit));
    n_without += distance(w.model, weights) == 0;
    free(weights);
  }
  ck_assert_uint_eq(n_without, 3);
  close_world(&w);
}
END_TEST

/* Learning by heart: what is best for users left out is soon over. */
static struct melu_fit_options hasty_fit(uint64_t seed, size_t n_epochs, size_t patience) {
  static const struct melu_optimizer_options fast = {.size = sizeof fast, .lr = 0.03};
  struct melu_fit_options fit = small_fit();
  fit.seed = seed;
  fit.n_epochs = n_epochs;
  fit.patience = patience;
  fit.validation = 0.4;
  fit.cosine = -1;
  fit.optimizer = &fast;
  without_priors(&fit);
  return fit;
}

/* 1-based. */
static size_t best_epoch(const struct reports *r, size_t n) {
  size_t best = 1;
  for (size_t e = 2; e <= n; e++)
    if (r->validation[e] < r->validation[best]) best = e;
  return best;
}

enum { PATIENCE = 3 };

/* A training that ran out of patience, after an epoch that was not the first: its seed, and the best and the last of
 * its epochs, 1-based. */
struct ended {
  uint64_t seed;
  size_t best, last;
};

static struct ended find_training(const struct world_of *of, real **weights) {
  for (uint64_t seed = 1; seed < 30; seed++) {
    const struct melu_fit_options fit = hasty_fit(seed, MOST_EPOCHS, PATIENCE);
    struct reports reports = {0};
    TRY(train(weights, &reports, of, &fit));
    const size_t last = (size_t)reports.last_epoch, best = best_epoch(&reports, last - 1);
    if (best > 1 && last < MOST_EPOCHS) return (struct ended){seed, best, last};
    free(*weights);
  }
  ck_abort_msg("no training ends in between");
  return (struct ended){0, 0, 0};
}

START_TEST(the_best_epoch_is_kept) {
  const struct world_of of = {.hidden = 4};
  real *kept, *all, *last;
  struct world w;
  const struct ended end = find_training(&of, &kept);
  ck_assert_uint_eq(end.last, end.best + PATIENCE);

  /* Without patience, a training up to there: the same. Cut off at the last update: another. */
  const struct melu_fit_options whole = hasty_fit(end.seed, end.last, 0), part = hasty_fit(end.seed, end.best, 0);
  struct reports stopped = {.stop_after = end.last};
  TRY(train(&all, &(struct reports){0}, &of, &whole));
  ck_assert_int_eq(train(&last, &stopped, &of, &whole), MELU_ECANCELED);
  ck_assert_uint_eq(stopped.last_epoch, end.last);

  open_world(&w, &of, NULL);
  TRY(melu_fit(w.model, w.data, &part, &err));
  ck_assert(distance(w.model, kept) == 0);
  ck_assert(distance(w.model, all) == 0);
  ck_assert(distance(w.model, last) > 1e-3);
  close_world(&w);
  free(kept);
  free(all);
  free(last);
}
END_TEST

/* Where no epoch is better than the first, that one is kept: there is no pair, and no loss, but a prior. */
START_TEST(the_first_of_equal_epochs_is_kept) {
  const struct world_of of = {.ratings = ALL_THREE, .loss = MELU_PAIRWISE};
  struct melu_fit_options fit = hasty_fit(3, 1, 0);
  real *first;
  struct world w;
  fit.prior_vectors = 1000;
  TRY(train(&first, &(struct reports){0}, &of, &fit));
  fit.n_epochs = 4;
  open_world(&w, &of, NULL);
  ck_assert(distance(w.model, first) > 1e-3);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  ck_assert(distance(w.model, first) == 0);
  free(first);
  close_world(&w);
}
END_TEST

static double loss_of_all(const struct world *w, melu_status *status) {
  melu_gradient *g;
  melu_batch *batch;
  const uint32_t support[2] = {0, 1}, query[2] = {2, 3};
  TRY(melu_batch_new(&batch, w->ctx, w->data, &err));
  TRY(melu_gradient_new(&g, w->model, &err));
  for (uint32_t u = 0; u < N_USERS; u++) TRY(melu_batch_add(batch, u, support, 2, query, 2, &err));
  *status = melu_meta_gradient(g, w->model, batch, &err);
  const double loss = melu_gradient_loss(g, NULL);
  melu_gradient_free(g);
  melu_batch_free(batch);
  return loss;
}

/* Also if nobody but validation, or the measuring of the noise, sees that it diverges. */
START_TEST(divergence_takes_the_last_update_back) {
  const struct world_of of = {.hidden = 4};
  const struct melu_optimizer_options wild = {
      .size = sizeof wild, .kind = MELU_SGD, .lr = is_double ? 1e100 : 1e14, .clip_value = -1};
  struct melu_fit_options fit = small_fit();
  melu_status status;
  struct world w;
  fit.optimizer = &wild;
  if (_i == 0) fit.n_epochs = 2;
  if (_i == 1) fit.validation = 0.3;
  open_world(&w, &of, NULL);
  ck_assert_int_eq(melu_fit(w.model, w.data, &fit, &err), MELU_EDIVERGED);
  const double loss = loss_of_all(&w, &status);
  ck_assert_msg(status == MELU_OK && loss < 100, "after it: %s, loss %g", melu_status_name(status), loss);
  close_world(&w);
}
END_TEST

/* ------------------------------------------------------------------------------------------------------- noise */

/* The sum of squared errors over variances in a user's episode. */
static double surprise(const struct world *w, melu_workspace *ws, melu_user *user, const melu_batch *batch) {
  const struct melu__task *t = &batch->tasks[0];
  struct melu_value profile[2];
  uint32_t items[2 * N_ITEMS];
  float given[2 * N_ITEMS], scores[2 * N_ITEMS], variances[2 * N_ITEMS];
  const uint32_t *all;
  const float *ratings;
  double sum = 0;
  melu_dataset_ratings(w->data, t->user, &all, &ratings);
  for (size_t k = 0; k < (size_t)t->n_support + t->n_query; k++) {
    items[k] = all[batch->positions[t->start + k]];
    given[k] = ratings[batch->positions[t->start + k]];
  }
  TRY(melu_dataset_user_values(profile, w->data, t->user, &err));
  TRY(melu_adapt(user, ws, w->model, w->data, profile, items, given, t->n_support, &err));
  TRY(melu_predict(scores, ws, w->model, user, w->data, items + t->n_support, t->n_query, &err));
  TRY(melu_predict_variance(variances, ws, w->model, user, w->data, items + t->n_support, t->n_query, &err));
  for (size_t k = 0; k < t->n_query; k++) {
    const double e = (double)scores[k] - (double)given[t->n_support + k];
    sum += e * e / (double)variances[k];
  }
  return sum;
}

START_TEST(noise_is_right_on_average) {
  const struct world_of of = {.hidden = 4};
  struct melu_fit_options fit = small_fit();
  uint32_t positions[2 * N_ITEMS];
  struct melu__episodes episodes = {
      .seed = fit.seed, .n_query = fit.n_query, .max_support = 160, .random_support = 1, .positions = positions};
  struct world w;
  melu_workspace *ws;
  melu_user *user;
  melu_batch *batch;
  double sum = 0, n = 0;
  fit.n_epochs = 10;
  open_world(&w, &of, NULL);
  TRY(melu_fit(w.model, w.data, &fit, &err));
  TRY(melu_workspace_new(&ws, w.model, 2 * N_ITEMS, &err));
  TRY(melu_user_new(&user, w.model, &err));
  TRY(melu_batch_new(&batch, w.ctx, w.data, &err));
  for (uint32_t u = 0; u < N_USERS; u++) {
    melu_batch_clear(batch);
    TRY(melu__episode_add(&episodes, batch, u, u, UINT32_MAX, &err));
    sum += surprise(&w, ws, user, batch);
    n += batch->tasks[0].n_query;
  }
  ck_assert_msg(number(w.model, "noise", 0) != 0.5, "the noise is that of a new model");
  ck_assert_double_eq_tol(sum / n, 1, 1e-4);
  melu_batch_free(batch);
  melu_user_free(user);
  melu_workspace_free(ws);
  close_world(&w);
}
END_TEST

/* Where there are no variances, and of clicks, which have none beside their own. */
START_TEST(noise_stays_where_it_says_nothing) {
  static const struct world_of others[] = {{.rule = MELU_STEPS}, {.ratings = CLICKS, .loss = MELU_LOGISTIC}};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    const struct melu_fit_options fit = small_fit();
    struct world w;
    open_world(&w, &others[i], NULL);
    TRY(melu_fit(w.model, w.data, &fit, &err));
    ck_assert(number(w.model, "noise", 0) == 0.5);
    close_world(&w);
  }
}
END_TEST

/* ----------------------------------------------------------------------------------------------------- options */

struct refused {
  struct melu_fit_options fit;
  melu_status status;
};

/* Nothing that is refused changes the model. */
START_TEST(bad_fits_are_refused) {
  const struct refused all[] = {
      {{.random_support = 1, .min_ratings = 1}, MELU_EINVAL},
      {{.random_support = -1, .n_query = 4, .min_ratings = 3}, MELU_EINVAL},
      {{.patience = 2}, MELU_EINVAL},
      {{.validation = -0.1}, MELU_ERANGE},
      {{.validation = 1}, MELU_ERANGE},
      {{.validation = (double)NAN}, MELU_ERANGE},
      {{.validation = 0.99}, MELU_ENOTFOUND},
      {{.prior_vectors = (double)NAN}, MELU_ERANGE},
      {{.prior_offsets = HUGE_VAL}, MELU_ERANGE},
      {{.prior_pooled = (double)NAN}, MELU_ERANGE},
      {{.prior_dense = HUGE_VAL}, MELU_ERANGE},
      {{.n_query = 65536}, MELU_ELIMIT},
      {{.n_epochs = MELU_NONE}, MELU_ELIMIT},
      {{.min_ratings = 500}, MELU_ENOTFOUND},
      {{.max_ratings = 1}, MELU_ENOTFOUND},
  };
  const struct world_of of = {.hidden = 4};
  struct world w;
  open_world(&w, &of, NULL);
  real *before = weights_of(w.model);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    struct melu_fit_options fit = all[i].fit;
    fit.size = sizeof fit;
    const melu_status status = melu_fit(w.model, w.data, &fit, &err);
    ck_assert_msg(status == all[i].status, "fit %zu: %s", i, melu_status_name(status));
    ck_assert(err.status == status && distance(w.model, before) == 0);
  }
  free(before);
  close_world(&w);
}
END_TEST

START_TEST(bad_models_are_refused) {
  static const size_t two[2] = {4, 4};
  const struct melu_model_options all[] = {
      {.preset = "best", .multi_step = 1},
      {.preset = "best", .rates = MELU_RATE_PER_TENSOR},
      {.preset = "best", .adapt = MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN},
      {.preset = "best", .adapt = MELU_ADAPT_ITEMS},
      {.preset = "best", .rank = 256},
      {.preset = "best", .hidden = two, .n_hidden = 2},
      {.preset = "best", .loss = (melu_loss)7},
      {.preset = "best", .rule = (melu_rule)3},
      {.preset = "best", .rates = (melu_rates)4},
      {.preset = "best", .network = (melu_network)3},
      {.preset = "melu", .history = 1},
      {.preset = "better"},
  };
  const struct world_of of = {.hidden = 4};
  struct world w;
  open_world(&w, &of, NULL);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    struct melu_model_options options = all[i];
    melu_model *model = w.model;
    options.size = sizeof options;
    const melu_status status = melu_model_new(&model, w.ctx, melu_dataset_schema(w.data), &options, &err);
    ck_assert_msg(status == MELU_EINVAL && !model, "model %zu: %s", i, melu_status_name(status));
  }
  close_world(&w);
}
END_TEST

static void add_parts(Suite *suite) {
  TCase *t = tcase_create("episodes");
  tcase_add_test(t, episodes_are_parts_of_a_user);
  tcase_add_test(t, episodes_of_given_size);
  tcase_add_test(t, sizes_of_support_sets);
  tcase_add_test(t, each_rating_is_asked_as_often);
  tcase_add_test(t, draws_depend_on_seed_epoch_and_user);
  suite_add_tcase(suite, t);
  t = tcase_create("priors");
  tcase_add_loop_test(t, priors_are_their_formulas, 0, N_SHAPES * N_STRENGTHS);
  tcase_add_test(t, priors_shrink);
  suite_add_tcase(suite, t);
}

static void add_training(Suite *suite) {
  TCase *t = tcase_create("training");
  tcase_set_timeout(t, 60);
  tcase_add_test(t, first_training_looks_at_the_data);
  tcase_add_test(t, second_training_does_not);
  tcase_add_test(t, first_training_on_clicks);
  tcase_add_test(t, first_training_finds_names);
  tcase_add_test(t, ratings_that_are_all_the_same);
  tcase_add_test(t, decay_leaves_the_scale_alone);
  tcase_add_test(t, rates_follow_a_cosine);
  tcase_add_test(t, rates_stay);
  tcase_add_test(t, users_left_out_have_no_influence);
  tcase_add_test(t, the_best_epoch_is_kept);
  tcase_add_test(t, the_first_of_equal_epochs_is_kept);
  tcase_add_loop_test(t, divergence_takes_the_last_update_back, 0, 3);
  tcase_add_test(t, noise_is_right_on_average);
  tcase_add_test(t, noise_stays_where_it_says_nothing);
  tcase_add_test(t, bad_fits_are_refused);
  tcase_add_test(t, bad_models_are_refused);
  suite_add_tcase(suite, t);
}

int main(void) {
  Suite *suite = suite_create("episodes");
  add_parts(suite);
  add_training(suite);
  return run_suite(suite);
}
