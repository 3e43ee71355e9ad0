/* SPDX-License-Identifier: BSD-3-Clause */
/* The plans of MELU_LAYERS. */
#include "meta/task.h"

/* --------------------------------------------------------------------------------------------------- tasks */

/* The query set, and its loss: after the adaptation, or the mean of those after each step. */
struct query {
  enum melu__plan_kind kind;
  melu__ref x, y, z, sum; /* z: DUAL alone */
  size_t n, n_losses;
};

static void add_loss(void *arg, struct melu__inner *in) {
  struct query *q = arg;
  const melu__ref predictions =
      in->form == MELU__DUAL ? melu__inner_predict_from_z(in, q->x, q->z, q->n) : melu__inner_predict(in, q->x, q->n);
  if (q->kind == MELU__PLAN_META_SCORES) {
    q->sum = predictions;
    return;
  }
  const melu__ref loss = q->kind == MELU__PLAN_META_LINEAR
                             ? melu__tape_sum_all(in->tape, melu__tape_mul(in->tape, predictions, q->y))
                             : melu__mean_loss(in->tape, in->model->options.loss, predictions, q->y, q->n);
  q->sum = q->n_losses++ ? melu__tape_add(in->tape, q->sum, loss) : loss;
}

/* The loss, or the scores. Records the adaptation too. */
static melu__ref query_loss(struct query *q, struct melu__inner *in) {
  struct melu__tape *t = in->tape;
  q->x = melu__tape_input(t, MELU__SLOT_XQ, q->n, in->model->item_width);
  q->y = melu__tape_input(t, MELU__SLOT_YQ, q->n, 1);
  if (in->form == MELU__DUAL) q->z = melu__tape_input(t, MELU__SLOT_ZQ, q->n, melu__model_weight(in->model, 0)->rows);
  melu__inner_adapt(in, in->model->options.multi_step && q->kind == MELU__PLAN_META ? add_loss : NULL, q);
  if (q->n_losses == 0) add_loss(q, in);
  if (q->kind == MELU__PLAN_META_SCORES) return q->sum;
  return melu__tape_scale(t, q->sum, 1.0 / (double)q->n_losses);
}

static void record_direct(struct melu__outputs *o, struct melu__tape *t, const melu_model *model,
                          enum melu__plan_kind kind, size_t n_support, size_t n_query) {
  struct melu__inner in;
  struct query q = {.kind = kind, .n = n_query};
  melu__inner_begin(&in, t, model, MELU__DIRECT, n_support);
  in.folds = melu__folds(model);
  const struct melu__weights initial = in.w;
  const melu__ref loss = query_loss(&q, &in);
  if (kind == MELU__PLAN_META_SCORES) {
    melu__keep(o, loss, MELU__SLOT_SCORES);
    return;
  }

  melu__ref wrt[MELU__MAX_WEIGHTS + 3] = {in.xs, q.x, in.xu}, g[MELU__MAX_WEIGHTS + 3];
  size_t n = 3;
  for (size_t i = 0; i < initial.n; i++) wrt[n++] = initial.at[i];
  for (size_t i = 0; i < in.learnt.n; i++) wrt[n++] = in.learnt.at[i];
  melu__tape_grad(t, loss, wrt, n, g);
  melu__keep(o, loss, MELU__SLOT_LOSS);
  for (uint32_t i = 0; i < 3; i++) melu__keep(o, g[i], MELU__SLOT_GRAD_XS + i);
  for (uint32_t i = 0; i < n - 3; i++) melu__add(o, g[3 + i], MELU__SLOT_GRADS + i, MELU__SLOT_BASES + i);
}

static void record_dual(struct melu__outputs *o, struct melu__tape *t, const melu_model *model,
                        enum melu__plan_kind kind, size_t n_support, size_t n_query) {
  static const uint32_t to[] = {MELU__SLOT_GRAD_XS, MELU__SLOT_GRAD_XQ,  MELU__SLOT_GRAD_ZS,
                                MELU__SLOT_GRAD_ZQ, MELU__SLOT_GRAD_ROW, MELU__SLOT_GRAD_KAPPA};
  enum { N = sizeof to / sizeof *to, FIRST_UPPER = 3 };
  struct melu__inner in;
  struct query q = {.kind = kind, .n = n_query};
  melu__inner_begin_from_z(&in, t, model, n_support);
  in.folds = melu__folds(model);
  const struct melu__weights initial = in.w;
  const melu__ref loss = query_loss(&q, &in);
  if (kind == MELU__PLAN_META_SCORES) {
    melu__keep(o, loss, MELU__SLOT_SCORES);
    return;
  }

  melu__ref wrt[MELU__MAX_WEIGHTS + N] = {in.xs, q.x, in.zs, q.z, in.user_row, in.kappa}, g[MELU__MAX_WEIGHTS + N];
  const size_t n_upper = initial.n - FIRST_UPPER;
  for (size_t i = 0; i < n_upper; i++) wrt[N + i] = initial.at[FIRST_UPPER + i];
  melu__tape_grad(t, loss, wrt, N + n_upper, g);
  melu__keep(o, loss, MELU__SLOT_LOSS);
  for (uint32_t i = 0; i < N; i++) melu__keep(o, g[i], to[i]);
  for (uint32_t i = 0; i < n_upper; i++)
    melu__add(o, g[N + i], MELU__SLOT_GRADS + FIRST_UPPER + i, MELU__SLOT_BASES + FIRST_UPPER + i);
}

