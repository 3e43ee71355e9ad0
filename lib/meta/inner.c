/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/inner.h"

#include <string.h>

#include "meta/loss.h"

enum { W1_ITEM, W1_USER, B1, FIRST_UPPER };

/* MELU_LAYERS counts the halves of W1. */
size_t melu__n_weights(const melu_model *model) {
  return model->n_params - model->n_tables + (!melu__is_factors(model));
}

int melu__has_dual(const melu_model *model) {
  const struct melu_model_options *o = &model->options;
  return o->network == MELU_LAYERS && o->rule == MELU_STEPS && o->rates == MELU_RATE_FIXED &&
         o->adapt == (MELU_ADAPT_HEAD | MELU_ADAPT_HIDDEN);
}

int melu__folds(const melu_model *model) {
  return melu__has_dual(model) && !model->options.first_order && model->n_layers > 2;
}

void melu__weight_shape(const melu_model *model, size_t i, size_t *rows, size_t *cols) {
  const int is_layers = !melu__is_factors(model);
  if (!is_layers || i >= 2 * model->n_layers + 1) {
    const struct melu__param *p = &model->params[model->n_tables + i - (size_t)is_layers];
    *rows = p->rows;
    *cols = p->cols;
    return;
  }
  const size_t layer = i < FIRST_UPPER ? 0 : (i - 1) / 2;
  const struct melu__param *w = melu__model_weight(model, layer);
  const int is_bias = i == B1 || (i >= FIRST_UPPER && i % 2 == 0);
  *rows = is_bias ? 1 : w->rows;
  *cols = is_bias ? w->rows : i == W1_ITEM ? model->item_width : i == W1_USER ? model->user_width : w->cols;
}

void melu__weight_views(struct melu__mat views[MELU__MAX_WEIGHTS], const melu_model *model, real *const *data) {
  const int is_factors = melu__is_factors(model);
  const size_t inputs = model->item_width + model->user_width;
  for (size_t i = 0; i < melu__n_weights(model); i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    views[i] = (struct melu__mat){data[is_factors ? i : i < FIRST_UPPER ? i / 2 : i - 1], cols};
  }
  if (is_factors) return;
  views[W1_USER].p = views[W1_ITEM].p + model->item_width;
  views[W1_ITEM].ld = views[W1_USER].ld = inputs;
}

void melu__model_views(struct melu__mat views[MELU__MAX_WEIGHTS], const melu_model *model) {
  real *data[MELU__MAX_WEIGHTS];
  for (size_t i = 0; i < model->n_params - model->n_tables; i++) data[i] = model->params[model->n_tables + i].data;
  melu__weight_views(views, model, data);
}

void melu__weight_slots(real **slots, const melu_model *model, real *const *data) {
  struct melu__mat views[MELU__MAX_WEIGHTS];
  melu__weight_views(views, model, data);
  for (size_t i = 0; i < melu__n_weights(model); i++) slots[i] = views[i].p;
}

melu__ref melu__squared_error(struct melu__tape *t, melu__ref prediction, melu__ref rating, size_t n) {
  const melu__ref e = melu__tape_sub(t, prediction, rating);
  return melu__tape_scale(t, melu__tape_sum_all(t, melu__tape_mul(t, e, e)), 1.0 / (double)n);
}

melu__ref melu__mean_loss(struct melu__tape *t, melu_loss loss, melu__ref prediction, melu__ref rating, size_t n) {
  if (loss == MELU_SQUARED) return melu__squared_error(t, prediction, rating, n);
  return melu__loss(t, loss, prediction, rating, melu__tape_const(t, n, 1, 1.0 / (double)n), n);
}

static melu__ref layer(struct melu__tape *t, melu__ref x, melu__ref w, melu__ref b) {
  return melu__tape_add_row(t, melu__tape_matmul(t, x, w, 0, 1), b);
}

melu__ref melu__upper_layers(struct melu__tape *t, const struct melu__weights *w, melu__ref z) {
  for (size_t i = FIRST_UPPER; i < w->n; i += 2) z = layer(t, melu__tape_relu(t, z), w->at[i], w->at[i + 1]);
  return z;
}

