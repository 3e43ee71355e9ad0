/* SPDX-License-Identifier: BSD-3-Clause */
/* MELU_FACTORS against the equations of melu.h, computed by plain loops in long double: meta-gradients are its central
 * differences, and adapted users, scores and variances are its own. And what must not matter: the order of a support
 * set, what else is in a batch, how many items and tasks there are, threads, kernels, a refused allocation. */
#include <stdio.h>

#include "model/gradient.h"
#include "naive.h"
#include "naive_loss.h"
#include "run_suite.h"
#include "support.h"

enum { RANK = 3, WIDTH = RANK + 2, COLS = RANK + 1 + WIDTH, HIDDEN = 4, STEPS = 3, SIZES = 2 };
enum { N_ITEMS = 150, N_USERS = 140, FEW = 12, NAMELESS = 5, MOST_ROWS = N_ITEMS, MOST_PARAMS = 20 };

static const int is_double = sizeof(real) == sizeof(double);
static melu_error err;

#define TRY(call)                                                                        \
  do {                                                                                   \
    const melu_status status_ = (call);                                                  \
    ck_assert_msg(status_ == MELU_OK, "%s: %s", melu_status_name(status_), err.message); \
  } while (0)

/* ------------------------------------------------------------------------------------------------- settings */

struct setting_of {
  melu_loss loss;
  melu_rule rule;
  melu_rates rates;
  size_t n_steps, hidden;
  int history, learn_precision, multi_step, first_order, names;
  int bare; /* nothing is known of items but which they are, and nothing of users */
};

#define SOLVED .rule = MELU_CLOSED_FORM
#define STEPPED .rule = MELU_STEPS, .n_steps = STEPS
#define RICH .history = 1, .learn_precision = 1, .hidden = HIDDEN, .names = 1

static const struct setting_of settings[] = {
    {.loss = MELU_SQUARED, SOLVED, RICH},
    {.loss = MELU_ABSOLUTE, SOLVED, RICH},
    {.loss = MELU_HUBER, SOLVED, RICH},
    {.loss = MELU_MIXED, SOLVED, RICH},
    {.loss = MELU_LOGISTIC, SOLVED, RICH},
    {.loss = MELU_PAIRWISE, SOLVED, RICH},
    {.loss = MELU_SQUARED, STEPPED, RICH},
    {.loss = MELU_ABSOLUTE, STEPPED, RICH},
    {.loss = MELU_HUBER, STEPPED, RICH},
    {.loss = MELU_MIXED, STEPPED, RICH},
    {.loss = MELU_LOGISTIC, STEPPED, RICH},
    {.loss = MELU_PAIRWISE, STEPPED, RICH},
    {.loss = MELU_MIXED, SOLVED},
    {.loss = MELU_MIXED, SOLVED, .history = 1},
    {.loss = MELU_MIXED, SOLVED, .learn_precision = 1},
    {.loss = MELU_MIXED, SOLVED, .hidden = HIDDEN},
    {.loss = MELU_LOGISTIC, SOLVED},
    {.loss = MELU_SQUARED, STEPPED},
    {.loss = MELU_SQUARED, STEPPED, .history = 1},
    {.loss = MELU_LOGISTIC, STEPPED},
    {.loss = MELU_MIXED, STEPPED, RICH, .multi_step = 1},
    {.loss = MELU_PAIRWISE, STEPPED, .hidden = HIDDEN, .multi_step = 1},
    {.loss = MELU_LOGISTIC, STEPPED, RICH, .multi_step = 1, .rates = MELU_RATE_PER_ENTRY},
    {.loss = MELU_SQUARED, STEPPED, RICH, .rates = MELU_RATE_PER_TENSOR},
    {.loss = MELU_MIXED, STEPPED, .history = 1, .rates = MELU_RATE_PER_ENTRY},
    {.loss = MELU_SQUARED, STEPPED, RICH, .first_order = 1},
    {.loss = MELU_MIXED, STEPPED, RICH, .first_order = 1, .multi_step = 1, .rates = MELU_RATE_PER_ENTRY},
    {.loss = MELU_SQUARED, .rule = MELU_STEPS, .n_steps = MELU_NONE, RICH},
    {.loss = MELU_SQUARED, .rule = MELU_STEPS, .n_steps = MELU_NONE, .multi_step = 1},
};

enum { N_SETTINGS = sizeof settings / sizeof *settings, MIXED = 3, CLICKS = 4, STEPPING = 6 };

/* ---------------------------------------------------------------------------------------------------- world */

struct world {
  melu_context *ctx;
  melu_schema *schema;
  melu_dataset *data;
  melu_model *model;
  uint64_t random;
  int names; /* E.self names items */
};

static void add_fields(melu_schema *schema, size_t n_items, int bare) {
  const struct melu_field fields[] = {
      {.size = sizeof *fields, .name = "self", .owner = MELU_ITEM, .kind = MELU_ONE, .n_values = n_items},
      {.size = sizeof *fields, .name = "age", .owner = MELU_USER, .kind = MELU_NUMERIC, .shift = 30, .scale = 0.125},
      {.size = sizeof *fields, .name = "size", .owner = MELU_ITEM, .kind = MELU_NUMERIC, .width = SIZES, .shift = 0.5},
      {.size = sizeof *fields, .name = "tags", .owner = MELU_ITEM, .kind = MELU_MANY, .n_values = 4},
      {.size = sizeof *fields, .name = "job", .owner = MELU_USER, .kind = MELU_ONE, .n_values = 3},
  };
  for (size_t i = 0; i < (bare ? 1 : sizeof fields / sizeof *fields); i++)
    TRY(melu_schema_add(schema, &fields[i], &err));
}

/* Item 0 is nothing at all; others lack an id of their own that is known, numbers, or tags, one of which is unknown. */
static void add_item(struct world *w, uint32_t i) {
  const uint32_t self = i % 7 == 1 ? MELU_UNKNOWN : i, tags[3] = {i % 4, i / 4 % 4, MELU_UNKNOWN};
  const float size[SIZES] = {(float)(i % 8) / 8, (float)(i % 3)};
  const struct melu_value values[3] = {{.ids = &self, .n_ids = 1},
                                       {.numbers = size, .n_numbers = i % 5 == 2 ? 0 : SIZES},
                                       {.ids = tags, .n_ids = i % 4}};
  TRY(melu_dataset_add_item(w->data, i, i ? values : NULL, NULL, &err));
}

static void add_user(struct world *w, uint32_t u) {
  const uint32_t job = u % 5 == 2 ? MELU_UNKNOWN : u % 3;
  const float age = (float)(20 + u % 30);
  const struct melu_value values[2] = {{.numbers = &age, .n_numbers = u % 5 != 3}, {.ids = &job, .n_ids = u % 5 != 1}};
  TRY(melu_dataset_add_user(w->data, u, u % 5 == 4 ? NULL : values, NULL, &err));
}

/* The first users know few items, some of them twice; user 5 knows all, each once. */
static void add_ratings(struct world *w, uint32_t u, uint32_t n_items, int clicks) {
  const uint32_t special[] = {40, 20, 1, 2, 18, n_items}, n = u < 6 ? special[u] : 2 + u % 9;
  for (uint32_t k = 0; k < n; k++) {
    const uint32_t item = u == 5 ? k : random_below(&w->random, u < 5 && FEW < n_items ? FEW : n_items);
    const uint32_t rating = clicks ? random_below(&w->random, 2) : 1 + random_below(&w->random, 5);
    TRY(melu_dataset_add_rating(w->data, u, item, (float)rating, &err));
  }
}

