/* SPDX-License-Identifier: BSD-3-Clause */
/* What a thread needs to run the plans of one task after another. */
#ifndef MELU__TASK_H
#define MELU__TASK_H

#include "data/batch.h"
#include "meta/inner.h"
#include "tape/plan.h"

/* Kinds of plan in a model's cache. A key holds the kind and the numbers of rows. */
enum melu__plan_kind { MELU__PLAN_META, MELU__PLAN_ADAPT, MELU__PLAN_PREDICT };

/* The plan for tasks of that shape, made on first use:
 *   META     all slots but SCORES: the query loss and its gradient; GRADS are sums of it and BASES, which may be the same
 *   ADAPT    XS, XU, YS, WEIGHTS, TRANSPOSED to fast weights in GRADS: [0] item columns, [2] the user's row, [3] ... upper layers
 *   PREDICT  XQ and such fast weights in WEIGHTS to SCORES */
melu_status melu__task_plan(const struct melu__plan **out, const melu_model *model, enum melu__plan_kind kind,
                            size_t n_support, size_t n_query, melu_error *err);

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

/* The layout of the slots of META and of ADAPT plans. In META plans GRADS and BASES are laid out as WEIGHTS are. */
struct melu__slot_layout {
  size_t ld[MELU__N_SLOTS];
  uint32_t transposed[MELU__N_SLOTS];
};
void melu__slot_layout(struct melu__slot_layout *layout, const melu_model *model, enum melu__plan_kind kind);

/* The transposes of the model's weights, which all tasks share: so many numbers, to be filled anew when the weights have
 * changed. */
size_t melu__transposed_size(const melu_model *model);
void melu__transpose_weights(real *memory, const melu_model *model);

/* Points WEIGHTS at the model's and TRANSPOSED at such memory. */
void melu__model_slots(real *slots[MELU__N_SLOTS], const melu_model *model, real *transposed);

#endif