/* The same with the last layer folded into the one below it; inner.h. */
static melu__ref folded_layers(struct melu__tape *t, const struct melu__weights *w, melu__ref z) {
  struct melu__weights below = *w;
  below.n -= 4;
  const melu__ref *at = w->at + below.n, weight = at[0], bias = at[1], head = at[2];
  const melu__ref x = melu__tape_relu(t, melu__upper_layers(t, &below, z));
  const melu__ref active = melu__tape_step(t, layer(t, x, weight, bias));
  const size_t width = t->status ? 0 : t->nodes[x].cols;
  const melu__ref folded = melu__tape_mul(t, weight, melu__tape_cols(t, head, 1, width));
  const melu__ref slope = melu__tape_matmul(t, active, folded, 0, 0);
  const melu__ref score = melu__tape_sum_cols(t, melu__tape_mul(t, x, slope), 0);
  const melu__ref offset = melu__tape_matmul(t, active, melu__tape_mul(t, bias, head), 0, 1);
  return melu__tape_add_row(t, melu__tape_add(t, score, offset), at[3]);
}

/* xu W1u' + b1: what the user adds to every row of the first layer. */
static melu__ref user_row(struct melu__inner *in) {
  return layer(in->tape, in->xu_now, in->w.at[W1_USER], in->w.at[B1]);
}

/* rows X' + xu xu' + 1, the second factors being those of the support set. */
static melu__ref kernel_matrix(struct melu__inner *in, melu__ref rows, size_t n_rows) {
  struct melu__tape *t = in->tape;
  return melu__tape_add(t, melu__tape_matmul(t, rows, in->xs_k, 0, 1),
                        melu__tape_fill(t, in->kappa, n_rows, in->n_support));
}

melu__ref melu__inner_kappas(struct melu__tape *t, const melu_model *model, melu__ref xu) {
  const size_t n = t->status ? 0 : t->nodes[xu].rows;
  const melu__ref factor = model->options.first_order ? melu__tape_detach(t, xu) : xu;
  const melu__ref ones = melu__tape_const(t, model->user_width, 1, 1);
  return melu__tape_add(t, melu__tape_matmul(t, melu__tape_mul(t, xu, factor), ones, 0, 0),
                        melu__tape_const(t, n, 1, 1));
}

/* Inputs that all forms have; the weights from `first` on. */
static void begin(struct melu__inner *in, struct melu__tape *t, const melu_model *model, enum melu__form form,
                  size_t n_support, size_t first) {
  memset(in, 0, sizeof *in);
  in->tape = t;
  in->model = model;
  in->form = form;
  in->n_support = n_support;
  in->c = in->moved = in->counts = MELU__NO_NODE;
  in->xs = in->xs_now = melu__tape_input(t, MELU__SLOT_XS, n_support, model->item_width);
  in->ys = melu__tape_input(t, MELU__SLOT_YS, n_support, 1);
  in->w.n = 2 * model->n_layers + 1;
  in->learnt.n = melu__n_weights(model) - in->w.n;
  for (size_t i = first; i < in->w.n + in->learnt.n; i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    const melu__ref input = melu__tape_input(t, MELU__SLOT_WEIGHTS + (uint32_t)i, rows, cols);
    *(i < in->w.n ? &in->w.at[i] : &in->learnt.at[i - in->w.n]) = input;
  }
  in->xs_k = model->options.first_order ? melu__tape_detach(t, in->xs) : in->xs;
}

void melu__inner_begin(struct melu__inner *in, struct melu__tape *t, const melu_model *model, enum melu__form form,
                       size_t n_support) {
  begin(in, t, model, form, n_support, 0);
  in->xu = in->xu_now = melu__tape_input(t, MELU__SLOT_XU, 1, model->user_width);
  in->user_row = user_row(in);
  if (form == MELU__DIRECT) return;
  in->xu_k = model->options.first_order ? melu__tape_detach(t, in->xu) : in->xu;
  in->kappa = melu__tape_add(t, melu__tape_matmul(t, in->xu, in->xu_k, 0, 1), melu__tape_const(t, 1, 1, 1));
  in->k = kernel_matrix(in, in->xs, n_support);
  in->z = layer(t, in->xs, in->w.at[W1_ITEM], in->user_row);
}

