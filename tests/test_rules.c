/* SPDX-License-Identifier: BSD-3-Clause */
/* What the inner loop of MELU_LAYERS may be told: what it adapts, at which rates, down which loss, or in closed form.
 * Losses, gradients and predictions against plain loops that change copies of what is adapted; options that make no
 * sense; threads, memory, training. */
#include <math.h>
#include <stdio.h>

#include "model/gradient.h"
#include "naive_layers.h"
#include "run_suite.h"
#include "support.h"
#include "world.h"

enum {
  N_USERS = 12,
  N_TASKS = 10,
  HEAD = MELU_ADAPT_HEAD,
  HIDDEN = MELU_ADAPT_HIDDEN,
  USER = MELU_ADAPT_USER,
  ITEMS = MELU_ADAPT_ITEMS
};

static const int is_double = sizeof(real) == sizeof(double);

/* `odd`: items with several fields of ids, some of them without an id, with one twice or with an unknown one. */
static const struct combination {
  unsigned adapt;
  melu_rates rates;
  melu_loss loss;
  melu_rule rule;
  int multi_step, first_order, learn_precision, odd;
} combinations[] = {
    {.adapt = HEAD},
    {.adapt = HIDDEN},
    {.adapt = USER},
    {.adapt = ITEMS},
    {.adapt = HEAD | HIDDEN, .multi_step = 1},
    {.adapt = HEAD | HIDDEN, .loss = MELU_HUBER, .odd = 1},
    {.adapt = HEAD | HIDDEN, .loss = MELU_PAIRWISE, .multi_step = 1, .first_order = 1},
    {.adapt = HEAD | HIDDEN, .rates = MELU_RATE_PER_TENSOR},
    {.adapt = HEAD | HIDDEN, .rates = MELU_RATE_PER_ENTRY, .multi_step = 1},
    {.adapt = HEAD | HIDDEN, .rates = MELU_RATE_PER_ENTRY, .first_order = 1},
    {.adapt = HIDDEN | USER, .rates = MELU_RATE_PER_TENSOR, .loss = MELU_ABSOLUTE},
    {.adapt = HEAD | USER, .rates = MELU_RATE_PER_ENTRY, .loss = MELU_LOGISTIC},
    {.adapt = ITEMS, .odd = 1},
    {.adapt = ITEMS, .rates = MELU_RATE_PER_TENSOR, .odd = 1, .first_order = 1},
    {.adapt = ITEMS | HEAD, .rates = MELU_RATE_PER_ENTRY, .loss = MELU_MIXED, .odd = 1},
    {.adapt = ITEMS | USER, .multi_step = 1, .loss = MELU_PAIRWISE, .odd = 1},
    {.adapt = 15, .rates = MELU_RATE_PER_ENTRY, .multi_step = 1, .odd = 1},
    {.adapt = 15, .rates = MELU_RATE_PER_TENSOR, .multi_step = 1, .first_order = 1},
    {.rule = MELU_CLOSED_FORM},
    {.rule = MELU_CLOSED_FORM, .learn_precision = 1, .odd = 1},
    {.rule = MELU_CLOSED_FORM, .learn_precision = 1, .loss = MELU_MIXED},
};

enum { N_COMBINATIONS = sizeof combinations / sizeof *combinations };

static melu_error err;

/* A world with a model of some combination; odd rates and precisions. */
struct problem {
  struct world w;
  const struct combination *c;
  struct naive_user users[N_TASKS];
  melu_batch *batch;
};

