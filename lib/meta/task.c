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

melu__ref melu__pulled(struct melu__tape *t, melu__ref y, uint32_t grad_slot) {
  const struct melu__node like = t->status ? (struct melu__node){0} : t->nodes[y];
  return melu__tape_sum_all(t, melu__tape_mul(t, y, melu__tape_input(t, grad_slot, like.rows, like.cols)));
}

/* --------------------------------------------------------------------------------------- adapted users */

enum { MOST_KEPT = 128 }; /* every number of rows has plans of its own */

int melu__keeps_rows(const melu_model *model, size_t n_support) {
  const size_t h = melu__model_weight(model, 0)->rows;
  if (n_support && !melu__has_dual(model)) return 0;
  return n_support <= MOST_KEPT && melu__size_mul(n_support, h + model->item_width) <= h * model->item_width;
}

size_t melu__kept_rows(const melu_model *model, size_t n_support) {
  if (melu__keeps_rows(model, n_support)) return n_support;
  return model->options.adapt & MELU_ADAPT_HIDDEN ? MELU__FORMED : 0;
}

/* ------------------------------------------------------------------------------------------------ making */

static int is_meta(enum melu__plan_kind kind) {
  return kind == MELU__PLAN_META || kind == MELU__PLAN_META_SCORES || kind == MELU__PLAN_META_LINEAR;
}

static melu_status make_form(struct melu__plan **out, const melu_model *model, enum melu__form form, uint64_t key,
                             melu_error *err) {
  const size_t n_support = (size_t)(key >> 16 & 0xffff), n_query = (size_t)(key & 0xffff);
  const enum melu__plan_kind kind = (enum melu__plan_kind)(key >> 32);
  struct melu__slot_layout layout;
  const struct melu__plan_setting setting = {
      &model->ctx->allocator, model->ctx->kernels, layout.ld,
      layout.transposed,      (int)form,           is_meta(kind) && melu__folds(model)};
  struct melu__tape t;
  struct melu__outputs o = {.n = 0};
  melu__tape_init(&t, &model->ctx->allocator);
  melu__slot_layout(&layout, model, kind);
  if (melu__is_factors(model))
    melu__record_factors(&o, &t, model, kind, n_support, n_query);
  else
    melu__record_layers(&o, &t, model, kind, form, n_support, n_query);
  melu_status status = melu__tape_status(&t, err);
  if (!status) status = melu__plan_new(out, &setting, &t, o.at, o.n, err);
  melu__tape_free(&t);
  return status;
}

/* What the plan costs a task. A META plan in DUAL form leaves three products of the first layer to others. */
static double total_flops(const struct melu__plan *plan, const melu_model *model, uint64_t key) {
  const double rows = (double)((key >> 16 & 0xffff) + (key & 0xffff)), h = (double)melu__model_weight(model, 0)->rows;
  const int is_part = is_meta((enum melu__plan_kind)(key >> 32)) && melu__plan_tag(plan) == MELU__DUAL;
  return melu__plan_flops(plan) + (is_part ? 6 * rows * (double)model->item_width * h : 0);
}

/* Both forms are the same mathematics: the one with fewer floating-point operations is kept. A user that keeps rows has
 * the dual one; the other kinds know no forms, and some models only the direct one. */
static melu_status make(struct melu__plan **out, const void *arg, uint64_t key, melu_error *err) {
  const melu_model *model = arg;
  const enum melu__plan_kind kind = (enum melu__plan_kind)(key >> 32);
  const int is_direct = !melu__is_factors(model) && !melu__has_dual(model);
  const int has_both =
      melu__has_dual(model) &&
      (is_meta(kind) || (kind == MELU__PLAN_ADAPT && !melu__keeps_rows(model, (size_t)(key >> 16 & 0xffff))));
  struct melu__plan *direct = NULL;
  melu_status status = make_form(out, model, is_direct ? MELU__DIRECT : MELU__DUAL, key, err);
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

melu_status melu__task_plan_in(const struct melu__plan **out, size_t *arena, const melu_model *model,
                               enum melu__plan_kind kind, size_t n_support, size_t n_query, melu_error *err) {
  const melu_status status = melu__task_plan(out, model, kind, n_support, n_query, err);
  if (!status && melu__plan_arena_size(*out) > *arena) *arena = melu__plan_arena_size(*out);
  return status;
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

int melu__is_matrix(size_t rows, size_t cols) {
  return rows > 1 && cols > 0;
}

/* Matrices have one, but for learnt rates, which no product takes. */
static int has_transpose(const melu_model *model, size_t i, size_t *rows, size_t *cols) {
  melu__weight_shape(model, i, rows, cols);
  return melu__is_matrix(*rows, *cols) && (melu__is_factors(model) || i < 2 * model->n_layers + 1);
}

void melu__slot_layout(struct melu__slot_layout *layout, const melu_model *model, enum melu__plan_kind kind) {
  const size_t inputs = model->item_width + model->user_width;
  memset(layout, 0, sizeof *layout);
  if (melu__is_factors(model)) {
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
    if (!has_transpose(model, i, &rows, &cols)) continue;
    layout->transposed[MELU__SLOT_WEIGHTS + i] = MELU__SLOT_TRANSPOSED + i;
    layout->transposed[MELU__SLOT_TRANSPOSED + i] = MELU__SLOT_WEIGHTS + i;
  }
}

size_t melu__transposed_size(const melu_model *model) {
  size_t n = 0, rows, cols;
  for (size_t i = 0; i < melu__n_weights(model); i++)
    if (has_transpose(model, i, &rows, &cols)) n += melu__size_align(rows * cols, MELU__ALIGN / sizeof(real));
  return n;
}

static void transposed_slots(real **slots, const melu_model *model, real *memory) {
  size_t rows, cols;
  for (size_t i = 0; i < melu__n_weights(model); i++) {
    slots[i] = memory;
    if (has_transpose(model, i, &rows, &cols)) memory += melu__size_align(rows * cols, MELU__ALIGN / sizeof(real));
  }
}

void melu__transpose_weights(real *memory, const melu_model *model) {
  struct melu__mat from[MELU__MAX_WEIGHTS];
  real *to[MELU__MAX_WEIGHTS];
  melu__model_views(from, model);
  transposed_slots(to, model, memory);
  for (size_t i = 0; i < melu__n_weights(model); i++) {
    size_t rows, cols;
    if (!has_transpose(model, i, &rows, &cols)) continue;
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
