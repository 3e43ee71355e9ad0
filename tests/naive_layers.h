/* SPDX-License-Identifier: BSD-3-Clause
 *
 * MELU_LAYERS in plain loops and in double: the network, its inner loop under any options and the query loss, each
 * gradient written out by hand. Embedding rows that are adapted are really changed, in a copy of their table. */
#ifndef MELU_TESTS_NAIVE_LAYERS_H
#define MELU_TESTS_NAIVE_LAYERS_H

#include "model/model.h"
#include "naive.h"

enum { LAYERS_PARAMS = 40, LAYERS_WIDE = 32, LAYERS_ROWS = 16, LAYERS_STEPS = 4 };

/* Numbers for every parameter of a model, and for the user's part of the input. */
struct numbers {
  double *param[LAYERS_PARAMS];
  double xu[LAYERS_WIDE];
};

/* A user: her support rows, then her query rows. */
struct naive_user {
  size_t n_support, n_query;
  uint32_t items[LAYERS_ROWS];
  double ratings[LAYERS_ROWS];
  struct melu_value profile[4];
};

struct naive_layers {
  const melu_model *model;
  const melu_dataset *data;
  struct numbers now;                 /* parameters, fast ones after adapting */
  struct numbers slope[LAYERS_STEPS]; /* gradients of the support loss at each step */
  int keeps_slopes;                   /* they are constants: those that are there are taken */
};

static inline size_t param_size(const melu_model *model, size_t i) {
  return model->params[i].rows * model->params[i].cols;
}

static inline struct numbers numbers_new(const melu_model *model) {
  struct numbers n = {{NULL}, {0}};
  ck_assert_uint_le(model->n_params, LAYERS_PARAMS);
  for (size_t i = 0; i < model->n_params; i++) n.param[i] = test_memory(param_size(model, i), sizeof(double));
  return n;
}

static inline void numbers_free(struct numbers *n) {
  for (size_t i = 0; i < LAYERS_PARAMS; i++) free(n->param[i]);
}

static inline void naive_open(struct naive_layers *net, const melu_model *model, const melu_dataset *data) {
  *net = (struct naive_layers){.model = model, .data = data, .now = numbers_new(model)};
  for (size_t k = 0; k < LAYERS_STEPS; k++) net->slope[k] = numbers_new(model);
}

static inline void naive_close(struct naive_layers *net) {
  numbers_free(&net->now);
  for (size_t k = 0; k < LAYERS_STEPS; k++) numbers_free(&net->slope[k]);
}

/* The number of a parameter by its name; that of a layer's, layers counted from 0. */
static inline size_t param_number(const melu_model *model, const char *name) {
  for (size_t i = 0; i < model->n_params; i++)
    if (strcmp(model->params[i].name, name) == 0) return i;
  ck_abort_msg("no parameter %s", name);
}

static inline size_t layer_param(const melu_model *model, size_t layer, int is_bias) {
  return model->n_tables + 2 * layer + (size_t)is_bias;
}

static inline struct melu_field field_of(const melu_schema *schema, melu_owner owner, size_t i) {
  struct melu_field f = {.size = sizeof f};
  if (melu_schema_field(&f, schema, owner, i, NULL)) ck_abort_msg("no field %zu", i);
  return f;
}

/* ------------------------------------------------------------------------------------------------- network */

/* Visits each id of a row: its field's column and width, its row of the table, its share of the field. */
typedef void visit_fn(void *arg, size_t col, size_t width, double *table_row, double share);

static inline void each_id(const melu_schema *schema, melu_owner owner, const struct melu_value *values, size_t table,
                           struct numbers *n, visit_fn *visit, void *arg) {
  for (size_t i = 0, col = 0; i < melu_schema_n_fields(schema, owner); i++) {
    const struct melu_field f = field_of(schema, owner, i);
    for (size_t k = 0; k < values[i].n_ids; k++) {
      const size_t row = values[i].ids[k] < f.n_values ? values[i].ids[k] : f.n_values;
      visit(arg, col, f.width, n->param[table] + row * f.width, 1.0 / (double)values[i].n_ids);
    }
    table += f.kind != MELU_NUMERIC;
    col += f.width;
  }
}

static inline void take_row(void *arg, size_t col, size_t width, double *row, double share) {
  double *x = arg;
  for (size_t j = 0; j < width; j++) x[col + j] += share * row[j];
}

static inline void give_row(void *arg, size_t col, size_t width, double *row, double share) {
  const double *g = arg;
  for (size_t j = 0; j < width; j++) row[j] += share * g[col + j];
}