static void odd_data(struct world *w) {
  static const uint32_t tags[6] = {1, 4, 4, 0, 2, MELU_UNKNOWN};
  static const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 5, .width = 3},
      {.size = sizeof *fields, .name = "sizes", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = 2, .scale = 0.5},
      {.size = sizeof *fields, .name = "maker", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = 3, .width = 4},
      {.size = sizeof *fields, .name = "ages", .owner = MELU_USER, .kind = MELU_MANY, .n_values = 3, .width = 2},
      {.size = sizeof *fields, .name = "place", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = 9, .width = 2}};
  uint64_t random = 5;
  melu_dataset_free(w->data);
  melu_schema_free(w->schema);
  WORLD_TRY(melu_schema_new(&w->schema, w->ctx, &err));
  for (size_t i = 0; i < 5; i++) WORLD_TRY(melu_schema_add(w->schema, &fields[i], &err));
  WORLD_TRY(melu_dataset_new(&w->data, w->ctx, w->schema, &err));
  for (uint32_t i = 0; i < WORLD_ITEMS; i++) {
    const uint32_t maker = i % 4 < 3 ? i % 4 : MELU_UNKNOWN, place = i % 9;
    const float sizes[2] = {(float)i / 6, 1 - (float)i / 12};
    const struct melu_value values[4] = {{.ids = tags + i % 4, .n_ids = i % 4},
                                         {.numbers = sizes, .n_numbers = i % 5 ? 2 : 0},
                                         {.ids = &maker, .n_ids = i % 3 != 1},
                                         {.ids = &place, .n_ids = 1}};
    WORLD_TRY(melu_dataset_add_item(w->data, 100 + i, values, NULL, &err));
  }
  for (uint32_t u = 0; u < N_USERS; u++) {
    const struct melu_value ages = {.ids = tags + 3, .n_ids = u % 3};
    WORLD_TRY(melu_dataset_add_user(w->data, u, &ages, NULL, &err));
    for (uint32_t i = 0; i < 6 + u % 5; i++)
      WORLD_TRY(melu_dataset_add_rating(w->data, u, 100 + (5 * i + u) % WORLD_ITEMS,
                                        (float)(1 + world_random(&random) % 5), &err));
  }
  WORLD_TRY(melu_dataset_freeze(w->data, &err));
}

static melu_model *new_model(const struct world *w, const struct combination *c) {
  static const size_t hidden[2] = {8, 6};
  melu_model *model;
  const struct melu_model_options options = {.size = sizeof options,
                                             .seed = 7,
                                             .hidden = hidden,
                                             .n_hidden = 2,
                                             .inner_steps = 3,
                                             .inner_lr = 0.05,
                                             .first_order = c->first_order,
                                             .rule = c->rule,
                                             .adapt = c->adapt,
                                             .rates = c->rates,
                                             .loss = c->loss,
                                             .multi_step = c->multi_step,
                                             .learn_precision = c->learn_precision};
  WORLD_TRY(melu_model_new(&model, w->ctx, melu_dataset_schema(w->data), &options, &err));
  return model;
}

/* Learnt rates and precisions that are not all the same, and rows of unknown ids that are not zero. */
static void vary(melu_model *model) {
  uint64_t random = 9;
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    for (size_t k = 0; k < p->rows * p->cols; k++) {
      if (i >= model->n_tables + 2 * model->n_layers)
        p->data[k] *= (real)(0.5 + world_random(&random) % 100 / 100.0);
      else if (p->is_table && k >= (p->rows - 1) * p->cols)
        p->data[k] = (real)(world_random(&random) % 100 / 100.0);
    }
  }
  model->version++;
}

/* The first has no support row, the others all but two of their ratings. More tasks than lanes. */
static void make_tasks(struct problem *p) {
  WORLD_TRY(melu_batch_new(&p->batch, p->w.ctx, p->w.data, &err));
  for (uint32_t t = 0; t < N_TASKS; t++) {
    struct naive_user *u = &p->users[t];
    const uint32_t *items, user = t + 1;
    const float *ratings;
    uint32_t positions[LAYERS_ROWS];
    const size_t n = melu_dataset_ratings(p->w.data, user, &items, &ratings);
    ck_assert_uint_le(n, LAYERS_ROWS);
    u->n_support = t ? n - 2 : 0;
    u->n_query = n - u->n_support;
    for (uint32_t i = 0; i < n; i++) {
      positions[i] = (uint32_t)n - 1 - i;
      u->items[i] = items[n - 1 - i];
      u->ratings[i] = (double)ratings[n - 1 - i];
    }
    WORLD_TRY(melu_dataset_user_values(u->profile, p->w.data, user, &err));
    WORLD_TRY(melu_batch_add(p->batch, user, positions, u->n_support, positions + u->n_support, u->n_query, &err));
  }
}

