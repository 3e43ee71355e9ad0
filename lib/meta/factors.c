/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/factors.h"

#include <string.h>

#define ENCODER_GAIN 5 /* phi is of the order of 0.1: what enters the hidden layer is of the order of 1 */

size_t melu__encoded_cols(const melu_model *model) {
  return melu__item_cols(&model->options) + 1;
}

size_t melu__task_row(const melu_model *model) {
  return melu__size_align(melu__user_cols(&model->options) + 1, 8);
}

void melu__set_task_row(const melu_model *model, const real *encoded, real *row) {
  const size_t rank = model->options.rank;
  memcpy(row, encoded, rank * sizeof *row);
  row[rank] = 1;
  row[rank + 1] = encoded[melu__encoded_cols(model) - 1];
  row[rank + 2] = encoded[rank];
}

void melu__add_to_pool(const melu_model *model, const real *encoded, real *pooled) {
  const size_t rank = model->options.rank, width = melu__user_cols(&model->options);
  model->ctx->kernels->axpy(1, width, 1, (struct melu__cmat){encoded + rank + 1, width},
                            (struct melu__mat){pooled, width});
}

/* ------------------------------------------------------------------------------------------------ encoders */

struct melu__factor_inputs melu__factor_inputs(struct melu__tape *t, const melu_model *model) {
  struct melu__factor_inputs inputs;
  for (size_t i = 0; i < MELU__N_FACTOR_PARAMS; i++) {
    const uint32_t w = model->factor_weight[i];
    inputs.at[i] = MELU__NO_NODE;
    if (w == UINT32_MAX) continue;
    const struct melu__param *p = &model->params[model->n_tables + w];
    inputs.at[i] = melu__tape_input(t, MELU__SLOT_WEIGHTS + w, p->rows, p->cols);
  }
  return inputs;
}

/* The first `width` columns of x, and what the numbers in those from `first` on add. */
static melu__ref sum_of_fields(struct melu__tape *t, melu__ref x, size_t width, size_t first, size_t all_width,
                               melu__ref numbers) {
  const melu__ref sum = melu__tape_slice(t, x, 0, width);
  if (all_width == first) return sum;
  const melu__ref n = melu__tape_slice(t, x, first, all_width - first);
  return melu__tape_add(t, sum, melu__tape_matmul(t, n, numbers, 0, 0));
}

static melu__ref hidden_layer(struct melu__tape *t, const melu__ref *p, melu__ref phi) {
  const melu__ref in = melu__tape_matmul(t, melu__tape_scale(t, phi, ENCODER_GAIN), p[MELU__F_H1], 0, 1);
  const melu__ref h = melu__tape_relu(t, melu__tape_add_row(t, in, p[MELU__F_H1_BIAS]));
  return melu__tape_matmul(t, h, p[MELU__F_H2], 0, 1);
}

/* What is known of new items is less, and of another size: x (n, width) times the entry of "new" in rows of those. */
static melu__ref change_of_new(struct melu__tape *t, melu__ref is_new, melu__ref x, melu__ref change, size_t entry,
                               size_t width) {
  const melu__ref times = melu__tape_fill(t, melu__tape_slice(t, change, entry, 1), 1, width);
  return melu__tape_mul(t, melu__tape_matmul(t, is_new, times, 0, 0), x);
}

melu__ref melu__encode_items(struct melu__tape *t, const melu_model *model, const struct melu__factor_inputs *params,
                             melu__ref x) {
  const struct melu_model_options *o = &model->options;
  const melu__ref *p = params->at;
  const size_t cols = melu__item_cols(o);
  const melu__ref sum = sum_of_fields(t, x, cols, cols + 1, model->item_width, p[MELU__F_N_ITEM]);
  const melu__ref is_new = melu__tape_slice(t, x, cols, 1);
  melu__ref phi = melu__tape_slice(t, sum, 0, o->rank);
  const melu__ref offset = melu__tape_slice(t, sum, o->rank, 1);
  const melu__ref y = melu__tape_slice(t, sum, o->rank + 1, cols - o->rank - 1);
  if (o->n_hidden) phi = melu__tape_add(t, phi, hidden_layer(t, p, phi));
  phi = melu__tape_add(t, phi, change_of_new(t, is_new, phi, p[MELU__F_NEW], 0, o->rank));
  const melu__ref changed = melu__tape_add(t, offset, change_of_new(t, is_new, offset, p[MELU__F_NEW], 1, 1));
  return melu__tape_concat(t, melu__tape_concat(t, phi, changed), melu__tape_concat(t, y, is_new));
}