static float first_value(struct world *w, const char *name, size_t k) {
  const int clicks = w->model->options.loss == MELU_LOGISTIC;
  if (strcmp(name, "scale") == 0) return clicks ? (float)k : k ? 1.25f : 3.25f;
  if (strcmp(name, "noise") == 0) return 0.75f;
  if (strcmp(name, "rate") == 0) return 0.1f + (float)k / 16;
  if (strcmp(name, "names") == 0) return k == 0 && w->names;
  if (strcmp(name, "E.self") == 0 && k / COLS % NAMELESS == 0) return 0;
  return (float)random_number(&w->random) / 4;
}

static void fill_model(struct world *w) {
  for (size_t i = 0; i < melu_model_n_params(w->model); i++) {
    struct melu_param p;
    TRY(melu_model_param(&p, w->model, i, &err));
    float *values = test_memory(p.rows * p.cols, sizeof *values);
    for (size_t k = 0; k < p.rows * p.cols; k++) values[k] = first_value(w, p.name, k);
    TRY(melu_model_write(w->model, p.name, 0, p.rows, values, &err));
    free(values);
  }
}

static melu_model *new_model(const struct world *w, const struct setting_of *s) {
  melu_model *model;
  const struct melu_model_options options = {.size = sizeof options,
                                             .preset = "best",
                                             .seed = 5,
                                             .hidden = &s->hidden,
                                             .n_hidden = s->hidden ? 1 : MELU_NONE,
                                             .rank = RANK,
                                             .loss = s->loss,
                                             .rule = s->rule,
                                             .rates = s->rates,
                                             .inner_steps = s->n_steps,
                                             .inner_lr = 0.25,
                                             .first_order = s->first_order,
                                             .multi_step = s->multi_step ? 1 : -1,
                                             .history = s->history ? 1 : -1,
                                             .learn_precision = s->learn_precision ? 1 : -1};
  TRY(melu_model_new(&model, w->ctx, melu_dataset_schema(w->data), &options, &err));
  return model;
}

static void open_world(struct world *w, const struct melu_context_options *options, const struct setting_of *s,
                       uint32_t n_items, uint32_t n_users) {
  *w = (struct world){.random = 1, .names = s->names};
  TRY(melu_context_new(&w->ctx, options, &err));
  TRY(melu_schema_new(&w->schema, w->ctx, &err));
  add_fields(w->schema, n_items, s->bare);
  TRY(melu_dataset_new(&w->data, w->ctx, w->schema, &err));
  for (uint32_t i = 0; i < n_items; i++) add_item(w, i);
  for (uint32_t u = 0; u < n_users; u++) add_user(w, u);
  for (uint32_t u = 0; u < n_users; u++) add_ratings(w, u, n_items, s->loss == MELU_LOGISTIC);
  TRY(melu_dataset_freeze(w->data, &err));
  w->model = new_model(w, s);
}

/* With random parameters. The names of some items say nothing, and so does the row of unknown ones. */
static struct world full_world(size_t setting, const struct melu_context_options *options) {
  struct world w;
  open_world(&w, options, &settings[setting], N_ITEMS, N_USERS);
  fill_model(&w);
  return w;
}

static void close_world(struct world *w) {
  melu_model_free(w->model);
  melu_dataset_free(w->data);
  melu_schema_free(w->schema);
  melu_context_free(w->ctx);
}

/* A task: the first ratings of a user, then those after them. */
struct task {
  uint32_t user;
  size_t n_support, n_query;
};

static const struct task tasks[] = {{0, 9, 9}, {0, 8, 1}, {1, 1, 8}, {2, 0, 1}, {3, 1, 1}, {4, 0, 3}, {5, 17, 2}};

enum { N_TASKS = sizeof tasks / sizeof *tasks };

static void add_task(melu_batch *batch, struct task t, int backward) {
  uint32_t positions[2 * MOST_ROWS];
  for (uint32_t k = 0; k < t.n_support + t.n_query; k++) positions[k] = k;
  for (uint32_t k = 0; backward && k < t.n_support; k++) positions[k] = (uint32_t)t.n_support - 1 - k;
  TRY(melu_batch_add(batch, t.user, positions, t.n_support, positions + t.n_support, t.n_query, &err));
}

static melu_batch *new_batch(const struct world *w, const struct task *t, size_t n, int backward) {
  melu_batch *batch;
  TRY(melu_batch_new(&batch, w->ctx, w->data, &err));
  for (size_t i = 0; i < n; i++) add_task(batch, t[i], backward);
  return batch;
}

static melu_gradient *gradient_of(const struct world *w, const struct task *t, size_t n, int backward) {
  melu_gradient *g;
  melu_batch *batch = new_batch(w, t, n, backward);
  TRY(melu_gradient_new(&g, w->model, &err));
  TRY(melu_meta_gradient(g, w->model, batch, &err));
  melu_batch_free(batch);
  return g;
}

/* The whole gradient of a parameter, zeros included; to be freed. */
static double *dense_gradient(const melu_gradient *g, size_t param) {
  const struct melu__param *p = &g->model->params[param];
  const struct melu__gradient_part part = melu__gradient_part(g, param);
  double *all = test_memory(p->rows * p->cols, sizeof *all);
  for (size_t k = 0; k < part.n * p->cols; k++)
    all[(part.rows ? part.rows[k / p->cols] : k / p->cols) * p->cols + k % p->cols] = (double)part.values[k];
  return all;
}

static void check_same_gradients(const melu_gradient *a, const melu_gradient *b, double tolerance, const char *what) {
  for (size_t i = 0; i < a->model->n_params; i++) {
    const struct melu__param *p = &a->model->params[i];
    double *x = dense_gradient(a, i), *y = dense_gradient(b, i);
    const double error = worst_error(x, y, p->rows * p->cols, 1e-2);
    ck_assert_msg(error <= tolerance, "%s: the gradient of %s is off by %g", what, p->name, error);
    free(x);
    free(y);
  }
}

/* ----------------------------------------------------------------------------------------- the naive machine */

struct naive {
  const struct world *w;
  const struct melu_model_options *o;
  wide *p[MOST_PARAMS];
  /* First order: the steps that were taken, to be taken again as they are. */
  wide taken[N_TASKS][STEPS][WIDTH];
  size_t task;
  int again;
};

struct naive_item {
  wide f[WIDTH], o, y[WIDTH]; /* f = [phi, 1, is new] */
};

struct person {
  struct naive_item rows[MOST_ROWS];
  wide r[MOST_ROWS];
  size_t n;
  wide p[WIDTH], m[WIDTH], w[WIDTH], gram[WIDTH][WIDTH];
};

static struct naive *new_naive(const struct world *w) {
  struct naive *n = test_memory(1, sizeof *n);
  n->w = w;
  n->o = &w->model->options;
  ck_assert_uint_le(w->model->n_params, MOST_PARAMS);
  for (size_t i = 0; i < w->model->n_params; i++) {
    const struct melu__param *p = &w->model->params[i];
    n->p[i] = test_memory(p->rows * p->cols, sizeof **n->p);
    for (size_t k = 0; k < p->rows * p->cols; k++) n->p[i][k] = p->data[k];
  }
  return n;
}

static void free_naive(struct naive *n) {
  for (size_t i = 0; i < MOST_PARAMS; i++) free(n->p[i]);
  free(n);
}

static const wide *param(const struct naive *n, const char *name) {
  for (size_t i = 0; i < n->w->model->n_params; i++)
    if (strcmp(n->w->model->params[i].name, name) == 0) return n->p[i];
  ck_abort_msg("the model has no %s", name);
  return NULL;
}

static wide softplus(wide x) {
  return log1pl(expl(x));
}

static wide sigmoid(wide x) {
  return 1 / (1 + expl(-x));
}

