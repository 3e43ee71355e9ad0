/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/task.h"

#include <string.h>

#include "base/error.h"
#include "model/gradient.h"

/* ------------------------------------------------------------------------------------------------- plans */

#define KEY(kind, n_support, n_query) ((uint64_t)(kind) << 32 | (uint64_t)(n_support) << 16 | (uint64_t)(n_query))

void melu__keep(struct melu__outputs *o, melu__ref node, uint32_t slot) {
  o->at[o->n++] = (struct melu__output){node, slot, 0, 0};
}

void melu__add(struct melu__outputs *o, melu__ref node, uint32_t slot, uint32_t base) {
  o->at[o->n++] = (struct melu__output){node, slot, 1, base};
}

static melu__ref query_loss(struct melu__tape *t, melu__ref predictions, size_t n_query) {
  return melu__squared_error(t, predictions, melu__tape_input(t, MELU__SLOT_YQ, n_query, 1), n_query);
}

static void record_direct(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n_support,
                          size_t n_query) {
  struct melu__inner in;
  melu__inner_begin(&in, t, model, MELU__DIRECT, n_support);
  const struct melu__weights initial = in.w;
  melu__inner_steps(&in);
  const melu__ref xq = melu__tape_input(t, MELU__SLOT_XQ, n_query, model->item_width);
  const melu__ref loss = query_loss(t, melu__inner_predict(&in, xq, n_query), n_query);

  melu__ref wrt[MELU__MAX_WEIGHTS + 3] = {in.xs, xq, in.xu}, g[MELU__MAX_WEIGHTS + 3];
  for (size_t i = 0; i < initial.n; i++) wrt[3 + i] = initial.at[i];
  melu__tape_grad(t, loss, wrt, 3 + initial.n, g);
  melu__keep(o, loss, MELU__SLOT_LOSS);
  for (uint32_t i = 0; i < 3; i++) melu__keep(o, g[i], MELU__SLOT_GRAD_XS + i);
  for (uint32_t i = 0; i < initial.n; i++) melu__add(o, g[3 + i], MELU__SLOT_GRADS + i, MELU__SLOT_BASES + i);
}