/* --------------------------------------------------------------------------- the first layer of many tasks */

static melu__ref input_weight(struct melu__tape *t, const melu_model *model, uint32_t i) {
  size_t rows, cols;
  melu__weight_shape(model, i, &rows, &cols);
  return melu__tape_input(t, MELU__SLOT_WEIGHTS + i, rows, cols);
}

static void record_items(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, int is_grad,
                         size_t n) {
  const melu__ref x = melu__tape_input(t, MELU__SLOT_XS, n, model->item_width), w = input_weight(t, model, 0);
  const melu__ref z = melu__tape_matmul(t, x, w, 0, 1), wrt[] = {x, w};
  melu__ref g[2];
  if (!is_grad) {
    melu__keep(o, z, MELU__SLOT_ZS);
    return;
  }
  melu__tape_grad(t, melu__pulled(t, z, MELU__SLOT_GRAD_ZS), wrt, 2, g);
  melu__add(o, g[0], MELU__SLOT_GRAD_XS, MELU__SLOT_GRAD_XS);
  melu__add(o, g[1], MELU__SLOT_GRADS, MELU__SLOT_BASES);
}

static void record_users(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, int is_grad,
                         size_t n) {
  const melu__ref xu = melu__tape_input(t, MELU__SLOT_XU, n, model->user_width);
  const melu__ref w = input_weight(t, model, 1), b = input_weight(t, model, 2), wrt[] = {xu, w, b};
  const melu__ref row = melu__tape_add_row(t, melu__tape_matmul(t, xu, w, 0, 1), b);
  const melu__ref kappa = melu__inner_kappas(t, model, xu);
  melu__ref g[3];
  if (!is_grad) {
    melu__keep(o, row, MELU__SLOT_ROW);
    melu__keep(o, kappa, MELU__SLOT_KAPPA);
    return;
  }
  const melu__ref sum =
      melu__tape_add(t, melu__pulled(t, row, MELU__SLOT_GRAD_ROW), melu__pulled(t, kappa, MELU__SLOT_GRAD_KAPPA));
  melu__tape_grad(t, sum, wrt, 3, g);
  melu__keep(o, g[0], MELU__SLOT_GRAD_XU);
  melu__add(o, g[1], MELU__SLOT_GRADS + 1, MELU__SLOT_BASES + 1);
  melu__add(o, g[2], MELU__SLOT_GRADS + 2, MELU__SLOT_BASES + 2);
}

/* --------------------------------------------------------------------------------------- adapted users */

/* The first layer, or what it takes to have it: the sum of D, and the support rows. */
static void keep_first_layer(struct melu__outputs *o, struct melu__tape *t, const struct melu__inner *in,
                             const struct melu__weights *w) {
  const size_t n = in->n_support, kept = melu__kept_rows(in->model, n);
  if (kept == MELU__FORMED) {
    melu__keep(o, melu__tape_transpose(t, w->at[0]), MELU__SLOT_GRADS);
  } else if (kept) {
    const size_t h = melu__model_weight(in->model, 0)->rows;
    melu__keep(o, in->c == MELU__NO_NODE ? melu__tape_const(t, n, h, 0) : in->c, MELU__SLOT_GRADS);
    melu__keep(o, melu__tape_transpose(t, in->xs), MELU__SLOT_GRADS + 1);
  }
}

static void record_adapt(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, enum melu__form form,
                         size_t n_support) {
  struct melu__inner in;
  melu__inner_begin(&in, t, model, form, n_support);
  melu__inner_adapt(&in, NULL, NULL);
  const struct melu__weights w = melu__inner_weights(&in);
  keep_first_layer(o, t, &in, &w);
  melu__keep(o, melu__inner_user_row(&in), MELU__SLOT_GRADS + 2);
  for (uint32_t i = 3; i < w.n; i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    melu__keep(o, melu__is_matrix(rows, cols) ? melu__tape_transpose(t, w.at[i]) : w.at[i], MELU__SLOT_GRADS + i);
  }
  if (!n_support || !(model->options.adapt & MELU_ADAPT_ITEMS)) return;
  if (in.moved == MELU__NO_NODE) in.moved = melu__tape_const(t, n_support, model->item_width, 0);
  melu__keep(o, in.moved, MELU__SLOT_MOVED);
}

/* How the score of one query row depends on how often each support row counts. What first order leaves out of training
 * is part of it. */
