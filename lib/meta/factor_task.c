/* SPDX-License-Identifier: BSD-3-Clause */
/* The plans of MELU_FACTORS. */
#include "meta/factors.h"
#include "meta/loss.h"
#include "meta/task.h"

/* The outer loss: after the adaptation, or the mean of those after each step. */
struct outer_loss {
  melu__ref xq, zq, yq, wq, sum;
  size_t n_query, n;
};

static struct outer_loss begin(struct melu__factors *f, struct melu__tape *t, const melu_model *model, size_t n_support,
                               size_t n_query) {
  melu__factors_begin(f, t, model, n_support, MELU__NO_NODE);
  return (struct outer_loss){.xq = melu__tape_input(t, MELU__SLOT_XQ, n_query, melu__user_cols(&model->options)),
                             .zq = melu__tape_input(t, MELU__SLOT_ZQ, n_query, 1),
                             .yq = melu__tape_input(t, MELU__SLOT_YQ, n_query, 1),
                             .wq = melu__tape_input(t, MELU__SLOT_WQ, n_query, 1),
                             .n_query = n_query};
}

static void add_loss(void *arg, struct melu__factors *f) {
  struct outer_loss *l = arg;
  const melu__ref score = melu__factors_predict(f, l->xq, l->zq);
  const melu__ref loss = melu__loss(f->tape, f->model->options.loss, score, l->yq, l->wq, l->n_query);
  l->sum = l->n++ ? melu__tape_add(f->tape, l->sum, loss) : loss;
}

/* Gradients of dense parameters, wrt[first .. n), go where their input slots say. */
static void add_weights(struct melu__outputs *o, const struct melu__tape *t, const melu__ref *wrt, const melu__ref *g,
                        size_t first, size_t n) {
  for (size_t i = first; i < n && !t->status; i++) {
    const uint32_t w = t->nodes[wrt[i]].index - MELU__SLOT_WEIGHTS;
    melu__add(o, g[i], MELU__SLOT_GRADS + w, MELU__SLOT_BASES + w);
  }
}

/* A linear function of the scores: the derivatives of a host's own loss by them are in YQ. */
static void record_host_loss(struct outer_loss *l, struct melu__factors *f) {
  const melu__ref score = melu__factors_predict(f, l->xq, l->zq);
  l->sum = melu__tape_sum_all(f->tape, melu__tape_mul(f->tape, score, l->yq));
  l->n = 1;
}

static void record_meta(struct melu__outputs *o, struct melu__tape *t, const melu_model *model,
                        enum melu__plan_kind kind, size_t n_support, size_t n_query) {
  static const uint32_t to[] = {MELU__SLOT_GRAD_XS, MELU__SLOT_GRAD_XQ,  MELU__SLOT_GRAD_ZS,
                                MELU__SLOT_GRAD_ZQ, MELU__SLOT_GRAD_ROW, MELU__SLOT_GRAD_POOLED};
  static const enum melu__factor_param params[] = {MELU__F_POOL, MELU__F_POOL_RATED, MELU__F_SHRINK, MELU__F_PRECISION,
                                                   MELU__F_RATE};
  enum { N = sizeof to / sizeof *to, N_PARAMS = sizeof params / sizeof *params };
  struct melu__factors f;
  struct outer_loss loss = begin(&f, t, model, n_support, n_query);
  melu__factors_adapt(&f, model->options.multi_step && kind == MELU__PLAN_META ? add_loss : NULL, &loss);
  if (kind == MELU__PLAN_META_LINEAR)
    record_host_loss(&loss, &f);
  else if (loss.n == 0)
    add_loss(&loss, &f);
  const melu__ref mean = melu__tape_scale(t, loss.sum, 1.0 / (double)loss.n);

  melu__ref wrt[N + N_PARAMS] = {f.f, loss.xq, f.o, loss.zq, f.m_user, f.pooled}, g[N + N_PARAMS];
  size_t n = N;
  for (size_t i = 0; i < N_PARAMS; i++)
    if (f.params.at[params[i]] != MELU__NO_NODE) wrt[n++] = f.params.at[params[i]];
  melu__tape_grad(t, mean, wrt, n, g);
  melu__keep(o, mean, MELU__SLOT_LOSS);
  for (size_t i = 0; i < N; i++) melu__keep(o, g[i], to[i]);
  add_weights(o, t, wrt, g, N, n);
}