melu__ref melu__encode_users(struct melu__tape *t, const melu_model *model, const struct melu__factor_inputs *params,
                             melu__ref xu) {
  const size_t width = melu__user_cols(&model->options);
  const melu__ref sum = sum_of_fields(t, xu, width, width, model->user_width, params->at[MELU__F_N_USER]);
  return melu__tape_add_row(t, sum, params->at[MELU__F_PRIOR]);
}

/* ---------------------------------------------------------------------------------------------------- task */

static melu__ref mul_number(struct melu__tape *t, melu__ref row, melu__ref number) {
  const size_t cols = t->status ? 0 : t->nodes[row].cols;
  return melu__tape_mul(t, row, melu__tape_fill(t, number, 1, cols));
}

/* Those of the levels are always learnt: it is the ratings that decide them. */
static melu__ref precision(struct melu__factors *f) {
  struct melu__tape *t = f->tape;
  const size_t rank = f->model->options.rank, rest = melu__user_cols(&f->model->options) - rank;
  const melu__ref all = melu__softplus(t, f->params.at[MELU__F_PRECISION]);
  if (f->model->options.learn_precision) return all;
  return melu__tape_concat(t, melu__tape_detach(t, melu__tape_slice(t, all, 0, rank)),
                           melu__tape_slice(t, all, rank, rest));
}

/* Rows of the support set, each as often as it counts. */
static melu__ref counted(struct melu__factors *f, melu__ref rows) {
  struct melu__tape *t = f->tape;
  if (f->counts == MELU__NO_NODE) return rows;
  const size_t cols = t->status ? 0 : t->nodes[rows].cols;
  return melu__tape_mul(t, melu__tape_matmul(t, f->counts, melu__tape_const(t, 1, cols, 1), 0, 0), rows);
}

/* What the user's history adds to the mean of her prior. */
static melu__ref history(struct melu__factors *f) {
  struct melu__tape *t = f->tape;
  const size_t rank = f->model->options.rank;
  const melu__ref rows = counted(f, melu__tape_concat(t, f->f, f->o)), sum = melu__tape_sum_rows(t, rows);
  const melu__ref n = melu__tape_slice(t, sum, rank, 1);
  const melu__ref share = melu__tape_recip(t, melu__tape_add(t, n, melu__softplus(t, f->params.at[MELU__F_SHRINK])));
  const melu__ref rated = melu__tape_matmul(t, melu__tape_sub(t, f->y, f->o), rows, 1, 0);
  melu__ref all = melu__tape_add(t, f->pooled, melu__tape_matmul(t, sum, f->params.at[MELU__F_POOL], 0, 0));
  all = melu__tape_add(t, all, melu__tape_matmul(t, rated, f->params.at[MELU__F_POOL_RATED], 0, 0));
  return mul_number(t, all, share);
}

void melu__factors_begin(struct melu__factors *f, struct melu__tape *t, const melu_model *model, size_t n_support,
                         melu__ref counts) {
  const size_t width = melu__user_cols(&model->options);
  memset(f, 0, sizeof *f);
  f->tape = t;
  f->model = model;
  f->n_support = n_support;
  f->counts = counts;
  f->params = melu__factor_inputs(t, model);
  f->f = melu__tape_input(t, MELU__SLOT_XS, n_support, width);
  f->o = melu__tape_input(t, MELU__SLOT_ZS, n_support, 1);
  f->y = melu__tape_input(t, MELU__SLOT_YS, n_support, 1);
  f->pooled = melu__tape_input(t, MELU__SLOT_POOLED, 1, width);
  f->m_user = melu__tape_input(t, MELU__SLOT_ROW, 1, width);
  f->precision = precision(f);
  f->m = f->m_user;
  if (n_support && model->options.history) f->m = melu__tape_add(t, f->m, history(f));
  f->w = f->m;
}