void melu__inner_begin_from_z(struct melu__inner *in, struct melu__tape *t, const melu_model *model, size_t n_support) {
  const size_t h = melu__model_weight(model, 0)->rows;
  begin(in, t, model, MELU__DUAL, n_support, FIRST_UPPER);
  in->user_row = melu__tape_input(t, MELU__SLOT_ROW, 1, h);
  in->kappa = melu__tape_input(t, MELU__SLOT_KAPPA, 1, 1);
  in->k = kernel_matrix(in, in->xs, n_support);
  in->zs = melu__tape_input(t, MELU__SLOT_ZS, n_support, h);
  in->z = melu__tape_add_row(t, in->zs, in->user_row);
}

/* --------------------------------------------------------------------------------------------------- steps */

/* The support loss that steps descend, given the first layer's pre-activations. */
static melu__ref support_loss(struct melu__inner *in, melu__ref z) {
  struct melu__tape *t = in->tape;
  const melu_loss loss = in->model->options.loss == MELU_PAIRWISE ? MELU_SQUARED : in->model->options.loss;
  const melu__ref scores = (in->folds ? folded_layers : melu__upper_layers)(t, &in->w, z);
  if (in->counts == MELU__NO_NODE) return melu__mean_loss(t, loss, scores, in->ys, in->n_support);
  const melu__ref share = melu__tape_recip(t, melu__tape_sum_all(t, in->counts));
  const melu__ref weights = melu__tape_mul(t, in->counts, melu__tape_fill(t, share, in->n_support, 1));
  return melu__loss(t, loss, scores, in->ys, weights, in->n_support);
}

static void detach_all(struct melu__tape *t, melu__ref *g, size_t n) {
  for (size_t i = 0; i < n; i++) g[i] = melu__tape_detach(t, g[i]);
}

/* What a step may change, by number: the weights, then the user's part of the input, then the support rows. */
static melu__ref *place(struct melu__inner *in, size_t i) {
  return i < in->w.n ? &in->w.at[i] : i == in->w.n ? &in->xu_now : &in->xs_now;
}

/* Which of them it does change. */
static size_t adapted(const struct melu__inner *in, size_t *which) {
  const unsigned adapt = in->model->options.adapt;
  const size_t head = in->w.n - 2;
  size_t n = 0;
  for (size_t i = 0; i < in->w.n; i++)
    if (adapt & (i < head ? MELU_ADAPT_HIDDEN : MELU_ADAPT_HEAD)) which[n++] = i;
  if (adapt & MELU_ADAPT_USER) which[n++] = in->w.n;
  if (adapt & MELU_ADAPT_ITEMS) which[n++] = in->w.n + 1;
  return n;
}

/* The rate of number i in the shape of g. That of W1 is of both its halves, that of the support rows one row. */
static melu__ref rate_like(struct melu__inner *in, size_t i, melu__ref rate, melu__ref g) {
  struct melu__tape *t = in->tape;
  const struct melu__node like = t->status ? (struct melu__node){0} : t->nodes[g];
  if (in->model->options.rates == MELU_RATE_PER_TENSOR) return melu__tape_fill(t, rate, like.rows, like.cols);
  if (i == W1_ITEM) return melu__tape_slice(t, rate, 0, like.cols);
  if (i == W1_USER) return melu__tape_slice(t, rate, in->model->item_width, like.cols);
  return i == in->w.n + 1 ? melu__tape_rows(t, rate, like.rows) : rate;
}

static melu__ref times_rate(struct melu__inner *in, size_t i, size_t number, melu__ref g) {
  if (in->model->options.rates == MELU_RATE_FIXED) return melu__tape_scale(in->tape, g, in->model->options.inner_lr);
  return melu__tape_mul(in->tape, g, rate_like(in, i, in->learnt.at[number], g));
}

melu__ref melu__inner_spread(struct melu__inner *in, uint32_t overlap, size_t n_rows, melu__ref change) {
  struct melu__tape *t = in->tape;
  const struct melu__field *field;
  melu__ref all = MELU__NO_NODE;
  for (size_t i = 0, col = 0; (field = melu__schema_owner_field(in->model->schema, MELU_ITEM, i)) != NULL; i++) {
    melu__ref part;
    if (melu__has_numbers(field)) {
      part = melu__tape_const(t, n_rows, field->width, 0);
    } else {
      const melu__ref rows = melu__tape_input(t, overlap++, n_rows, in->n_support);
      part = melu__tape_matmul(t, rows, melu__tape_slice(t, change, col, field->width), 0, 0);
    }
    all = i ? melu__tape_concat(t, all, part) : part;
    col += field->width;
  }
  return all;
}