static wide dot(const wide *a, const wide *b, size_t n) {
  wide sum = 0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static void add_scaled(wide *to, const wide *from, wide by, size_t n) {
  for (size_t i = 0; i < n; i++) to[i] += by * from[i];
}

/* Rows of a table, over the root of their count; `n_values` is the row of an unknown id. */
static void add_ids(wide *sum, const wide *table, size_t n_values, size_t cols, struct melu_value v) {
  for (size_t k = 0; k < v.n_ids; k++)
    add_scaled(sum, table + (v.ids[k] == MELU_UNKNOWN ? n_values : v.ids[k]) * cols, 1 / sqrtl((wide)v.n_ids), cols);
}

static void add_numbers(wide *sum, const wide *weights, size_t cols, struct melu_value v, wide shift, wide scale) {
  for (size_t k = 0; k < v.n_numbers; k++) add_scaled(sum, weights + k * cols, (v.numbers[k] - shift) * scale, cols);
}

static void add_hidden(const struct naive *n, wide *phi) {
  const wide *h1 = param(n, "H1"), *bias = param(n, "h1"), *h2 = param(n, "H2");
  wide h[HIDDEN];
  for (size_t k = 0; k < HIDDEN; k++) {
    h[k] = bias[k] + 5 * dot(phi, h1 + k * RANK, RANK);
    if (h[k] < 0) h[k] = 0;
  }
  for (size_t j = 0; j < RANK; j++) phi[j] += dot(h, h2 + j * HIDDEN, HIDDEN);
}

/* An item is new if its name is missing, unknown, or says nothing. Names are looked at as the model has them. */
static int is_new(const struct naive *n, struct melu_value self) {
  float row[COLS];
  if (*param(n, "names") == 0) return 0;
  if (self.n_ids == 0 || self.ids[0] == MELU_UNKNOWN) return 1;
  TRY(melu_model_read(row, n->w->model, "E.self", self.ids[0], 1, &err));
  for (size_t j = 0; j < COLS; j++)
    if (row[j] != 0) return 0;
  return 1;
}

static struct naive_item encode(const struct naive *n, uint32_t item) {
  struct melu_value v[3];
  struct naive_item out;
  wide sum[COLS] = {0};
  TRY(melu_dataset_item_values(v, n->w->data, item, &err));
  add_ids(sum, param(n, "E.self"), melu_dataset_n_items(n->w->data), COLS, v[0]);
  add_numbers(sum, param(n, "N.item"), COLS, v[1], 0.5L, 1);
  add_ids(sum, param(n, "E.tags"), 4, COLS, v[2]);
  if (n->o->n_hidden) add_hidden(n, sum);
  memcpy(out.f, sum, RANK * sizeof *sum);
  out.f[RANK] = 1;
  out.f[RANK + 1] = is_new(n, v[0]);
  for (size_t j = 0; j < RANK; j++) out.f[j] *= 1 + out.f[RANK + 1] * param(n, "new")[0];
  out.o = sum[RANK] * (1 + out.f[RANK + 1] * param(n, "new")[1]);
  memcpy(out.y, sum + RANK + 1, sizeof out.y);
  return out;
}

static wide rating(const struct naive *n, float given) {
  const wide *scale = param(n, "scale");
  return (given - scale[0]) / scale[1];
}

/* (n + softplus(shrink)) (m - m_u) */
static void add_history(const struct naive *n, struct person *p, wide *sum) {
  const wide *pool = param(n, "pool"), *pool_rated = param(n, "pool_rated");
  for (size_t i = 0; i < p->n; i++) {
    const struct naive_item *x = &p->rows[i];
    wide all[WIDTH + 1];
    memcpy(all, x->f, sizeof x->f);
    all[WIDTH] = x->o;
    add_scaled(sum, x->y, 1, WIDTH);
    for (size_t k = 0; k < WIDTH + 1; k++) {
      add_scaled(sum, pool + k * WIDTH, all[k], WIDTH);
      add_scaled(sum, pool_rated + k * WIDTH, all[k] * (p->r[i] - x->o), WIDTH);
    }
  }
}

static void set_prior(const struct naive *n, struct person *p, const struct melu_value *profile) {
  wide sum[WIDTH] = {0};
  memcpy(p->m, param(n, "prior"), sizeof p->m);
  if (profile) {
    add_numbers(p->m, param(n, "N.user"), WIDTH, profile[0], 30, 0.125L);
    add_ids(p->m, param(n, "E.job"), 3, WIDTH, profile[1]);
  }
  for (size_t j = 0; j < WIDTH; j++) p->p[j] = softplus(param(n, "precision")[j]);
  if (!n->o->history || p->n == 0) return;
  add_history(n, p, sum);
  add_scaled(p->m, sum, 1 / ((wide)p->n + softplus(*param(n, "shrink"))), WIDTH);
}

/* Gauss's elimination, of the gram matrix and b. */
static void solve(const struct person *p, wide *b) {
  wide a[WIDTH][WIDTH];
  memcpy(a, p->gram, sizeof a);
  for (size_t c = 0; c < WIDTH; c++)
    for (size_t i = 0; i < WIDTH; i++) {
      const wide times = a[i][c] / a[c][c];
      if (i == c) continue;
      for (size_t j = 0; j < WIDTH; j++) a[i][j] -= times * a[c][j];
      b[i] -= times * b[c];
    }
  for (size_t c = 0; c < WIDTH; c++) b[c] /= a[c][c];
}

/* F' times what the ratings are more than the scores. */
static void pull(const struct naive *n, const struct person *p, wide *out) {
  for (size_t j = 0; j < WIDTH; j++) out[j] = 0;
  for (size_t i = 0; i < p->n; i++) {
    const wide z = p->rows[i].o + dot(p->rows[i].f, p->w, WIDTH);
    add_scaled(out, p->rows[i].f, p->r[i] - (n->o->loss == MELU_LOGISTIC ? sigmoid(z) : z), WIDTH);
  }
}

static void adapt_at_once(const struct naive *n, struct person *p) {
  const wide curvature = n->o->loss == MELU_LOGISTIC ? 4 : 1;
  wide b[WIDTH];
  pull(n, p, b);
  for (size_t j = 0; j < WIDTH; j++) b[j] *= curvature;
  solve(p, b);
  add_scaled(p->w, b, 1, WIDTH);
}

static void step(struct naive *n, struct person *p, size_t k) {
  wide g[WIDTH];
  pull(n, p, g);
  for (size_t j = 0; j < WIDTH; j++) g[j] = (g[j] - p->p[j] * (p->w[j] - p->m[j])) / (1 + (wide)p->n / 4);
  if (n->o->first_order && n->again) memcpy(g, n->taken[n->task][k], sizeof g);
  memcpy(n->taken[n->task][k], g, sizeof g);
  for (size_t j = 0; j < WIDTH; j++) {
    const size_t at = n->o->rates == MELU_RATE_PER_ENTRY ? j : 0;
    p->w[j] += (n->o->rates == MELU_RATE_FIXED ? 0.25L : param(n, "rate")[at]) * g[j];
  }
}

/* A person with these ratings, not adapted to them yet. */
static void meet(const struct naive *n, struct person *p, const struct melu_value *profile, const uint32_t *items,
                 const float *ratings, size_t n_ratings) {
  const wide curvature = n->o->loss == MELU_LOGISTIC ? 4 : 1;
  p->n = n_ratings;
  for (size_t i = 0; i < n_ratings; i++) {
    p->rows[i] = encode(n, items[i]);
    p->r[i] = rating(n, ratings[i]);
  }
  set_prior(n, p, profile);
  memcpy(p->w, p->m, sizeof p->w);
  for (size_t a = 0; a < WIDTH; a++)
    for (size_t b = 0; b < WIDTH; b++) {
      p->gram[a][b] = a == b ? curvature * p->p[a] : 0;
      for (size_t i = 0; i < n_ratings; i++) p->gram[a][b] += p->rows[i].f[a] * p->rows[i].f[b];
    }
}

static void adapt(struct naive *n, struct person *p) {
  if (p->n == 0) return;
  if (n->o->rule == MELU_CLOSED_FORM) adapt_at_once(n, p);
  for (size_t k = 0; n->o->rule == MELU_STEPS && k < n->o->inner_steps; k++) step(n, p, k);
}

/* ---------------------------------------------------------------------------------------- its loss of a batch */

static wide loss_of_pairs(const wide *z, const wide *r, size_t n) {
  wide sum = 0, pairs = 0;
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < n; j++)
      if (r[i] > r[j]) {
        sum += softplus(z[j] - z[i]);
        pairs++;
      }
  return pairs > 0 ? (wide)n * sum / pairs : 0;
}