static void open_problem(struct problem *p, size_t number, const struct melu_context_options *options) {
  *p = (struct problem){.c = &combinations[number]};
  world_open(&p->w, options, N_USERS);
  melu_model_free(p->w.model);
  if (p->c->odd) odd_data(&p->w);
  p->w.model = new_model(&p->w, p->c);
  vary(p->w.model);
  make_tasks(p);
}

static void close_problem(struct problem *p) {
  melu_batch_free(p->batch);
  world_close(&p->w);
}

static melu_gradient *gradient_of(const struct problem *p) {
  melu_gradient *g;
  WORLD_TRY(melu_gradient_new(&g, p->w.model, &err));
  WORLD_TRY(melu_meta_gradient(g, p->w.model, p->batch, &err));
  return g;
}

static void copy_model(struct naive_layers *net) {
  for (size_t i = 0; i < net->model->n_params; i++)
    for (size_t k = 0; k < param_size(net->model, i); k++) net->now.param[i][k] = (double)net->model->params[i].data[k];
}

/* --------------------------------------------------------------------------------------- losses and gradients */

START_TEST(losses_are_the_naive_ones) {
  struct problem p;
  struct naive_layers net;
  open_problem(&p, (size_t)_i, NULL);
  naive_open(&net, p.w.model, p.w.data);
  melu_gradient *g = gradient_of(&p);
  const double *losses;
  melu_gradient_loss(g, &losses);
  for (size_t t = 0; t < N_TASKS; t++) {
    copy_model(&net);
    const double error = test_relative_error(losses[t], naive_adapt(&net, &p.users[t]), 1e-2);
    ck_assert_msg(error < (is_double ? 1e-12 : 3e-5), "task %zu: off by %g", t, error);
  }
  melu_gradient_free(g);
  naive_close(&net);
  close_problem(&p);
}
END_TEST

/* The mean loss of the tasks with number k of parameter i moved by `by`. What is a constant to the outer loop was found
 * without that: the slopes of the first order, each task's in a net of its own, and a precision that is not learnt. */
static double moved_loss(struct naive_layers *nets, const struct problem *p, size_t i, size_t k, double by) {
  double sum = 0;
  for (size_t t = 0; t < N_TASKS; t++) {
    copy_model(&nets[t]);
    nets[t].now.param[i][k] += by;
    sum += naive_adapt(&nets[t], &p->users[t]);
  }
  return sum / N_TASKS;
}

static void check_parameter(struct naive_layers *nets, const struct problem *p, const melu_gradient *g, size_t i) {
  const struct melu__param *param = &p->w.model->params[i];
  const struct melu__gradient_part part = melu__gradient_part(g, i);
  const size_t n = param_size(p->w.model, i);
  const int is_constant = strcmp(param->name, "precision") == 0 && !p->c->learn_precision;
  double *got = test_memory(n, sizeof *got), *want = test_memory(n, sizeof *want);
  for (size_t r = 0; r < part.n; r++)
    for (size_t j = 0; j < param->cols; j++)
      got[(part.rows ? part.rows[r] : r) * param->cols + j] = (double)part.values[r * param->cols + j];
  for (size_t k = 0; k < n && !is_constant; k++)
    want[k] = (moved_loss(nets, p, i, k, 1e-5) - moved_loss(nets, p, i, k, -1e-5)) / 2e-5;
  const double error = worst_error(got, want, n, 1e-2);
  ck_assert_msg(error < (is_double ? 1e-6 : 3e-4), "gradient of %s: off by %g", param->name, error);
  free(got);
  free(want);
}

START_TEST(gradients_are_the_differences) {
  struct problem p;
  struct naive_layers nets[N_TASKS];
  open_problem(&p, (size_t)_i, NULL);
  melu_gradient *g = gradient_of(&p);
  for (size_t t = 0; t < N_TASKS; t++) {
    naive_open(&nets[t], p.w.model, p.w.data);
    copy_model(&nets[t]);
    naive_adapt(&nets[t], &p.users[t]);
    nets[t].keeps_slopes = p.c->first_order;
  }
  for (size_t i = 0; i < p.w.model->n_params; i++) check_parameter(nets, &p, g, i);
  for (size_t t = 0; t < N_TASKS; t++) naive_close(&nets[t]);
  melu_gradient_free(g);
  close_problem(&p);
}
END_TEST