/* An encoder, or its gradient back to its rows and to the dense parameters it has. */
static void record_encoder(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, int of_users,
                           int is_grad, size_t n) {
  static const enum melu__factor_param params[2][5] = {
      {MELU__F_H1, MELU__F_H1_BIAS, MELU__F_H2, MELU__F_N_ITEM, MELU__F_NEW}, {MELU__F_PRIOR, MELU__F_N_USER}};
  const struct melu__factor_inputs inputs = melu__factor_inputs(t, model);
  const melu__ref x = of_users ? melu__tape_input(t, MELU__SLOT_XU, n, model->user_width)
                               : melu__tape_input(t, MELU__SLOT_XS, n, model->item_width);
  const melu__ref y = of_users ? melu__encode_users(t, model, &inputs, x) : melu__encode_items(t, model, &inputs, x);
  melu__ref wrt[6] = {x}, g[6];
  size_t k = 1;
  if (!is_grad) {
    melu__keep(o, y, of_users ? MELU__SLOT_ROW : MELU__SLOT_ZS);
    return;
  }
  for (size_t i = 0; i < (of_users ? 2 : 5); i++)
    if (inputs.at[params[of_users][i]] != MELU__NO_NODE) wrt[k++] = inputs.at[params[of_users][i]];
  melu__tape_grad(t, melu__pulled(t, y, of_users ? MELU__SLOT_GRAD_ROW : MELU__SLOT_GRAD_ZS), wrt, k, g);
  melu__keep(o, g[0], of_users ? MELU__SLOT_GRAD_XU : MELU__SLOT_GRAD_XS);
  add_weights(o, t, wrt, g, 1, k);
}

static void record_adapt(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n_support) {
  struct melu__factors f;
  melu__factors_begin(&f, t, model, n_support, MELU__NO_NODE);
  melu__factors_adapt(&f, NULL, NULL);
  melu__keep(o, f.w, MELU__SLOT_GRADS);
  melu__keep(o, melu__factors_gram(&f), MELU__SLOT_GRADS + 1);
}

static void record_predict(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n) {
  const size_t width = melu__user_cols(&model->options);
  const melu__ref x = melu__tape_input(t, MELU__SLOT_XQ, n, width), z = melu__tape_input(t, MELU__SLOT_ZQ, n, 1);
  const melu__ref w = melu__tape_input(t, MELU__SLOT_GRADS, 1, width);
  melu__keep(o, melu__tape_add(t, z, melu__tape_matmul(t, x, w, 0, 1)), MELU__SLOT_SCORES);
}

/* Whole rows of a task, o included, times as many numbers. */
static void record_rank(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n) {
  const melu__ref x = melu__tape_input(t, MELU__SLOT_XQ, n, melu__task_row(model));
  const melu__ref w = melu__tape_input(t, MELU__SLOT_GRADS, 1, melu__task_row(model));
  melu__keep(o, melu__tape_matmul(t, x, w, 0, 1), MELU__SLOT_SCORES);
}

/* x (F'F + P)^-1 x' of each row x: (n, 1). */
static melu__ref spread_of(struct melu__tape *t, melu__ref gram, melu__ref x) {
  const melu__ref xt = melu__tape_transpose(t, x);
  return melu__tape_transpose(t, melu__tape_sum_rows(t, melu__tape_mul(t, xt, melu__tape_solve(t, gram, xt))));
}

static void record_spread(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n) {
  const size_t width = melu__user_cols(&model->options);
  const melu__ref x = melu__tape_input(t, MELU__SLOT_XQ, n, width);
  melu__keep(o, spread_of(t, melu__tape_input(t, MELU__SLOT_GRADS + 1, width, width), x), MELU__SLOT_SCORES);
}

static void record_scores(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n_support,
                          size_t n_query) {
  struct melu__factors f;
  struct outer_loss in = begin(&f, t, model, n_support, n_query);
  melu__factors_adapt(&f, NULL, NULL);
  melu__keep(o, melu__factors_predict(&f, in.xq, in.zq), MELU__SLOT_SCORES);
}

/* Of one query row. What first order leaves out of training is part of how a score depends on ratings. */
static void record_explain(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n_support) {
  melu_model second_order = *model;
  struct melu__factors f;
  second_order.options.first_order = 0;
  melu__factors_begin(&f, t, &second_order, n_support, melu__tape_const(t, n_support, 1, 1));
  melu__factors_adapt(&f, NULL, NULL);
  const melu__ref xq = melu__tape_input(t, MELU__SLOT_XQ, 1, melu__user_cols(&model->options));
  const melu__ref score = melu__factors_predict(&f, xq, melu__tape_input(t, MELU__SLOT_ZQ, 1, 1));
  melu__ref wrt[] = {f.counts, f.pooled}, g[2];
  melu__tape_grad(t, score, wrt, 2, g);
  melu__keep(o, g[0], MELU__SLOT_SCORES);
  melu__keep(o, g[1], MELU__SLOT_GRAD_POOLED);
}

/* The squared norm of the loss's gradient at the prior's mean, which is where the first step begins. */
static void record_norm(struct melu__outputs *o, struct melu__tape *t, const melu_model *model) {
  struct melu__factors f;
  struct outer_loss in = begin(&f, t, model, 0, 1);
  melu__ref g;
  const melu_loss loss = model->options.loss == MELU_LOGISTIC ? MELU_LOGISTIC : MELU_SQUARED;
  const melu__ref score = melu__factors_predict(&f, in.xq, in.zq), one = melu__tape_const(t, 1, 1, 1);
  melu__tape_grad(t, melu__loss(t, loss, score, in.yq, one, 1), &f.w, 1, &g);
  melu__keep(o, melu__tape_sum_all(t, melu__tape_mul(t, g, g)), MELU__SLOT_LOSS);
}