static void record_explain(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, enum melu__form form,
                           size_t n_support) {
  melu_model second_order = *model;
  struct melu__inner in;
  melu__ref g;
  second_order.options.first_order = 0;
  melu__inner_begin(&in, t, &second_order, form, n_support);
  in.counts = melu__tape_const(t, n_support, 1, 1);
  melu__inner_adapt(&in, NULL, NULL);
  const melu__ref score = melu__inner_predict(&in, melu__tape_input(t, MELU__SLOT_XQ, 1, model->item_width), 1);
  melu__tape_grad(t, score, &in.counts, 1, &g);
  melu__keep(o, g, MELU__SLOT_SCORES);
}

/* The squared norm of the first inner gradient of one rating. */
static void record_norm(struct melu__outputs *o, struct melu__tape *t, const melu_model *model) {
  struct melu__inner in;
  melu__ref wrt[MELU__MAX_WEIGHTS], g[MELU__MAX_WEIGHTS], sum = melu__tape_const(t, 1, 1, 0);
  melu__inner_begin(&in, t, model, MELU__DIRECT, 1);
  const melu__ref loss = melu__inner_loss(&in);
  const size_t n = melu__inner_adapted(&in, wrt);
  melu__tape_grad(t, loss, wrt, n, g);
  for (size_t i = 0; i < n; i++) {
    /* Of an item it is the embedding rows that are adapted: each has its share of the mean. */
    const melu__ref same = wrt[i] == in.xs ? melu__inner_spread(&in, MELU__SLOT_OVERLAP_S, 1, g[i]) : g[i];
    sum = melu__tape_add(t, sum, melu__tape_sum_all(t, melu__tape_mul(t, g[i], same)));
  }
  melu__keep(o, sum, MELU__SLOT_LOSS);
}

/* The user's upper layers as the network takes them; their inputs are the transposes. */
static struct melu__weights record_user(struct melu__tape *t, const melu_model *model) {
  struct melu__weights w = {.n = 2 * model->n_layers + 1};
  for (uint32_t i = 2; i < w.n; i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    w.at[i] = melu__is_matrix(rows, cols)
                  ? melu__tape_transpose(t, melu__tape_input(t, MELU__SLOT_WEIGHTS + i, cols, rows))
                  : melu__tape_input(t, MELU__SLOT_WEIGHTS + i, rows, cols);
  }
  return w;
}

/* Rows of items for a user, whose first layer is formed or has n_support rows. */
static void record_predict(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, int is_rank,
                           size_t n_support, size_t n_rows) {
  const size_t h = melu__model_weight(model, 0)->rows, width = model->item_width;
  const struct melu__weights w = record_user(t, model);
  const int is_formed = n_support == MELU__FORMED;
  const melu__ref x = melu__tape_input(t, MELU__SLOT_XQ, n_rows, width);
  const melu__ref w1 = melu__tape_input(t, is_formed ? MELU__SLOT_WEIGHTS : MELU__SLOT_TRANSPOSED, width, h);
  melu__ref z =
      is_rank && !is_formed ? melu__tape_input(t, MELU__SLOT_Z, n_rows, h) : melu__tape_matmul(t, x, w1, 0, 0);
  z = melu__tape_add_row(t, z, w.at[2]);
  if (!is_formed && n_support) {
    const melu__ref xt = melu__tape_input(t, MELU__SLOT_XT, width, n_support);
    const melu__ref c = melu__tape_input(t, MELU__SLOT_GRADS, n_support, h);
    const melu__ref moved = melu__tape_matmul(t, melu__tape_matmul(t, x, xt, 0, 0), c, 0, 0);
    z = melu__tape_sub(t, z, melu__tape_scale(t, moved, model->options.inner_lr));
  }
  melu__keep(o, melu__upper_layers(t, &w, z), MELU__SLOT_SCORES);
}

void melu__record_layers(struct melu__outputs *o, struct melu__tape *t, const melu_model *model,
                         enum melu__plan_kind kind, enum melu__form form, size_t n_support, size_t n_query) {
  switch (kind) {
    case MELU__PLAN_META:
    case MELU__PLAN_META_SCORES:
    case MELU__PLAN_META_LINEAR:
      (form == MELU__DIRECT ? record_direct : record_dual)(o, t, model, kind, n_support, n_query);
      break;
    case MELU__PLAN_ITEMS:
    case MELU__PLAN_ITEMS_GRAD:
      record_items(o, t, model, kind == MELU__PLAN_ITEMS_GRAD, n_query);
      break;
    case MELU__PLAN_USERS:
    case MELU__PLAN_USERS_GRAD:
      record_users(o, t, model, kind == MELU__PLAN_USERS_GRAD, n_query);
      break;
    case MELU__PLAN_ADAPT:
      record_adapt(o, t, model, form, n_support);
      break;
    case MELU__PLAN_EXPLAIN:
      record_explain(o, t, model, form, n_support);
      break;
    case MELU__PLAN_NORM:
      record_norm(o, t, model);
      break;
    default:
      record_predict(o, t, model, kind == MELU__PLAN_RANK, n_support, n_query);
  }
}