static void record_dual(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, size_t n_support,
                        size_t n_query) {
  static const uint32_t to[] = {MELU__SLOT_GRAD_XS, MELU__SLOT_GRAD_XQ,  MELU__SLOT_GRAD_ZS,
                                MELU__SLOT_GRAD_ZQ, MELU__SLOT_GRAD_ROW, MELU__SLOT_GRAD_KAPPA};
  enum { N = sizeof to / sizeof *to, FIRST_UPPER = 3 };
  const size_t h = melu__model_weight(model, 0)->rows;
  struct melu__inner in;
  melu__inner_begin_from_z(&in, t, model, n_support);
  const struct melu__weights initial = in.w;
  melu__inner_steps(&in);
  const melu__ref xq = melu__tape_input(t, MELU__SLOT_XQ, n_query, model->item_width);
  const melu__ref zq = melu__tape_input(t, MELU__SLOT_ZQ, n_query, h);
  const melu__ref loss = query_loss(t, melu__inner_predict_from_z(&in, xq, zq, n_query), n_query);

  melu__ref wrt[MELU__MAX_WEIGHTS + N] = {in.xs, xq, in.zs, zq, in.user_row, in.kappa}, g[MELU__MAX_WEIGHTS + N];
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

melu__ref melu__pulled(struct melu__tape *t, melu__ref y, uint32_t grad_slot) {
  const struct melu__node like = t->status ? (struct melu__node){0} : t->nodes[y];
  return melu__tape_sum_all(t, melu__tape_mul(t, y, melu__tape_input(t, grad_slot, like.rows, like.cols)));
}

static void record_items(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, int is_grad, size_t n) {
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

static void record_users(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, int is_grad, size_t n) {
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
  const melu__ref sum = melu__tape_add(t, melu__pulled(t, row, MELU__SLOT_GRAD_ROW), melu__pulled(t, kappa, MELU__SLOT_GRAD_KAPPA));
  melu__tape_grad(t, sum, wrt, 3, g);
  melu__keep(o, g[0], MELU__SLOT_GRAD_XU);
  melu__add(o, g[1], MELU__SLOT_GRADS + 1, MELU__SLOT_BASES + 1);
  melu__add(o, g[2], MELU__SLOT_GRADS + 2, MELU__SLOT_BASES + 2);
}

/* --------------------------------------------------------------------------------------- adapted users */

enum { MOST_KEPT = 128 }; /* every number of rows has plans of its own */

int melu__keeps_rows(const melu_model *model, size_t n_support) {
  const size_t h = melu__model_weight(model, 0)->rows;
  return n_support <= MOST_KEPT && melu__size_mul(n_support, h + model->item_width) <= h * model->item_width;
}

static int is_matrix(size_t rows, size_t cols) {
  return rows > 1 && cols > 0;
}

static void record_adapt(struct melu__outputs *o, struct melu__tape *t, const melu_model *model, enum melu__form form,
                         size_t n_support) {
  struct melu__inner in;
  melu__inner_begin(&in, t, model, form, n_support);
  melu__inner_steps(&in);
  const struct melu__weights w = melu__inner_weights(&in);
  if (!melu__keeps_rows(model, n_support)) {
    melu__keep(o, melu__tape_transpose(t, w.at[0]), MELU__SLOT_GRADS);
  } else if (n_support) {
    if (in.c == MELU__NO_NODE) in.c = melu__tape_const(t, n_support, melu__model_weight(model, 0)->rows, 0);
    melu__keep(o, in.c, MELU__SLOT_GRADS);
    melu__keep(o, melu__tape_transpose(t, in.xs), MELU__SLOT_GRADS + 1);
  }
  melu__keep(o, melu__inner_user_row(&in), MELU__SLOT_GRADS + 2);
  for (uint32_t i = 3; i < w.n; i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    melu__keep(o, is_matrix(rows, cols) ? melu__tape_transpose(t, w.at[i]) : w.at[i], MELU__SLOT_GRADS + i);
  }
}

/* The user's upper layers as the network takes them; their inputs are the transposes. */
static struct melu__weights record_user(struct melu__tape *t, const melu_model *model) {
  struct melu__weights w = {.n = 2 * model->n_layers + 1};
  for (uint32_t i = 2; i < w.n; i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    w.at[i] = is_matrix(rows, cols) ? melu__tape_transpose(t, melu__tape_input(t, MELU__SLOT_WEIGHTS + i, cols, rows))
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

static void record_layers(struct melu__outputs *o, struct melu__tape *t, const melu_model *model,
                          enum melu__plan_kind kind, enum melu__form form, size_t n_support, size_t n_query) {
  switch (kind) {
    case MELU__PLAN_META:
      (form == MELU__DIRECT ? record_direct : record_dual)(o, t, model, n_support, n_query);
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
    default:
      record_predict(o, t, model, kind == MELU__PLAN_RANK, n_support, n_query);
  }
}

static melu_status make_form(struct melu__plan **out, const melu_model *model, enum melu__form form, uint64_t key,
                             melu_error *err) {
  const size_t n_support = (size_t)(key >> 16 & 0xffff), n_query = (size_t)(key & 0xffff);
  const enum melu__plan_kind kind = (enum melu__plan_kind)(key >> 32);
  struct melu__slot_layout layout;
  const struct melu__plan_setting setting = {&model->ctx->allocator, model->ctx->kernels, layout.ld, layout.transposed,
                                             (int)form};
  struct melu__tape t;
  struct melu__outputs o = {.n = 0};
  melu__tape_init(&t, &model->ctx->allocator);
  melu__slot_layout(&layout, model, kind);
  if (model->options.network == MELU_FACTORS)
    melu__record_factors(&o, &t, model, kind, n_support, n_query);
  else
    record_layers(&o, &t, model, kind, form, n_support, n_query);
  melu_status status = melu__tape_status(&t, err);
  if (!status) status = melu__plan_new(out, &setting, &t, o.at, o.n, err);
  melu__tape_free(&t);
  return status;
}
/* What the plan costs a task. A META plan in DUAL form leaves three products of the first layer to others. */
static double total_flops(const struct melu__plan *plan, const melu_model *model, uint64_t key) {
  const double rows = (double)((key >> 16 & 0xffff) + (key & 0xffff)), h = (double)melu__model_weight(model, 0)->rows;
  const int is_part = key >> 32 == MELU__PLAN_META && melu__plan_tag(plan) == MELU__DUAL;
  return melu__plan_flops(plan) + (is_part ? 6 * rows * (double)model->item_width * h : 0);
}

/* Both forms are the same mathematics: the one with fewer floating-point operations is kept. A user that keeps rows has
 * the dual one; the other kinds know no forms. */
static melu_status make(struct melu__plan **out, const void *arg, uint64_t key, melu_error *err) {
  const melu_model *model = arg;
  const enum melu__plan_kind kind = (enum melu__plan_kind)(key >> 32);
  const int has_both =
      model->options.network == MELU_LAYERS &&
      (kind == MELU__PLAN_META || (kind == MELU__PLAN_ADAPT && !melu__keeps_rows(model, (size_t)(key >> 16 & 0xffff))));
  struct melu__plan *direct = NULL;
  melu_status status = make_form(out, model, MELU__DUAL, key, err);
  if (status || !has_both) return status;
  status = make_form(&direct, model, MELU__DIRECT, key, err);
  if (!status && total_flops(*out, model, key) >= total_flops(direct, model, key)) {
    struct melu__plan *dual = *out;
    *out = direct;
    direct = dual;
  }
  melu__plan_free(direct);
  if (status) {
    melu__plan_free(*out);
    *out = NULL;
  }
  return status;
}

melu_status melu__task_plan(const struct melu__plan **out, const melu_model *model, enum melu__plan_kind kind,
                            size_t n_support, size_t n_query, melu_error *err) {
  return melu__plan_cache_get(out, model->plans, KEY(kind, n_support, n_query), make, model, err);
}

/* ----------------------------------------------------------------------------------------------- scratch */

static int reserve(const struct melu_allocator *a, real **p, size_t *capacity, size_t need) {
  if (need <= *capacity) return 1;
  real *bigger = melu__alloc(a, need, sizeof **p);
  if (!bigger) return 0;
  melu__free(a, *p);
  *p = bigger;
  *capacity = need;
  return 1;
}

int melu__scratch_reserve(struct melu__scratch *s, const melu_model *model, size_t arena, size_t n_support,
                          size_t n_query) {
  const struct melu_allocator *a = &model->ctx->allocator;
  return reserve(a, &s->arena, &s->arena_capacity, arena) &&
         reserve(a, &s->xs, &s->xs_capacity, melu__size_mul(n_support, model->item_width)) &&
         reserve(a, &s->xq, &s->xq_capacity, melu__size_mul(n_query, model->item_width)) &&
         reserve(a, &s->xu, &s->xu_capacity, model->user_width) && reserve(a, &s->ys, &s->ys_capacity, n_support) &&
         reserve(a, &s->yq, &s->yq_capacity, n_query);
}

void melu__scratch_free(struct melu__scratch *s, const melu_model *model) {
  const struct melu_allocator *a = &model->ctx->allocator;
  real *const all[] = {s->arena, s->xs, s->xq, s->xu, s->ys, s->yq};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) melu__free(a, all[i]);
  *s = (struct melu__scratch){0};
}

void melu__scratch_slots(const struct melu__scratch *s, real *slots[MELU__N_SLOTS]) {
  slots[MELU__SLOT_XS] = s->xs;
  slots[MELU__SLOT_XQ] = s->xq;
  slots[MELU__SLOT_XU] = s->xu;
  slots[MELU__SLOT_YS] = s->ys;
  slots[MELU__SLOT_YQ] = s->yq;
}

/* ----------------------------------------------------------------------------------------------- weights */

void melu__slot_layout(struct melu__slot_layout *layout, const melu_model *model, enum melu__plan_kind kind) {
  const size_t inputs = model->item_width + model->user_width;
  memset(layout, 0, sizeof *layout);
  if (model->options.network == MELU_FACTORS) {
    melu__factor_layout(layout, model, kind);
    return;
  }
  if (kind == MELU__PLAN_PREDICT || kind == MELU__PLAN_RANK) return;
  for (uint32_t i = 0; i < 2; i++) { /* the two halves of W1 */
    layout->ld[MELU__SLOT_WEIGHTS + i] = inputs;
    if (kind != MELU__PLAN_ADAPT) layout->ld[MELU__SLOT_GRADS + i] = layout->ld[MELU__SLOT_BASES + i] = inputs;
  }
  for (uint32_t i = 0; i < melu__n_weights(model); i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    if (!is_matrix(rows, cols)) continue;
    layout->transposed[MELU__SLOT_WEIGHTS + i] = MELU__SLOT_TRANSPOSED + i;
    layout->transposed[MELU__SLOT_TRANSPOSED + i] = MELU__SLOT_WEIGHTS + i;
  }
}

size_t melu__transposed_size(const melu_model *model) {
  size_t n = 0, rows, cols;
  for (size_t i = 0; i < melu__n_weights(model); i++) {
    melu__weight_shape(model, i, &rows, &cols);
    if (is_matrix(rows, cols)) n += melu__size_align(rows * cols, MELU__ALIGN / sizeof(real));
  }
  return n;
}

static void transposed_slots(real **slots, const melu_model *model, real *memory) {
  size_t rows, cols;
  for (size_t i = 0; i < melu__n_weights(model); i++) {
    melu__weight_shape(model, i, &rows, &cols);
    slots[i] = memory;
    if (is_matrix(rows, cols)) memory += melu__size_align(rows * cols, MELU__ALIGN / sizeof(real));
  }
}

void melu__transpose_weights(real *memory, const melu_model *model) {
  struct melu__mat from[MELU__MAX_WEIGHTS];
  real *to[MELU__MAX_WEIGHTS];
  melu__model_views(from, model);
  transposed_slots(to, model, memory);
  for (size_t i = 0; i < melu__n_weights(model); i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    if (!is_matrix(rows, cols)) continue;
    const struct melu__cmat w = {from[i].p, from[i].ld};
    model->ctx->kernels->transpose(rows, cols, w, (struct melu__mat){to[i], rows});
  }
}

void melu__model_slots(real *slots[MELU__N_SLOTS], const melu_model *model, real *transposed) {
  struct melu__mat views[MELU__MAX_WEIGHTS];
  melu__model_views(views, model);
  for (size_t i = 0; i < melu__n_weights(model); i++) slots[MELU__SLOT_WEIGHTS + i] = views[i].p;
  transposed_slots(slots + MELU__SLOT_TRANSPOSED, model, transposed);
}

void melu__dense_slots(real **slots, const melu_model *model, real *dense) {
  real *data[MELU__MAX_WEIGHTS];
  for (size_t i = 0; i < model->n_params - model->n_tables; i++)
    data[i] = dense + melu__dense_offset(model, model->n_tables + i);
  melu__weight_slots(slots, model, data);
}
