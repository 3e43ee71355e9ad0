/* SPDX-License-Identifier: BSD-3-Clause */
/* What a thread needs to run the plans of one task after another. */
#ifndef MELU__TASK_H
#define MELU__TASK_H

#include "data/batch.h"
#include "meta/inner.h"
#include "tape/plan.h"

/* Kinds of plan in a model's cache. A key holds the kind and the numbers of rows. In gradients, GRADS of weights are
 * what is in BASES, which may be the same matrices, and what comes to it. */
enum melu__plan_kind {
  /* A task: the query loss and its gradient, in one of two forms, which melu__plan_tag tells. DIRECT: from XS, XQ, XU,
   * YS, YQ, the OVERLAPs and the weights to LOSS, GRAD_XS, _XQ, _XU and GRADS. DUAL: from XS, XQ, ZS, ZQ, ROW, KAPPA,
   * YS, YQ and the upper layers to LOSS, GRAD_XS, _XQ (what comes to them through K), GRAD_ZS, _ZQ, _ROW, _KAPPA and
   * GRADS of the upper layers. */
  MELU__PLAN_META,

  /* Rows of many tasks, n_query of them: X in XS, W1 to ZS. */
  MELU__PLAN_ITEMS,
  /* XS, GRAD_ZS, W1 to GRADS of W1, and on top of what is in GRAD_XS. */
  MELU__PLAN_ITEMS_GRAD,

  /* Users of many tasks, n_query of them: xu in XU, W1u, b1 to ROW and KAPPA. */
  MELU__PLAN_USERS,
  /* XU, GRAD_ROW, GRAD_KAPPA to GRADS of W1u and b1, and to GRAD_XU. */
  MELU__PLAN_USERS_GRAD,

  /* XS, XU, YS, OVERLAP_S, WEIGHTS, TRANSPOSED to an adapted user in GRADS: [0] C and [1] X', or [0] the formed W1';
   * [2] the user's row; [3] ... the upper layers, their matrices transposed. With MELU_ADAPT_ITEMS to MOVED too. */
  MELU__PLAN_ADAPT,

  /* XQ and a user to SCORES. The user is in WEIGHTS as ADAPT leaves it in GRADS, but C is in GRADS[0] and X' in XT; the
   * model's W1' is in TRANSPOSED[0]. */
  MELU__PLAN_PREDICT,
  /* The same, with Z = X W1' in place of the model's W1'. */
  MELU__PLAN_RANK,

  /* MELU_FACTORS alone: XQ and a user's GRADS[1] to SCORES, x (F'F + P)^-1 x' of each row. */
  MELU__PLAN_SPREAD,
  /* The inputs of META to LOSS: the sum of weight e^2 / (1 + x (F'F + P)^-1 x') over the query rows x. */
  MELU__PLAN_NOISE,

  /* The inputs of ADAPT and one row of XQ to SCORES: d score / d counts at 1, of each support row. MELU_FACTORS:
   * d score / d pooled to GRAD_POOLED, what comes through the sum of y being missing. */
  MELU__PLAN_EXPLAIN,
  /* To LOSS the squared norm of the gradient that the inner loop has from one rating alone: MELU_LAYERS of XS, XU, YS,
   * MELU_FACTORS of XQ, ZQ, YQ, ROW. */
  MELU__PLAN_NORM,
  /* MELU_FACTORS alone: XQ, TARGETS and a user's GRADS[1] to SCORES, what an answer about each row tells. */
  MELU__PLAN_ASK,

  /* For a host's own loss: the inputs of META to SCORES of the query rows; and META of the linear loss sum YQ scores.
   */
  MELU__PLAN_META_SCORES,
  MELU__PLAN_META_LINEAR
};

/* The same kinds with MELU_FACTORS, whose tasks' rows are those of factors.h, o being in ZS and ZQ:
 *   META        XS, ZS, XQ, ZQ, YS, YQ, WQ, ROW, POOLED to LOSS, GRAD_XS, _ZS, _XQ, _ZQ, _ROW, _POOLED and GRADS
 *   ITEMS       XS, the fields' sums, to ZS, the encoded items; ITEMS_GRAD back to GRAD_XS
 *   USERS       XU to ROW; USERS_GRAD back to GRAD_XU
 *   ADAPT       XS, ZS, YS, ROW, POOLED to GRADS[0], w, and GRADS[1], F'F + P
 *   PREDICT     XQ, ZQ and w in GRADS[0] to SCORES
 *   RANK        rows of a task, o and the gap behind it included, in XQ and what they are multiplied by, (1,
 *               melu__task_row) in GRADS[0], to SCORES */