static void compare(double *worst, double *largest, const real *a, const real *b, size_t n) {
  for (size_t k = 0; k < n; k++) {
    *worst = fmax(*worst, fabs((double)(a[k] - b[k])));
    *largest = fmax(*largest, fabs((double)b[k]));
  }
}

/* Of gradients that have met the same rows. */
static double difference(const melu_gradient *a, const melu_gradient *b) {
  double worst = 0, largest = 0;
  compare(&worst, &largest, a->dense, b->dense, a->n_dense);
  for (size_t i = 0; i < a->model->n_tables; i++) {
    ck_assert_uint_eq(a->tables[i].n, b->tables[i].n);
    compare(&worst, &largest, a->tables[i].values, b->tables[i].values, a->tables[i].n * a->tables[i].cols);
  }
  return worst / largest;
}

START_TEST(orders_differ) {
  struct problem p;
  open_problem(&p, (size_t)_i, NULL);
  melu_model *models[2];
  melu_gradient *g[2];
  melu_model_free(p.w.model);
  for (int order = 0; order < 2; order++) {
    struct combination c = *p.c;
    c.first_order = order;
    models[order] = p.w.model = new_model(&p.w, &c);
    g[order] = gradient_of(&p);
  }
  const double by = difference(g[0], g[1]);
  if (p.c->rule == MELU_CLOSED_FORM)
    ck_assert(by == 0); /* it has no inner gradient */
  else
    ck_assert_msg(by > 2e-4, "first and second order differ by %g only", by);
  melu_gradient_free(g[0]);
  melu_gradient_free(g[1]);
  melu_model_free(models[0]);
  close_problem(&p);
}
END_TEST

START_TEST(threads_do_not_matter) {
  struct problem p[2];
  melu_gradient *g[2];
  for (size_t i = 0; i < 2; i++) {
    const struct melu_context_options options = {.size = sizeof options, .n_threads = 1 + 2 * i};
    open_problem(&p[i], (size_t)_i, &options);
    g[i] = gradient_of(&p[i]);
  }
  ck_assert(difference(g[0], g[1]) == 0);
  for (size_t i = 0; i < 2; i++) {
    melu_gradient_free(g[i]);
    close_problem(&p[i]);
  }
}
END_TEST

/* -------------------------------------------------------------------------------------------------- serving */

struct served {
  melu_user *user;
  melu_workspace *ws;
};

static struct served open_served(const melu_model *model) {
  struct served s;
  WORLD_TRY(melu_user_new(&s.user, model, &err));
  WORLD_TRY(melu_workspace_new(&s.ws, model, LAYERS_ROWS, &err));
  return s;
}

static void close_served(struct served *s) {
  melu_user_free(s->user);
  melu_workspace_free(s->ws);
}

static melu_status adapt(struct served *s, const struct problem *p, size_t task) {
  const struct naive_user *u = &p->users[task];
  float ratings[LAYERS_ROWS];
  for (size_t i = 0; i < u->n_support; i++) ratings[i] = (float)u->ratings[i];
  return melu_adapt(s->user, s->ws, p->w.model, p->w.data, u->profile, u->items, ratings, u->n_support, &err);
}

static void predict_all(float scores[WORLD_ITEMS], struct served *s, const struct problem *p) {
  uint32_t all[WORLD_ITEMS];
  for (uint32_t i = 0; i < WORLD_ITEMS; i++) all[i] = i;
  WORLD_TRY(melu_predict(scores, s->ws, p->w.model, s->user, p->w.data, all, WORLD_ITEMS, &err));
}

/* The model as it is, where a profile counts, and what a catalogue says of an adapted user. */
static void check_catalog(struct served *s, const struct problem *p, const float scores[WORLD_ITEMS]) {
  melu_catalog *catalog;
  float ranked[WORLD_ITEMS];
  const melu_status status = melu_catalog_new(&catalog, p->w.model, p->w.data, NULL, 0, &err);
  if (p->w.model->options.adapt & ITEMS) {
    ck_assert_int_eq(status, MELU_EINVAL);
    ck_assert_msg(strstr(err.message, "adapts items: use melu_predict") != NULL, "%s", err.message);
    ck_assert_ptr_null(catalog);
    return;
  }
  ck_assert_int_eq(status, MELU_OK);
  WORLD_TRY(melu_catalog_score(ranked, s->ws, catalog, s->user, &err));
  for (size_t i = 0; i < WORLD_ITEMS; i++) ck_assert_double_eq_tol((double)ranked[i], (double)scores[i], 1e-5);
  melu_catalog_free(catalog);
}