/* The sum over query rows. */
static wide query_loss(const struct naive *n, const struct person *p, const uint32_t *items, const float *ratings,
                       size_t n_query) {
  wide z[MOST_ROWS], r[MOST_ROWS], sum = 0;
  for (size_t i = 0; i < n_query; i++) {
    const struct naive_item x = encode(n, items[i]);
    z[i] = x.o + dot(x.f, p->w, WIDTH);
    r[i] = rating(n, ratings[i]);
    sum += loss_of_row(n->o->loss, z[i], r[i]);
  }
  return n->o->loss == MELU_PAIRWISE ? loss_of_pairs(z, r, n_query) : sum;
}

static wide task_loss(struct naive *n, struct task t) {
  static struct person p;
  struct melu_value profile[2];
  const uint32_t *items;
  const float *ratings;
  wide sum = 0;
  melu_dataset_ratings(n->w->data, t.user, &items, &ratings);
  TRY(melu_dataset_user_values(profile, n->w->data, t.user, &err));
  meet(n, &p, profile, items, ratings, t.n_support);
  items += t.n_support;
  ratings += t.n_support;
  if (!n->o->multi_step || t.n_support == 0 || n->o->inner_steps == 0) {
    adapt(n, &p);
    return query_loss(n, &p, items, ratings, t.n_query);
  }
  for (size_t k = 0; k < n->o->inner_steps; k++) {
    step(n, &p, k);
    sum += query_loss(n, &p, items, ratings, t.n_query);
  }
  return sum / (wide)n->o->inner_steps;
}

/* All query rows of the batch weigh the same. */
static wide batch_loss(struct naive *n) {
  wide sum = 0;
  size_t n_query = 0;
  for (n->task = 0; n->task < N_TASKS; n->task++) {
    sum += task_loss(n, tasks[n->task]);
    n_query += tasks[n->task].n_query;
  }
  return sum / (wide)n_query;
}

/* ----------------------------------------------------------------------------------------------- gradients */

/* A mean over pairs has one part in a million more of them. */
static double tolerance_of(const struct naive *n, double of_float, double of_double) {
  return n->o->loss == MELU_PAIRWISE ? fmax(3e-6, is_double ? of_double : of_float) : is_double ? of_double : of_float;
}

/* The loss does not depend on them, or they are not to move. */
static int is_fixed(const struct naive *n, const char *name, size_t col) {
  if (strcmp(name, "precision") == 0) return !n->o->learn_precision && col < RANK;
  return strcmp(name, "scale") == 0 || strcmp(name, "noise") == 0 || strcmp(name, "names") == 0;
}

static double difference(struct naive *n, wide *x) {
  const wide at = *x, h = 1e-6L;
  *x = at + h;
  const wide above = batch_loss(n);
  *x = at - h;
  const wide below = batch_loss(n);
  *x = at;
  return (double)((above - below) / (2 * h));
}

static void check_gradient(struct naive *n, const melu_gradient *g, size_t i) {
  const struct melu__param *p = &n->w->model->params[i];
  const struct melu__gradient_part part = melu__gradient_part(g, i);
  double *got = test_memory(part.n * p->cols, sizeof *got), *expected = test_memory(part.n * p->cols, sizeof *expected);
  for (size_t k = 0; k < part.n * p->cols; k++) {
    const size_t row = part.rows ? part.rows[k / p->cols] : k / p->cols;
    got[k] = (double)part.values[k];
    if (!is_fixed(n, p->name, k % p->cols))
      expected[k] = difference(n, &n->p[i][row * p->cols + k % p->cols]);
    else
      ck_assert_msg(got[k] == 0, "%s: number %zu is not to move, its gradient is %g", p->name, k, got[k]);
  }
  const double error = worst_error(got, expected, part.n * p->cols, 1e-2);
  ck_assert_msg(error <= tolerance_of(n, 3e-4, 1e-9), "the gradient of %s is off by %g", p->name, error);
  free(got);
  free(expected);
}

START_TEST(gradient_is_the_differences) {
  struct world w = full_world((size_t)_i, NULL);
  struct naive *n = new_naive(&w);
  melu_gradient *g = gradient_of(&w, tasks, N_TASKS, 0);
  const double loss = (double)batch_loss(n);
  ck_assert_double_eq_tol(melu_gradient_loss(g, NULL), loss, tolerance_of(n, 1e-5, 1e-13) * fabs(loss));
  n->again = 1;
  for (size_t i = 0; i < w.model->n_params; i++) check_gradient(n, g, i);
  melu_gradient_free(g);
  free_naive(n);
  close_world(&w);
}
END_TEST

/* The rows that the batch's items and users have, and no others. */
START_TEST(rows_of_the_batch) {
  struct world w = full_world(MIXED, NULL);
  melu_gradient *g = gradient_of(&w, tasks, N_TASKS, 0);
  unsigned char met[3][N_ITEMS + 1] = {{0}};
  static const char *const names[3] = {"E.self", "E.tags", "E.job"};
  static const size_t last[3] = {N_ITEMS, 4, 3};
  for (size_t t = 0; t < N_TASKS; t++) {
    const uint32_t *items;
    struct melu_value v[3][3];
    melu_dataset_ratings(w.data, tasks[t].user, &items, NULL);
    for (size_t k = 0; k < tasks[t].n_support + tasks[t].n_query; k++) {
      TRY(melu_dataset_item_values(v[0], w.data, items[k], &err));
      TRY(melu_dataset_user_values(v[1], w.data, tasks[t].user, &err));
      const struct melu_value ids[3] = {v[0][0], v[0][2], v[1][1]};
      for (size_t f = 0; f < 3; f++)
        for (size_t j = 0; j < ids[f].n_ids; j++) met[f][ids[f].ids[j] == MELU_UNKNOWN ? last[f] : ids[f].ids[j]] = 1;
    }
  }
  for (size_t f = 0; f < 3; f++) {
    uint32_t rows[N_ITEMS + 1], n_met = 0;
    float values[(N_ITEMS + 1) * COLS];
    const size_t n = melu_gradient_n_rows(g, names[f]);
    TRY(melu_gradient_read_rows(rows, values, g, names[f], &err));
    for (uint32_t r = 0; r <= last[f]; r++)
      if (met[f][r]) ck_assert(n_met < n && rows[n_met++] == r);
    ck_assert_uint_eq(n, n_met);
  }
  melu_gradient_free(g);
  close_world(&w);
}
END_TEST