static void move(struct melu__inner *in, size_t i, melu__ref change) {
  struct melu__tape *t = in->tape;
  if (i == in->w.n + 1) {
    in->moved = in->moved == MELU__NO_NODE ? change : melu__tape_add(t, in->moved, change);
    change = melu__inner_spread(in, MELU__SLOT_OVERLAP_S, in->n_support, change);
  }
  *place(in, i) = melu__tape_sub(t, *place(in, i), change);
}

melu__ref melu__inner_loss(struct melu__inner *in) {
  return support_loss(in, layer(in->tape, in->xs_now, in->w.at[W1_ITEM], in->user_row));
}

size_t melu__inner_adapted(struct melu__inner *in, melu__ref wrt[MELU__MAX_WEIGHTS]) {
  size_t which[MELU__MAX_WEIGHTS];
  const size_t n = adapted(in, which);
  for (size_t k = 0; k < n; k++) wrt[k] = *place(in, which[k]);
  return n;
}

static melu__ref step_direct(struct melu__inner *in) {
  struct melu__tape *t = in->tape;
  size_t which[MELU__MAX_WEIGHTS];
  melu__ref wrt[MELU__MAX_WEIGHTS], g[MELU__MAX_WEIGHTS];
  const melu__ref loss = melu__inner_loss(in);
  const size_t n = melu__inner_adapted(in, wrt);
  adapted(in, which);
  melu__tape_grad(t, loss, wrt, n, g);
  if (in->model->options.first_order) detach_all(t, g, n);
  for (size_t k = 0, number = 0; k < n; k++) {
    if (which[k] == W1_USER) number--; /* the halves of W1 have one rate */
    move(in, which[k], times_rate(in, which[k], number++, g[k]));
  }
  in->user_row = user_row(in);
  return loss;
}

static melu__ref step_dual(struct melu__inner *in) {
  struct melu__tape *t = in->tape;
  melu__ref wrt[MELU__MAX_WEIGHTS], g[MELU__MAX_WEIGHTS];
  const melu__ref loss = support_loss(in, in->z);
  /* Z stands where the first layer's three weights are. */
  const size_t z = FIRST_UPPER - 1;
  memcpy(wrt, in->w.at, sizeof wrt);
  wrt[z] = in->z;
  melu__tape_grad(t, loss, wrt + z, in->w.n - z, g + z);
  if (in->model->options.first_order) detach_all(t, g + z, in->w.n - z);
  const melu__ref kd = melu__tape_matmul(t, in->k, g[z], 0, 0);
  in->z = melu__tape_sub(t, in->z, melu__tape_scale(t, kd, in->model->options.inner_lr));
  in->c = in->c == MELU__NO_NODE ? g[z] : melu__tape_add(t, in->c, g[z]);
  for (size_t i = FIRST_UPPER; i < in->w.n; i++) move(in, i, melu__tape_scale(t, g[i], in->model->options.inner_lr));
  return loss;
}

melu__ref melu__inner_step(struct melu__inner *in) {
  return in->form == MELU__DUAL ? step_dual(in) : step_direct(in);
}

/* --------------------------------------------------------------------------------------------- closed form */

/* log(1 + exp(x)) = -log sigmoid(-x) */
melu__ref melu__softplus(struct melu__tape *t, melu__ref x) {
  return melu__tape_scale(t, melu__tape_log(t, melu__tape_sigmoid(t, melu__tape_scale(t, x, -1))), -1);
}

/* The activations that the last layer reads, and a column of ones. */
static melu__ref features(struct melu__inner *in) {
  struct melu__tape *t = in->tape;
  struct melu__weights below = in->w;
  below.n -= 2;
  const melu__ref z = layer(t, in->xs, in->w.at[W1_ITEM], in->user_row);
  const melu__ref h = melu__tape_relu(t, melu__upper_layers(t, &below, z));
  return melu__tape_concat(t, h, melu__tape_const(t, in->n_support, 1, 1));
}