melu__ref melu__factors_predict(struct melu__factors *f, melu__ref rows, melu__ref offsets) {
  return melu__tape_add(f->tape, offsets, melu__tape_matmul(f->tape, rows, f->w, 0, 1));
}

/* r - o - F w; with MELU_LOGISTIC r - sigmoid(o + F w). Zero in rows of padding. */
static melu__ref residual(struct melu__factors *f) {
  struct melu__tape *t = f->tape;
  const melu__ref z = melu__factors_predict(f, f->f, f->o);
  if (f->model->options.loss != MELU_LOGISTIC) return melu__tape_sub(t, f->y, z);
  const melu__ref is_row = melu__tape_slice(t, f->f, f->model->options.rank, 1);
  return melu__tape_mul(t, is_row, melu__tape_sub(t, f->y, melu__tape_sigmoid(t, z)));
}

melu__ref melu__factors_gram(struct melu__factors *f) {
  struct melu__tape *t = f->tape;
  const melu__ref p = melu__tape_diag(t, melu__tape_scale(t, f->precision, melu__curvature(f->model)));
  return f->n_support ? melu__tape_add(t, melu__tape_matmul(t, counted(f, f->f), f->f, 1, 0), p) : p;
}

static void solve(struct melu__factors *f) {
  struct melu__tape *t = f->tape;
  const melu__ref b =
      melu__tape_matmul(t, counted(f, f->f), melu__tape_scale(t, residual(f), melu__curvature(f->model)), 1, 0);
  f->w = melu__tape_add(t, f->w, melu__tape_transpose(t, melu__tape_solve(t, melu__factors_gram(f), b)));
}

static melu__ref inner_rate(struct melu__factors *f) {
  struct melu__tape *t = f->tape;
  const struct melu_model_options *o = &f->model->options;
  if (o->rates == MELU_RATE_FIXED) return melu__tape_const(t, 1, melu__user_cols(o), o->inner_lr);
  const melu__ref rate = f->params.at[MELU__F_RATE];
  return o->rates == MELU_RATE_PER_ENTRY ? rate : melu__tape_fill(t, rate, 1, melu__user_cols(o));
}

/* Down the sum of the losses and the prior's: w += a (F' residual - P (w - m)) / (1 + n / 4), the bracket keeping steps
 * stable whatever the number of ratings. */
void melu__factors_step(struct melu__factors *f) {
  struct melu__tape *t = f->tape;
  const melu__ref rows = counted(f, f->f);
  const melu__ref n = melu__tape_sum_all(t, melu__tape_slice(t, rows, f->model->options.rank, 1));
  const melu__ref share =
      melu__tape_recip(t, melu__tape_add(t, melu__tape_const(t, 1, 1, 1), melu__tape_scale(t, n, 0.25)));
  const melu__ref pull = melu__tape_matmul(t, residual(f), rows, 1, 0);
  const melu__ref back = melu__tape_mul(t, f->precision, melu__tape_sub(t, f->w, f->m));
  melu__ref g = mul_number(t, melu__tape_sub(t, pull, back), share);
  if (f->model->options.first_order) g = melu__tape_detach(t, g);
  f->w = melu__tape_add(t, f->w, melu__tape_mul(t, inner_rate(f), g));
}

void melu__factors_adapt(struct melu__factors *f, void (*after)(void *arg, struct melu__factors *f), void *arg) {
  if (f->n_support == 0) return;
  if (f->model->options.rule == MELU_CLOSED_FORM) {
    solve(f);
    return;
  }
  for (size_t k = 0; k < f->model->options.inner_steps; k++) {
    melu__factors_step(f);
    if (after) after(arg, f);
  }
}