/* Users one after another in the same memory, one with fewer rows after one with more. */
START_TEST(predictions_are_the_naive_ones) {
  struct problem p;
  struct naive_layers net;
  open_problem(&p, (size_t)_i, NULL);
  naive_open(&net, p.w.model, p.w.data);
  struct served s = open_served(p.w.model);
  for (size_t k = 0; k < 2 * N_TASKS; k++) {
    const size_t t = k < N_TASKS ? k : 2 * N_TASKS - 1 - k;
    float scores[WORLD_ITEMS];
    WORLD_TRY(adapt(&s, &p, t));
    predict_all(scores, &s, &p);
    copy_model(&net);
    naive_adapt(&net, &p.users[t]);
    for (uint32_t i = 0; i < WORLD_ITEMS; i++) {
      struct pass row;
      forward(&net, i, &row);
      const double error = test_relative_error((double)scores[i], row.y, 1);
      ck_assert_msg(error < (is_double ? 1e-6 : 2e-5), "task %zu, item %u: off by %g", t, (unsigned)i, error);
    }
    check_catalog(&s, &p, scores);
  }
  close_served(&s);
  naive_close(&net);
  close_problem(&p);
}
END_TEST

/* Every allocation of adapting fails once: the user stays who she was. */
START_TEST(adapting_without_memory) {
  struct test_heap heap = {.fail_at = 0};
  const struct melu_allocator allocator = test_allocator(&heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = &allocator};
  size_t n = 1;
  for (melu_status status = MELU_ENOMEM; status; n++) {
    struct problem p;
    float before[WORLD_ITEMS], after[WORLD_ITEMS];
    open_problem(&p, (size_t)_i, &options);
    struct served s = open_served(p.w.model);
    WORLD_TRY(adapt(&s, &p, 1));
    predict_all(before, &s, &p);
    close_served(&s);
    s = open_served(p.w.model);
    heap.fail_at = heap.made + n;
    status = adapt(&s, &p, 1);
    heap.fail_at = 0;
    ck_assert(status == MELU_OK || status == MELU_ENOMEM);
    if (status) WORLD_TRY(adapt(&s, &p, 1));
    heap.fail_at = heap.made + 1; /* the memory is there now */
    WORLD_TRY(adapt(&s, &p, 0));
    WORLD_TRY(adapt(&s, &p, 1));
    predict_all(after, &s, &p);
    ck_assert(memcmp(before, after, sizeof before) == 0);
    heap.fail_at = 0;
    close_served(&s);
    close_problem(&p);
    ck_assert_uint_eq(heap.live, 0);
  }
  ck_assert_uint_gt(n, 2);
}
END_TEST

START_TEST(diverging_leaves_the_user_alone) {
  struct problem p;
  float before[WORLD_ITEMS], after[WORLD_ITEMS];
  open_problem(&p, (size_t)_i, NULL);
  struct served s = open_served(p.w.model);
  struct melu__param *w = melu__model_find(p.w.model, "W1");
  real *kept = test_memory(w->rows * w->cols, sizeof *kept);
  memcpy(kept, w->data, w->rows * w->cols * sizeof *kept);
  WORLD_TRY(adapt(&s, &p, 1));
  predict_all(before, &s, &p);
  for (size_t k = 0; k < w->rows * w->cols; k++) w->data[k] *= (real)(is_double ? 1e308 : 3e38);
  p.w.model->version++;
  const int is_bounded = p.c->loss == MELU_ABSOLUTE || p.c->loss == MELU_HUBER; /* so are their slopes */
  const melu_status status = adapt(&s, &p, 2);
  ck_assert(status == MELU_EDIVERGED || (status == MELU_OK && is_bounded));
  memcpy(w->data, kept, w->rows * w->cols * sizeof *kept);
  p.w.model->version++;
  if (status == MELU_OK) WORLD_TRY(adapt(&s, &p, 1));
  predict_all(after, &s, &p);
  ck_assert(memcmp(before, after, sizeof before) == 0);
  free(kept);
  close_served(&s);
  close_problem(&p);
}
END_TEST