/* Each item is encoded once, however often it comes: no gradient depends on what else is in the batch. */
START_TEST(a_batch_is_the_sum_of_its_tasks) {
  enum { MANY = N_USERS };
  struct world w = full_world((size_t)_i, NULL);
  struct task many[MANY];
  const double *losses;
  double n_query = 0, *sums[MOST_PARAMS];
  for (uint32_t u = 0; u < MANY; u++) {
    const size_t n = melu_dataset_ratings(w.data, u, NULL, NULL);
    many[u] = (struct task){u, (n - 1) / 2, n - (n - 1) / 2};
    n_query += (double)many[u].n_query;
  }
  melu_gradient *whole = gradient_of(&w, many, MANY, 0);
  melu_gradient_loss(whole, &losses);
  for (size_t i = 0; i < w.model->n_params; i++)
    sums[i] = test_memory(w.model->params[i].rows * w.model->params[i].cols, sizeof **sums);
  for (size_t t = 0; t < MANY; t++) {
    const double weight = (double)many[t].n_query / n_query;
    melu_gradient *alone = gradient_of(&w, &many[t], 1, 0);
    const double loss = melu_gradient_loss(alone, NULL) * weight * MANY;
    ck_assert_msg(test_relative_error(losses[t], loss, 1e-3) < (is_double ? 1e-12 : 1e-5),
                  "task %zu: loss %g, alone %g", t, losses[t], loss);
    for (size_t i = 0; i < w.model->n_params; i++) {
      double *g = dense_gradient(alone, i);
      for (size_t k = 0; k < w.model->params[i].rows * w.model->params[i].cols; k++) sums[i][k] += weight * g[k];
      free(g);
    }
    melu_gradient_free(alone);
  }
  for (size_t i = 0; i < w.model->n_params; i++) {
    double *g = dense_gradient(whole, i);
    const double error = worst_error(g, sums[i], w.model->params[i].rows * w.model->params[i].cols, 1e-2);
    ck_assert_msg(error < (is_double ? 1e-11 : 1e-4), "the gradient of %s is off by %g", w.model->params[i].name,
                  error);
    free(g);
    free(sums[i]);
  }
  melu_gradient_free(whole);
  close_world(&w);
}
END_TEST

/* Items and users go through the encoders in blocks: from one of them to more than fill one. */
START_TEST(any_number_of_items) {
  struct world w = full_world(MIXED, NULL);
  struct naive *n = new_naive(&w);
  for (size_t n_items = 1; n_items <= N_ITEMS; n_items++) {
    const struct task t = {5, 0, n_items};
    melu_gradient *g = gradient_of(&w, &t, 1, 0);
    const double loss = (double)task_loss(n, t) / (double)n_items;
    ck_assert_msg(test_relative_error(melu_gradient_loss(g, NULL), loss, 0) < 1e-5, "%zu items", n_items);
    ck_assert_uint_le(melu_gradient_n_rows(g, "E.self"), n_items);
    melu_gradient_free(g);
  }
  free_naive(n);
  close_world(&w);
}
END_TEST

START_TEST(any_number_of_tasks) {
  struct world w = full_world(MIXED, NULL);
  struct naive *n = new_naive(&w);
  struct task many[N_USERS];
  double sum = 0;
  for (uint32_t i = 0; i < N_USERS; i++) {
    many[i] = (struct task){i, 0, 1};
    melu_gradient *g = gradient_of(&w, many, i + 1, 0);
    sum += (double)task_loss(n, many[i]);
    ck_assert_msg(test_relative_error(melu_gradient_loss(g, NULL), sum / (i + 1), 0) < 1e-5, "%u tasks", i + 1);
    melu_gradient_free(g);
  }
  free_naive(n);
  close_world(&w);
}
END_TEST

/* Makes a model one of items that are known by name alone, and gives its parameters to another that knows no more. */
static void forget_fields(melu_model *model, melu_model *bare) {
  static const char *const gone[] = {"E.tags", "E.job", "N.item", "N.user"};
  for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
    const struct melu__param *p = melu__model_find(model, gone[i]);
    ck_assert(p && !melu__model_find(bare, gone[i]));
    memset(p->data, 0, p->rows * p->cols * sizeof *p->data);
  }
  for (size_t i = 0; i < bare->n_params; i++) {
    const struct melu__param *p = &bare->params[i];
    memcpy(p->data, melu__model_find(model, p->name)->data, p->rows * p->cols * sizeof *p->data);
  }
  model->version++;
  bare->version++;
}

START_TEST(fields_that_are_not_there) {
  struct setting_of of = settings[_i];
  struct world w = full_world((size_t)_i, NULL), bare;
  of.bare = 1;
  open_world(&bare, NULL, &of, N_ITEMS, N_USERS);
  forget_fields(w.model, bare.model);
  melu_gradient *g = gradient_of(&w, tasks, N_TASKS, 0), *h = gradient_of(&bare, tasks, N_TASKS, 0);
  const double loss = melu_gradient_loss(g, NULL);
  ck_assert_double_eq_tol(melu_gradient_loss(h, NULL), loss, is_double ? 1e-13 : 1e-5);
  for (size_t i = 0; i < bare.model->n_params; i++) {
    const struct melu__param *p = &bare.model->params[i];
    double *x = dense_gradient(h, i),
           *y = dense_gradient(g, (size_t)(melu__model_find(w.model, p->name) - w.model->params));
    const double error = worst_error(x, y, p->rows * p->cols, 1e-2);
    ck_assert_msg(error <= (is_double ? 1e-12 : 2e-5), "the gradient of %s is off by %g", p->name, error);
    free(x);
    free(y);
  }
  melu_gradient_free(g);
  melu_gradient_free(h);
  close_world(&bare);
  close_world(&w);
}
END_TEST

START_TEST(order_of_the_support_set) {
  struct world w = full_world((size_t)_i, NULL);
  melu_gradient *forward = gradient_of(&w, tasks, N_TASKS, 0), *backward = gradient_of(&w, tasks, N_TASKS, 1);
  ck_assert_double_eq_tol(melu_gradient_loss(forward, NULL), melu_gradient_loss(backward, NULL),
                          is_double ? 1e-13 : 1e-5);
  check_same_gradients(backward, forward, is_double ? 1e-12 : 2e-5, "backward");
  melu_gradient_free(forward);
  melu_gradient_free(backward);
  close_world(&w);
}
END_TEST

/* --------------------------------------------------------------------------------------------------- serving */

struct serving {
  struct world w;
  struct naive *n;
  struct person *p;
  melu_user *user;
  melu_workspace *ws;
  uint32_t all[N_ITEMS];
  float scores[N_ITEMS];
};

enum { MOST_SUPPORT = 40 };

static void open_serving(struct serving *s, size_t setting) {
  s->w = full_world(setting, NULL);
  s->n = new_naive(&s->w);
  s->p = test_memory(1, sizeof *s->p);
  TRY(melu_user_new(&s->user, s->w.model, &err));
  TRY(melu_workspace_new(&s->ws, s->w.model, MOST_SUPPORT, &err));
  for (uint32_t i = 0; i < N_ITEMS; i++) s->all[i] = i;
}

static void close_serving(struct serving *s) {
  melu_workspace_free(s->ws);
  melu_user_free(s->user);
  free(s->p);
  free_naive(s->n);
  close_world(&s->w);
}

/* Adapts both to the first n ratings of user 0, with the profile of some user, or none. */
static void adapt_both(struct serving *s, uint32_t profile_of, size_t n) {
  struct melu_value profile[2];
  const uint32_t *items;
  const float *ratings;
  const int has_profile = profile_of < N_USERS;
  melu_dataset_ratings(s->w.data, 0, &items, &ratings);
  if (has_profile) TRY(melu_dataset_user_values(profile, s->w.data, profile_of, &err));
  TRY(melu_adapt(s->user, s->ws, s->w.model, s->w.data, has_profile ? profile : NULL, n ? items : NULL,
                 n ? ratings : NULL, n, &err));
  meet(s->n, s->p, has_profile ? profile : NULL, items, ratings, n);
  adapt(s->n, s->p);
}

static double naive_score(const struct serving *s, uint32_t item) {
  const wide *scale = param(s->n, "scale");
  const struct naive_item x = encode(s->n, item);
  return (double)(scale[0] + scale[1] * (x.o + dot(x.f, s->p->w, WIDTH)));
}