/* The input's part of an item, or of a user. */
static inline void naive_embed(struct naive_layers *net, melu_owner owner, const struct melu_value *values, double *x) {
  const melu_schema *schema = net->model->schema;
  size_t table = 0;
  memset(x, 0, LAYERS_WIDE * sizeof *x);
  for (size_t i = 0; owner == MELU_USER && i < melu_schema_n_fields(schema, MELU_ITEM); i++)
    table += field_of(schema, MELU_ITEM, i).kind != MELU_NUMERIC;
  each_id(schema, owner, values, table, &net->now, take_row, x);
  for (size_t i = 0; i < melu_schema_n_fields(schema, owner); i++) {
    const struct melu_field f = field_of(schema, owner, i);
    for (size_t j = 0; j < values[i].n_numbers; j++) x[j] = ((double)values[i].numbers[j] - f.shift) * f.scale;
    x += f.width;
  }
}

/* One row through the network. */
struct pass {
  struct melu_value item[4];
  double in[MELU__MAX_HIDDEN + 1][LAYERS_WIDE]; /* what each layer reads */
  double y;
};

static inline void forward(struct naive_layers *net, uint32_t item, struct pass *p) {
  const melu_model *model = net->model;
  if (melu_dataset_item_values(p->item, net->data, item, NULL)) ck_abort_msg("no item %u", (unsigned)item);
  naive_embed(net, MELU_ITEM, p->item, p->in[0]);
  for (size_t j = 0; j < model->user_width; j++) p->in[0][model->item_width + j] = net->now.xu[j];
  for (size_t l = 0; l < model->n_layers; l++) {
    const size_t w = layer_param(model, l, 0), cols = model->params[w].cols;
    for (size_t i = 0; i < model->params[w].rows; i++) {
      double sum = net->now.param[w + 1][i];
      for (size_t j = 0; j < cols; j++) sum += net->now.param[w][i * cols + j] * p->in[l][j];
      if (l + 1 < model->n_layers)
        p->in[l + 1][i] = sum > 0 ? sum : 0;
      else
        p->y = sum;
    }
  }
}

/* Adds the gradient of a row whose prediction has the gradient dy. */
static inline void backward(struct naive_layers *net, struct pass *p, double dy, struct numbers *g) {
  const melu_model *model = net->model;
  double d[LAYERS_WIDE] = {dy};
  for (size_t l = model->n_layers; l-- > 0;) {
    const size_t w = layer_param(model, l, 0), cols = model->params[w].cols;
    double below[LAYERS_WIDE] = {0};
    for (size_t i = 0; i < model->params[w].rows; i++) {
      g->param[w + 1][i] += d[i];
      for (size_t j = 0; j < cols; j++) {
        g->param[w][i * cols + j] += d[i] * p->in[l][j];
        below[j] += d[i] * net->now.param[w][i * cols + j];
      }
    }
    for (size_t j = 0; j < cols; j++) d[j] = l == 0 || p->in[l][j] > 0 ? below[j] : 0;
  }
  each_id(model->schema, MELU_ITEM, p->item, 0, g, give_row, d);
  for (size_t j = 0; j < model->user_width; j++) g->xu[j] += d[model->item_width + j];
}

/* -------------------------------------------------------------------------------------------------- losses */

static inline double loss_of(melu_loss loss, double s, double y, double *slope) {
  const double e = s - y, root = sqrt(e * e + 0.01);
  switch (loss) {
    case MELU_ABSOLUTE:
      *slope = e / root;
      return root;
    case MELU_HUBER:
      *slope = fabs(e) < 1 ? 2 * e : e > 0 ? 2 : -2;
      return fabs(e) < 1 ? e * e : 2 * fabs(e) - 1;
    case MELU_MIXED:
      *slope = 2 * e + e / root / 2;
      return e * e + root / 2;
    case MELU_LOGISTIC:
      *slope = 1 / (1 + exp(-s)) - y;
      return (1 - y) * s + (s > 0 ? log1p(exp(-s)) : log1p(exp(s)) - s);
    default:
      *slope = 2 * e;
      return e * e;
  }
}

static inline double naive_query_loss(struct naive_layers *net, const struct naive_user *u) {
  const melu_loss loss = net->model->options.loss;
  const double *y = u->ratings + u->n_support;
  double s[LAYERS_ROWS], sum = 0, n = (double)u->n_query, slope;
  for (size_t i = 0; i < u->n_query; i++) {
    struct pass p;
    forward(net, u->items[u->n_support + i], &p);
    s[i] = p.y;
    if (loss != MELU_PAIRWISE) sum += loss_of(loss, s[i], y[i], &slope);
  }
  if (loss != MELU_PAIRWISE) return sum / n;
  n = 1e-6; /* as the library has it */
  for (size_t i = 0; i < u->n_query; i++)
    for (size_t j = 0; j < u->n_query; j++) {
      if (!(y[i] > y[j])) continue;
      sum += log1p(exp(s[j] - s[i]));
      n += 1;
    }
  return sum / n;
}

/* -------------------------------------------------------------------------------------------------- adapting */