static void solve(struct melu__inner *in) {
  struct melu__tape *t = in->tape;
  melu__ref *head = &in->w.at[in->w.n - 2];
  const size_t width = melu__model_weight(in->model, in->model->n_layers - 1)->cols;
  const melu__ref h = features(in), mean = melu__tape_concat(t, head[0], head[1]);
  melu__ref precision = melu__softplus(t, in->learnt.at[0]);
  if (!in->model->options.learn_precision) precision = melu__tape_detach(t, precision);
  melu__ref rows = h;
  if (in->counts != MELU__NO_NODE)
    rows = melu__tape_mul(t, melu__tape_matmul(t, in->counts, melu__tape_const(t, 1, width + 1, 1), 0, 0), h);
  const melu__ref gram = melu__tape_add(t, melu__tape_matmul(t, rows, h, 1, 0), melu__tape_diag(t, precision));
  const melu__ref residual = melu__tape_sub(t, in->ys, melu__tape_matmul(t, h, mean, 0, 1));
  const melu__ref change = melu__tape_solve(t, gram, melu__tape_matmul(t, rows, residual, 1, 0));
  const melu__ref w = melu__tape_add(t, mean, melu__tape_transpose(t, change));
  head[0] = melu__tape_slice(t, w, 0, width);
  head[1] = melu__tape_slice(t, w, width, 1);
}

void melu__inner_adapt(struct melu__inner *in, void (*after)(void *arg, struct melu__inner *in), void *arg) {
  if (in->n_support == 0) return;
  if (in->model->options.rule == MELU_CLOSED_FORM) {
    solve(in);
    return;
  }
  for (size_t k = 0; k < in->model->options.inner_steps; k++) {
    melu__inner_step(in);
    if (after) after(arg, in);
  }
}

/* ------------------------------------------------------------------------------------------------- results */

melu__ref melu__inner_predict(struct melu__inner *in, melu__ref x, size_t n_rows) {
  if (in->moved != MELU__NO_NODE)
    x = melu__tape_sub(in->tape, x, melu__inner_spread(in, MELU__SLOT_OVERLAP_Q, n_rows, in->moved));
  return melu__inner_predict_from_z(in, x, melu__tape_matmul(in->tape, x, in->w.at[W1_ITEM], 0, 1), n_rows);
}

melu__ref melu__inner_predict_from_z(struct melu__inner *in, melu__ref x, melu__ref z, size_t n_rows) {
  struct melu__tape *t = in->tape;
  z = melu__tape_add_row(t, z, in->user_row);
  if (in->c != MELU__NO_NODE) {
    const melu__ref kc = melu__tape_matmul(t, kernel_matrix(in, x, n_rows), in->c, 0, 0);
    z = melu__tape_sub(t, z, melu__tape_scale(t, kc, in->model->options.inner_lr));
  }
  return melu__upper_layers(t, &in->w, z);
}

struct melu__weights melu__inner_weights(struct melu__inner *in) {
  struct melu__tape *t = in->tape;
  struct melu__weights w = in->w;
  if (in->c == MELU__NO_NODE) return w;
  const melu__ref c_sum = melu__tape_sum_rows(t, in->c);
  const melu__ref d[FIRST_UPPER] = {melu__tape_matmul(t, in->c, in->xs_k, 1, 0),
                                    melu__tape_matmul(t, c_sum, in->xu_k, 1, 0), c_sum};
  for (size_t i = 0; i < FIRST_UPPER; i++)
    w.at[i] = melu__tape_sub(t, w.at[i], melu__tape_scale(t, d[i], in->model->options.inner_lr));
  return w;
}

melu__ref melu__inner_user_row(struct melu__inner *in) {
  struct melu__tape *t = in->tape;
  if (in->c == MELU__NO_NODE) return in->user_row;
  const melu__ref moved = melu__tape_matmul(t, in->kappa, melu__tape_sum_rows(t, in->c), 0, 0);
  return melu__tape_sub(t, in->user_row, melu__tape_scale(t, moved, in->model->options.inner_lr));
}