/* Rows x, and S = sum t't over targets t: x A S A x' / (1 + x A x' + new_x new[2]), A = (F'F + P)^-1. */
static void record_ask(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n) {
  const size_t width = melu__user_cols(&model->options);
  const struct melu__factor_inputs params = melu__factor_inputs(t, model);
  const melu__ref x = melu__tape_input(t, MELU__SLOT_XQ, n, width), xt = melu__tape_transpose(t, x);
  const melu__ref gram = melu__tape_input(t, MELU__SLOT_GRADS + 1, width, width);
  const melu__ref targets = melu__tape_input(t, MELU__SLOT_TARGETS, width, width);
  const melu__ref ax = melu__tape_solve(t, gram, xt);
  const melu__ref moved = melu__tape_sum_rows(t, melu__tape_mul(t, ax, melu__tape_matmul(t, targets, ax, 0, 0)));
  melu__ref noise = melu__tape_add(t, melu__tape_const(t, 1, n, 1), melu__tape_sum_rows(t, melu__tape_mul(t, xt, ax)));
  if (model->options.loss != MELU_LOGISTIC) {
    const melu__ref is_new = melu__tape_transpose(t, melu__tape_slice(t, x, model->options.rank + 1, 1));
    const melu__ref more = melu__tape_fill(t, melu__tape_slice(t, params.at[MELU__F_NEW], 2, 1), 1, n);
    noise = melu__tape_add(t, noise, melu__tape_mul(t, is_new, more));
  }
  melu__keep(o, melu__tape_transpose(t, melu__tape_mul(t, moved, melu__tape_recip(t, noise))), MELU__SLOT_SCORES);
}

static void record_noise(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n_support,
                         size_t n_query) {
  struct melu__factors f;
  struct outer_loss in = begin(&f, t, model, n_support, n_query);
  melu__factors_adapt(&f, NULL, NULL);
  const melu__ref e = melu__tape_sub(t, melu__factors_predict(&f, in.xq, in.zq), in.yq);
  const melu__ref one = melu__tape_const(t, n_query, 1, 1);
  const melu__ref expected = melu__tape_add(t, one, spread_of(t, melu__factors_gram(&f), in.xq));
  const melu__ref each = melu__tape_mul(t, melu__tape_mul(t, e, e), melu__tape_recip(t, expected));
  melu__keep(o, melu__tape_sum_all(t, melu__tape_mul(t, in.wq, each)), MELU__SLOT_LOSS);
}

void melu__record_factors(struct melu__outputs *o, struct melu__tape *t, const melu_model *model,
                          enum melu__plan_kind kind, size_t n_support, size_t n_query) {
  switch (kind) {
    case MELU__PLAN_META:
    case MELU__PLAN_META_LINEAR:
      record_meta(o, t, model, kind, n_support, n_query);
      break;
    case MELU__PLAN_META_SCORES:
      record_scores(o, t, model, n_support, n_query);
      break;
    case MELU__PLAN_ITEMS:
    case MELU__PLAN_ITEMS_GRAD:
      record_encoder(o, t, model, 0, kind == MELU__PLAN_ITEMS_GRAD, n_query);
      break;
    case MELU__PLAN_USERS:
    case MELU__PLAN_USERS_GRAD:
      record_encoder(o, t, model, 1, kind == MELU__PLAN_USERS_GRAD, n_query);
      break;
    case MELU__PLAN_ADAPT:
      record_adapt(o, t, model, n_support);
      break;
    case MELU__PLAN_NOISE:
      record_noise(o, t, model, n_support, n_query);
      break;
    case MELU__PLAN_EXPLAIN:
      record_explain(o, t, model, n_support);
      break;
    case MELU__PLAN_NORM:
      record_norm(o, t, model);
      break;
    case MELU__PLAN_ASK:
      record_ask(o, t, model, n_query);
      break;
    case MELU__PLAN_SPREAD:
      record_spread(o, t, model, n_query);
      break;
    case MELU__PLAN_RANK:
      record_rank(o, t, model, n_query);
      break;
    default:
      record_predict(o, t, model, n_query);
  }
}

void melu__factor_layout(struct melu__slot_layout *layout, const melu_model *model, enum melu__plan_kind kind) {
  static const uint32_t rows[] = {MELU__SLOT_XS,      MELU__SLOT_XQ,      MELU__SLOT_ZS,      MELU__SLOT_ZQ,
                                  MELU__SLOT_GRAD_XS, MELU__SLOT_GRAD_XQ, MELU__SLOT_GRAD_ZS, MELU__SLOT_GRAD_ZQ};
  if (kind == MELU__PLAN_ITEMS || kind == MELU__PLAN_ITEMS_GRAD) return;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) layout->ld[rows[i]] = melu__task_row(model);
}