static inline void support_slope(struct naive_layers *net, const struct naive_user *u, struct numbers *g) {
  const melu_loss loss = net->model->options.loss == MELU_PAIRWISE ? MELU_SQUARED : net->model->options.loss;
  for (size_t i = 0; i < net->model->n_params; i++) memset(g->param[i], 0, param_size(net->model, i) * sizeof(double));
  memset(g->xu, 0, sizeof g->xu);
  for (size_t i = 0; i < u->n_support; i++) {
    struct pass p;
    double slope;
    forward(net, u->items[i], &p);
    loss_of(loss, p.y, u->ratings[i], &slope);
    backward(net, &p, slope / (double)u->n_support, g);
  }
}

/* x -= rate g, the rate being entry `first` on of that parameter, or inner_lr. */
static inline void descend(struct naive_layers *net, const char *rate, size_t first, double *x, const double *g,
                           size_t n) {
  const melu_rates rates = net->model->options.rates;
  const double *r = rates == MELU_RATE_FIXED ? NULL : net->now.param[param_number(net->model, rate)];
  for (size_t k = 0; k < n; k++)
    x[k] -= (!r ? net->model->options.inner_lr : rates == MELU_RATE_PER_TENSOR ? *r : r[first + k]) * g[k];
}

static inline void naive_step(struct naive_layers *net, const struct numbers *g) {
  const melu_model *model = net->model;
  const unsigned adapt = model->options.adapt;
  for (size_t l = 0; l < model->n_layers; l++)
    for (int b = 0; b < 2; b++) {
      const size_t i = layer_param(model, l, b);
      char rate[MELU__MAX_NAME + 16];
      snprintf(rate, sizeof rate, "rate.%s", model->params[i].name);
      if (adapt & (l + 1 < model->n_layers ? MELU_ADAPT_HIDDEN : MELU_ADAPT_HEAD))
        descend(net, rate, 0, net->now.param[i], g->param[i], param_size(model, i));
    }
  if (adapt & MELU_ADAPT_USER) descend(net, "rate.user", 0, net->now.xu, g->xu, model->user_width);
  if (!(adapt & MELU_ADAPT_ITEMS)) return;
  for (size_t i = 0, table = 0, col = 0; i < melu_schema_n_fields(model->schema, MELU_ITEM); i++) {
    const struct melu_field f = field_of(model->schema, MELU_ITEM, i);
    if (f.kind != MELU_NUMERIC) {
      for (size_t k = 0; k < param_size(model, table); k += f.width)
        descend(net, "rate.items", col, net->now.param[table] + k, g->param[table] + k, f.width);
      table++;
    }
    col += f.width;
  }
}

/* The last layer by ridge regression. */
static inline void naive_ridge(struct naive_layers *net, const struct naive_user *u) {
  const melu_model *model = net->model;
  const size_t last = model->n_layers - 1, w = layer_param(model, last, 0), h = model->params[w].cols;
  const double *raw = net->now.param[param_number(model, "precision")];
  struct matrix a = new_matrix(h + 1, h + 1), b = new_matrix(h + 1, 1), x = new_matrix(h + 1, 1);
  for (size_t j = 0; j <= h; j++) a.v[j * (h + 1) + j] = log1p(exp(raw[j]));
  for (size_t i = 0; i < u->n_support; i++) {
    struct pass p;
    forward(net, u->items[i], &p);
    p.in[last][h] = 1;
    for (size_t j = 0; j <= h; j++) {
      b.v[j] += p.in[last][j] * (u->ratings[i] - p.y);
      for (size_t k = 0; k <= h; k++) a.v[j * (h + 1) + k] += p.in[last][j] * p.in[last][k];
    }
  }
  naive_solve(a, b, x.v);
  for (size_t j = 0; j <= h; j++) *(j < h ? &net->now.param[w][j] : net->now.param[w + 1]) += x.v[j];
  free(a.v);
  free(b.v);
  free(x.v);
}

/* Adapts `now`, which holds the model's numbers, to the user; returns the outer loss. */
static inline double naive_adapt(struct naive_layers *net, const struct naive_user *u) {
  const struct melu_model_options *o = &net->model->options;
  const size_t n_steps = u->n_support && o->rule == MELU_STEPS ? o->inner_steps : 0;
  double sum = 0;
  if (n_steps > LAYERS_STEPS) ck_abort_msg("%zu steps", n_steps);
  naive_embed(net, MELU_USER, u->profile, net->now.xu);
  if (u->n_support && o->rule == MELU_CLOSED_FORM) naive_ridge(net, u);
  for (size_t k = 0; k < n_steps; k++) {
    if (!net->keeps_slopes) support_slope(net, u, &net->slope[k]);
    naive_step(net, &net->slope[k]);
    if (o->multi_step) sum += naive_query_loss(net, u);
  }
  return n_steps && o->multi_step ? sum / (double)n_steps : naive_query_loss(net, u);
}

#endif