static double naive_variance(const struct serving *s, uint32_t item) {
  const struct naive_item x = encode(s->n, item);
  const wide spread = param(s->n, "scale")[1];
  wide b[WIDTH];
  memcpy(b, x.f, sizeof b);
  solve(s->p, b);
  if (s->n->o->loss == MELU_LOGISTIC) return (double)(4 * dot(x.f, b, WIDTH));
  const wide unknown = 1 + dot(x.f, b, WIDTH) + x.f[RANK + 1] * param(s->n, "new")[2];
  return (double)(spread * spread * *param(s->n, "noise") * unknown);
}

static void check_scores(struct serving *s, const char *what, double (*expected)(const struct serving *, uint32_t)) {
  for (uint32_t i = 0; i < N_ITEMS; i++) {
    const double error = test_relative_error((double)s->scores[i], expected(s, i), 1);
    ck_assert_msg(error < (is_double ? 3e-7 : 1e-5), "%s of item %u after %zu ratings: off by %g", what, i, s->p->n,
                  error);
  }
}

static void check_person(struct serving *s) {
  TRY(melu_predict(s->scores, s->ws, s->w.model, s->user, s->w.data, s->all, N_ITEMS, &err));
  check_scores(s, "score", naive_score);
}

static const size_t support_sizes[] = {0, 1, 7, 8, 9, 32, 33, MOST_SUPPORT};

enum { N_SIZES = sizeof support_sizes / sizeof *support_sizes, NOBODY = N_USERS };

START_TEST(users_are_as_the_equations_say) {
  static const uint32_t profiles[] = {0, 1, 2, 3, 4, NOBODY};
  struct serving s;
  open_serving(&s, (size_t)_i);
  meet(s.n, s.p, NULL, NULL, NULL, 0);
  check_person(&s); /* of whom nothing is known */
  for (size_t k = 0; k < N_SIZES; k++)
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++) {
      adapt_both(&s, profiles[i], support_sizes[k]);
      check_person(&s);
    }
  close_serving(&s);
}
END_TEST

/* Also if ratings of items with unknown names have taught what those are like. */
START_TEST(unknown_names_are_new) {
  struct serving s;
  float row[COLS];
  open_serving(&s, MIXED);
  for (size_t j = 0; j < COLS; j++) row[j] = (float)(j + 1) / 8;
  TRY(melu_model_write(s.w.model, "E.self", N_ITEMS, 1, row, &err));
  free_naive(s.n);
  s.n = new_naive(&s.w);
  adapt_both(&s, 0, 9);
  check_person(&s);
  close_serving(&s);
}
END_TEST

static void check_variances(size_t setting) {
  struct serving s;
  open_serving(&s, setting);
  meet(s.n, s.p, NULL, NULL, NULL, 0);
  for (size_t k = 0; k <= N_SIZES; k++) {
    if (k > 0) adapt_both(&s, 0, support_sizes[k - 1]);
    TRY(melu_predict_variance(s.scores, s.ws, s.w.model, s.user, s.w.data, s.all, N_ITEMS, &err));
    check_scores(&s, "variance", naive_variance);
  }
  close_serving(&s);
}

START_TEST(variances_are_as_the_equations_say) {
  check_variances(MIXED);
}
END_TEST

START_TEST(variances_of_clicks) {
  check_variances(CLICKS);
}
END_TEST

START_TEST(steps_have_no_variance) {
  struct serving s;
  open_serving(&s, STEPPING);
  ck_assert_int_eq(melu_predict_variance(s.scores, s.ws, s.w.model, s.user, s.w.data, s.all, 1, &err), MELU_EINVAL);
  close_serving(&s);
}
END_TEST

/* The order of ratings is no information. */
START_TEST(order_of_ratings) {
  struct serving s;
  uint32_t back[MOST_SUPPORT];
  float given[MOST_SUPPORT];
  const uint32_t *items;
  const float *ratings;
  open_serving(&s, (size_t)_i);
  melu_dataset_ratings(s.w.data, 0, &items, &ratings);
  for (size_t k = 1; k < N_SIZES; k++) {
    const size_t n = support_sizes[k];
    for (size_t i = 0; i < n; i++) {
      back[i] = items[n - 1 - i];
      given[i] = ratings[n - 1 - i];
    }
    adapt_both(&s, NOBODY, n);
    TRY(melu_adapt(s.user, s.ws, s.w.model, s.w.data, NULL, back, given, n, &err));
    check_person(&s);
  }
  close_serving(&s);
}
END_TEST

/* What is predicted does not depend on what else is asked for. */
START_TEST(predictions_are_independent) {
  struct serving s;
  float alone;
  open_serving(&s, MIXED);
  adapt_both(&s, 0, 9);
  check_person(&s);
  for (uint32_t i = 0; i < N_ITEMS; i++) {
    TRY(melu_predict(&alone, s.ws, s.w.model, s.user, s.w.data, &i, 1, &err));
    ck_assert(alone == s.scores[i]);
  }
  close_serving(&s);
}
END_TEST

static void check_best(const struct serving *s, const melu_catalog *catalog, const float *scores, size_t most) {
  uint32_t top[N_ITEMS];
  float best[N_ITEMS];
  size_t n = most, n_better = 0;
  TRY(melu_catalog_top(top, best, &n, s->ws, catalog, s->user, NULL, &err));
  ck_assert_uint_eq(n, most);
  for (size_t i = 0; i < n; i++) {
    ck_assert(best[i] == scores[top[i]]);
    if (i) ck_assert(best[i - 1] > best[i] || (best[i - 1] == best[i] && top[i - 1] < top[i]));
  }
  for (size_t i = 0; i < N_ITEMS; i++) n_better += scores[i] > best[n - 1];
  ck_assert_uint_lt(n_better, n);
}

START_TEST(a_catalogue_ranks_by_predictions) {
  struct serving s;
  melu_catalog *catalog;
  float scores[N_ITEMS];
  open_serving(&s, (size_t)_i);
  TRY(melu_catalog_new(&catalog, s.w.model, s.w.data, NULL, 0, &err));
  for (size_t k = 0; k < N_SIZES; k++) {
    adapt_both(&s, 0, support_sizes[k]);
    check_person(&s);
    TRY(melu_catalog_score(scores, s.ws, catalog, s.user, &err));
    for (size_t i = 0; i < N_ITEMS; i++)
      ck_assert(test_relative_error((double)scores[i], (double)s.scores[i], 1) < 1e-6);
    check_best(&s, catalog, scores, 7);
    check_best(&s, catalog, scores, N_ITEMS);
  }
  melu_catalog_free(catalog);
  close_serving(&s);
}
END_TEST

/* ------------------------------------------------------------------------------------------ threads, kernels */

static const struct melu_fit_options short_fit = {
    .size = sizeof short_fit, .n_epochs = 2, .batch_tasks = 32, .n_query = 5, .seed = 3, .validation = 0.1};

/* All parameters, one after another; to be freed. */
static real *weights_of(const melu_model *model, size_t *n) {
  *n = 0;
  for (size_t i = 0; i < model->n_params; i++) *n += model->params[i].rows * model->params[i].cols;
  real *all = test_memory(*n, sizeof *all), *at = all;
  for (size_t i = 0; i < model->n_params; at += model->params[i].rows * model->params[i].cols, i++)
    memcpy(at, model->params[i].data, model->params[i].rows * model->params[i].cols * sizeof *at);
  return all;
}

static int has_bits(const melu_model *model, const real *expected) {
  size_t n;
  real *now = weights_of(model, &n);
  const int same = memcmp(now, expected, n * sizeof *now) == 0;
  free(now);
  return same;
}

/* Whatever the noise. */
static int has_weights(const melu_model *model, const real *expected) {
  for (size_t i = 0; i < model->n_params; i++) {
    const struct melu__param *p = &model->params[i];
    for (size_t k = 0; k < p->rows * p->cols; k++, expected++)
      if (strcmp(p->name, "noise") != 0 && p->data[k] != *expected) return 0;
  }
  return 1;
}