/* What a plan is to make. */
struct melu__outputs {
  struct melu__output at[2 * MELU__MAX_WEIGHTS];
  size_t n;
};
void melu__keep(struct melu__outputs *o, melu__ref node, uint32_t slot);
void melu__add(struct melu__outputs *o, melu__ref node, uint32_t slot, uint32_t base);

/* The gradient of what comes after, given that of y: y's products with it are summed up. */
melu__ref melu__pulled(struct melu__tape *t, melu__ref y, uint32_t grad_slot);

/* An adapted user's first layer is kept in the form that takes less memory, which is also the one that takes fewer
 * operations to predict with: KEPT as C (n_support, h) and the transposed support rows X' (item_width, n_support), with
 * W - a C' X its fast weights; or those FORMED, transposed. */
#define MELU__FORMED 0xffffu /* in place of n_support, for PREDICT and RANK */
int melu__keeps_rows(const melu_model *model, size_t n_support);

/* The n_support of PREDICT and RANK for a user with n_support support rows: that, MELU__FORMED, or 0 if her first layer
 * is the model's own. */
size_t melu__kept_rows(const melu_model *model, size_t n_support);

/* The plan of that kind and shape, made on first use. */
melu_status melu__task_plan(const struct melu__plan **out, const melu_model *model, enum melu__plan_kind kind,
                            size_t n_support, size_t n_query, melu_error *err);

/* The same; *arena becomes no smaller than what the plan needs. */
melu_status melu__task_plan_in(const struct melu__plan **out, size_t *arena, const melu_model *model,
                               enum melu__plan_kind kind, size_t n_support, size_t n_query, melu_error *err);

/* One thread's memory. */
struct melu__scratch {
  real *arena, *xs, *xq, *xu, *ys, *yq;
  size_t arena_capacity, xs_capacity, xq_capacity, xu_capacity, ys_capacity, yq_capacity; /* in numbers */
};

/* Makes room for plans of at most that arena and those numbers of rows. Returns 0, the scratch usable as before, if
 * there is no memory. */
int melu__scratch_reserve(struct melu__scratch *s, const melu_model *model, size_t arena, size_t n_support,
                          size_t n_query);
void melu__scratch_free(struct melu__scratch *s, const melu_model *model);

/* Points the input slots at the scratch. */
void melu__scratch_slots(const struct melu__scratch *s, real *slots[MELU__N_SLOTS]);

/* The layout of a kind's slots. In gradients GRADS and BASES are laid out as WEIGHTS are. */
struct melu__slot_layout {
  size_t ld[MELU__N_SLOTS];
  uint32_t transposed[MELU__N_SLOTS];
};
void melu__slot_layout(struct melu__slot_layout *layout, const melu_model *model, enum melu__plan_kind kind);

/* For MELU_LAYERS (meta/layer_task.c). */
void melu__record_layers(struct melu__outputs *o, struct melu__tape *t, const melu_model *model,
                         enum melu__plan_kind kind, enum melu__form form, size_t n_support, size_t n_query);

/* Both for MELU_FACTORS (meta/factor_task.c). */
void melu__record_factors(struct melu__outputs *o, struct melu__tape *t, const melu_model *model,
                          enum melu__plan_kind kind, size_t n_support, size_t n_query);
void melu__factor_layout(struct melu__slot_layout *layout, const melu_model *model, enum melu__plan_kind kind);

/* Whether a weight of that shape is a matrix, which has a transpose. */
int melu__is_matrix(size_t rows, size_t cols);

/* The transposes of the model's weights, which all tasks share: so many numbers, to be filled anew when the weights
 * have changed. */
size_t melu__transposed_size(const melu_model *model);
void melu__transpose_weights(real *memory, const melu_model *model);

/* Points WEIGHTS at the model's and TRANSPOSED at such memory. */
void melu__model_slots(real *slots[MELU__N_SLOTS], const melu_model *model, real *transposed);

/* Points slots of weights into an array laid out like gradient->dense. */
void melu__dense_slots(real **slots, const melu_model *model, real *dense);

#endif