/* ------------------------------------------------------------------------------------------------- training */

static double loss_now(const struct problem *p) {
  melu_gradient *g = gradient_of(p);
  const double loss = melu_gradient_loss(g, NULL);
  melu_gradient_free(g);
  return loss;
}

START_TEST(training_moves_what_is_learnt) {
  struct problem p;
  const struct melu_fit_options options = {
      .size = sizeof options, .n_epochs = 20, .batch_tasks = 6, .n_query = 2, .min_ratings = 4};
  open_problem(&p, (size_t)_i, NULL);
  const melu_model *model = p.w.model;
  const size_t first = model->n_tables + 2 * model->n_layers;
  const double before = loss_now(&p);
  real values[LAYERS_PARAMS];
  for (size_t i = first; i < model->n_params; i++) values[i] = model->params[i].data[0];
  WORLD_TRY(melu_fit(p.w.model, p.w.data, &options, &err));
  ck_assert_msg(loss_now(&p) < before, "the loss was %g and is %g", before, loss_now(&p));
  for (size_t i = first; i < model->n_params; i++)
    ck_assert((values[i] != model->params[i].data[0]) == (p.c->rule != MELU_CLOSED_FORM || p.c->learn_precision));
  close_problem(&p);
}
END_TEST

/* -------------------------------------------------------------------------------------------------- options */

static const melu_model *model_of(const struct combination *c) {
  static struct problem p;
  if (p.batch) close_problem(&p);
  p = (struct problem){0};
  if (!c) return NULL;
  open_problem(&p, (size_t)(c - combinations), NULL);
  melu_model_free(p.w.model);
  p.w.model = new_model(&p.w, c);
  return p.w.model;
}

static void expect(const melu_model *model, const char *name, size_t rows, size_t cols, double value) {
  const struct melu__param *p = melu__model_find(model, name);
  if (rows == 0) {
    ck_assert_msg(p == NULL, "there is a parameter %s", name);
    return;
  }
  ck_assert_msg(p != NULL, "no parameter %s", name);
  ck_assert_uint_eq(p->rows, rows);
  ck_assert_uint_eq(p->cols, cols);
  for (size_t k = 0; k < rows * cols; k++) ck_assert_double_eq_tol((double)p->data[k], value, 1e-7);
}

/* Parameters that the options add, behind those of the layers. */
START_TEST(learnt_parameters) {
  const melu_model *m = model_of(&combinations[10]); /* HIDDEN | USER, PER_TENSOR */
  const char *const names[] = {"rate.W1", "rate.b1", "rate.W2", "rate.b2", "rate.user"};
  ck_assert_uint_eq(m->n_params, m->n_tables + 6 + 5);
  for (size_t i = 0; i < 5; i++) {
    ck_assert_str_eq(m->params[m->n_tables + 6 + i].name, names[i]);
    expect(m, names[i], 1, 1, 0.05);
  }
  m = model_of(&combinations[14]); /* ITEMS | HEAD, PER_ENTRY */
  ck_assert_uint_eq(m->n_params, m->n_tables + 6 + 3);
  expect(m, "rate.W3", 1, 6, 0.05);
  expect(m, "rate.b3", 1, 1, 0.05);
  expect(m, "rate.items", 1, 11, 0.05);
  m = model_of(&combinations[16]); /* all, PER_ENTRY */
  expect(m, "rate.W1", 8, 13, 0.05);
  expect(m, "rate.user", 1, 2, 0.05);
  m = model_of(&combinations[18]); /* closed form */
  ck_assert_uint_eq(m->n_params, m->n_tables + 6 + 1);
  expect(m, "precision", 1, 7, log(expm1(1)));
  expect(model_of(&combinations[0]), "precision", 0, 0, 0);
  model_of(NULL);
}
END_TEST