static void check_same_bits(const melu_gradient *a, const melu_gradient *b) {
  ck_assert(melu_gradient_loss(a, NULL) == melu_gradient_loss(b, NULL));
  for (size_t i = 0; i < a->model->n_params; i++) {
    const struct melu__gradient_part x = melu__gradient_part(a, i), y = melu__gradient_part(b, i);
    ck_assert_uint_eq(x.n, y.n);
    ck_assert(x.n == 0 || memcmp(x.values, y.values, x.n * a->model->params[i].cols * sizeof *x.values) == 0);
  }
}

static melu_gradient *gradient_of_all(const struct world *w) {
  struct task many[N_USERS];
  for (uint32_t u = 0; u < N_USERS; u++) {
    const size_t n = melu_dataset_ratings(w->data, u, NULL, NULL);
    many[u] = (struct task){u, (n - 1) / 2, n - (n - 1) / 2};
  }
  return gradient_of(w, many, N_USERS, 0);
}

static struct world threaded_world(size_t n_threads) {
  const struct melu_context_options options = {.size = sizeof options, .n_threads = n_threads};
  return full_world(MIXED, &options);
}

START_TEST(same_bits_on_any_number_of_threads) {
  static const size_t n_threads[] = {2, 3, 8};
  struct world one = threaded_world(1);
  melu_gradient *g = gradient_of_all(&one);
  size_t n;
  TRY(melu_fit(one.model, one.data, &short_fit, &err));
  real *fitted = weights_of(one.model, &n);
  for (size_t i = 0; i < sizeof n_threads / sizeof *n_threads; i++) {
    struct world many = threaded_world(n_threads[i]);
    melu_gradient *other = gradient_of_all(&many);
    check_same_bits(g, other);
    TRY(melu_fit(many.model, many.data, &short_fit, &err));
    ck_assert_msg(has_bits(many.model, fitted), "%zu threads train other bits than one", n_threads[i]);
    melu_gradient_free(other);
    close_world(&many);
  }
  free(fitted);
  melu_gradient_free(g);
  close_world(&one);
}
END_TEST

START_TEST(a_catalogue_is_made_by_any_number_of_threads) {
  enum { MANY = 20000 };
  static uint32_t chosen[MANY], numbers[MANY];
  static float scores[2][MANY];
  for (uint32_t i = 0; i < MANY; i++) {
    chosen[i] = i * 7 % N_ITEMS;
    numbers[i] = i;
  }
  for (size_t i = 0; i < 2; i++) {
    struct world w = threaded_world(i ? 3 : 1);
    melu_catalog *catalog;
    melu_workspace *ws;
    melu_user *user;
    TRY(melu_catalog_new(&catalog, w.model, w.data, chosen, 0, &err));
    TRY(melu_catalog_put(catalog, w.data, chosen, numbers, MANY, &err));
    TRY(melu_workspace_new(&ws, w.model, 0, &err));
    TRY(melu_user_new(&user, w.model, &err));
    TRY(melu_catalog_score(scores[i], ws, catalog, user, &err));
    melu_user_free(user);
    melu_workspace_free(ws);
    melu_catalog_free(catalog);
    close_world(&w);
  }
  ck_assert(memcmp(scores[0], scores[1], sizeof scores[0]) == 0);
}
END_TEST

START_TEST(kernels_agree) {
  struct world w = full_world((size_t)_i, NULL);
  melu_gradient *g = gradient_of_all(&w);
  for (size_t i = 0; usable_kernels(i); i++) {
    const struct melu_context_options options = {.size = sizeof options, .kernels = usable_kernels(i)->name};
    struct world other = full_world((size_t)_i, &options);
    melu_gradient *h = gradient_of_all(&other);
    ck_assert_double_eq_tol(melu_gradient_loss(h, NULL), melu_gradient_loss(g, NULL), is_double ? 1e-13 : 1e-5);
    check_same_gradients(h, g, is_double ? 1e-12 : 1e-4, options.kernels);
    melu_gradient_free(h);
    close_world(&other);
  }
  melu_gradient_free(g);
  close_world(&w);
}
END_TEST

/* ---------------------------------------------------------------------------------------------------- memory */

enum { SOME_USERS = 9 };

static const struct task some[] = {{0, 9, 9}, {1, 1, 8}, {2, 0, 1}};

enum { N_SOME = sizeof some / sizeof *some };

/* A small world whose allocations can be refused; only six of its items are ever rated. */
static struct world refusing_world(struct test_heap *heap, struct melu_allocator *allocator) {
  struct world w;
  *allocator = test_allocator(heap);
  const struct melu_context_options options = {.size = sizeof options, .allocator = allocator};
  open_world(&w, &options, &settings[MIXED], 6, SOME_USERS);
  return w;
}

/* Calls `attempt` with each allocation in it refused once, and all in order again. */
static void refuse_each(melu_status (*attempt)(struct world *w, struct test_heap *heap, size_t n), size_t least) {
  melu_status status = MELU_ENOMEM;
  size_t n = 0;
  while (status) {
    struct test_heap heap = {.fail_at = 0};
    struct melu_allocator allocator;
    struct world w = refusing_world(&heap, &allocator);
    status = attempt(&w, &heap, ++n);
    ck_assert_msg(status == MELU_OK || status == MELU_ENOMEM, "allocation %zu: %s", n, melu_status_name(status));
    if (status) ck_assert_int_eq(err.status, MELU_ENOMEM);
    close_world(&w);
    ck_assert_msg(heap.live == 0, "allocation %zu: %zu blocks are left", n, (size_t)heap.live);
  }
  ck_assert_uint_gt(n, least);
}

static void refuse(struct test_heap *heap, size_t n) {
  heap->fail_at = n ? heap->made + n : 0;
}

static melu_status attempt_gradient(struct world *w, struct test_heap *heap, size_t n) {
  melu_gradient *g, *other;
  size_t n_weights;
  melu_batch *batch = new_batch(w, some, N_SOME, 0), *one = new_batch(w, some + 2, 1, 0);
  real *before = weights_of(w->model, &n_weights);
  TRY(melu_gradient_new(&g, w->model, &err));
  TRY(melu_gradient_new(&other, w->model, &err));
  TRY(melu_meta_gradient(g, w->model, one, &err));
  refuse(heap, n);
  const melu_status status = melu_meta_gradient(g, w->model, batch, &err);
  refuse(heap, 0);
  ck_assert(has_bits(w->model, before));
  ck_assert_uint_eq(melu_gradient_n_rows(g, "prior"), !status);
  if (status) ck_assert(melu_gradient_loss(g, NULL) == 0);
  TRY(melu_meta_gradient(g, w->model, batch, &err));
  TRY(melu_meta_gradient(other, w->model, batch, &err));
  check_same_bits(g, other);
  free(before);
  melu_gradient_free(g);
  melu_gradient_free(other);
  melu_batch_free(batch);
  melu_batch_free(one);
  return status;
}

START_TEST(gradients_without_memory) {
  refuse_each(attempt_gradient, 30);
}
END_TEST

static float score_with(const struct world *w, melu_workspace *ws) {
  melu_user *user;
  const uint32_t *items;
  const float *ratings;
  float score;
  melu_dataset_ratings(w->data, 0, &items, &ratings);
  TRY(melu_user_new(&user, w->model, &err));
  TRY(melu_adapt(user, ws, w->model, w->data, NULL, items, ratings, 9, &err));
  TRY(melu_predict(&score, ws, w->model, user, w->data, items, 1, &err));
  melu_user_free(user);
  return score;
}

