/* SPDX-License-Identifier: BSD-3-Clause */
#include "meta/task.h"

#include "base/error.h"

/* ------------------------------------------------------------------------------------------------- plans */

#define KEY(kind, n_support, n_query) ((uint64_t)(kind) << 32 | (uint64_t)(n_support) << 16 | (uint64_t)(n_query))

struct outputs {
  struct melu__output at[2 * MELU__MAX_WEIGHTS];
  size_t n;
};

static void keep(struct outputs *o, melu__ref node, uint32_t slot, int add) {
  o->at[o->n++] = (struct melu__output){node, slot, add};
}

static void record_meta(struct outputs *o, struct melu__tape *t, const melu_model *model, enum melu__form form,
                        size_t n_support, size_t n_query) {
  struct melu__inner in;
  melu__inner_begin(&in, t, model, form, n_support);
  const struct melu__weights initial = in.w;
  melu__inner_steps(&in);
  const melu__ref xq = melu__tape_input(t, MELU__SLOT_XQ, n_query, model->item_width);
  const melu__ref yq = melu__tape_input(t, MELU__SLOT_YQ, n_query, 1);
  const melu__ref loss = melu__squared_error(t, melu__inner_predict(&in, xq, n_query), yq, n_query);

  melu__ref wrt[MELU__MAX_WEIGHTS + 3] = {in.xs, xq, in.xu}, g[MELU__MAX_WEIGHTS + 3];
  for (size_t i = 0; i < initial.n; i++) wrt[3 + i] = initial.at[i];
  melu__tape_grad(t, loss, wrt, 3 + initial.n, g);
  keep(o, loss, MELU__SLOT_LOSS, 0);
  for (uint32_t i = 0; i < 3; i++) keep(o, g[i], MELU__SLOT_GRAD_XS + i, 0);
  for (uint32_t i = 0; i < initial.n; i++) keep(o, g[3 + i], MELU__SLOT_GRADS + i, 1);
}

static void record_adapt(struct outputs *o, struct melu__tape *t, const melu_model *model, enum melu__form form,
                         size_t n_support) {
  struct melu__inner in;
  melu__inner_begin(&in, t, model, form, n_support);
  melu__inner_steps(&in);
  const struct melu__weights w = melu__inner_weights(&in);
  keep(o, w.at[0], MELU__SLOT_GRADS, 0);
  keep(o, melu__inner_user_row(&in), MELU__SLOT_GRADS + 2, 0);
  for (uint32_t i = 3; i < w.n; i++) keep(o, w.at[i], MELU__SLOT_GRADS + i, 0);
}

static void record_predict(struct outputs *o, struct melu__tape *t, const melu_model *model, size_t n_query) {
  struct melu__weights w = {.n = 2 * model->n_layers + 1};
  for (size_t i = 0; i < w.n; i++) {
    size_t rows, cols;
    melu__weight_shape(model, i, &rows, &cols);
    w.at[i] = melu__tape_input(t, MELU__SLOT_WEIGHTS + (uint32_t)i, rows, cols);
  }
  const melu__ref xq = melu__tape_input(t, MELU__SLOT_XQ, n_query, model->item_width);
  const melu__ref z = melu__tape_add_row(t, melu__tape_matmul(t, xq, w.at[0], 0, 1), w.at[2]);
  keep(o, melu__upper_layers(t, &w, z), MELU__SLOT_SCORES, 0);
}

static melu_status make_form(struct melu__plan **out, const melu_model *model, enum melu__form form, uint64_t key,
                             melu_error *err) {
  const size_t n_support = (size_t)(key >> 16 & 0xffff), n_query = (size_t)(key & 0xffff);
  struct melu__tape t;
  struct outputs o = {.n = 0};
  melu__tape_init(&t, &model->ctx->allocator);
  switch (key >> 32) {
    case MELU__PLAN_META:
      record_meta(&o, &t, model, form, n_support, n_query);
      break;
    case MELU__PLAN_ADAPT:
      record_adapt(&o, &t, model, form, n_support);
      break;
    default:
      record_predict(&o, &t, model, n_query);
  }
  melu_status status = melu__tape_status(&t, err);
  if (!status) status = melu__plan_new(out, &model->ctx->allocator, &t, o.at, o.n, err);
  melu__tape_free(&t);
  return status;
}

/* Both forms are the same mathematics: the one with fewer floating-point operations is kept. */
static melu_status make(struct melu__plan **out, const void *arg, uint64_t key, melu_error *err) {
  const melu_model *model = arg;
  struct melu__plan *direct;
  *out = NULL;
  melu_status status = make_form(&direct, model, MELU__DIRECT, key, err);
  if (status) return status;
  if (key >> 32 != MELU__PLAN_PREDICT) status = make_form(out, model, MELU__DUAL, key, err);
  if (status) {
    melu__plan_free(direct);
    return status;
  }
  if (*out && melu__plan_flops(*out) < melu__plan_flops(direct)) {
    melu__plan_free(direct);
  } else {
    melu__plan_free(*out);
    *out = direct;
  }
  return MELU_OK;
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

void melu__scratch_slots(const struct melu__scratch *s, const melu_model *model,
                         struct melu__mat slots[MELU__N_SLOTS]) {
  slots[MELU__SLOT_XS] = (struct melu__mat){s->xs, model->item_width};
  slots[MELU__SLOT_XQ] = (struct melu__mat){s->xq, model->item_width};
  slots[MELU__SLOT_XU] = (struct melu__mat){s->xu, model->user_width};
  slots[MELU__SLOT_YS] = (struct melu__mat){s->ys, 1};
  slots[MELU__SLOT_YQ] = (struct melu__mat){s->yq, 1};
}