/* A schema of so many item fields of ids, and a field of numbers of an item. */
static melu_status try_schema(size_t n_ids, const struct melu_model_options *options) {
  struct world w;
  melu_model *model;
  WORLD_TRY(melu_context_new(&w.ctx, NULL, &err));
  WORLD_TRY(melu_schema_new(&w.schema, w.ctx, &err));
  for (size_t i = 0; i <= n_ids; i++) {
    char name[16];
    snprintf(name, sizeof name, "f%zu", i);
    const struct melu_field field = {.size = sizeof field,
                                     .name = name,
                                     .owner = MELU_ITEM,
                                     .kind = i ? MELU_ONE : MELU_NUMERIC,
                                     .n_values = i ? 2 : 0,
                                     .width = 1};
    WORLD_TRY(melu_schema_add(w.schema, &field, &err));
  }
  const melu_status status = melu_model_new(&model, w.ctx, w.schema, options, &err);
  melu_model_free(model);
  melu_schema_free(w.schema);
  melu_context_free(w.ctx);
  return status;
}

START_TEST(options_are_checked) {
  struct melu_model_options o = {.size = sizeof o, .adapt = ITEMS};
  ck_assert_int_eq(try_schema(8, &o), MELU_OK);
  ck_assert_int_eq(try_schema(9, &o), MELU_ELIMIT);
  ck_assert_msg(strstr(err.message, "9 item fields of ids") && strstr(err.message, "8"), "%s", err.message);
  ck_assert_int_eq(try_schema(0, &o), MELU_EINVAL);
  o.adapt = HEAD | USER;
  ck_assert_int_eq(try_schema(1, &o), MELU_EINVAL);
  ck_assert_msg(strstr(err.message, "user field") != NULL, "%s", err.message);
  o.adapt = HEAD | HIDDEN;
  ck_assert_int_eq(try_schema(9, &o), MELU_OK);
  o.adapt = 16;
  ck_assert_int_eq(try_schema(1, &o), MELU_EINVAL);
  o = (struct melu_model_options){.size = sizeof o, .learn_precision = 1};
  ck_assert_int_eq(try_schema(1, &o), MELU_EINVAL);
  ck_assert_msg(strstr(err.message, "learn_precision") != NULL, "%s", err.message);
  o.rule = MELU_CLOSED_FORM;
  ck_assert_int_eq(try_schema(1, &o), MELU_OK);
  o.adapt = HEAD | HIDDEN;
  ck_assert_int_eq(try_schema(1, &o), MELU_EINVAL);
  o = (struct melu_model_options){.size = sizeof o, .rule = MELU_CLOSED_FORM, .multi_step = 1};
  ck_assert_int_eq(try_schema(1, &o), MELU_EINVAL);
  o = (struct melu_model_options){.size = sizeof o, .rule = MELU_CLOSED_FORM, .rates = MELU_RATE_PER_TENSOR};
  ck_assert_int_eq(try_schema(1, &o), MELU_EINVAL);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("rules");
  TCase *loss = tcase_create("losses"), *serve = tcase_create("serving"), *options = tcase_create("options");
  tcase_set_timeout(loss, 120);
  tcase_set_timeout(serve, 120);
  tcase_add_loop_test(loss, losses_are_the_naive_ones, 0, N_COMBINATIONS);
  tcase_add_loop_test(loss, gradients_are_the_differences, 0, N_COMBINATIONS);
  tcase_add_loop_test(loss, orders_differ, 0, N_COMBINATIONS);
  tcase_add_loop_test(loss, threads_do_not_matter, 0, N_COMBINATIONS);
  tcase_add_loop_test(loss, training_moves_what_is_learnt, 0, N_COMBINATIONS);
  tcase_add_loop_test(serve, predictions_are_the_naive_ones, 0, N_COMBINATIONS);
  tcase_add_loop_test(serve, adapting_without_memory, 0, N_COMBINATIONS);
  tcase_add_loop_test(serve, diverging_leaves_the_user_alone, 0, N_COMBINATIONS);
  tcase_add_test(options, learnt_parameters);
  tcase_add_test(options, options_are_checked);
  suite_add_tcase(suite, loss);
  suite_add_tcase(suite, serve);
  suite_add_tcase(suite, options);
  return run_suite(suite);
}