static melu_status attempt_workspace(struct world *w, struct test_heap *heap, size_t n) {
  melu_workspace *ws = NULL, *other;
  refuse(heap, n);
  const melu_status status = melu_workspace_new(&ws, w->model, 9, &err);
  refuse(heap, 0);
  ck_assert_int_eq(ws == NULL, status != MELU_OK);
  if (status) TRY(melu_workspace_new(&ws, w->model, 9, &err));
  TRY(melu_workspace_new(&other, w->model, 9, &err));
  const size_t made = heap->made;
  const float score = score_with(w, ws);
  ck_assert_uint_le(heap->made - made, 6); /* for the user, and what she told */
  ck_assert(score == score_with(w, other));
  melu_workspace_free(ws);
  melu_workspace_free(other);
  return status;
}

START_TEST(workspaces_without_memory) {
  refuse_each(attempt_workspace, 30);
}
END_TEST

static melu_status attempt_catalogue(struct world *w, struct test_heap *heap, size_t n) {
  melu_catalog *catalog = NULL;
  refuse(heap, n);
  const melu_status status = melu_catalog_new(&catalog, w->model, w->data, NULL, 0, &err);
  refuse(heap, 0);
  ck_assert_int_eq(catalog == NULL, status != MELU_OK);
  if (status) TRY(melu_catalog_new(&catalog, w->model, w->data, NULL, 0, &err));
  ck_assert_uint_eq(melu_catalog_n_items(catalog), 6);
  melu_catalog_free(catalog);
  return status;
}

START_TEST(catalogues_without_memory) {
  refuse_each(attempt_catalogue, 10);
}
END_TEST

static melu_status attempt_user(struct world *w, struct test_heap *heap, size_t n) {
  melu_user *user = NULL;
  refuse(heap, n);
  const melu_status status = melu_user_new(&user, w->model, &err);
  refuse(heap, 0);
  ck_assert_int_eq(user == NULL, status != MELU_OK);
  melu_user_free(user);
  return status;
}

START_TEST(users_without_memory) {
  refuse_each(attempt_user, 1);
}
END_TEST

static const struct melu_fit_options one_update = {
    .size = sizeof one_update, .n_epochs = 1, .seed = 3, .validation = 0.3};

/* The weights after that, from a world of its own. */
static real *weights_after_update(void) {
  struct test_heap heap = {.fail_at = 0};
  struct melu_allocator allocator;
  struct world w = refusing_world(&heap, &allocator);
  size_t n;
  TRY(melu_fit(w.model, w.data, &one_update, &err));
  real *weights = weights_of(w.model, &n);
  close_world(&w);
  return weights;
}

static real *trained; /* the weights then */

static melu_status attempt_fit(struct world *w, struct test_heap *heap, size_t n) {
  size_t n_weights;
  real *before = weights_of(w->model, &n_weights);
  refuse(heap, n);
  const melu_status status = melu_fit(w->model, w->data, &one_update, &err);
  refuse(heap, 0);
  const int is_trained = has_weights(w->model, trained);
  if (!status) ck_assert(is_trained);
  ck_assert_msg(is_trained || has_weights(w->model, before), "allocation %zu: the weights are those of no moment", n);
  if (!is_trained) {
    TRY(melu_fit(w->model, w->data, &one_update, &err));
    ck_assert_msg(has_weights(w->model, trained), "allocation %zu: the training after it is another one", n);
  }
  free(before);
  return status;
}

START_TEST(training_without_memory) {
  trained = weights_after_update();
  refuse_each(attempt_fit, 50);
  free(trained);
}
END_TEST

struct stop {
  size_t n_calls, at; /* at: 0: never */
};

static int stop_at(void *arg, const struct melu_progress *progress) {
  struct stop *stop = arg;
  (void)progress;
  return ++stop->n_calls == stop->at;
}

/* Trains until the best weights are no longer the last ones, or until the update that `stop` says. */
static melu_status train_too_long(struct world *w, struct test_heap *heap, struct stop *stop, size_t refused) {
  static struct melu_allocator allocator;
  const struct melu_optimizer_options rash = {.size = sizeof rash, .lr = 0.5};
  const struct melu_fit_options fit = {
      .size = sizeof fit, .n_epochs = 8, .seed = 3, .validation = 0.3, .optimizer = &rash};
  allocator = test_allocator(heap);
  const struct melu_context_options options = {
      .size = sizeof options, .allocator = &allocator, .progress = stop_at, .progress_arg = stop};
  open_world(w, &options, &settings[MIXED], 6, SOME_USERS);
  const size_t before = heap->made;
  refuse(heap, refused);
  const melu_status status = melu_fit(w->model, w->data, &fit, &err);
  refuse(heap, 0);
  heap->made -= before;
  return status;
}

/* What is made of the best weights at the end finds no memory. */
START_TEST(last_weights_without_memory) {
  struct test_heap heap = {.fail_at = 0}, other_heap = {.fail_at = 0};
  struct stop stop = {.at = 0}, never = {.at = 0};
  struct world w;
  size_t n;
  TRY(train_too_long(&w, &heap, &never, 0));
  real *best = weights_of(w.model, &n);
  close_world(&w);
  stop.at = never.n_calls;
  ck_assert_int_eq(train_too_long(&w, &other_heap, &stop, 0), MELU_ECANCELED);
  ck_assert(!has_weights(w.model, best));
  real *last = weights_of(w.model, &n);
  close_world(&w);
  ck_assert_int_eq(train_too_long(&w, &other_heap, &never, heap.made), MELU_ENOMEM);
  ck_assert(has_weights(w.model, last));
  close_world(&w);
  free(best);
  free(last);
}
END_TEST

static void add_gradients(Suite *suite) {
  TCase *t = tcase_create("gradients");
  tcase_set_timeout(t, 120);
  tcase_add_loop_test(t, gradient_is_the_differences, 0, N_SETTINGS);
  tcase_add_test(t, rows_of_the_batch);
  tcase_add_loop_test(t, a_batch_is_the_sum_of_its_tasks, MIXED, STEPPING + 1);
  tcase_add_test(t, any_number_of_items);
  tcase_add_test(t, any_number_of_tasks);
  tcase_add_loop_test(t, fields_that_are_not_there, MIXED, STEPPING + 1);
  tcase_add_loop_test(t, order_of_the_support_set, 0, N_SETTINGS);
  tcase_add_test(t, same_bits_on_any_number_of_threads);
  tcase_add_loop_test(t, kernels_agree, MIXED, STEPPING + 1);
  suite_add_tcase(suite, t);
}

static void add_serving(Suite *suite) {
  TCase *t = tcase_create("serving");
  tcase_add_loop_test(t, users_are_as_the_equations_say, 0, N_SETTINGS);
  tcase_add_test(t, unknown_names_are_new);
  tcase_add_test(t, variances_are_as_the_equations_say);
  tcase_add_test(t, variances_of_clicks);
  tcase_add_test(t, steps_have_no_variance);
  tcase_add_loop_test(t, order_of_ratings, MIXED, STEPPING + 1);
  tcase_add_test(t, predictions_are_independent);
  tcase_add_loop_test(t, a_catalogue_ranks_by_predictions, MIXED, STEPPING + 1);
  tcase_add_test(t, a_catalogue_is_made_by_any_number_of_threads);
  suite_add_tcase(suite, t);
}

static void add_memory(Suite *suite) {
  TCase *t = tcase_create("memory");
  tcase_set_timeout(t, 120);
  tcase_add_test(t, gradients_without_memory);
  tcase_add_test(t, workspaces_without_memory);
  tcase_add_test(t, catalogues_without_memory);
  tcase_add_test(t, users_without_memory);
  tcase_add_test(t, training_without_memory);
  tcase_add_test(t, last_weights_without_memory);
  suite_add_tcase(suite, t);
}

int main(void) {
  Suite *suite = suite_create("factors");
  add_gradients(suite);
  add_serving(suite);
  add_memory(suite);
  return run_suite(suite);
}
